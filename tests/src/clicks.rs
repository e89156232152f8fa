//! Clicks whose outcome is known beforehand, sent over the SDK, and the answers to them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use weir_common::id::ImpressionId;
use weir_common::wire::{Click, click_flags};
use weir_sdk::{Config, Ledger, UdpClient};

use crate::node::NodeFolder;

/// Longer than a slow machine takes for an ack: a click that was sent again would be answered as known.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a lab waits for answers.
const ANSWERS_MAX: Duration = Duration::from_secs(60);
/// Older than any click may be to count in its own minute.
const LATE_MS: u64 = 20 * 60_000;

/// Clicks with ids of their own, counted up from `first`, which stay the same when they are sent
/// again.
#[must_use]
pub fn numbered(first: u128, count: u128) -> Vec<Click> {
    let now_ms = now_ms();
    let click = |id: u128| Click {
        impression: ImpressionId(id.to_be_bytes()),
        ad: (id as u64 % 7).into(),
        clicked_at_ms: now_ms.into(),
        flags: click_flags::FOREIGN,
        ..Click::zeroed()
    };
    (first..first + count).map(click).collect()
}

/// Clicks of every outcome a sender can bring about, ten of each.
#[derive(Clone, Debug)]
pub struct Known {
    /// Accepted, then a second click on the same impressions, then prefetches, then late ones:
    /// each has a row.
    pub with_rows: Vec<Click>,
    /// Issued under a tag that is wrong: refused for good.
    pub refused: Vec<Click>,
}

impl Known {
    /// A set with ids from `first`.
    #[must_use]
    pub fn new(first: u128) -> Self {
        let accepted = numbered(first, 10);
        let repeats = accepted.iter().map(|click| Click { ordinal: 1, ..*click });
        let prefetched = numbered(first + 10, 10);
        let prefetched =
            prefetched.iter().map(|click| Click { flags: click.flags | click_flags::PREFETCH, ..*click });
        let late = numbered(first + 20, 10);
        let late = late.iter().map(|click| Click { clicked_at_ms: (now_ms() - LATE_MS).into(), ..*click });
        let refused = numbered(first + 30, 10);
        let refused = refused.iter().map(|click| Click { flags: 0, tag: 1.into(), ..*click }).collect();
        let with_rows = accepted.iter().copied().chain(repeats).chain(prefetched).chain(late).collect();
        Self { with_rows, refused }
    }
}

/// Sends clicks and waits for the answer to each; the sender's books afterwards.
///
/// # Errors
/// When an answer does not come in time.
pub fn send(folder: &NodeFolder, clicks: &[Click]) -> Result<Ledger> {
    let node = ([127, 0, 0, 1], folder.port()).into();
    let ack_timeout_ns = ACK_TIMEOUT.as_nanos() as u64;
    let mut client =
        UdpClient::connect(node, Config { seed: rand::random(), ack_timeout_ns, ..Config::default() })?;
    for click in clicks {
        client.offer(click, &[]).context("the sender has no room")?;
    }
    client.flush(ANSWERS_MAX).context("clicks without an answer")?;
    Ok(*client.ledger())
}

/// The time by this machine's clock, ms since 1970: what clicks are stamped with.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

//! The extension of a click, written in the wire format.

use weir_common::wire::{MAX_EXTENSION, extension};

use super::Sender;

/// What goes into the extension of a click; empty fields are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extension<'a> {
    pub user_agent: &'a [u8],
    pub referrer: &'a [u8],
    /// At most as long as the wire format allows.
    pub session: &'a [u8],
    /// At most as long as the wire format allows.
    pub conversion: &'a [u8],
}

const fn max_len(kind: u8) -> usize {
    match extension::max_len(kind) {
        Some(max) => max,
        None => 0,
    }
}

pub(super) const SESSION_LEN_MAX: usize = max_len(extension::SESSION);
pub(super) const CONVERSION_LEN_MAX: usize = max_len(extension::CONVERSION);
const USER_AGENT_LEN_MAX: usize = max_len(extension::USER_AGENT);
const REFERRER_LEN_MAX: usize = max_len(extension::REFERRER);

// Whatever the other three hold, there is room for what says most of a referrer: scheme, host and path.
const _: () = assert!(
    USER_AGENT_LEN_MAX + SESSION_LEN_MAX + CONVERSION_LEN_MAX + 4 * extension::FIELD_HEADER_LEN + 512
        <= MAX_EXTENSION
);

impl<'a> Extension<'a> {
    /// What the request says by itself.
    pub(super) fn of_sender(sender: &Sender<'a>) -> Self {
        Self {
            user_agent: sender.user_agent.unwrap_or_default(),
            referrer: sender.referrer.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Writes the fields in rising order. A user agent is cut to what the wire format allows, a referrer to
    /// that and to what the others leave of [`MAX_EXTENSION`]: it is the first to be shortened.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let user_agent = cut(self.user_agent, USER_AGENT_LEN_MAX);
        let others = [user_agent, self.session, self.conversion].map(field_len).iter().sum::<usize>();
        let left = MAX_EXTENSION - extension::FIELD_HEADER_LEN - others;
        let fields = [
            (extension::USER_AGENT, user_agent),
            (extension::REFERRER, cut(self.referrer, REFERRER_LEN_MAX.min(left))),
            (extension::SESSION, self.session),
            (extension::CONVERSION, self.conversion),
        ];
        for (kind, bytes) in fields {
            if !bytes.is_empty() {
                let [low, high] = (bytes.len() as u16).to_le_bytes();
                out.extend_from_slice(&[kind, low, high]);
                out.extend_from_slice(bytes);
            }
        }
    }
}

const fn field_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { extension::FIELD_HEADER_LEN + bytes.len() }
}

/// The first `max` bytes, less where that would split a character of UTF-8.
fn cut(bytes: &[u8], max: usize) -> &[u8] {
    if bytes.len() <= max {
        return bytes;
    }
    // A character has at most three bytes after its first; what is no UTF-8 is cut at the maximum.
    let continues = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    let at = (max.saturating_sub(3)..=max).rev().find(|&at| !continues(at)).unwrap_or(max);
    &bytes[..at]
}

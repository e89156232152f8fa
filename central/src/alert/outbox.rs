//! What a webhook has to be told: when to try, when to give up, and what a message is. Functions over values.

use serde::{Deserialize, Serialize};
use weir_common::time::{Minute, UnixMs};

use super::judge::Finding;
use super::series::{Alert, Happened};
use crate::serve::answer::text;

/// The wait after a first failure, doubled with each.
const RETRY_MS: u64 = 1000;
/// The longest wait.
const RETRY_MS_MAX: u64 = 300_000;
/// How long a message is tried: whoever was away for longer looks at `/v1/alerts`.
const TRIED_FOR_MS: u64 = 24 * 3_600_000;

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same with every try: who gets it twice knows it by that.
    pub id: String,
    /// What is sent, octet for octet.
    pub body: String,
    /// When it was made.
    pub made_at_ms: u64,
    /// How often it was tried.
    pub tries: u32,
    /// When it is to be tried next.
    pub due_at_ms: u64,
}

/// What is to be done with a message that was tried in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again later; it says when.
    Later,
    /// It is too old.
    GiveUp,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    timestamp: String,
    data: Written<'a>,
}

/// An alert as it is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written<'a> {
    id: &'a str,
    campaign_id: u32,
    first_window: String,
    peak_window: String,
    #[serde(flatten)]
    peak: &'a Finding,
    closed_at: Option<String>,
}

impl<'a> Written<'a> {
    /// An alert, with its times in RFC 3339.
    #[must_use]
    pub fn of(alert: &'a Alert) -> Self {
        let text = |minute: u32| text(Minute(minute).start());
        Self {
            id: &alert.id,
            campaign_id: alert.campaign_id,
            first_window: text(alert.first_minute),
            peak_window: text(alert.peak_minute),
            peak: &alert.peak,
            closed_at: alert.closed_minute.map(text),
        }
    }
}

impl Message {
    /// What happened to an alert.
    #[must_use]
    pub fn of(happened: Happened, alert: &Alert, now: UnixMs) -> Self {
        let what = match happened {
            Happened::Opened => "opened",
            Happened::Raised => "raised",
            Happened::Closed => "closed",
        };
        let body = Body { r#type: format!("alert.{what}"), timestamp: text(now), data: Written::of(alert) };
        // Numbers and names, and no number that JSON does not have: a deviation is at least 1.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let id = format!("{}-{what}", alert.id);
        Self { id, body, made_at_ms: now.0, tries: 0, due_at_ms: now.0 }
    }

    /// Notes that it was tried in vain.
    pub fn fail(&mut self, now: UnixMs) -> Next {
        let wait_ms = RETRY_MS << self.tries.min(20);
        self.tries += 1;
        self.due_at_ms = now.0 + wait_ms.min(RETRY_MS_MAX);
        if now.0.saturating_sub(self.made_at_ms) >= TRIED_FOR_MS { Next::GiveUp } else { Next::Later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_more_and_more_rarely_for_a_day_and_then_given_up() {
        let mut message =
            Message { id: "7-100-opened".into(), body: String::new(), made_at_ms: 0, tries: 0, due_at_ms: 0 };
        let mut waits = Vec::new();
        let ended = loop {
            let now = UnixMs(message.due_at_ms);
            if message.fail(now) == Next::GiveUp {
                break now;
            }
            waits.push(message.due_at_ms - now.0);
        };
        assert_eq!(waits[..10], [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000]);
        assert!((TRIED_FOR_MS..TRIED_FOR_MS + RETRY_MS_MAX).contains(&ended.0));
    }
}

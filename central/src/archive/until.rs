//! Until when the archive has all that stood in the topic: the ends of its partitions are asked for, and
//! once everything before them is read, what is closed next has it all as of that question.

use crate::watermark::Offsets;

/// How often the ends are asked for.
const ASK_EVERY_MS: u64 = 1000;

/// Where a question about the ends of the topic stands.
#[derive(Debug, Default)]
pub(super) struct ReadUntil {
    asked_at_ms: u64,
    is_asked: bool,
    ends: Option<Offsets>,
    reached_ms: Option<u64>,
}

impl ReadUntil {
    /// Whether the ends are to be asked for now; they are being asked for then.
    pub(super) const fn asks(&mut self, now_ms: u64) -> bool {
        let is_time = now_ms.abs_diff(self.asked_at_ms) >= ASK_EVERY_MS;
        if self.is_asked || self.ends.is_some() || !is_time {
            return false;
        }
        (self.is_asked, self.asked_at_ms) = (true, now_ms);
        true
    }

    /// The answer; none where a partition does not say where it ends.
    pub(super) fn ends(&mut self, ends: Option<Offsets>) {
        (self.is_asked, self.ends) = (false, ends);
    }

    /// Everything before these offsets is read.
    pub(super) fn read_to(&mut self, read: &Offsets) {
        let is_reached = |ends: &Offsets| {
            ends.iter().all(|(at, end)| *end == 0 || read.get(at).is_some_and(|to| to >= end))
        };
        if self.ends.as_ref().is_some_and(is_reached) {
            (self.ends, self.reached_ms) = (None, Some(self.asked_at_ms));
        }
    }

    /// What stood in the topic at this time, ms since 1970, is read.
    pub(super) const fn reached_ms(&self) -> Option<u64> {
        self.reached_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(first: i64, second: i64) -> Offsets {
        [((0, 0), first), ((0, 1), second)].into()
    }

    #[test]
    fn what_stood_in_the_topic_is_read_once_every_partition_is_read_as_far_as_it_went_then() {
        let mut until = ReadUntil::default();
        assert!(until.asks(5000) && !until.asks(9000), "one question at a time");
        until.read_to(&offsets(9, 9));
        assert_eq!(until.reached_ms(), None, "nobody has said yet where it ends");
        until.ends(Some(offsets(4, 7)));
        until.read_to(&offsets(9, 6));
        assert_eq!(until.reached_ms(), None);
        until.read_to(&offsets(9, 7));
        assert_eq!(until.reached_ms(), Some(5000), "as of the question, not of the answer");
        assert!(!until.asks(5999) && until.asks(6000));
        until.ends(None);
        until.read_to(&offsets(9, 9));
        assert_eq!(until.reached_ms(), Some(5000));
    }
}

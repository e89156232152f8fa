//! Answers that are kept, each worked out once however many ask at the same time.
//!
//! An answer whose every window is final is kept until memory is needed, or until a final minute changes
//! all the same: then a node that was long away has come back, and every kept answer is asked anew.
//! Any other, and whatever is about campaigns, is kept for the second in which it was asked.

use std::future::Future;
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};
use weir_common::time::Minute;

use super::query::{Format, Listed, Stats, Subject, Top};

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// About one ad or campaign.
    Stats(Stats),
    /// About the busiest of them.
    Top(Top),
}

/// Until when an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// Until final minutes are rewritten once more.
    Rewrites(u64),
    /// In this second.
    Second(u64),
}

/// What an answer is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What was asked.
    pub question: Question,
    /// How it is written.
    pub format: Format,
    /// Until when it holds.
    pub holds: Holds,
}

/// An answer's octets.
pub type Body = Arc<[u8]>;

#[derive(Clone, Debug)]
struct Octets;

impl Question {
    /// Whether it is about campaigns. Which ads they have may change whatever is final.
    #[must_use]
    pub const fn is_of_campaigns(&self) -> bool {
        match self {
            Self::Stats(asked) => matches!(asked.of, Subject::Campaign(_)),
            Self::Top(asked) => matches!(asked.of, Listed::Campaigns),
        }
    }

    /// The minute after the last one of its answer.
    #[must_use]
    pub fn end(&self) -> Minute {
        match self {
            Self::Stats(asked) => asked.next().unwrap_or(asked.windows.end),
            Self::Top(asked) => asked.windows.end,
        }
    }
}

impl Weighter<Key, Body> for Octets {
    fn weight(&self, _: &Key, body: &Body) -> u64 {
        (size_of::<Key>() + body.len()) as u64
    }
}

/// Kept answers.
#[derive(Debug)]
pub struct Answers {
    kept: Cache<Key, Body, Octets, DefaultHashBuilder, DefaultLifecycle<Key, Body>>,
}

/// The octets of an answer that many are expected to ask for: an hour of minutes.
const BODY_BYTES: u64 = 16 << 10;

impl Answers {
    /// As many as fit into this memory.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { kept: Cache::with_weighter((bytes / BODY_BYTES).max(16) as usize, bytes, Octets) }
    }

    /// The answer that is kept, or the one that `work` makes; whoever asks the same meanwhile waits for it. An
    /// error is not kept.
    ///
    /// # Errors
    /// As `work`.
    pub async fn get<E>(&self, key: &Key, work: impl Future<Output = Result<Body, E>>) -> Result<Body, E> {
        self.kept.get_or_insert_async(key, work).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::serve::query::{Listed, Order};
    use crate::serve::windows::{Window, Windows};

    fn key(holds: Holds) -> Key {
        let windows = Windows { window: Window::OneMinute, start: Minute(0), end: Minute(9) };
        let top = Top { of: Listed::Ads, windows, order: Order::Gross, limit: 3 };
        Key { question: Question::Top(top), format: Format::Json, holds }
    }

    #[tokio::test]
    async fn of_many_who_ask_the_same_at_once_one_works() {
        let (answers, worked) = (Answers::new(1 << 20), AtomicU32::new(0));
        let ask = || async {
            let work = async {
                tokio::task::yield_now().await;
                worked.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(Body::from(&b"answer"[..]))
            };
            answers.get(&key(Holds::Second(5)), work).await.unwrap()
        };
        let answered = tokio::join!(ask(), ask(), ask());
        assert_eq!(&*answered.2, b"answer");
        assert_eq!(worked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn in_the_next_second_and_after_a_rewrite_it_is_worked_out_anew() {
        let answers = Answers::new(1 << 20);
        let ask = |holds, body: &'static [u8]| {
            let key = key(holds);
            let answers = &answers;
            async move { answers.get(&key, async { Ok::<_, ()>(Body::from(body)) }).await.unwrap().to_vec() }
        };
        assert_eq!(ask(Holds::Second(5), b"a").await, b"a");
        assert_eq!(ask(Holds::Second(5), b"b").await, b"a");
        assert_eq!(ask(Holds::Second(6), b"c").await, b"c");
        assert_eq!(ask(Holds::Rewrites(0), b"d").await, b"d");
        assert_eq!(ask(Holds::Rewrites(1), b"e").await, b"e");
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let answers = Answers::new(1 << 20);
        assert_eq!(answers.get(&key(Holds::Second(1)), async { Err("away") }).await, Err("away"));
        let body = answers.get(&key(Holds::Second(1)), async { Ok::<_, ()>(Body::from(&b"x"[..])) }).await;
        assert_eq!(body.as_deref(), Ok(&b"x"[..]));
    }
}

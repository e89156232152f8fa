//! What a reload replaces under running workers, without letting them wait.
//!
//! The control side publishes; a worker looks at a number for each request, and takes the new value
//! when it has changed and nobody is publishing just then. So it is never held up, and sees the new
//! value at the latest with the next request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The end that publishes.
#[derive(Debug)]
pub struct Published<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Begins with this value.
    #[must_use]
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { version: AtomicU64::new(0), value: Mutex::new(Arc::new(value)) })
    }

    /// Replaces it.
    pub fn publish(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// An end to read at.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Shared<T> {
        let version = self.version.load(Ordering::Acquire);
        let current = Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner));
        Shared { published: Arc::clone(self), version, current }
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct Shared<T> {
    published: Arc<Published<T>>,
    version: u64,
    current: Arc<T>,
}

impl<T> Shared<T> {
    /// The value as far as it is known here; never waits.
    pub fn get(&mut self) -> &T {
        let version = self.published.version.load(Ordering::Acquire);
        if version != self.version
            && let Ok(value) = self.published.value.try_lock()
        {
            self.current = Arc::clone(&value);
            self.version = version;
        }
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_last() {
        let published = Published::new(1);
        let mut reader = published.reader();
        assert_eq!(*reader.get(), 1);
        published.publish(2);
        published.publish(3);
        assert_eq!((*reader.get(), *published.reader().get()), (3, 3));
    }

    #[test]
    fn a_reader_does_not_wait_for_one_who_publishes() {
        let published = Published::new(1);
        let mut reader = published.reader();
        published.publish(2);
        let held = published.value.lock();
        assert_eq!(*reader.get(), 1, "the old value, at once");
        drop(held);
        assert_eq!(*reader.get(), 2);
    }
}

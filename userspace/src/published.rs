//! What a reload replaces under running workers, without letting them wait.
//!
//! The control side publishes; a worker looks at a number for each request, and takes the new value
//! when it has changed and nobody is publishing just then. So it is never held up, and sees the new
//! value at the latest with the next request. Old values are kept until no worker has them any more, so that
//! it is the control side which frees them: a catalog of millions of names takes its time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The end that publishes.
#[derive(Debug)]
pub struct Published<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
    /// Old values that a reader may still have.
    retired: Mutex<Vec<Arc<T>>>,
}

impl<T> Published<T> {
    /// Begins with this value.
    #[must_use]
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self {
            version: AtomicU64::new(0),
            value: Mutex::new(Arc::new(value)),
            retired: Mutex::default(),
        })
    }

    /// Replaces it.
    pub fn publish(&self, value: T) {
        let value = Arc::new(value);
        let old = std::mem::replace(&mut *self.value.lock().unwrap_or_else(PoisonError::into_inner), value);
        self.version.fetch_add(1, Ordering::Release);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    /// The value as it is now; for the control side, for it may wait.
    #[must_use]
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Frees the old values that no reader has any more.
    pub fn free_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|value| Arc::strong_count(value) > 1);
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
    /// Whether a newer value was published.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.published.version.load(Ordering::Acquire) != self.version
    }

    /// The value as it was last [got](Self::get).
    #[must_use]
    pub fn current(&self) -> &T {
        &self.current
    }

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
    fn an_old_value_is_freed_by_who_published_once_no_reader_has_it() {
        let published = Published::new(vec![1]);
        let mut reader = published.reader();
        let old = Arc::downgrade(&reader.current);
        published.publish(vec![2]);
        published.free_retired();
        assert!(old.upgrade().is_some(), "the reader has it");
        reader.get();
        assert!(old.upgrade().is_some(), "and does not free it");
        published.free_retired();
        assert!(old.upgrade().is_none());
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

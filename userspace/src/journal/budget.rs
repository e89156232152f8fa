//! How much disk the journal may take, shared by all workers of a node.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of all segment files against their bound. Touched once a segment, never per click.
#[derive(Debug)]
pub struct DiskBudget {
    used: AtomicU64,
    bytes_max: u64,
}

impl DiskBudget {
    /// A budget of `bytes_max`, of which segments found at the start take `used` already.
    #[must_use]
    pub const fn new(bytes_max: u64, used: u64) -> Self {
        Self { used: AtomicU64::new(used), bytes_max }
    }

    /// Takes `bytes`, if they are there.
    pub fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.bytes_max);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes `bytes` whether they are there or not: for what makes room for more than it takes.
    pub fn charge(&self, bytes: u64) {
        let more = |used: u64| Some(used.saturating_add(bytes));
        let _always_some = self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Gives `bytes` back: a segment was trimmed, or could not be created.
    pub fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _always_some = self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = DiskBudget::new(100, 40);
        assert!(budget.reserve(60));
        assert!(!budget.reserve(1));
        budget.release(10);
        assert!(budget.reserve(10) && !budget.reserve(u64::MAX));
        assert_eq!(budget.used(), 100);
    }

    #[test]
    fn what_is_charged_counts_even_beyond_the_bound() {
        let budget = DiskBudget::new(100, 90);
        budget.charge(20);
        assert!(!budget.reserve(0), "110 of 100 are taken");
        budget.release(64);
        assert!(budget.reserve(54) && !budget.reserve(1));
    }
}

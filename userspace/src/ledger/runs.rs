//! Runs of lines for the stretches of one slice: 1, 2, 4 up to 64 of them, out of pages that
//! belong to the slice, so that all go back when it expires.

use super::leaf::Leaf;
use super::pool::{PAGE_GROUPS, PAGE_SHIFT, Pool};

/// Lengths of runs: a run of level `n` has `1 << n` lines, the longest is a page.
pub(super) const LEVELS: usize = PAGE_SHIFT as usize + 1;

/// The pages of one slice and what of them is free.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pages: Vec<u32>,
    free: [Vec<u32>; LEVELS],
}

impl Runs {
    /// A run of `1 << level` empty lines: the number of its first. `None` when the pool is empty.
    pub(super) fn take(&mut self, pool: &mut Pool<Leaf>, level: u8) -> Option<u32> {
        let lines = 1_usize << level;
        if let Some(first) = self.free[usize::from(level)].pop() {
            let run = &mut pool.groups_mut()[first as usize..][..lines];
            run.iter_mut().for_each(|line| *line = Leaf::EMPTY);
            return Some(first);
        }
        let page = pool.take()?;
        self.pages.push(page);
        let first = page << PAGE_SHIFT;
        let rest = (lines..PAGE_GROUPS).step_by(lines).rev();
        self.free[usize::from(level)].extend(rest.map(|line| first + line as u32));
        Some(first)
    }

    /// Gives a run back to its slice.
    pub(super) fn give(&mut self, first: u32, level: u8) {
        self.free[usize::from(level)].push(first);
    }

    /// Gives every page back.
    pub(super) fn clear(&mut self, pool: &mut Pool<Leaf>) {
        self.pages.drain(..).for_each(|page| pool.give(page));
        self.free = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_never_overlap_and_come_back_empty() {
        let (mut pool, mut runs) = (Pool::new(8), Runs::default());
        let mut taken = std::collections::BTreeSet::new();
        for level in [0, 3, 6, 0, 5, 5, 5, 1, 3] {
            let first = runs.take(&mut pool, level).unwrap();
            for line in first..first + (1 << level) {
                assert!(taken.insert(line), "line {line} was given twice");
            }
        }
        let first = runs.take(&mut pool, 2).unwrap();
        pool.group_mut(first + 3).mark_outcasts();
        runs.give(first, 2);
        assert_eq!(runs.take(&mut pool, 2), Some(first));
        assert!(!pool.group(first + 3).has_outcasts());
        let in_use = pool.in_use();
        assert_eq!(in_use, 7, "one page for each level, one more for the third run of level 5");
        runs.clear(&mut pool);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn an_empty_pool_gives_no_run() {
        let (mut pool, mut runs) = (Pool::new(1), Runs::default());
        assert!(runs.take(&mut pool, 6).is_some());
        assert_eq!(runs.take(&mut pool, 0), None);
    }
}

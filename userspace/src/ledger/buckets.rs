//! The totals of every open minute: one cache line a bucket, one table a minute.
//!
//! A minute's table is dropped whole once nothing can land in it any more and everything in it
//! was taken. Totals are exact: the small counters of a line carry into 64-bit ones.

use weir_common::bucket::{Addend, BucketKey, BucketTotals};
use weir_common::reason::Outcome;
use weir_common::row::row_flags;
use weir_common::siphash::SipKey;
use weir_common::time::{MS_PER_MINUTE, Minute, UnixMs};
use zerocopy::byteorder::little_endian::{U32, U64};

use super::hash::Hasher;
use super::line::{KeyWords, Line, LineEntry, key_of, minute_of, words};
use super::pages::{Group, OutOfPages, Place, Table};
use super::pool::{PAGE_GROUPS, Pool};

/// The ad of the bucket that takes what no other bucket has room for.
pub const OTHER_AD: u64 = u64::MAX;
/// A minute closes this much after the last click that can belong to it: hand-off between workers
/// and replay in the order of blocks let time step back a little.
const CLOSING_SLACK_MS: u64 = 60_000;
/// A segment is cut so that, were all buckets in one minute, it held about this many.
const SEGMENT_BUCKETS: usize = 16_384;
/// Buckets beyond the capacity for each open minute: its [`OTHER_AD`] bucket and that of another
/// version of the traffic rules.
const RESERVE_PER_MINUTE: usize = 2;

/// Whether all that is to be counted of a click stands in a line; what is rare does not.
#[inline(always)]
pub(super) const fn is_common(addend: &Addend) -> bool {
    matches!(addend.outcome, Outcome::Accepted | Outcome::Repeat) && addend.row_flags & row_flags::MARKED == 0
}

/// A bucket's key and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    key: KeyWords,
    hash: u64,
}

impl Name {
    #[inline(always)]
    const fn minute(&self) -> Minute {
        minute_of(&self.key)
    }
}

/// Where a bucket stands; valid until the next insertion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Its minute's slot.
    minute: u32,
    line: u32,
}

impl Found {
    #[inline]
    const fn new(minute: usize, place: Place) -> Self {
        Self { minute: minute as u32, line: place.group }
    }
}

/// The buckets of one minute.
#[derive(Debug)]
struct MinuteTable {
    minute: Option<Minute>,
    table: Table,
    len: usize,
    changed: bool,
    carried_pages: Vec<u32>,
    carried_len: u32,
}

/// How many buckets and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) lateness_ms: u64,
    pub(super) max_ahead_ms: u64,
    pub(super) capacity: usize,
}

/// All open buckets of a worker.
pub(super) struct Buckets {
    hasher: Hasher,
    lines: Pool<Line>,
    carried: Pool<BucketTotals>,
    /// Each minute in the slot of its number.
    minutes: Vec<MinuteTable>,
    open: usize,
    /// How often lines moved or went: by growth or closing.
    moves: u64,
    limits: Limits,
    /// Minutes before this one are closed for good.
    closed_before: Minute,
}

impl Buckets {
    pub(super) fn new(limits: Limits, key: &SipKey) -> Self {
        let segment_bits = (limits.capacity / SEGMENT_BUCKETS).max(1).ilog2();
        let span_ms = limits.lateness_ms.saturating_add(limits.max_ahead_ms).saturating_add(CLOSING_SLACK_MS);
        // Two more for partial minutes at both ends, and two until closed ones are taken.
        let minutes = (span_ms / MS_PER_MINUTE + 4).next_power_of_two().min(1 << 16) as usize;
        // The least load just after growing is 10/16 of 3/4.
        let buckets = limits.capacity + RESERVE_PER_MINUTE * minutes;
        let pages = (buckets * 16 * 4).div_ceil(10 * 3 * PAGE_GROUPS);
        let growing = (pages >> segment_bits) + 2;
        let new_minute = |_| MinuteTable {
            minute: None,
            table: Table::new(segment_bits),
            len: 0,
            changed: false,
            carried_pages: Vec::new(),
            carried_len: 0,
        };
        Self {
            hasher: Hasher::new(key),
            lines: Pool::new(pages + growing + (minutes << segment_bits)),
            carried: Pool::new(buckets.div_ceil(PAGE_GROUPS) + minutes),
            minutes: (0..minutes).map(new_minute).collect(),
            open: 0,
            moves: 0,
            limits,
            closed_before: Minute(0),
        }
    }

    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Changes whenever a bucket may no longer be on the way that was seen to lead to it.
    pub(super) const fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) const fn closed_before(&self) -> Minute {
        self.closed_before
    }

    #[inline(always)]
    pub(super) const fn name(&self, key: KeyWords) -> Name {
        Name { key, hash: self.hasher.of_bucket(key) }
    }

    #[inline]
    fn slot(&self, minute: Minute) -> usize {
        minute.0 as usize & (self.minutes.len() - 1)
    }

    /// The line a look-up will go to first.
    #[inline(always)]
    pub(super) fn home(&self, name: &Name) -> usize {
        self.minutes[self.slot(name.minute())].table.home(name.hash)
    }

    /// All lines at hand: what clicks need whose bucket is there already.
    #[inline(always)]
    pub(super) fn hand(&mut self) -> Hand<'_> {
        Hand { lines: self.lines.groups_mut(), minutes: &mut self.minutes, marked: None }
    }

    #[inline]
    fn find(&self, slot: usize, name: &Name) -> Option<Place> {
        let is = |line: &Line| line.is(&name.key).then_some(0);
        self.minutes[slot].table.find(&self.lines, name.hash, is)
    }

    /// The bucket of this key, or, when there is no room for it, the [`OTHER_AD`] bucket of its
    /// minute: the totals of a minute stay right whatever happens. Born if need be.
    ///
    /// `None` when the minute is closed, or has to wait until an older one was taken.
    #[inline]
    pub(super) fn find_or_open(&mut self, name: &Name, now: UnixMs) -> Option<Found> {
        let minute = name.minute();
        let slot = self.slot(minute);
        if self.minutes[slot].minute != Some(minute) {
            self.open_minute(slot, minute, now)?;
        }
        if let Some(place) = self.find(slot, name) {
            return Some(Found::new(slot, place));
        }
        self.open_new(slot, name)
    }

    #[cold]
    fn open_minute(&mut self, slot: usize, minute: Minute, now: UnixMs) -> Option<()> {
        // After a quiet time an old minute may be in the way that was taken but not over then.
        if !self.minutes[slot].changed {
            self.close_if_over(slot, now);
        }
        if minute < self.closed_before || self.minutes[slot].minute.is_some() {
            return None;
        }
        self.minutes[slot].minute = Some(minute);
        Some(())
    }

    #[cold]
    fn open_new(&mut self, slot: usize, name: &Name) -> Option<Found> {
        if self.open < self.limits.capacity
            && let Ok(found) = self.insert(slot, name)
        {
            return Some(found);
        }
        let key = BucketKey {
            ad: U64::new(OTHER_AD),
            minute: U32::new(name.minute().0),
            rules: key_of(&name.key).rules,
            ..BucketKey::default()
        };
        let other = self.name(words(&key));
        match self.find(slot, &other) {
            Some(place) => Some(Found::new(slot, place)),
            None => self.insert(slot, &other).ok(),
        }
    }

    fn insert(&mut self, slot: usize, name: &Name) -> Result<Found, OutOfPages> {
        if !self.minutes[slot].table.has_room(self.minutes[slot].table.segment_of(name.hash)) {
            self.grow(slot, name)?;
        }
        let table = &mut self.minutes[slot];
        let entry = LineEntry::new(name.key);
        let place = table.table.insert(&mut self.lines, name.hash, entry).ok_or(OutOfPages)?;
        table.len += 1;
        self.open += 1;
        Ok(Found::new(slot, place))
    }

    #[cold]
    fn grow(&mut self, slot: usize, name: &Name) -> Result<(), OutOfPages> {
        self.moves += 1;
        let before = &self.minutes[self.slot(Minute(name.minute().0.wrapping_sub(1)))];
        let pages_before = before.table.pages_of(before.table.segment_of(name.hash));
        let (table, hasher) = (&mut self.minutes[slot].table, &self.hasher);
        table.grow(&mut self.lines, name.hash, pages_before, |entry| hasher.of_bucket(entry.key))
    }

    /// Counts one click.
    pub(super) fn count(&mut self, at: Found, addend: &Addend) {
        self.minutes[at.minute as usize].changed = true;
        if is_common(addend) {
            if self.lines.group(at.line).is_full() {
                self.carry(at);
            }
            self.lines.group_mut(at.line).count(addend);
        } else {
            self.lines.group_mut(at.line).changed = 1;
            self.count_rare(at, addend);
        }
    }

    /// Counts a click of which a line alone does not know all.
    #[cold]
    fn count_rare(&mut self, at: Found, addend: &Addend) {
        if let Some(totals) = self.carried_mut(at) {
            totals.add(addend);
        }
    }

    /// Moves a line's small counters to its 64-bit ones.
    #[cold]
    fn carry(&mut self, at: Found) {
        let line = self.lines.group(at.line);
        let small = line.small_totals();
        if let Some(totals) = self.carried_mut(at) {
            totals.merge(&small);
            let line = self.lines.group_mut(at.line);
            (line.accepted, line.repeat, line.unsigned, line.clock_suspect, line.cost_micros) =
                (0, 0, 0, 0, 0);
        }
    }

    /// The 64-bit totals of a bucket, born if need be. There is room for those of every bucket.
    fn carried_mut(&mut self, at: Found) -> Option<&mut BucketTotals> {
        let line = self.lines.group_mut(at.line);
        let table = &mut self.minutes[at.minute as usize];
        if line.carried == 0 {
            if table.carried_len as usize == table.carried_pages.len() * PAGE_GROUPS {
                table.carried_pages.push(self.carried.take()?);
            }
            table.carried_len += 1;
            line.carried = table.carried_len;
        }
        let index = line.carried as usize - 1;
        let page = table.carried_pages[index / PAGE_GROUPS];
        Some(&mut self.carried.page_mut(page)[index % PAGE_GROUPS])
    }

    /// Appends the totals of every bucket that changed since the last call, then drops the
    /// minutes that nothing can land in any more at `now`.
    pub(super) fn take_changed(&mut self, now: UnixMs, out: &mut Vec<(BucketKey, BucketTotals)>) {
        for slot in 0..self.minutes.len() {
            if self.minutes[slot].changed {
                self.take_minute(slot, out);
            }
            self.close_if_over(slot, now);
        }
    }

    fn take_minute(&mut self, slot: usize, out: &mut Vec<(BucketKey, BucketTotals)>) {
        let table = &mut self.minutes[slot];
        table.changed = false;
        for page in table.table.pages() {
            for line in self.lines.page_mut(page) {
                if line.changed == 0 {
                    continue;
                }
                line.changed = 0;
                let mut totals = line.small_totals();
                if let Some(index) = (line.carried as usize).checked_sub(1) {
                    let page = table.carried_pages[index / PAGE_GROUPS];
                    totals.merge(&self.carried.page(page)[index % PAGE_GROUPS]);
                }
                out.push((key_of(&line.key), totals));
            }
        }
    }

    fn close_if_over(&mut self, slot: usize, now: UnixMs) {
        let table = &mut self.minutes[slot];
        let Some(minute) = table.minute else { return };
        let keep_ms = self.limits.lateness_ms.saturating_add(MS_PER_MINUTE + CLOSING_SLACK_MS);
        if minute.start().0.saturating_add(keep_ms) >= now.0 {
            return;
        }
        self.moves += 1;
        table.table.clear(&mut self.lines);
        table.carried_pages.drain(..).for_each(|page| self.carried.give(page));
        self.open -= table.len;
        (table.minute, table.len, table.carried_len) = (None, 0, 0);
        self.closed_before = self.closed_before.max(Minute(minute.0.saturating_add(1)));
    }

    /// Makes the next [`Buckets::take_changed`] give every open bucket.
    pub(super) fn mark_all_changed(&mut self) {
        for table in &mut self.minutes {
            table.changed = table.len > 0;
            for page in table.table.pages() {
                self.lines.page_mut(page).iter_mut().for_each(|line| line.changed = line.used);
            }
        }
    }
}

/// The lines of buckets, for many clicks in a row.
pub(super) struct Hand<'a> {
    lines: &'a mut [Line],
    minutes: &'a mut [MinuteTable],
    /// The minute that was marked as changed last.
    marked: Option<Minute>,
}

impl Hand<'_> {
    /// Brings in a home and its neighbour.
    #[inline(always)]
    pub(super) fn touch(&self, home: usize) -> u64 {
        let touch = |at: usize| self.lines.get(at).map_or(0, |line| line.touch());
        touch(home) ^ touch(home ^ 1)
    }

    /// The line of a bucket, if that is its home or beside it.
    #[inline(always)]
    pub(super) fn near(&self, home: usize, name: &Name) -> Option<usize> {
        let is_here = |at: &usize| self.lines.get(*at).is_some_and(|line| line.is(&name.key));
        Some(home).filter(is_here).or_else(|| Some(home ^ 1).filter(is_here))
    }

    /// Where a look-up goes on that ended neither at home nor beside it.
    #[inline(never)]
    pub(super) fn leap(&self, name: &Name) -> usize {
        let slot = name.minute().0 as usize & (self.minutes.len() - 1);
        self.minutes[slot].table.leap(name.hash)
    }

    /// Whether an accepted or repeated click can be counted in this line as it is.
    #[inline(always)]
    pub(super) fn can_count(&self, at: u32) -> bool {
        self.lines.get(at as usize).is_some_and(|line| !line.is_full())
    }

    /// Counts a click in the line of its bucket, where it [can be](Self::can_count).
    #[inline(always)]
    pub(super) fn count(&mut self, at: u32, minute: Minute, addend: &Addend) {
        self.lines[at as usize].count(addend);
        if self.marked != Some(minute) {
            let slot = minute.0 as usize & (self.minutes.len() - 1);
            self.minutes[slot].changed = true;
            self.marked = Some(minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::reason::{FIRST_FILTERED, Reason};

    use super::*;

    const LIMITS: Limits = Limits { lateness_ms: 600_000, max_ahead_ms: 60_000, capacity: 2000 };
    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    fn key(ad: u64) -> BucketKey {
        BucketKey { ad: U64::new(ad), minute: U32::new(NOW.minute().0), ..BucketKey::default() }
    }

    fn addend(outcome: Outcome, reason: Reason) -> Addend {
        Addend {
            outcome,
            reason: reason as u8,
            row_flags: row_flags::CLOCK_SUSPECT,
            price_micros: 7,
            is_unsigned: false,
        }
    }

    fn count(buckets: &mut Buckets, ad: u64, addend: &Addend) {
        let name = buckets.name(words(&key(ad)));
        let found = buckets.find_or_open(&name, NOW).unwrap();
        buckets.count(found, addend);
    }

    #[test]
    fn counters_past_32_bits_stay_exact() {
        let mut buckets = Buckets::new(LIMITS, &SipKey { k0: 1, k1: 2 });
        count(&mut buckets, 1, &addend(Outcome::Accepted, Reason::None));
        let name = buckets.name(words(&key(1)));
        let found = buckets.find_or_open(&name, NOW).unwrap();
        buckets.lines.group_mut(found.line).accepted = u32::MAX - 2;
        buckets.lines.group_mut(found.line).clock_suspect = u32::MAX - 4;
        for _ in 0..3 {
            count(&mut buckets, 1, &addend(Outcome::Accepted, Reason::None));
            count(&mut buckets, 1, &addend(Outcome::Filtered, Reason::Prefetch));
        }
        let mut changed = Vec::new();
        buckets.take_changed(NOW, &mut changed);
        let totals = changed[0].1;
        assert_eq!(totals.accepted.get(), u64::from(u32::MAX) + 1);
        assert_eq!(totals.clock_suspect.get(), u64::from(u32::MAX) + 2);
        assert_eq!(totals.cost_micros.get(), 4 * 7);
        assert_eq!(totals.filtered[(Reason::Prefetch as u8 - FIRST_FILTERED) as usize].get(), 3);
    }

    #[test]
    fn filtered_totals_survive_the_growth_of_their_table() {
        let mut buckets = Buckets::new(LIMITS, &SipKey { k0: 1, k1: 2 });
        for round in 1..=2 {
            for ad in 0..1500 {
                for _ in 0..=ad % 3 {
                    count(&mut buckets, ad, &addend(Outcome::Filtered, Reason::TestTraffic));
                }
            }
            let mut changed = Vec::new();
            buckets.take_changed(NOW, &mut changed);
            assert_eq!(changed.len(), 1500);
            for (key, totals) in changed {
                assert_eq!(totals.filtered[0].get(), round * (key.ad.get() % 3 + 1));
            }
        }
    }

    #[test]
    fn every_bucket_of_a_full_table_is_found_again_by_its_key() {
        let mut buckets = Buckets::new(LIMITS, &SipKey { k0: 1, k1: 2 });
        for ad in (0..2000).chain(0..2000) {
            count(&mut buckets, ad, &addend(Outcome::Repeat, Reason::None));
        }
        let mut changed = Vec::new();
        buckets.take_changed(NOW, &mut changed);
        assert_eq!((buckets.open(), changed.len()), (2000, 2000));
        assert!(changed.iter().all(|(_, totals)| totals.repeat.get() == 2 && totals.gross() == 2));
    }
}

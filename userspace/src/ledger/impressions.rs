//! Which impressions were clicked, exactly: one byte of state for each, until its time is over.
//!
//! Issued impressions stand by their sequence (`issued`), foreign ones by a hash of their id
//! (`hashed`), and so do the few issued ones that do not fit by sequence. An impression is in one of
//! the two, never in both.

use weir_common::id::ImpressionId;
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;

use super::hash::Hasher;
use super::hashed::{self, Hashed};
use super::issued::{self, Hand, Issued, SLICE_S};
use super::lines::{Branch, Cell, Lines};
use super::pages::Place;
use super::positions::{Owned, Positions};
use weir_common::verdict::State;

/// Issued ids stay this much longer than their signature: rows of several workers are replayed in
/// the order of their blocks, so time may seem to step back by as much as a block is old.
const EXPIRY_SLACK_MS: u64 = 600_000;

/// How long an impression may be remembered, from its issue or, a foreign one, from the receive time
/// of its first click: slices of time expire whole. Nothing older changes any outcome.
#[must_use]
pub const fn remembered_ms(lifetime_ms: u64) -> u64 {
    let slack_and_slice_ms = EXPIRY_SLACK_MS + SLICE_S as u64 * 1000;
    let foreign_slice_ms = hashed::foreign_slice_s(lifetime_ms) as u64 * 1000;
    let longer_ms = if slack_and_slice_ms > foreign_slice_ms { slack_and_slice_ms } else { foreign_slice_ms };
    lifetime_ms.saturating_add(longer_ms)
}

/// How long impressions are kept and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) lifetime_ms: u64,
    pub(super) max_ahead_ms: u64,
    pub(super) capacity: usize,
}

impl Limits {
    /// How long after its end a slice of issue time is kept.
    pub(super) const fn keep_issued_ms(&self) -> u64 {
        self.lifetime_ms.saturating_add(EXPIRY_SLACK_MS)
    }

    /// How far ahead of now an issue time can be.
    pub(super) const fn ahead_ms(&self) -> u64 {
        self.max_ahead_ms.saturating_add(EXPIRY_SLACK_MS)
    }
}

/// An impression, as the tables know it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// By sequence.
    Issued(issued::Name),
    /// By full id.
    Hashed(hashed::Name),
}

/// Where an impression stands.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// By sequence.
    Issued(Cell),
    /// By full id.
    Hashed(Place),
}

/// Whether an impression is here.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// It is.
    Found(Found),
    /// It is not; an issued one would come here.
    Vacant(Branch),
}

/// What was found out about an impression; holds until another is put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    id: ImpressionId,
    name: Name,
    look: Look,
    /// Its state; of one that was never seen, the first.
    pub(super) state: State,
}

/// Where the next state of an impression goes: room is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// By sequence.
    Cell(Cell),
    /// To a hashed one.
    Place(Place),
    /// Among the hashed, from a cell that cannot hold it.
    Leaves(Cell),
    /// A new one, among the hashed.
    Hashed,
}

/// All impressions a worker remembers.
pub(super) struct Impressions {
    issued: Issued,
    hashed: Hashed,
    now: UnixMs,
    next_expiry: UnixMs,
    limits: Limits,
}

impl Impressions {
    pub(super) fn new(limits: Limits, owned: &Owned, key: &SipKey) -> Self {
        let (keep_ms, ahead_ms) = (limits.keep_issued_ms(), limits.ahead_ms());
        let positions = Positions::new(owned);
        Self {
            issued: Issued::new(Hasher::new(key), positions, limits.capacity, keep_ms, ahead_ms),
            hashed: Hashed::new(limits, SLICE_S, key),
            now: UnixMs(0),
            next_expiry: UnixMs(u64::MAX),
            limits,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.issued.live() + self.hashed.live()
    }

    /// Changes whenever a [home](Impressions::home) may lead elsewhere.
    #[inline]
    pub(super) const fn moves(&self) -> u64 {
        self.issued.moves()
    }

    pub(super) fn bytes_in_use(&self) -> usize {
        self.issued.bytes_in_use() + self.hashed.bytes_in_use()
    }

    /// Moves time forward, never back, and drops what has expired by then.
    #[inline]
    pub(super) fn advance(&mut self, now: UnixMs) {
        self.now = self.now.max(now);
        if self.now > self.next_expiry {
            self.expire();
        }
    }

    #[cold]
    fn expire(&mut self) {
        self.next_expiry = self.issued.expire(self.now).min(self.hashed.expire(self.now));
    }

    /// The name of an impression.
    #[inline(always)]
    pub(super) fn name(&self, id: ImpressionId, is_foreign: bool) -> Name {
        if is_foreign {
            return Name::Hashed(self.hashed.name(id.words(), None));
        }
        match self.issued.name(id) {
            Some(name) => Name::Issued(name),
            None => Name::Hashed(self.outcast(id)),
        }
    }

    /// The name of an issued id that has no place by its sequence.
    fn outcast(&self, id: ImpressionId) -> hashed::Name {
        self.hashed.name(id.words(), Some(id.issued_at_s() / SLICE_S))
    }

    /// Where a look-up by sequence begins.
    #[inline(always)]
    pub(super) fn home(&self, name: &issued::Name) -> usize {
        self.issued.home(name)
    }

    /// All impressions by sequence whose place is there.
    #[inline(always)]
    pub(super) fn hand(&mut self) -> Hand<'_> {
        self.issued.hand()
    }

    /// Brings in the lines a look-up by full id begins with.
    #[inline]
    pub(super) fn touch_hashed(&self, name: &hashed::Name) -> u64 {
        self.hashed.touch(name, self.now)
    }

    /// Brings in the lines it goes on with.
    #[inline]
    pub(super) fn touch_ids(&self, name: &hashed::Name) -> u64 {
        self.hashed.touch_ids(name, self.now)
    }

    /// Looks for an impression.
    pub(super) fn find(&mut self, id: ImpressionId, is_foreign: bool) -> Known {
        let name = self.name(id, is_foreign);
        let look = match &name {
            Name::Issued(name) => self.find_by_sequence(id, name),
            Name::Hashed(name) => self.find_hashed(name, Branch::NOWHERE),
        };
        let state = match look {
            Look::Found(Found::Issued(cell)) => cell.state,
            Look::Found(Found::Hashed(place)) => self.hashed.state(place),
            Look::Vacant(_) => State::default(),
        };
        Known { id, name, look, state }
    }

    fn find_by_sequence(&mut self, id: ImpressionId, name: &issued::Name) -> Look {
        let branch = self.issued.branch(name);
        match self.issued.hand().cell(name, branch) {
            Some(Cell { slot: None, .. }) => Look::Vacant(branch),
            Some(cell) => Look::Found(Found::Issued(cell)),
            None => self.find_hashed(&self.outcast(id), branch),
        }
    }

    fn find_hashed(&self, name: &hashed::Name, vacant: Branch) -> Look {
        let place = self.hashed.find(name, self.now);
        place.map_or(Look::Vacant(vacant), |place| Look::Found(Found::Hashed(place)))
    }

    /// Makes room for the next state of an impression. `first_seen` places a foreign one in time.
    ///
    /// # Errors
    /// `expired` or `not_yet_issued` for an issue time that no live slice covers: admission keeps
    /// such clicks away. `table_full` when there is no memory left.
    pub(super) fn make_room(
        &mut self,
        known: &Known,
        next: State,
        first_seen: UnixMs,
    ) -> Result<Room, Reason> {
        match (known.look, &known.name) {
            (Look::Found(Found::Issued(cell)), _) if !Lines::can_hold(cell.branch, next) => {
                self.hashed.make_room(&self.outcast(known.id), first_seen)?;
                Ok(Room::Leaves(cell))
            }
            (Look::Found(Found::Issued(cell)), _) => Ok(Room::Cell(cell)),
            (Look::Found(Found::Hashed(place)), _) => Ok(Room::Place(place)),
            (Look::Vacant(branch), Name::Issued(name)) => {
                self.make_room_by_sequence(known.id, name, branch, next)
            }
            (Look::Vacant(_), Name::Hashed(name)) => {
                if name.issued_slice.is_some() {
                    self.check_issued_at(known.id.issued_at_s())?;
                }
                self.hashed.make_room(name, first_seen)?;
                self.next_expiry = self.next_expiry.min(self.hashed.expires_at(name, first_seen));
                Ok(Room::Hashed)
            }
        }
    }

    fn make_room_by_sequence(
        &mut self,
        id: ImpressionId,
        name: &issued::Name,
        branch: Branch,
        next: State,
    ) -> Result<Room, Reason> {
        if branch == Branch::NOWHERE {
            self.check_issued_at(id.issued_at_s())?;
            self.next_expiry = self.next_expiry.min(self.issued.expires_at(name));
        }
        let (hashed, now) = (&mut self.hashed, self.now);
        let keep_elsewhere = |id: ImpressionId, state| keep(hashed, id, state, now);
        if let Ok(branch) = self.issued.make_room(name, branch, next, keep_elsewhere) {
            return Ok(Room::Cell(Cell::vacant(branch)));
        }
        self.hashed.make_room(&self.outcast(id), now)?;
        Ok(Room::Hashed)
    }

    /// Brings an issued impression back if its place is at hand; whether it was.
    pub(super) fn recall_at_hand(&mut self, name: &issued::Name, home: usize, state: State) -> bool {
        let mut hand = self.issued.hand();
        let Some(cell) = hand.cell(name, hand.branch(name, home)) else { return false };
        let next = State(cell.state.0 | state.0);
        hand.put(name, cell, next)
    }

    /// Brings an impression back that was remembered before, a foreign one in the slice of its own
    /// receive time; what is known of it already is kept.
    ///
    /// # Errors
    /// As [`Impressions::make_room`]; `expired` also for a foreign id whose slice is over.
    pub(super) fn recall(
        &mut self,
        id: ImpressionId,
        is_foreign: bool,
        received_at: UnixMs,
        state: State,
    ) -> Result<(), Reason> {
        let known = self.find(id, is_foreign);
        let next = State(known.state.0 | state.0);
        if let (Look::Vacant(_), Name::Hashed(name)) = (known.look, &known.name)
            && is_foreign
            && self.hashed.expires_at(name, received_at) < self.now
        {
            return Err(Reason::Expired);
        }
        let room = self.make_room(&known, next, received_at)?;
        self.put(&known, room, next, received_at);
        Ok(())
    }

    fn check_issued_at(&self, issued_at_s: u32) -> Result<(), Reason> {
        let slice_end_ms = (u64::from(issued_at_s / SLICE_S) + 1) * u64::from(SLICE_S) * 1000;
        if slice_end_ms.saturating_add(self.limits.keep_issued_ms()) < self.now.0 {
            return Err(Reason::Expired);
        }
        if u64::from(issued_at_s) * 1000 > self.now.0.saturating_add(self.limits.ahead_ms()) {
            return Err(Reason::NotYetIssued);
        }
        Ok(())
    }

    /// Puts the next state of an impression where room was made for it.
    pub(super) fn put(&mut self, known: &Known, room: Room, state: State, first_seen: UnixMs) {
        match (room, &known.name) {
            (Room::Cell(cell), Name::Issued(name)) => {
                let is_put = self.issued.hand().put(name, cell, state);
                debug_assert!(is_put, "room was made");
            }
            (Room::Place(place), _) => self.hashed.set_state(place, state),
            (Room::Hashed, Name::Hashed(name)) => self.hashed.insert(name, first_seen, state),
            (Room::Hashed, Name::Issued(_)) => {
                let outcast = self.outcast(known.id);
                self.hashed.insert(&outcast, first_seen, state);
            }
            (Room::Leaves(cell), Name::Issued(name)) => {
                self.issued.cast_out(name, cell);
                let outcast = self.outcast(known.id);
                self.hashed.insert(&outcast, first_seen, state);
            }
            (Room::Cell(_) | Room::Leaves(_), Name::Hashed(_)) => {
                debug_assert!(false, "room was made for another impression");
            }
        }
    }
}

/// Keeps an impression that has to leave its line; whether there was room for it.
fn keep(hashed: &mut Hashed, id: ImpressionId, state: State, now: UnixMs) -> bool {
    let name = hashed.name(id.words(), Some(id.issued_at_s() / SLICE_S));
    if hashed.make_room(&name, now).is_err() {
        return false;
    }
    hashed.insert(&name, now, state);
    true
}

#[cfg(test)]
mod tests {
    use weir_common::id::{Issuer, KeyId};

    use super::*;

    /// Whether an impression is remembered some time after its issue or first click, at the latest.
    fn is_remembered(lifetime_ms: u64, is_foreign: bool, after_ms: u64) -> bool {
        let limits = Limits { lifetime_ms, max_ahead_ms: 60_000, capacity: 100 };
        let slice_s = if is_foreign { hashed::foreign_slice_s(lifetime_ms) } else { SLICE_S };
        // The first of its slice is remembered longest.
        let begin_s = (1_700_000_000 / slice_s + 1) * slice_s;
        let begin = UnixMs(u64::from(begin_s) * 1000);
        let mut impressions = Impressions::new(limits, &Owned::All, &SipKey { k0: 1, k1: 2 });
        impressions.advance(begin);
        let id = ImpressionId::issued(Issuer(1), KeyId(1), begin_s, 7);
        impressions.recall(id, is_foreign, begin, State(1)).unwrap();
        impressions.advance(UnixMs(begin.0 + after_ms));
        impressions.live() == 1
    }

    #[test]
    fn an_impression_is_remembered_for_its_lifetime_and_at_most_as_long_as_is_said() {
        for lifetime_ms in [0, 1, 600_000, 3_600_000, 86_400_000, 30 * 86_400_000] {
            let most_ms = remembered_ms(lifetime_ms);
            for is_foreign in [false, true] {
                assert!(is_remembered(lifetime_ms, is_foreign, lifetime_ms));
                assert!(!is_remembered(lifetime_ms, is_foreign, most_ms + 1));
            }
            let longest = [false, true].map(|is_foreign| is_remembered(lifetime_ms, is_foreign, most_ms));
            assert!(longest.contains(&true), "{lifetime_ms} ms: no more is said than is true");
        }
    }
}

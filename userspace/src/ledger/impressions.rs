//! Which impressions were clicked, exactly: one byte of state for each, until its time is over.
//!
//! Issued impressions stand by their sequence (`issued`), foreign ones by a hash of their id
//! (`hashed`), and so do the few issued ones that do not fit by sequence. An impression is in one of
//! the two, never in both.

use weir_common::id::ImpressionId;
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::Click;

use super::hash::Hasher;
use super::hashed::{self, Hashed};
use super::issued::{self, Branch, Issued, SLICE_S, Search, Spot};
use super::pages::Place;
use super::positions::{Owned, Positions};
use super::verdict::State;

/// Issued ids stay this much longer than their signature: rows of several workers are replayed in
/// the order of their blocks, so time may seem to step back by as much as a block is old.
const EXPIRY_SLACK_MS: u64 = 600_000;

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
    Issued(ImpressionId, issued::Name),
    /// By full id.
    Hashed(hashed::Name),
}

/// Where an impression stands, as long as [`Impressions::moves`] stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// By sequence.
    Issued(Spot),
    /// By full id.
    Hashed(Place),
}

/// What the lines read so far say of an impression.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    /// Where the line is that says more.
    Issued(Branch),
    /// What the home says.
    Hashed(hashed::Sight),
    /// What the whole table says.
    Looked(hashed::Look),
}

/// Where a new impression will probably stand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vacancy {
    /// In this line.
    Branch(Branch),
    /// In its home, as long as that is what it was.
    Home(hashed::Absent),
    /// It has to be searched for.
    Unknown,
}

/// Whether an impression is here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// It is.
    Found(Found),
    /// It is not.
    Vacant(Vacancy),
}

/// What tells whether places seen ahead still hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moves {
    issued: u64,
    hashed: u64,
}

/// Where a state goes: room is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// To an impression that stands where it can stay.
    Stays(Found),
    /// To one that has to leave its line.
    Leaves(Spot),
    /// A new one, into this line.
    Branch(Branch),
    /// A new one, among the hashed; at this home, if it is known to have room.
    Hashed(Option<usize>),
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

    pub(super) const fn live(&self) -> usize {
        self.issued.live() + self.hashed.live()
    }

    #[inline]
    pub(super) const fn moves(&self) -> Moves {
        Moves { issued: self.issued.moves(), hashed: self.hashed.moves() }
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

    /// The name of the impression a click is on.
    #[inline]
    pub(super) fn name(&self, click: &Click) -> Name {
        self.name_of(click.impression, click.is_foreign())
    }

    /// The name of an impression.
    #[inline]
    pub(super) fn name_of(&self, id: ImpressionId, is_foreign: bool) -> Name {
        if is_foreign {
            return Name::Hashed(self.hashed.name(id.words(), None));
        }
        match self.issued.name(id) {
            Some(name) => Name::Issued(id, name),
            None => Name::Hashed(self.outcast(id)),
        }
    }

    /// The name of an issued id that has no place by its sequence.
    fn outcast(&self, id: ImpressionId) -> hashed::Name {
        self.hashed.name(id.words(), Some(id.issued_at_s() / SLICE_S))
    }

    /// Where a look-up will go first.
    #[inline]
    pub(super) fn home(&self, name: &Name) -> usize {
        match name {
            Name::Issued(_, name) => self.issued.home(name),
            Name::Hashed(name) => self.hashed.home(name),
        }
    }

    /// Brings in what a look-up reads first.
    #[inline]
    pub(super) fn touch(&self, name: &Name, home: usize) -> u64 {
        match name {
            Name::Issued(..) => self.issued.touch(home),
            Name::Hashed(_) => self.hashed.touch(home),
        }
    }

    /// What that says.
    #[inline]
    pub(super) fn sight(&self, name: &Name, home: usize) -> Sight {
        match name {
            Name::Issued(_, name) => Sight::Issued(self.issued.branch_from(name, home)),
            Name::Hashed(name) => Sight::Hashed(self.hashed.sight(home, name, self.now)),
        }
    }

    /// Brings in the line that a sight leads to.
    #[inline]
    pub(super) fn touch_sight(&self, sight: Sight) -> u64 {
        match sight {
            Sight::Issued(branch) => self.issued.touch_branch(branch),
            Sight::Hashed(sight) => self.hashed.touch_sight(sight),
            Sight::Looked(_) => 0,
        }
    }

    /// The state of an impression, as far as a look-ahead can know.
    #[inline]
    pub(super) fn peek(&self, name: &Name, sight: &mut Sight) -> State {
        match (name, *sight) {
            (Name::Issued(_, name), Sight::Issued(branch)) => self.issued.peek(name, branch),
            (Name::Hashed(name), Sight::Hashed(seen)) => {
                let look = self.hashed.look(seen, name, self.now);
                *sight = Sight::Looked(look);
                match look {
                    hashed::Look::Found(place) => self.hashed.state(place),
                    hashed::Look::Absent(_) | hashed::Look::NotFound => State::default(),
                }
            }
            _ => State::default(),
        }
    }

    #[inline(always)]
    fn look_by_sequence(&self, id: ImpressionId, name: &issued::Name, branch: Branch) -> Look {
        match self.issued.search(name, branch) {
            Search::Here(spot) => Look::Found(Found::Issued(spot)),
            Search::Absent => Look::Vacant(Vacancy::Branch(branch)),
            Search::Elsewhere => self.look_elsewhere(id, branch),
        }
    }

    #[cold]
    fn look_elsewhere(&self, id: ImpressionId, branch: Branch) -> Look {
        match self.hashed.find(&self.outcast(id), self.now) {
            Some(place) => Look::Found(Found::Hashed(place)),
            None => Look::Vacant(Vacancy::Branch(branch)),
        }
    }

    /// Looks for an impression from the beginning.
    #[inline(never)]
    pub(super) fn find(&self, name: &Name) -> Look {
        match name {
            Name::Issued(id, name) => self.look_by_sequence(*id, name, self.issued.branch(name)),
            Name::Hashed(name) => match self.hashed.find(name, self.now) {
                Some(place) => Look::Found(Found::Hashed(place)),
                None => Look::Vacant(Vacancy::Unknown),
            },
        }
    }

    /// Whether an impression is here, by an earlier sight of it: what was found is there unless
    /// entries moved since, what was not may have come.
    #[inline]
    pub(super) fn look(&self, name: &Name, sight: Sight, then: Moves) -> Look {
        let now = self.moves();
        match (name, sight) {
            (Name::Issued(id, name), Sight::Issued(branch)) if then.issued == now.issued => {
                self.look_by_sequence(*id, name, branch)
            }
            (_, Sight::Looked(hashed::Look::Found(place))) if then.hashed == now.hashed => {
                Look::Found(Found::Hashed(place))
            }
            (_, Sight::Looked(hashed::Look::Absent(absent)))
                if then.hashed == now.hashed && self.hashed.is_still_absent(absent) =>
            {
                Look::Vacant(Vacancy::Home(absent))
            }
            _ => self.find(name),
        }
    }

    #[inline]
    pub(super) fn state(&self, found: Found) -> State {
        match found {
            Found::Issued(spot) => self.issued.state(spot),
            Found::Hashed(place) => self.hashed.state(place),
        }
    }

    /// Makes room for the next state of an impression that [looks](Impressions::look) like this. `first_seen` places a foreign one in time.
    ///
    /// # Errors
    /// `expired` or `not_yet_issued` for an issue time that no live slice covers: admission keeps
    /// such clicks away. `table_full` when there is no memory left.
    #[inline]
    pub(super) fn make_room(
        &mut self,
        name: &Name,
        look: Look,
        next: State,
        first_seen: UnixMs,
    ) -> Result<Room, Reason> {
        match (look, name) {
            (Look::Found(Found::Issued(spot)), Name::Issued(id, _)) if !Issued::can_hold(spot, next) => {
                let outcast = self.outcast(*id);
                self.hashed.make_room(&outcast, first_seen)?;
                Ok(Room::Leaves(spot))
            }
            (Look::Found(found), _) => Ok(Room::Stays(found)),
            (Look::Vacant(vacancy), Name::Issued(id, name)) => {
                let branch = match vacancy {
                    Vacancy::Branch(branch) => branch,
                    Vacancy::Home(_) | Vacancy::Unknown => self.issued.branch(name),
                };
                self.make_room_by_sequence(*id, name, branch, next)
            }
            (Look::Vacant(vacancy), Name::Hashed(name)) => {
                self.check_issue_time(name)?;
                let moves = self.hashed.moves();
                self.hashed.make_room(name, first_seen)?;
                self.next_expiry = self.next_expiry.min(self.hashed.expires_at(name, first_seen));
                let home = match vacancy {
                    Vacancy::Home(absent) if moves == self.hashed.moves() => {
                        self.hashed.home_with_room(absent)
                    }
                    _ => None,
                };
                Ok(Room::Hashed(home))
            }
        }
    }

    #[inline]
    fn make_room_by_sequence(
        &mut self,
        id: ImpressionId,
        name: &issued::Name,
        branch: Branch,
        next: State,
    ) -> Result<Room, Reason> {
        if branch == Branch::Nowhere {
            self.check_issued_at(id.issued_at_s())?;
            self.next_expiry = self.next_expiry.min(self.issued.expires_at(name));
        }
        let (hashed, now) = (&mut self.hashed, self.now);
        let keep_elsewhere = |id: ImpressionId, state| keep(hashed, id, state, now);
        if let Ok(branch) = self.issued.make_room(name, branch, next, keep_elsewhere) {
            return Ok(Room::Branch(branch));
        }
        let outcast = self.outcast(id);
        self.hashed.make_room(&outcast, now)?;
        Ok(Room::Hashed(None))
    }

    #[inline]
    fn check_issue_time(&self, name: &hashed::Name) -> Result<(), Reason> {
        match name.issued_slice {
            Some(_) => self.check_issued_at((name.words[0] >> 32) as u32),
            None => Ok(()),
        }
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

    /// Puts a state where room was made for it, with nothing in between.
    #[inline]
    pub(super) fn put(&mut self, name: &Name, room: Room, state: State, first_seen: UnixMs) {
        match (room, name) {
            (Room::Stays(Found::Issued(spot)), _) => self.issued.set_state(spot, state),
            (Room::Stays(Found::Hashed(place)), _) => self.hashed.set_state(place, state),
            (Room::Branch(branch), Name::Issued(_, name)) => self.issued.insert(name, branch, state),
            (Room::Hashed(home), Name::Hashed(name)) => self.hashed.insert(name, home, first_seen, state),
            (Room::Leaves(spot), Name::Issued(id, name)) => {
                self.issued.cast_out(name, spot);
                let outcast = self.outcast(*id);
                self.hashed.insert(&outcast, None, first_seen, state);
            }
            (Room::Hashed(home), Name::Issued(id, _)) => {
                let outcast = self.outcast(*id);
                self.hashed.insert(&outcast, home, first_seen, state);
            }
            (Room::Branch(_) | Room::Leaves(_), Name::Hashed(_)) => {
                debug_assert!(false, "room was made for another impression");
            }
        }
    }
}

/// Keeps an impression that has to leave its line; whether there was room for it.
fn keep(hashed: &mut Hashed, id: ImpressionId, state: State, now: UnixMs) -> bool {
    let name = hashed.name(id.words(), Some(id.issued_at_s() / SLICE_S));
    // It may be here already, from an attempt that was given up.
    if let Some(place) = hashed.find(&name, now) {
        hashed.set_state(place, state);
        return true;
    }
    if hashed.make_room(&name, now).is_err() {
        return false;
    }
    hashed.insert(&name, None, now, state);
    true
}

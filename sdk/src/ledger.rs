//! The sender's own books: every click offered is in exactly one place.

/// Where the clicks are. Every number counts clicks since the sender was made, `queued` those it
/// holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Clicks offered.
    pub created: u64,
    /// Acknowledged as taken and durable.
    pub acked_created: u64,
    /// Acknowledged as already there; durable.
    pub acked_exists: u64,
    /// Held: in an open datagram, waiting to be sent, or sent and not finally answered.
    pub queued: u64,
    /// Not taken by the sender: every datagram it may hold is in use.
    pub refused_full: u64,
    /// Not taken by the sender: the node would call the click malformed.
    pub refused_malformed: u64,
    /// Not taken by the sender: with this extension the click fits no datagram.
    pub refused_too_long: u64,
    /// Dropped: the node will never take the click, malformed or refused for good.
    pub dropped_malformed: u64,
    /// Dropped: sent as often as allowed without a final answer. Such a click may or may not have
    /// been counted.
    pub dropped_gave_up: u64,
}

impl Ledger {
    /// Clicks acknowledged either way.
    #[must_use]
    pub const fn acked(&self) -> u64 {
        self.acked_created + self.acked_exists
    }

    /// Clicks not taken by the sender.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused_full + self.refused_malformed + self.refused_too_long
    }

    /// Clicks taken by the sender and lost for good.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_malformed + self.dropped_gave_up
    }

    /// Whether created = acked + queued + refused + dropped.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.created == self.acked() + self.queued + self.refused() + self.dropped()
    }
}

/// What went over the wire. Not part of the books: datagrams may be lost, acks repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams handed out to be sent, resends included.
    pub datagrams: u64,
    /// Of these, resends.
    pub datagrams_resent: u64,
    /// Clicks in all those datagrams.
    pub clicks: u64,
    /// Clicks the node asked to send again.
    pub retry_statuses: u64,
    /// Acks that settled a batch.
    pub acks: u64,
    /// Acks that matched no batch: late, repeated, forged or meant for another.
    pub acks_unmatched: u64,
    /// Datagrams received that were not acks from start to end.
    pub garbage_datagrams: u64,
}

//! The pool of datagrams: each slot is a buffer that is a valid datagram from its first click on.

use weir_common::id::SHARD_BITS;
use weir_common::wire::{CLICK_LEN, Click, HEADER_LEN, Header, MAX_PAYLOAD_V6};
use zerocopy::{FromBytes, IntoBytes};

use crate::sender::Ticket;

/// The most bytes of one datagram: what IPv6 carries unfragmented, since a sender may change from
/// one family to the other with clicks already batched. It costs IPv4 the fifteenth click.
pub(crate) const PAYLOAD_MAX: usize = MAX_PAYLOAD_V6;
/// The longest extension of a click that travels alone.
pub(crate) const EXTENSION_MAX: usize = PAYLOAD_MAX - HEADER_LEN - CLICK_LEN;
/// The most clicks one datagram holds.
pub(crate) const CLICKS_MAX: usize = (PAYLOAD_MAX - HEADER_LEN) / CLICK_LEN;

/// Where a batch is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not in use.
    Free,
    /// Takes clicks.
    Open,
    /// Waits to be sent.
    Ready,
    /// Sent; waits for its ack.
    InFlight,
    /// Answered with `retry`; waits for its next turn.
    Backoff,
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) state: State,
    /// How often it was handed out to be sent; clicks kept after a `retry` keep the number.
    pub(crate) attempts: u16,
    pub(crate) group: u16,
    pub(crate) count: u8,
    pub(crate) len: u16,
    pub(crate) tickets: [Ticket; CLICKS_MAX],
}

/// All batches and their bytes; the bytes stand apart so that a scan of the states is short.
pub(crate) struct Pool {
    pub(crate) batches: Vec<Batch>,
    bytes: Vec<[u8; PAYLOAD_MAX]>,
    free: Vec<u32>,
}

impl Pool {
    pub(crate) fn new(batches: usize) -> Self {
        let empty = Batch {
            id: 0,
            state: State::Free,
            attempts: 0,
            group: 0,
            count: 0,
            len: 0,
            tickets: [Ticket(0); CLICKS_MAX],
        };
        Self {
            batches: vec![empty; batches],
            bytes: vec![[0; PAYLOAD_MAX]; batches],
            free: (0..batches as u32).rev().collect(),
        }
    }

    /// Takes a free slot, if there is one.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(crate) fn release(&mut self, slot: u32) {
        self.batches[slot as usize].state = State::Free;
        self.batches[slot as usize].count = 0;
        self.free.push(slot);
    }

    pub(crate) fn free_batches(&self) -> usize {
        self.free.len()
    }

    /// Opens a taken slot for the clicks of one group.
    pub(crate) fn open(&mut self, slot: u32, id: u64, source_id: u32, group: u16, group_bits: u32) {
        let batch = &mut self.batches[slot as usize];
        batch.id = id;
        batch.state = State::Open;
        batch.attempts = 0;
        batch.group = group;
        batch.count = 0;
        batch.len = HEADER_LEN as u16;
        let header = Header {
            shared_bits: group_bits as u8,
            shard: (group << (SHARD_BITS - group_bits)).into(),
            source_id: source_id.into(),
            batch_id: id.into(),
            ..Header::new(0, 0)
        };
        self.bytes[slot as usize][..HEADER_LEN].copy_from_slice(header.as_bytes());
    }

    pub(crate) fn room(&self, slot: u32) -> usize {
        let batch = &self.batches[slot as usize];
        if usize::from(batch.count) == CLICKS_MAX { 0 } else { PAYLOAD_MAX - usize::from(batch.len) }
    }

    /// Appends a click; the caller made sure there is room.
    pub(crate) fn append(&mut self, slot: u32, click: &Click, extension: &[u8], ticket: Ticket) {
        let batch = &mut self.batches[slot as usize];
        let start = usize::from(batch.len);
        let end = start + CLICK_LEN + extension.len();
        let (fixed, rest) = self.bytes[slot as usize][start..end].split_at_mut(CLICK_LEN);
        let mut click = *click;
        click.extension_len = (extension.len() as u16).into();
        fixed.copy_from_slice(click.as_bytes());
        rest.copy_from_slice(extension);
        batch.tickets[usize::from(batch.count)] = ticket;
        batch.count += 1;
        batch.len = end as u16;
    }

    /// Writes id, count and length into the header.
    pub(crate) fn seal(&mut self, slot: u32) {
        let batch = &self.batches[slot as usize];
        if let Ok((header, _)) = Header::mut_from_prefix(&mut self.bytes[slot as usize]) {
            header.count = batch.count;
            header.total_len = batch.len.into();
            header.batch_id = batch.id.into();
        }
    }

    pub(crate) fn datagram(&self, slot: u32) -> &[u8] {
        &self.bytes[slot as usize][..usize::from(self.batches[slot as usize].len)]
    }

    /// Shows every click to `keep` and moves those it keeps together. Count and length follow; the
    /// header does not, until [`Self::seal`].
    pub(crate) fn retain(&mut self, slot: u32, mut keep: impl FnMut(usize, Ticket, &Click, &[u8]) -> bool) {
        let batch = &mut self.batches[slot as usize];
        let bytes = &mut self.bytes[slot as usize];
        let (mut read, mut write, mut kept) = (HEADER_LEN, HEADER_LEN, 0);
        for index in 0..usize::from(batch.count) {
            let Ok((click, after)) = Click::ref_from_prefix(&bytes[read..]) else { break };
            let extension_len = usize::from(click.extension_len.get());
            let Some(extension) = after.get(..extension_len) else { break };
            let ticket = batch.tickets[index];
            let len = CLICK_LEN + extension_len;
            if keep(index, ticket, click, extension) {
                bytes.copy_within(read..read + len, write);
                batch.tickets[kept] = ticket;
                write += len;
                kept += 1;
            }
            read += len;
        }
        batch.count = kept as u8;
        batch.len = write as u16;
    }
}

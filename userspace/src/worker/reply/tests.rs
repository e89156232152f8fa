use weir_common::wire::Acks;

use super::*;
use crate::uring::{ReceiverId, Settings, SlotId, Uring};

fn to(port: u16, batch_id: u64) -> ReplyTo {
    ReplyTo::Datagram { peer: peer(port), batch_id }
}

fn peer(port: u16) -> Peer {
    Peer { address: ([127, 0, 0, 1], port).into(), local: None, receiver: ReceiverId(0) }
}

#[test]
fn a_datagram_leaves_when_the_last_thing_it_waits_for_has_come() {
    let mut table = WaitingTable::new(2);
    let ticket = table.enter(to(1, 42), 1000, 3).expect("room");
    table.hold(ticket);
    table.hold(ticket);
    table.set_status(ticket, 1, AckStatus::Created as u8);
    assert!(table.settle(ticket).is_none());
    assert!(table.settle(ticket).is_none());
    let waiting = table.settle(ticket).expect("the last");
    assert_eq!(waiting.statuses(), [2, 0, 2]);
    assert_eq!((waiting.to, table.len()), (to(1, 42), 0));
}

#[test]
fn a_reply_for_a_former_tenant_of_a_slot_changes_nothing() {
    let mut table = WaitingTable::new(1);
    let old = table.enter(to(1, 1), 0, 1).expect("room");
    assert!(table.settle(old).is_some());
    let new = table.enter(to(2, 2), 0, 1).expect("room");
    table.set_status(old, 0, AckStatus::Created as u8);
    assert!(table.settle(old).is_none());
    assert_eq!(table.settle(new).expect("still there").statuses(), [AckStatus::Retry as u8]);
}

#[test]
fn a_full_table_takes_no_more() {
    let mut table = WaitingTable::new(1);
    assert!(table.enter(to(1, 1), 0, 1).is_some());
    assert!(table.enter(to(1, 2), 0, 1).is_none());
    assert_eq!(table.len(), 1);
}

/// A layer that keeps what it is told to send.
#[derive(Default)]
struct Outgoing {
    uring: Option<Uring>,
    payloads: Vec<(SlotId, Box<[u8; SLOT_PAYLOAD]>)>,
    sent: Vec<(Peer, Vec<u8>)>,
}

impl SendSlots for Outgoing {
    type Slot = SlotId;

    fn free_slot(&mut self) -> Option<SlotId> {
        let uring =
            self.uring.get_or_insert_with(|| Uring::new(Settings::datagrams(1, 3)).expect("io_uring"));
        uring.free_slot()
    }

    fn payload(&mut self, slot: &SlotId) -> &mut [u8; SLOT_PAYLOAD] {
        self.uring.as_mut().expect("a slot was taken").slot_payload(slot)
    }

    fn send(&mut self, slot: SlotId, len: usize, to: &Peer) {
        let bytes = self.payload(&slot)[..len].to_vec();
        self.sent.push((*to, bytes));
        self.payloads.push((slot, Box::new([0; SLOT_PAYLOAD])));
    }
}

fn add(packer: &mut AckPacker<SlotId>, out: &mut Outgoing, port: u16, batch_id: u64, statuses: &[u8]) {
    packer.add(out, &peer(port), AckHeader::new(batch_id, statuses.len() as u8), statuses);
}

#[test]
fn an_ack_says_how_long_to_wait_only_where_a_budget_is_spent() {
    let mut table = WaitingTable::new(2);
    for spent in [0, 2] {
        let ticket = table.enter(to(1, 7), 0, 3).expect("room");
        (0..spent).for_each(|_| table.limit(ticket));
        let header = table.settle(ticket).expect("the last thing it waited for").ack(7);
        let units = if spent > 0 { 10 } else { 0 };
        assert_eq!((header.batch_id.get(), header.count, header.retry_after), (7, 3, units));
    }
}

#[test]
fn acks_to_one_sender_share_a_datagram_and_others_get_their_own() {
    let (mut packer, mut out) = (AckPacker::default(), Outgoing::default());
    add(&mut packer, &mut out, 1, 10, &[0, 1]);
    add(&mut packer, &mut out, 2, 20, &[3]);
    add(&mut packer, &mut out, 1, 11, &[2]);
    packer.flush(&mut out);
    out.sent.sort_by_key(|(peer, _)| peer.address.port());
    assert_eq!(out.sent.len(), 2);
    let acks: Vec<_> = Acks::new(&out.sent[0].1).map(|ack| (ack.batch_id, ack.statuses.to_vec())).collect();
    assert_eq!(acks, [(10, vec![0, 1]), (11, vec![2])]);
    assert_eq!(packer.tally, AckTally { acks_sent: 3, datagrams_sent: 2, acks_dropped: 0 });
}

#[test]
fn acks_that_do_not_fit_one_datagram_fill_several() {
    let (mut packer, mut out) = (AckPacker::default(), Outgoing::default());
    for batch_id in 0..100 {
        add(&mut packer, &mut out, 1, batch_id, &[0; 14]);
    }
    packer.flush(&mut out);
    let all: Vec<_> =
        out.sent.iter().flat_map(|(_, bytes)| Acks::new(bytes).map(|ack| ack.batch_id)).collect();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    assert_eq!(out.sent.len(), 3);
}

#[test]
fn without_a_free_slot_acks_are_dropped_and_counted() {
    let (mut packer, mut out) = (AckPacker::default(), Outgoing::default());
    for port in 1..=4 {
        add(&mut packer, &mut out, port, 1, &[0]);
    }
    packer.flush(&mut out);
    assert_eq!((packer.tally.acks_sent, packer.tally.acks_dropped), (3, 1));
}

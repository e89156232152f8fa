//! One behaviour of the sender at a time.

use weir_common::id::{Issuer, KeyId};
use weir_common::reason::Reason;
use weir_common::siphash::SipKey;
use weir_common::wire::{AckHeader, AckStatus, Click, Datagram, MAX_EXTENSION};
use weir_sdk::{Config, Fate, Minter, Offer, Refused, Sender, Transmit};
use zerocopy::IntoBytes;

const MS: u64 = 1_000_000;

fn clicks(count: usize) -> Vec<Click> {
    let mut minter = Minter::new(Issuer(1), KeyId(1), SipKey { k0: 1, k1: 2 }, 0);
    (0..count).map(|_| minter.mint(&Offer::default(), 1_000)).collect()
}

fn sender(config: Config) -> Sender {
    Sender::new(config, 0).unwrap()
}

/// No jitter, so that times are exact to the tick.
fn steady() -> Config {
    Config { backoff_base_ns: 0, ..Config::default() }
}

fn answer(sender: &Sender, transmit: Transmit, statuses: &[AckStatus]) -> Vec<u8> {
    let header = Datagram::parse(sender.datagram(transmit)).unwrap().header().batch_id.get();
    let mut bytes = AckHeader::new(header, statuses.len() as u8).as_bytes().to_vec();
    bytes.extend(statuses.iter().map(|&status| status as u8));
    bytes
}

#[test]
fn a_full_datagram_leaves_at_once_and_a_partial_one_by_age() {
    let mut sender = sender(steady());
    for click in clicks(15) {
        sender.offer(0, &click, &[]).unwrap();
    }
    let full = sender.poll_transmit(0).expect("14 clicks fill a datagram");
    assert_eq!(sender.tickets(full).len(), 14);
    assert!(sender.datagram(full).len() + 40 + 8 <= 1500, "IPv6 does not carry it unfragmented");
    assert_eq!(sender.poll_transmit(0), None);
    let due_ns = sender.next_timeout_ns().unwrap();
    assert!((5 * MS..6 * MS).contains(&due_ns), "{due_ns}");
    sender.advance(due_ns, |_| {});
    let rest = sender.poll_transmit(due_ns).expect("the fifteenth click is old enough");
    assert_eq!(sender.tickets(rest).len(), 1);
}

#[test]
fn only_clicks_answered_with_retry_are_sent_again_under_a_new_batch_id() {
    let mut sender = sender(steady());
    let clicks = clicks(3);
    for click in &clicks {
        sender.offer(0, click, &[]).unwrap();
    }
    sender.flush();
    let first = sender.poll_transmit(0).unwrap();
    let old_id = Datagram::parse(sender.datagram(first)).unwrap().header().batch_id;
    let ack = answer(&sender, first, &[AckStatus::Created, AckStatus::Retry, AckStatus::Malformed]);
    let mut fates = Vec::new();
    sender.on_datagram(MS, &ack, |gone| fates.push((gone.ticket.0, gone.fate)));
    assert_eq!(fates, [(0, Fate::Created), (2, Fate::Malformed)]);

    sender.advance(2 * MS, |_| {});
    let second = sender.poll_transmit(2 * MS).expect("the middle click goes again");
    let datagram = Datagram::parse(sender.datagram(second)).unwrap();
    assert_ne!(datagram.header().batch_id, old_id);
    let again: Vec<_> = datagram.clicks().map(|(click, _)| *click).collect();
    assert_eq!(again, [clicks[1]]);

    // The same ack once more is nobody's.
    sender.on_datagram(2 * MS, &ack, |_| panic!("an ack was used twice"));
    assert_eq!((sender.traffic().acks, sender.traffic().acks_unmatched), (1, 1));
}

#[test]
fn a_node_that_says_how_long_to_wait_is_not_asked_before() {
    let mut sender = sender(steady());
    sender.offer(0, &clicks(1)[0], &[]).unwrap();
    sender.flush();
    let first = sender.poll_transmit(0).unwrap();
    let mut ack = answer(&sender, first, &[AckStatus::Retry]);
    ack[7] = 10;
    sender.on_datagram(MS, &ack, |_| panic!("nothing is settled"));
    let due_ns = sender.next_timeout_ns().unwrap();
    assert!((1001 * MS..1010 * MS).contains(&due_ns), "{due_ns}");
    sender.advance(1000 * MS, |_| {});
    assert_eq!(sender.poll_transmit(1000 * MS), None);
    sender.advance(due_ns, |_| {});
    assert!(sender.poll_transmit(due_ns).is_some());
}

#[test]
fn a_click_without_answer_is_given_up_after_its_last_attempt_and_not_before() {
    let mut sender = sender(Config { attempts_max: 3, ..steady() });
    sender.offer(0, &clicks(1)[0], &[]).unwrap();
    let (mut sends, mut now_ns, mut gave_up) = (0, 0, 0);
    while let Some(due_ns) = sender.next_timeout_ns() {
        now_ns = due_ns.max(now_ns);
        sender.advance(now_ns, |gone| gave_up += u32::from(gone.fate == Fate::GaveUp));
        while sender.poll_transmit(now_ns).is_some() {
            assert_eq!(gave_up, 0);
            sends += 1;
        }
    }
    assert_eq!((sends, gave_up, sender.ledger().dropped_gave_up), (3, 1, 1));
    assert!(now_ns >= 5 * MS + 3 * 200 * MS);
    assert!(sender.ledger().closes());
}

#[test]
fn waits_grow_and_are_spread_over_the_whole_range() {
    // The first waits of 200 senders: between the ack timeout and the timeout plus the base.
    let waits: Vec<u64> = (0..200)
        .map(|seed| {
            let mut sender = sender(Config { seed, flush_after_ns: 0, ..Config::default() });
            sender.offer(0, &clicks(1)[0], &[]).unwrap();
            sender.flush();
            sender.poll_transmit(0).unwrap();
            sender.next_timeout_ns().unwrap()
        })
        .collect();
    assert!(waits.iter().all(|wait| (200 * MS..301 * MS).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|&wait| wait < 220 * MS) && waits.iter().any(|&wait| wait > 280 * MS));
}

#[test]
fn a_full_sender_refuses_and_takes_clicks_again_once_acknowledged() {
    let mut sender = sender(Config { batches: 2, ..steady() });
    let clicks = clicks(29);
    for click in &clicks[..28] {
        sender.offer(0, click, &[]).unwrap();
    }
    assert_eq!(sender.offer(0, &clicks[28], &[]), Err(Refused::Full));
    assert!(sender.ledger().closes());
    let transmit = sender.poll_transmit(0).unwrap();
    let ack = answer(&sender, transmit, &[AckStatus::Created; 14]);
    sender.on_datagram(MS, &ack, |_| {});
    assert!(sender.offer(MS, &clicks[28], &[]).is_ok());
    assert_eq!((sender.ledger().refused_full, sender.ledger().acked_created), (1, 14));
    assert!(sender.ledger().closes());
}

#[test]
fn clicks_that_the_node_would_not_take_are_refused_here() {
    let mut sender = sender(steady());
    let bad = Click { country: *b"de", ..clicks(1)[0] };
    assert_eq!(sender.offer(0, &bad, &[]), Err(Refused::Malformed(Reason::BadCountry)));
    let long = vec![0; MAX_EXTENSION + 1];
    assert_eq!(sender.offer(0, &clicks(1)[0], &long), Err(Refused::TooLong(MAX_EXTENSION + 1)));
    assert!(sender.is_idle() && sender.ledger().closes());
}

#[test]
fn each_datagram_holds_clicks_of_one_group_and_says_so() {
    let mut sender = sender(Config { group_bits: 2, ..steady() });
    for click in clicks(200) {
        sender.offer(0, &click, &[]).unwrap();
    }
    sender.flush();
    let mut groups = std::collections::BTreeSet::new();
    while let Some(transmit) = sender.poll_transmit(0) {
        let datagram = Datagram::parse(sender.datagram(transmit)).unwrap();
        assert_eq!(datagram.facts().shared_bits, 2);
        groups.insert(datagram.facts().shard.0);
        assert!(datagram.clicks().all(|(click, _)| click.shard().shares_leading(datagram.facts().shard, 2)));
    }
    assert_eq!(groups.len(), 4);
}

#[test]
fn an_ack_that_comes_while_the_resend_waits_cancels_it() {
    let mut sender = sender(Config { batches: 2, ..steady() });
    let clicks = clicks(2);
    sender.offer(0, &clicks[0], &[]).unwrap();
    sender.flush();
    let first = sender.poll_transmit(0).unwrap();
    let ack = answer(&sender, first, &[AckStatus::Created]);
    sender.advance(300 * MS, |_| {});
    sender.on_datagram(300 * MS, &ack, |_| {});
    assert!(sender.is_idle());
    assert_eq!(sender.poll_transmit(300 * MS), None, "a settled click was sent again");

    // The slot's next batch is sent once, though the old one left its place in the line.
    sender.offer(300 * MS, &clicks[1], &[]).unwrap();
    sender.flush();
    let second = sender.poll_transmit(300 * MS).unwrap();
    assert_eq!((sender.tickets(second).len(), second.attempt), (1, 1));
    assert_eq!(sender.poll_transmit(300 * MS), None);
}

#[test]
fn a_slot_used_again_before_its_old_place_in_the_line_comes_up_is_sent_once() {
    let mut sender = sender(Config { batches: 2, ..steady() });
    let clicks = clicks(2);
    sender.offer(0, &clicks[0], &[]).unwrap();
    sender.flush();
    let first = sender.poll_transmit(0).unwrap();
    let ack = answer(&sender, first, &[AckStatus::Created]);
    sender.advance(300 * MS, |_| {});
    sender.on_datagram(300 * MS, &ack, |_| {});
    sender.offer(300 * MS, &clicks[1], &[]).unwrap();
    sender.flush();
    let sends = std::iter::from_fn(|| sender.poll_transmit(300 * MS)).count();
    assert_eq!(sends, 1);
}

#[test]
fn the_range_of_waits_doubles_with_each_attempt_up_to_the_cap() {
    // The longest of many fourth waits, less the ack timeout: beyond 100 ms * 2^2, below the cap.
    let fourth_wait = |seed| {
        let config = Config { seed, backoff_cap_ns: 600 * MS, ..Config::default() };
        let mut sender = sender(config);
        sender.offer(0, &clicks(1)[0], &[]).unwrap();
        sender.flush();
        let (mut now_ns, mut wait_ns) = (0, 0);
        for attempt in 1..=4 {
            assert_eq!(sender.poll_transmit(now_ns).unwrap().attempt, attempt);
            while sender.next_timeout_ns() != Some(0) {
                let next_ns = sender.next_timeout_ns().unwrap();
                sender.advance(next_ns, |_| {});
                (wait_ns, now_ns) = (wait_ns + next_ns - now_ns, next_ns);
            }
            if attempt < 4 {
                wait_ns = 0;
            }
        }
        wait_ns - 200 * MS
    };
    let longest = (0..200).map(fourth_wait).max().unwrap();
    assert!((500 * MS..602 * MS).contains(&longest), "{longest}");
}

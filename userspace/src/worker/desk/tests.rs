//! Two desks on one thread, with real ledgers and real journals on a real disk.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use weir_common::id::{Epoch, ImpressionId, Issuer, KeyId, NodeId};
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::{Click, HEADER_LEN, Header, click_flags};
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U32, U64};

use super::super::handoff;
use super::*;
use crate::admission::{KeyRing, Settings as AdmissionSettings, SigningKey};
use crate::clock::Doubt;
use crate::journal::{Disk, DiskBudget, Folder, Journal, JournalConfig};
use crate::ledger::Settings as LedgerSettings;
use crate::pseudonym::Pseudonyms;
use crate::published::Published;
use crate::rejects::{Gate, Samples, samplers};
use crate::stats::WorkerStats;
use crate::traffic::{Limits, Lists};

const NOW_MS: u64 = 1_800_000_000_000;

/// Desks with the disks under their journals.
struct Lab {
    desks: Vec<Desk>,
    disks: Vec<Disk>,
    now: Now,
    samples: Samples,
    lists: Arc<Published<Lists>>,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(workers: usize) -> Self {
        Self::with_budget(workers, 1 << 30)
    }

    fn with_budget(workers: usize, bytes_max: u64) -> Self {
        let temporary = tempfile::tempdir().expect("folder");
        let folder = Folder::open(temporary.path(), NodeId(1)).expect("journal folder");
        let budget = Arc::new(DiskBudget::new(bytes_max, 0));
        let clock = Arc::<NodeClock>::default();
        let (mut samplers, samples) = samplers(workers as u16, 10, Epoch(1), &Gate::default());
        let lists = Published::new(Lists::plain());
        let desk = |(number, port)| {
            let worker = WorkerId(number as u16);
            // As small as a journal can be: what is tested here is not the disk.
            let small = JournalConfig::new(folder.segments().to_owned(), folder.writer(worker));
            let config = JournalConfig { queue_bytes_max: 1 << 20, segment_bytes: 0, ..small };
            Desk::new(Parts {
                worker,
                shards: ShardMap::even(workers),
                admission: Published::new(Admission::new(
                    AdmissionSettings { allow_unsigned: true, ..AdmissionSettings::default() },
                    KeyRing::new(&[signing_key()]).expect("one key"),
                ))
                .reader(),
                judge: Judge::new(lists.reader(), None),
                limits: None,
                refractory: None,
                pseudonyms: Published::new(Pseudonyms::AsSent).reader(),
                ledger: Ledger::new(&LedgerSettings::new(weir_common::siphash::SipKey { k0: 1, k1: 2 })),
                book: Book::new(Journal::new(config, Arc::clone(&budget))),
                port,
                waiting_capacity: 64,
                stats: OwnStats::new(Arc::new([WorkerStats::default()]), 0),
                clock: Arc::clone(&clock),
                rejects: samplers.remove(0),
            })
        };
        let desks: Vec<_> = handoff::mesh(workers).into_iter().enumerate().map(desk).collect();
        let now = Now { wall: UnixMs(NOW_MS), doubt: None, monotonic_ns: 0 };
        let mut lab = Self {
            disks: desks.iter().map(|_| Disk::default()).collect(),
            desks,
            now,
            samples,
            lists,
            _folder: temporary,
        };
        lab.drive();
        lab
    }

    /// Runs what the journals ask for, without sealing anything.
    fn drive(&mut self) {
        for (desk, disk) in self.desks.iter_mut().zip(&mut self.disks) {
            while disk.drive(desk.book.journal(), self.now.wall.0) > 0 {}
        }
    }

    /// Seals and syncs everything, and lets the statuses travel.
    fn commit(&mut self) {
        for _ in 0..2 {
            for desk in &mut self.desks {
                desk.take_over(self.now);
                desk.book.seal();
            }
            self.drive();
            self.desks.iter_mut().for_each(Desk::settle);
        }
    }

    fn arrive(&mut self, worker: usize, payload: &[u8]) {
        let from: SocketAddr = ([127, 0, 0, 1], 9).into();
        let datagram = uring::Datagram { from, local: None, payload, truncated: false, socket_drops: None };
        self.desks[worker].take_in(self.now, [(ReceiverId(0), datagram)].into_iter());
    }

    /// The acks ready at a worker, as (batch, statuses).
    fn acks(&mut self, worker: usize) -> Vec<(u64, Vec<u8>)> {
        let batch_id = |to| match to {
            ReplyTo::Datagram { batch_id, .. } => batch_id,
            ReplyTo::Request { .. } => panic!("nobody sent a request"),
        };
        self.desks[worker].ready.drain(..).map(|w| (batch_id(w.to), w.statuses().to_vec())).collect()
    }

    fn outcomes(&self) -> [u64; 7] {
        std::array::from_fn(|o| self.desks.iter().map(|desk| desk.stats.outcomes[o].get()).sum())
    }

    fn received(&self) -> u64 {
        self.desks.iter().map(|desk| desk.stats.clicks_received.get()).sum()
    }
}

const KEY: SipKey = SipKey { k0: 3, k1: 4 };

const fn signing_key() -> SigningKey {
    SigningKey { issuer: Issuer(1), id: KeyId(1), secret: KEY }
}

/// A click on an impression that was issued then.
fn issued(sequence: u64, issued_at_ms: u64) -> Click {
    let impression = ImpressionId::issued(Issuer(1), KeyId(1), (issued_at_ms / 1000) as u32, sequence);
    let click = Click { impression, clicked_at_ms: U64::new(NOW_MS), ..Click::zeroed() };
    Click { tag: U64::new(click.expected_tag(&KEY)), ..click }
}

fn click(id: u128, ordinal: u8) -> Click {
    Click {
        impression: ImpressionId(id.to_le_bytes()),
        clicked_at_ms: U64::new(NOW_MS),
        flags: click_flags::FOREIGN,
        ordinal,
        ..Click::zeroed()
    }
}

/// An id whose shard the first half of the workers own, and one of the second half.
fn id_in_half(half: u16) -> u128 {
    (1_u128..).find(|id| ImpressionId(id.to_le_bytes()).foreign_shard().0 >> 9 == half).expect("there is one")
}

fn datagram(batch_id: u64, clicks: &[Click]) -> Vec<u8> {
    let header = Header { batch_id: batch_id.into(), ..Header::new(clicks.len() as u8, size_of_val(clicks)) };
    [header.as_bytes(), clicks.as_bytes()].concat()
}

const CREATED: u8 = AckStatus::Created as u8;
const EXISTS: u8 = AckStatus::Exists as u8;
const RETRY: u8 = AckStatus::Retry as u8;
const MALFORMED: u8 = AckStatus::Malformed as u8;

#[test]
fn no_ack_goes_out_before_its_block_is_durable() {
    let mut lab = Lab::new(1);
    lab.arrive(0, &datagram(1, &[click(1, 0), click(1, 1)]));
    lab.drive();
    lab.desks[0].settle();
    assert!(lab.acks(0).is_empty());
    lab.desks[0].book.seal();
    lab.desks[0].settle();
    assert!(lab.acks(0).is_empty(), "sealed is not durable");
    lab.drive();
    lab.desks[0].settle();
    assert_eq!(lab.acks(0), [(1, vec![CREATED, CREATED])]);
}

#[test]
fn a_resend_of_a_click_that_is_not_durable_yet_waits_for_it() {
    let mut lab = Lab::new(1);
    lab.arrive(0, &datagram(1, &[click(1, 0)]));
    lab.arrive(0, &datagram(2, &[click(1, 0)]));
    lab.desks[0].settle();
    assert!(lab.acks(0).is_empty());
    lab.commit();
    assert_eq!(lab.acks(0), [(1, vec![CREATED]), (2, vec![EXISTS])]);
    lab.arrive(0, &datagram(3, &[click(1, 0)]));
    assert_eq!(lab.acks(0), [(3, vec![EXISTS])], "everything is durable: nothing to wait for");
}

#[test]
fn a_click_at_the_wrong_worker_is_decided_by_its_owner_and_answered_by_its_reader() {
    let mut lab = Lab::new(2);
    let (mine, other) = (id_in_half(0), id_in_half(1));
    lab.arrive(0, &datagram(1, &[click(mine, 0), click(other, 0)]));
    lab.arrive(1, &datagram(2, &[click(other, 0)]));
    assert_eq!(lab.desks[0].waiting(), 1);
    lab.commit();
    assert_eq!(lab.acks(1), [(2, vec![CREATED])]);
    assert_eq!(lab.acks(0), [(1, vec![CREATED, EXISTS])], "the owner saw its own click first");
    assert!(lab.desks.iter().all(Desk::is_settled));
    assert_eq!(lab.outcomes(), [2, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_reader_does_not_answer_while_an_owner_has_not_made_its_click_durable() {
    let mut lab = Lab::new(2);
    lab.arrive(0, &datagram(1, &[click(id_in_half(1), 0)]));
    lab.desks[1].take_over(lab.now);
    lab.desks.iter_mut().for_each(Desk::settle);
    assert!(lab.acks(0).is_empty());
    lab.commit();
    assert_eq!(lab.acks(0), [(1, vec![CREATED])]);
}

#[test]
fn a_datagram_that_does_not_add_up_is_refused_whole_and_an_unsound_header_silently() {
    let mut lab = Lab::new(1);
    let mut cut = datagram(7, &[click(1, 0), click(2, 0)]);
    cut[HEADER_LEN + 90] = 1; // the first click claims an extension that is not there
    lab.arrive(0, &cut);
    assert_eq!(lab.acks(0), [(7, vec![MALFORMED, MALFORMED])]);
    lab.arrive(0, b"GET / HTTP/1.1\r\n\r\n and more bytes than a header has");
    assert!(lab.acks(0).is_empty());
    assert_eq!((lab.received(), lab.outcomes()), (3, [0, 0, 0, 0, 0, 0, 3]));
    assert_eq!(lab.desks[0].stats.reasons[Reason::ClickCut as usize].get(), 2);
    assert_eq!(lab.desks[0].stats.reasons[Reason::BadMagic as usize].get(), 1);
}

#[test]
fn one_bad_click_costs_only_itself() {
    let mut lab = Lab::new(1);
    let bad = Click { reserved: U32::new(1), ..click(2, 0) };
    lab.arrive(0, &datagram(1, &[click(1, 0), bad, click(3, 0)]));
    lab.commit();
    assert_eq!(lab.acks(0), [(1, vec![CREATED, MALFORMED, CREATED])]);
}

#[test]
fn an_unsigned_click_whose_window_finds_no_room_counts_and_is_told() {
    let mut lab = Lab::new(1);
    // Of the least size: eight users and ads.
    lab.desks[0].refractory = Some(Refractory::new(10_000, 1, KEY));
    let of_user = |id: u64| Click { user_key: U64::new(id), ..click(u128::from(id), 0) };
    let clicks: Vec<_> = (1..=12).map(of_user).collect();
    lab.arrive(0, &datagram(1, &clicks));
    let again = Click { user_key: U64::new(1), ..click(99, 0) };
    lab.arrive(0, &datagram(2, &[again]));
    assert_eq!(lab.desks[0].stats.windows_missed.get(), 4);
    // By outcome: the second click of the first user is a repeat, all others are accepted.
    assert_eq!(lab.outcomes(), [12, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_journal_without_space_tells_senders_to_retry_and_counts_it() {
    let mut lab = Lab::with_budget(1, 0);
    assert!(lab.desks[0].book.is_stuck());
    lab.arrive(0, &datagram(1, &[click(1, 0), click(2, 0)]));
    assert_eq!(lab.acks(0), [(1, vec![RETRY, RETRY])]);
    assert_eq!(lab.outcomes(), [0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(lab.desks[0].stats.reasons[Reason::JournalFull as usize].get(), 2);
}

#[test]
fn an_owner_without_space_lets_the_readers_sender_retry() {
    let mut lab = Lab::new(2);
    lab.desks[1].book = {
        let folder = tempfile::tempdir().expect("folder");
        let identity = lab.desks[1].book.journal().next_identity();
        let config = JournalConfig::new(folder.path().to_owned(), identity);
        Book::new(Journal::new(config, Arc::new(DiskBudget::new(0, 0))))
    };
    lab.arrive(0, &datagram(1, &[click(id_in_half(1), 0)]));
    lab.commit();
    assert_eq!(lab.acks(0), [(1, vec![RETRY])]);
}

#[test]
fn more_datagrams_than_may_wait_are_told_to_retry() {
    let mut lab = Lab::new(1);
    for batch_id in 0..80 {
        lab.arrive(0, &datagram(batch_id, &[click(u128::from(batch_id), 0)]));
    }
    let refused = lab.acks(0);
    assert_eq!(refused.len(), 80 - 64);
    assert!(refused.iter().all(|(_, statuses)| statuses == &[RETRY]));
    lab.commit();
    assert_eq!(lab.acks(0).len(), 64);
}

#[test]
fn what_new_lists_judge_stands_in_a_block_of_its_own() {
    let mut lab = Lab::new(1);
    lab.arrive(0, &datagram(1, &[click(1, 0)]));
    let before = lab.desks[0].book.sealed();
    lab.lists.publish(Lists::of(Limits::default()));
    lab.arrive(0, &datagram(2, &[click(2, 0)]));
    assert_eq!(lab.desks[0].book.sealed().0, before.0 + 1, "what the old ones judged is closed");
    lab.arrive(0, &datagram(3, &[click(3, 0)]));
    assert_eq!(lab.desks[0].book.sealed().0, before.0 + 1, "once");
    lab.commit();
    assert_eq!(lab.acks(0).len(), 3);
}

#[test]
fn a_batch_fills_several_blocks_without_losing_a_row() {
    let mut lab = Lab::new(1);
    for round in 0..40_u64 {
        for batch in 0..40_u64 {
            let first = u128::from(round * 40 + batch) * 14;
            let clicks: Vec<_> = (first..first + 14).map(|id| click(id, 0)).collect();
            lab.arrive(0, &datagram(batch, &clicks));
        }
        lab.commit();
        assert_eq!(lab.acks(0).len(), 40);
    }
    assert_eq!(lab.outcomes()[0], 40 * 40 * 14);
    assert!(lab.desks[0].book.sealed().0 >= 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_click_gets_one_outcome_and_every_datagram_one_ack(
        arrivals in prop::collection::vec((0_usize..3, prop::collection::vec((0_u128..50, 0_u8..9), 1..14), any::<bool>()), 1..40),
    ) {
        let mut lab = Lab::new(3);
        let (mut clicks, mut acks) = (0, 0);
        for (batch, (worker, ids, commit)) in arrivals.iter().enumerate() {
            let sent: Vec<_> = ids.iter().map(|&(id, ordinal)| click(id, ordinal)).collect();
            clicks += sent.len() as u64;
            lab.arrive(*worker, &datagram(batch as u64, &sent));
            if *commit {
                lab.commit();
            }
        }
        lab.commit();
        for worker in 0..3 {
            acks += lab.acks(worker).len();
        }
        prop_assert_eq!(acks, arrivals.len());
        prop_assert_eq!(lab.received(), clicks);
        prop_assert_eq!(lab.outcomes().iter().sum::<u64>(), clicks);
        let distinct: std::collections::BTreeSet<_> =
            arrivals.iter().flat_map(|(_, ids, _)| ids).filter(|(_, ordinal)| *ordinal < 7).collect();
        let [accepted, repeat, ..] = lab.outcomes();
        prop_assert_eq!(accepted + repeat, distinct.len() as u64);
        prop_assert!(lab.desks.iter().all(Desk::is_settled));
    }
}

#[test]
fn nothing_is_refused_for_good_for_its_age_while_the_time_is_in_doubt() {
    let mut lab = Lab::new(1);
    let day_ms = 86_400_000;
    let clicks = [
        issued(1, NOW_MS - 1000),
        issued(2, NOW_MS + day_ms),
        issued(3, NOW_MS - 2 * day_ms),
        Click { tag: U64::new(1), ..issued(4, NOW_MS + day_ms) },
        click(9, 0),
    ];
    let (created, exists) = (AckStatus::Created as u8, AckStatus::Exists as u8);
    let (retry, for_good) = (AckStatus::Retry as u8, AckStatus::Malformed as u8);
    lab.now.doubt = Some(Doubt::SteppedBack);
    lab.arrive(0, &datagram(1, &clicks));
    lab.commit();
    assert_eq!(lab.acks(0), [(1, vec![created, retry, retry, for_good, created])]);
    let uncertain = &lab.desks[0].stats.reasons[Reason::TimeUncertain as usize];
    assert_eq!((uncertain.get(), lab.received()), (2, 5));
    // Without any time at all only a witness is of use: what was signed.
    lab.now.doubt = Some(Doubt::NoTime);
    lab.arrive(0, &datagram(2, &[click(10, 0), clicks[0]]));
    lab.commit();
    assert_eq!(lab.acks(0), [(2, vec![retry, retry])]);
    // When it is certain again, age counts.
    lab.now.doubt = None;
    lab.arrive(0, &datagram(3, &clicks));
    lab.commit();
    assert_eq!(lab.acks(0), [(3, vec![exists, for_good, for_good, for_good, exists])]);
}

#[test]
fn malformed_input_is_counted_always_and_sampled_with_its_exact_bytes() {
    let mut lab = Lab::new(1);
    lab.arrive(0, b"GET / HTTP/1.1");
    let bad = Click { country: *b"d!", ..click(2, 0) };
    lab.arrive(0, &datagram(1, &[click(1, 0), bad]));
    let taken = lab.samples.take();
    let found: Vec<_> = taken.iter().map(|reject| (reject.reason, reject.input, &reject.bytes[..])).collect();
    assert_eq!(
        found,
        [
            (Reason::HeaderShort, Input::Datagram, &b"GET / HTTP/1.1"[..]),
            (Reason::BadCountry, Input::Click, bad.as_bytes()),
        ]
    );
    assert_eq!(taken[0].source.to_string(), "127.0.0.0/24");
    // A flood: what is beyond the rate is counted all the same, and the books close.
    for _ in 0..100 {
        lab.arrive(0, b"GET / HTTP/1.1");
    }
    let stats = &lab.desks[0].stats;
    assert_eq!((stats.rejects_sampled.get(), stats.rejects_unsampled.get()), (10, 92));
    assert_eq!(lab.outcomes()[Outcome::Malformed as usize], 102);
    assert_eq!(lab.outcomes().iter().sum::<u64>(), lab.received());
    assert_eq!(lab.samples.take().len(), 8);
}

/// What the clock says after each of three batches of signed clicks: so many in time, and so many that
/// an ad server signed whose clock is two hours ahead.
fn doubts_after(in_time: u64, ahead: u64) -> [Option<Doubt>; 3] {
    use crate::clock::{Settings, Watch};
    let mut lab = Lab::new(1);
    let clock = Arc::clone(&lab.desks[0].clock);
    let settings = Settings::new(86_400_000, 60_000);
    let mut watch = Watch::begin_at(&clock, settings, (0, lab.now.wall), None, false);
    [100, 200, 300].map(|batch| {
        let in_time = (0..in_time).map(|n| issued(batch + n, NOW_MS - 1000));
        let ahead = (50..50 + ahead).map(|n| issued(batch + n, NOW_MS + 7_200_000));
        lab.arrive(0, &datagram(batch, &in_time.chain(ahead).collect::<Vec<_>>()));
        watch.look_at(&clock, 0, lab.now.wall);
        clock.read().doubt
    })
}

#[test]
fn an_ad_server_that_is_ahead_is_weighed_against_the_others_from_the_first_batch_on() {
    assert_eq!(doubts_after(10, 9), [None; 3]);
    let ahead = Some(Doubt::SignedAhead);
    assert_eq!(doubts_after(0, 9), [None, ahead, ahead], "the first only makes it listen");
}

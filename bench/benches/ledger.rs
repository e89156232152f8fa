//! What a click costs one worker in memory: decode, admission, ledger, stage by stage and
//! together.
//!
//! `cargo bench -p weir-bench --bench ledger [-- quick]`
//!
//! Sixteen issuers minted 24 million impressions evenly over the last 24 hours, each counting its own
//! up. Ten million of them were clicked, picked from all of the day alike, which is the worst order
//! for caches: real clicks follow their impression within minutes. The ledger holds those, and a
//! million buckets in the current minute; clicks choose their bucket by a Zipf-like law of exponent 1.
//! *Sparse* clicks are on one impression in a thousand.
//! Clicks come in datagrams of 14 from a ring larger than the second-level cache. Each round
//! draws new impressions, runs every stage once over the whole ring and yields one figure; printed
//! are the median and the best of the rounds, in processor time of the thread. Other work on the
//! machine still takes caches and memory bandwidth: compare ratios of one run.

use std::hint::black_box;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weir::admission::{self, Admission, Arrival, Judgement, KeyRing, SigningKey};
use weir::ledger::{Decision, Entry, Ledger, Settings};
use weir_bench::thread_time::thread_time;
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::reason::{OUTCOMES, Outcome};
use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;
use weir_common::wire::{CLICK_LEN, Click, Datagram, HEADER_LEN, Header};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const CLICKS_PER_DATAGRAM: usize = 14;
const DATAGRAM_LEN: usize = HEADER_LEN + CLICKS_PER_DATAGRAM * CLICK_LEN;
/// Datagrams a worker gathers before it decides: about what one turn of its loop reads.
const DATAGRAMS_PER_TURN: usize = 16;
const ISSUERS: u16 = 16;

/// An impression in so many is clicked where clicks are sparse.
const SPARSE: u64 = 1000;
const DAY_S: u64 = 86_000;

struct Scale {
    live: u64,
    minted: u64,
    keys: u64,
    datagrams: usize,
    rounds: usize,
}

const FULL: Scale =
    Scale { live: 10_000_000, minted: 24_000_000, keys: 1_000_000, datagrams: 4096, rounds: 15 };
const QUICK: Scale = Scale { live: 1_000_000, minted: 2_400_000, keys: 100_000, datagrams: 2048, rounds: 5 };

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(kind) = arguments.find_map(|argument| argument.strip_prefix("count=").map(str::to_owned)) {
        return count(&kind);
    }
    let quick = std::env::args().any(|argument| argument == "quick");
    let scale = if quick { QUICK } else { FULL };
    let mut bench = Bench::new(&scale);
    let mut total_ns = 0.0;
    bench.fill(scale.live, |bench| total_ns += time(|| bench.turns()));
    bench.note_filled(total_ns);
    for _ in 0..scale.rounds {
        bench.round();
    }
    bench.report();
}

/// One round of one kind of clicks after filling up: for a tool that counts instructions. The
/// difference to `count=none` is what the round costs. No clock is read: valgrind cannot call the
/// kernel's vDSO, which rustix does.
fn count(kind: &str) {
    let mut bench = Bench::new(&QUICK);
    bench.fill(QUICK.live, Bench::turns);
    let keys = bench.keys;
    bench.draw(|rng| zipf_like(rng, keys));
    if kind == "none" {
        return;
    }
    bench.turns();
    if kind == "new" {
        return;
    }
    if kind == "repeat" {
        bench.edit(|click| click.ordinal = 1);
    }
    bench.turns();
}

fn secret(issuer: u16) -> SipKey {
    SipKey { k0: 0x0123_4567_89ab_cdef ^ u64::from(issuer), k1: 0xfedc_ba98_7654_3210 }
}

/// A number below `n`, small ones as likely as large ones are rare: density 1/x.
fn zipf_like(rng: &mut SmallRng, n: u64) -> u64 {
    let u: f64 = rng.random();
    ((n as f64).powf(u) as u64 - 1).min(n - 1)
}

/// The impressions of a day, handed out in a scattered order, none twice.
struct Minted {
    count: u64,
    /// Near the golden section of `count`, and without a divisor in common with it.
    step: u64,
    next: u64,
    /// Sequences between two of them.
    stride: u64,
    /// First sequence.
    base: u64,
}

impl Minted {
    fn new(count: u64, stride: u64, base: u64) -> Self {
        let common = |mut a: u64, mut b: u64| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let mut step = (count as f64 * 0.618_034) as u64;
        while common(step, count) > 1 {
            step += 1;
        }
        Self { count, step, next: 0, stride, base }
    }

    fn next(&mut self) -> ImpressionId {
        assert!(self.next < self.count, "every impression was handed out");
        let nth = (u128::from(self.next) * u128::from(self.step) % u128::from(self.count)) as u64;
        self.next += 1;
        let issuer = (nth % u64::from(ISSUERS)) as u16;
        let age_s = (DAY_S - nth * DAY_S / self.count) as u32;
        let sequence = self.base + nth / u64::from(ISSUERS) * self.stride;
        ImpressionId::issued(Issuer(issuer), KeyId(1), NOW.seconds() - age_s, sequence)
    }
}

fn click(impression: ImpressionId, key: u64) -> Click {
    let country = [b'A' + (key % 5) as u8, b'A' + (key / 5 % 2) as u8];
    let mut click = Click {
        impression,
        ad: U64::new(key / 10),
        price_micros: U64::new(250_000),
        campaign: U32::new((key / 1000) as u32),
        clicked_at_ms: U64::new(NOW.0 - 100),
        country,
        ..Click::zeroed()
    };
    click.tag = U64::new(click.expected_tag(&secret(impression.issuer().0)));
    click
}

type Buffer = [u8; DATAGRAM_LEN];

fn fill(buffer: &mut Buffer, clicks: impl Iterator<Item = Click>) {
    let header = Header::new(CLICKS_PER_DATAGRAM as u8, DATAGRAM_LEN - HEADER_LEN);
    buffer[..HEADER_LEN].copy_from_slice(header.as_bytes());
    for (bytes, click) in buffer[HEADER_LEN..].chunks_exact_mut(CLICK_LEN).zip(clicks) {
        bytes.copy_from_slice(click.as_bytes());
    }
}

fn draw_from(
    minted: &mut Minted,
    rng: &mut SmallRng,
    ring: &mut [Buffer],
    mut key: impl FnMut(&mut SmallRng) -> u64,
) {
    for buffer in ring {
        let clicks = (0..CLICKS_PER_DATAGRAM).map(|_| {
            let key = key(rng);
            click(minted.next(), key)
        });
        fill(buffer, clicks);
    }
}

/// Everything a worker does to clicks in memory.
struct Worker {
    admission: Admission,
    ledger: Ledger,
    outcomes: [u64; OUTCOMES],
}

/// What a turn needs and keeps from turn to turn.
#[derive(Default)]
struct Scratch<'a> {
    arrivals: Vec<Arrival<'a>>,
    judgements: Vec<Judgement>,
    entries: Vec<Entry<'a>>,
    decisions: Vec<Decision>,
}

impl Worker {
    fn turn<'a>(&mut self, datagrams: &'a [Buffer], scratch: &mut Scratch<'a>) {
        scratch.arrivals.clear();
        decode(datagrams, &mut scratch.arrivals);
        scratch.judgements.clear();
        self.admission.judge(NOW, &scratch.arrivals, &mut scratch.judgements);
        scratch.entries.clear();
        for (arrival, judgement) in scratch.arrivals.iter().zip(&scratch.judgements) {
            match judgement {
                Judgement::Admit(admitted) => {
                    scratch.entries.push(Entry {
                        received_at: NOW,
                        admitted: *admitted,
                        click: arrival.click,
                    });
                }
                Judgement::Reject(outcome, _) => self.outcomes[*outcome as usize] += 1,
            }
        }
        scratch.decisions.clear();
        self.ledger.apply(&scratch.entries, &mut scratch.decisions);
        for decision in &scratch.decisions {
            self.outcomes[decision.outcome as usize] += 1;
        }
    }

    fn run(&mut self, ring: &[Buffer]) {
        let mut scratch = Scratch::default();
        ring.chunks(DATAGRAMS_PER_TURN).for_each(|datagrams| self.turn(datagrams, &mut scratch));
    }
}

fn decode<'a>(datagrams: &'a [Buffer], arrivals: &mut Vec<Arrival<'a>>) {
    for payload in datagrams {
        if let Ok(datagram) = Datagram::parse(payload) {
            arrivals.extend(datagram.clicks().map(|(click, extension)| Arrival { click, extension }));
        }
    }
}

const STAGES: [&str; 13] = [
    "decode",
    "check of fields",
    "SipHash tag",
    "admission (check + tag + minute)",
    "ledger, new impression",
    "ledger, duplicate",
    "ledger, repeat",
    "ledger, new impression, sparse",
    "ledger, duplicate, sparse",
    "ledger, new impression, foreign id",
    "worker, all new",
    "worker, all duplicates",
    "worker, all repeats",
];

struct Bench {
    worker: Worker,
    rng: SmallRng,
    ring: Vec<Buffer>,
    minted: Minted,
    sparse: Minted,
    keys: u64,
    /// ns per click, by stage, by round.
    figures: [Vec<f64>; STAGES.len()],
    preload_ns: f64,
    bytes_per_impression: f64,
}

impl Bench {
    fn new(scale: &Scale) -> Self {
        let keys: Vec<_> =
            (0..ISSUERS).map(|n| SigningKey { issuer: Issuer(n), id: KeyId(1), secret: secret(n) }).collect();
        let admission = Admission::new(
            admission::Settings { allow_unsigned: true, ..Default::default() },
            KeyRing::new(&keys).expect("sixteen keys"),
        );
        let ledger = Ledger::new(&Settings {
            capacity_impressions: 2 * scale.live as usize,
            ..Settings::new(SipKey { k0: 1, k1: 2 })
        });
        Self {
            worker: Worker { admission, ledger, outcomes: [0; OUTCOMES] },
            rng: SmallRng::seed_from_u64(1),
            ring: vec![[0; DATAGRAM_LEN]; scale.datagrams],
            minted: Minted::new(scale.minted, 1, 1 << 40),
            sparse: Minted::new(scale.minted, SPARSE, 1 << 50),
            keys: scale.keys,
            figures: Default::default(),
            preload_ns: 0.0,
            bytes_per_impression: 0.0,
        }
    }

    fn clicks(&self) -> usize {
        self.ring.len() * CLICKS_PER_DATAGRAM
    }

    /// Fills the ledger up to `live` impressions and every bucket, in as many rounds as it takes.
    fn fill(&mut self, live: u64, mut round: impl FnMut(&mut Self)) {
        while self.worker.ledger.impressions_live() < live as usize {
            let (keys, mut next) = (self.keys, self.worker.ledger.impressions_live() as u64);
            self.draw(|_| {
                next += 1;
                next % keys
            });
            round(self);
        }
    }

    /// A worker's turns over all of the ring.
    fn turns(&mut self) {
        self.worker.run(&self.ring);
    }

    fn note_filled(&mut self, total_ns: f64) {
        let live = self.worker.ledger.impressions_live() as f64;
        self.preload_ns = total_ns / live;
        self.bytes_per_impression = self.worker.ledger.impression_bytes() as f64 / live;
    }

    /// Fills the ring with clicks on new impressions.
    fn draw(&mut self, key: impl FnMut(&mut SmallRng) -> u64) {
        let Self { rng, ring, minted, .. } = self;
        draw_from(minted, rng, ring, key);
    }

    /// The same where clicks are sparse.
    fn draw_sparse(&mut self, key: impl FnMut(&mut SmallRng) -> u64) {
        let Self { rng, ring, sparse, .. } = self;
        draw_from(sparse, rng, ring, key);
    }

    /// Changes every click of the ring.
    fn edit(&mut self, mut edit: impl FnMut(&mut Click)) {
        for buffer in &mut self.ring {
            for bytes in buffer[HEADER_LEN..].chunks_exact_mut(CLICK_LEN) {
                edit(Click::mut_from_bytes(bytes).expect("a click's length"));
            }
        }
    }

    fn round(&mut self) {
        let keys = self.keys;
        self.draw(|rng| zipf_like(rng, keys));
        let mut ns = [0.0; STAGES.len()];
        ns[0] = time(|| {
            let mut arrivals = Vec::new();
            for datagrams in self.ring.chunks(DATAGRAMS_PER_TURN) {
                arrivals.clear();
                decode(datagrams, &mut arrivals);
                black_box(&arrivals);
            }
        });
        ns[1] = self.each_turn(|arrivals| {
            arrivals.iter().filter(|arrival| arrival.click.check(arrival.extension).is_ok()).count()
        });
        ns[2] = self.each_turn(|arrivals| {
            let keys: [SipKey; ISSUERS as usize] = std::array::from_fn(|n| secret(n as u16));
            let sound = |arrival: &&Arrival| {
                let key = &keys[arrival.click.impression.issuer().0 as usize & 15];
                arrival.click.expected_tag(key) == arrival.click.tag.get()
            };
            arrivals.iter().filter(sound).count()
        });
        let mut judgements = Vec::new();
        ns[3] = self.each_turn(|arrivals| {
            judgements.clear();
            self.worker.admission.judge(NOW, arrivals, &mut judgements);
            judgements.iter().filter(|judgement| matches!(judgement, Judgement::Admit(_))).count()
        });
        ns[4] = self.ledger(Outcome::Accepted);
        ns[5] = self.ledger(Outcome::Duplicate);
        self.edit(|click| click.ordinal = 1);
        ns[6] = self.ledger(Outcome::Repeat);
        self.draw_sparse(|rng| zipf_like(rng, keys));
        ns[7] = self.ledger(Outcome::Accepted);
        ns[8] = self.ledger(Outcome::Duplicate);
        self.draw(|rng| zipf_like(rng, keys));
        self.edit(|click| (click.flags, click.tag) = (1, U64::ZERO));
        ns[9] = self.ledger(Outcome::Accepted);
        self.draw(|rng| zipf_like(rng, keys));
        ns[10] = self.whole(Outcome::Accepted);
        ns[11] = self.whole(Outcome::Duplicate);
        self.edit(|click| click.ordinal = 1);
        ns[12] = self.whole(Outcome::Repeat);
        for (figures, ns) in self.figures.iter_mut().zip(ns) {
            figures.push(ns / self.ring.len() as f64 / CLICKS_PER_DATAGRAM as f64);
        }
    }

    /// Times a stage over the decoded clicks of each turn; decoding is outside the time. The
    /// stage says how many clicks were sound: all must be.
    fn each_turn(&self, mut stage: impl FnMut(&[Arrival]) -> usize) -> f64 {
        let (mut arrivals, mut total_ns, mut sound) = (Vec::new(), 0.0, 0);
        for datagrams in self.ring.chunks(DATAGRAMS_PER_TURN) {
            arrivals.clear();
            decode(datagrams, &mut arrivals);
            total_ns += time(|| sound += stage(&arrivals));
        }
        assert_eq!(sound, self.clicks());
        total_ns
    }

    /// Times the ledger over the ring; every click must meet `expected`.
    fn ledger(&mut self, expected: Outcome) -> f64 {
        let Worker { admission, ledger, .. } = &mut self.worker;
        let (mut total_ns, mut met) = (0.0, 0);
        let mut scratch = Scratch::default();
        for datagrams in self.ring.chunks(DATAGRAMS_PER_TURN) {
            scratch.arrivals.clear();
            decode(datagrams, &mut scratch.arrivals);
            scratch.judgements.clear();
            admission.judge(NOW, &scratch.arrivals, &mut scratch.judgements);
            scratch.entries.clear();
            for (arrival, judgement) in scratch.arrivals.iter().zip(&scratch.judgements) {
                // Another ordinal is under no tag, so only a fault of this file is rejected.
                let Judgement::Admit(admitted) = *judgement else { panic!("{judgement:?}") };
                scratch.entries.push(Entry { received_at: NOW, admitted, click: arrival.click });
            }
            scratch.decisions.clear();
            total_ns += time(|| ledger.apply(&scratch.entries, &mut scratch.decisions));
            met += scratch.decisions.iter().filter(|decision| decision.outcome == expected).count();
        }
        assert_eq!(met, self.clicks(), "every click must be {expected:?}");
        total_ns
    }

    fn whole(&mut self, expected: Outcome) -> f64 {
        let before = self.worker.outcomes[expected as usize];
        let ns = time(|| self.turns());
        let met = self.worker.outcomes[expected as usize] - before;
        assert_eq!(met, self.clicks() as u64, "every click must be {expected:?}");
        ns
    }

    fn report(mut self) {
        println!(
            "{} live impressions, {:.1} bytes each; {} buckets; {} clicks a round, {} rounds",
            self.worker.ledger.impressions_live(),
            self.bytes_per_impression,
            self.worker.ledger.buckets_open(),
            self.clicks(),
            self.figures[0].len(),
        );
        println!("filling up: {:.1} ns a click, new pages of memory included", self.preload_ns);
        println!("{:<38} {:>10} {:>10} {:>12}", "stage", "median ns", "best ns", "M clicks/s");
        for (stage, figures) in STAGES.iter().zip(&mut self.figures) {
            figures.sort_by(f64::total_cmp);
            let median = figures[figures.len() / 2];
            println!("{stage:<38} {median:>10.1} {:>10.1} {:>12.1}", figures[0], 1000.0 / median);
        }
        self.worker.ledger.mark_all_changed();
        let (mut changed, mut buckets) = (Vec::new(), 0);
        let first_ns = time(|| self.worker.ledger.take_changed(&mut changed));
        buckets += changed.len();
        changed.clear();
        self.worker.ledger.mark_all_changed();
        let ns = time(|| self.worker.ledger.take_changed(&mut changed));
        println!("take_changed of {buckets} buckets: {:.1} ms, {:.1} ms again", first_ns / 1e6, ns / 1e6);
    }
}

/// Processor time of this thread in ns.
fn time(work: impl FnOnce()) -> f64 {
    let began = thread_time();
    work();
    (thread_time() - began).as_nanos() as f64
}

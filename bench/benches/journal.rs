//! Sustained group commit, with and without encryption, beside a plain sequential writer, in one run
//! on one disk.
//!
//! Both write the same bytes with the same number of bytes between two `fdatasync`s. The journal
//! runs as in a worker: it makes its bytes from clicks (two copies and a CRC each), writes and
//! syncs through the ring, and rotates segments that a helper thread prepares; the plain writers
//! write ready buffers to one file with blocking calls, once preallocated and once growing. Rounds
//! alternate, so that a noisy disk is noisy for all.
//!
//! `cargo bench -p weir-bench --bench journal [-- MIB_PER_ROUND]`

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weir::admission::Admitted;
use weir::day::Day;
use weir::journal::disk::{System, create_segment};
use weir::journal::seal::{ENVELOPE_LEN, Envelope, SEAL_OVERHEAD};
use weir::journal::{
    BlockBuilder, DayKeys, DiskBudget, Folder, Journal, JournalConfig, SegmentId, SegmentNo, recover,
};
use weir::ledger::{Decision, Entry};
use weir::stats::{OwnStats, WorkerStats};
use weir::traffic::Flags;
use weir::uring::{Completion, Settings};
use weir::worker::book::{BATCH_DATAGRAMS, BLOCK_BYTES, Book};
use weir::worker::commit::JournalShell;
use weir::worker::host::Host as _;
use weir::worker::kernel::Kernel;
use weir_common::id::{ImpressionId, Issuer, KeyId, NodeId, WorkerId};
use weir_common::reason::{Outcome, Reason};
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::Click;

/// Bytes between two syncs: what a worker gathers in 5 ms at 1, 13, 100 and 1,600 MB/s, the last being
/// more than the disk takes.
const GROUP_BYTES: [usize; 4] = [8 << 10, 64 << 10, 512 << 10, 8 << 20];
/// Bytes of a block's header, and of a row without extension.
const HEADER_BYTES: usize = 128;
const ROW_BYTES: usize = 113;
/// What a worker decides between two looks at its ring.
const ROWS_PER_TURN: usize = BATCH_DATAGRAMS * 14;
const ROUNDS: usize = 15;
const MIB_PER_ROUND_DEFAULT: usize = 128;
/// The longest a turn waits: the helper that makes segments does not ring.
const TURN_MAX: Duration = Duration::from_millis(1);
/// A helper makes at most two segments more; each takes no second.
const REMOVALS_MAX: u32 = 2000;
/// A round ends after this long, however slow the disk is.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// What one round did.
#[derive(Clone, Copy, Debug)]
struct Round {
    bytes: usize,
    took: Duration,
    syncs: usize,
}

impl Round {
    fn mb_per_s(self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }
}

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let bytes = arguments.unwrap_or(MIB_PER_ROUND_DEFAULT) << 20;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("journal-{}", std::process::id()));
    fs::create_dir_all(&dir).context("creating the folder of the benchmark")?;
    let result = run(&dir, bytes);
    remove(&dir).context("removing the folder of the benchmark")?;
    result
}

fn run(dir: &Path, bytes: usize) -> Result<()> {
    filling()?;
    sealing(dir)?;
    println!("group commit, {ROUNDS} rounds of at most {} MiB, medians", bytes >> 20);
    println!(
        "{:>10} {:>24} {:>24} {:>24} {:>24} {:>18} {:>18}",
        "group",
        "journal",
        "encrypted",
        "plain preallocated",
        "plain growing",
        "ratio (quartiles)",
        "encrypted/journal"
    );
    for group in GROUP_BYTES {
        let mut rounds = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let folder = dir.join(format!("{group}-{round}"));
            fs::create_dir_all(&folder)?;
            // Each goes first in turn: what the round before left to the disk hits the first.
            for which in (0..4).map(|place| (place + round) % 4) {
                rounds[which].push(match which {
                    0 => journal(&folder.join("journal"), group, bytes, false)?,
                    3 => journal(&folder.join("encrypted"), group, bytes, true)?,
                    1 => plain(&folder.join("preallocated"), group, bytes, true)?,
                    _ => plain(&folder.join("growing"), group, bytes, false)?,
                });
            }
            remove(&folder)?;
        }
        let [low, ratio, high] = ratios(&rounds[0], &rounds[1]);
        let [seal_low, seal_ratio, seal_high] = ratios(&rounds[3], &rounds[0]);
        let medians = rounds.map(median);
        let show = |round: Round| {
            let sync_ms = round.took.as_secs_f64() * 1e3 / round.syncs as f64;
            format!("{:.1} MB/s {:.2} ms/sync", round.mb_per_s(), sync_ms)
        };
        let [journal, preallocated, growing, encrypted] = medians.map(show);
        println!(
            "{group:>10} {journal:>24} {encrypted:>24} {preallocated:>24} {growing:>24} {ratio:>5.2} ({low:.2}, {high:.2}) \
             {seal_ratio:>5.2} ({seal_low:.2}, {seal_high:.2})"
        );
    }
    recovery(&dir.join("recovery"), bytes, false)?;
    recovery(&dir.join("encrypted"), bytes, true)
}

/// Removes a folder in which a helper thread may still be making the segment that was asked for
/// last: then the first try leaves that.
fn remove(folder: &Path) -> Result<()> {
    for _ in 0..REMOVALS_MAX {
        if fs::remove_dir_all(folder).is_ok() {
            return Ok(());
        }
        std::thread::sleep(TURN_MAX);
    }
    Ok(fs::remove_dir_all(folder)?)
}

/// Quartiles of the bandwidth of one beside the other's, round by round: a disk that others use
/// changes from round to round, and the two of one round meet nearly the same.
fn ratios(journal: &[Round], plain: &[Round]) -> [f64; 3] {
    let mut ratios: Vec<_> =
        journal.iter().zip(plain).map(|(journal, plain)| journal.mb_per_s() / plain.mb_per_s()).collect();
    ratios.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4])
}

fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|one, two| one.mb_per_s().total_cmp(&two.mb_per_s()));
    rounds[rounds.len() / 2]
}

fn click(n: u64) -> Click {
    Click {
        impression: ImpressionId::issued(Issuer(1), KeyId(1), 1_700_000_000, n),
        ad: (n % 1000).into(),
        ..Click::zeroed()
    }
}

const ACCEPTED: Decision = Decision { outcome: Outcome::Accepted, reason: Reason::None };
const ADMITTED: Admitted =
    Admitted { minute: Minute(28_333_333), row_flags: 0, traffic: Flags::NONE, late: false };
const AT: UnixMs = UnixMs(1_700_000_000_000);

/// How fast blocks are filled and sealed, without a disk.
fn filling() -> Result<()> {
    let mut builder = BlockBuilder::new(BLOCK_BYTES);
    let identity = weir::journal::BlockIdentity {
        incarnation: weir_common::id::Incarnation(1),
        node: NodeId(1),
        epoch: weir_common::id::Epoch(1),
        worker: WorkerId(0),
        sequence: weir_common::id::BlockSeq(1),
    };
    let clicks = 5_000_000;
    let sample = click(1);
    let (mut bytes, mut crc) = (0, 0);
    builder.begin(identity, AT);
    let began = cpu_s()?;
    for _ in 0..clicks {
        if builder.push(AT, &ADMITTED, &ACCEPTED, &sample, &[]).is_err() {
            let Some(sealed) = builder.seal(crc) else { continue };
            crc = sealed.header_crc;
            bytes += sealed.bytes.len();
            builder.recycle(sealed.bytes);
            builder.begin(identity, AT);
        }
    }
    let took = cpu_s()? - began;
    println!(
        "filling and sealing blocks: {:.1} million rows and {:.0} MB a second of CPU",
        f64::from(clicks) / 1e6 / took,
        bytes as f64 / 1e6 / took
    );
    Ok(())
}

fn open(path: &Path, encrypted: bool) -> Result<Folder> {
    let folder = Folder::open(path, NodeId(1))?;
    if !encrypted {
        return Ok(folder);
    }
    let keys = DayKeys::open(&path.join("keys"), folder.incarnation())?;
    Ok(folder.with_keys(Arc::new(keys)))
}

/// How fast blocks of some sizes are encrypted and opened, without a disk.
fn sealing(dir: &Path) -> Result<()> {
    let folder = open(&dir.join("sealing"), true)?;
    let keys = folder.sealing_keys().context("no keys")?;
    let writer = folder.writer(WorkerId(0));
    let id = SegmentId { epoch: writer.epoch, worker: writer.worker, segment: SegmentNo(1) };
    let cipher = keys.take(Day::of(AT))?.segment(writer.incarnation, id);
    for bytes in [1 << 10, 16 << 10, BLOCK_BYTES] {
        let (block, mut out) = (vec![7; bytes], Vec::with_capacity(bytes + SEAL_OVERHEAD));
        let blocks = (2 << 30) / bytes;
        let began = cpu_s()?;
        (0..blocks).for_each(|n| cipher.seal((n * bytes) as u64, &block, &mut out));
        let mb_per_s = (blocks * bytes) as f64 / 1e6 / (cpu_s()? - began);
        println!("encrypting blocks of {bytes} bytes: {mb_per_s:.0} MB a second of CPU");
        cipher.seal(0, &block, &mut out);
        let envelope = Envelope::check(&out, writer.incarnation)?;
        let mut body = vec![0; bytes + SEAL_OVERHEAD - ENVELOPE_LEN];
        let began = cpu_s()?;
        for _ in 0..blocks {
            body.copy_from_slice(&out[ENVELOPE_LEN..]);
            cipher.open(0, &envelope, &mut body)?;
        }
        let mb_per_s = (blocks * bytes) as f64 / 1e6 / (cpu_s()? - began);
        println!("copying and opening them: {mb_per_s:.0} MB a second of CPU");
    }
    Ok(())
}

/// One worker's journal at full speed: its book, its shell, its ring.
struct Writer {
    book: Book,
    shell: JournalShell<Arc<File>>,
    kernel: Kernel,
    completions: Vec<Completion>,
    syncs: usize,
    next: u64,
}

/// Groups sealed and not durable: one is being synced, and the next gathers. With more the journal
/// would make larger groups of them, and sync less often than what it is held against.
const GROUPS_AHEAD: u64 = 2;

fn journal(folder: &Path, group: usize, bytes: usize, encrypted: bool) -> Result<Round> {
    let folder = open(folder, encrypted)?;
    let config = JournalConfig {
        block_bytes_max: BLOCK_BYTES,
        keys: folder.sealing_keys(),
        ..JournalConfig::new(folder.segments().to_owned(), folder.writer(WorkerId(0)))
    };
    let stats = OwnStats::new([WorkerStats::default()].into(), 0);
    let journal = Journal::new(config, Arc::new(DiskBudget::new(u64::MAX, 0)));
    let mut writer = Writer {
        book: Book::new(journal),
        shell: JournalShell::new(stats),
        kernel: Kernel::start(WorkerId(0), Settings::datagrams(64, 64), Vec::new(), Arc::default())?,
        completions: Vec::new(),
        syncs: 0,
        next: 0,
    };
    while !writer.book.has_room() {
        writer.turn(TURN_MAX)?; // the first segment
    }
    let began = Instant::now();
    let mut ends = VecDeque::new();
    let mut written = 0;
    while written < bytes && began.elapsed() < ROUND_MAX {
        written += writer.seal_group(group)?;
        ends.push_back(writer.book.sealed());
        writer.turn(Duration::ZERO)?; // a group that can go goes, before the next one is filled
        while ends.len() as u64 >= GROUPS_AHEAD || !writer.book.has_room() {
            writer.turn(TURN_MAX)?;
            while ends.front().is_some_and(|&end| end <= writer.book.durable()) {
                ends.pop_front();
            }
        }
    }
    while writer.book.durable() < writer.book.sealed() {
        writer.turn(TURN_MAX)?;
    }
    Ok(Round { bytes: written, took: began.elapsed(), syncs: writer.syncs })
}

impl Writer {
    /// Fills and seals blocks of about `group` bytes altogether, and looks at the ring between
    /// batches as a worker does; exactly how many.
    fn seal_group(&mut self, group: usize) -> Result<usize> {
        let now = self.kernel.now();
        let mut written = 0;
        while group - written >= HEADER_BYTES + ROW_BYTES {
            while !self.book.has_room() {
                self.turn(TURN_MAX)?; // a slow disk: the block would find none
            }
            let rows = ((group - written).min(BLOCK_BYTES) - HEADER_BYTES) / ROW_BYTES;
            for row in 1..=rows {
                let click = click(self.next);
                let entry = Entry { received_at: now.wall, admitted: ADMITTED, click: &click };
                self.book.record(now, &entry, &ACCEPTED, &[]);
                self.next += 1;
                if row % ROWS_PER_TURN == 0 {
                    self.turn(Duration::ZERO)?;
                }
            }
            self.book.seal();
            written += HEADER_BYTES + rows * ROW_BYTES;
        }
        Ok(written)
    }

    /// A turn of the worker, for the journal alone.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let now = self.kernel.now();
        self.shell.run(now, &mut self.book, &mut self.kernel);
        self.kernel.wait(wait, &mut self.completions)?;
        for completion in self.completions.drain(..) {
            match completion {
                Completion::Written { tag, offset, buffer, result } => {
                    self.shell.written(&mut self.book, tag, offset, buffer, result);
                }
                Completion::Synced { tag, result } => {
                    self.syncs += 1;
                    self.shell.synced(self.kernel.now(), &mut self.book, tag, result);
                }
                _ => {}
            }
        }
        self.shell.run(now, &mut self.book, &mut self.kernel);
        Ok(())
    }
}

/// Ready buffers to one file.
fn plain(path: &Path, group: usize, bytes: usize, preallocated: bool) -> Result<Round> {
    let file = if preallocated {
        create_segment(&mut System, path, bytes as u64, &[])?
    } else {
        File::create(path)?
    };
    let buffer: Vec<u8> = (0..group).map(|n| (n * 31) as u8).collect();
    let (mut written, mut syncs) = (0, 0);
    let began = Instant::now();
    while written + group <= bytes && began.elapsed() < ROUND_MAX {
        file.write_all_at(&buffer, written as u64)?;
        file.sync_data()?;
        written += group;
        syncs += 1;
    }
    Ok(Round { bytes: written, took: began.elapsed(), syncs })
}

/// Seconds this thread was on a CPU: on a shared machine the wall clock measures the neighbours.
fn cpu_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("reading the CPU time")?;
    let ns: f64 = text.split_whitespace().next().context("no CPU time")?.parse()?;
    Ok(ns / 1e9)
}

/// How fast a start reads the journal back.
fn recovery(path: &Path, bytes: usize, encrypted: bool) -> Result<()> {
    journal(path, 512 << 10, bytes, encrypted)?;
    let folder = open(path, encrypted)?;
    let mut sum = 0_u64;
    let (began, cpu) = (Instant::now(), cpu_s()?);
    let recovery = recover(&folder, |_, row, _| sum = sum.wrapping_add(row.click.ad.get()))?;
    let (took, took_cpu) = (began.elapsed().as_secs_f64(), cpu_s()? - cpu);
    let rows = recovery.report.rows;
    anyhow::ensure!(recovery.report.findings.is_empty(), "{}", recovery.report);
    println!(
        "recovery from the page cache, encrypted {encrypted}: {rows} rows in {took:.2} s, {took_cpu:.2} s of CPU: {:.1} million rows and \
         {:.0} MB a second of CPU (sum {sum})",
        rows as f64 / 1e6 / took_cpu,
        recovery.report.bytes as f64 / 1e6 / took_cpu,
    );
    Ok(())
}

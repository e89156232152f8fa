//! How long a node takes from its start until it takes clicks, over a folder with many live
//! impressions and a long journal: the case after a day of traffic and hours without a sink.
//!
//! The folder is made first: impressions of 23 hours, each clicked once, two workers. The rows of
//! the older part are digested and gone; those of the newer part fill the journal, none of them
//! forwarded, a few rows to each page as at a low rate, digested but for the last segment of each
//! worker. Then the daemon itself is started on it, several times, with files in the page cache
//! and without. Nothing is synced while the folder is made; that is not what is measured.
//!
//! ```text
//! cargo build --release -p weir
//! cargo bench -p weir-bench --bench recovery [-- --impressions N --journal-mib M --folder DIR]
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use weir::admission::Admitted;
use weir::digest::write_digest;
use weir::journal::{
    BlockBuilder, Completion, Disk, DiskBudget, Folder, Journal, JournalConfig, Operation, SegmentNo,
};
use weir::journal::{Place, SegmentId};
use weir::ledger::Decision;
use weir::traffic::Flags;
use weir::worker::shard_map::ShardMap;
use weir_common::id::{BlockSeq, Epoch, ImpressionId, Issuer, KeyId, NodeId, WorkerId};
use weir_common::reason::{Outcome, Reason};
use weir_common::time::UnixMs;
use weir_common::wire::Click;

const WORKERS: usize = 2;
const BLOCK_BYTES: usize = 128 << 10;
/// Rows to a page in the journal that is kept: a few thousand clicks a second at the default window.
const ROWS_PER_GROUP: u64 = 4;
/// Of so many impressions in a row one is clicked.
const ISSUED_PER_CLICKED: u64 = 3;
const SPAN_MS: u64 = 23 * 3_600_000;
/// How long a start may take.
const READY_MAX: Duration = Duration::from_secs(600);
const STARTS: [Cache; 3] = [Cache::Cold, Cache::Warm, Cache::Warm];

#[derive(Clone, Copy, Debug)]
enum Cache {
    Cold,
    Warm,
}

struct Arguments {
    impressions: u64,
    journal_bytes: u64,
    folder: PathBuf,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let folder = std::path::absolute(&arguments.folder)?.join(format!("recovery-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = run(&folder, &arguments);
    fs::remove_dir_all(&folder)?;
    result
}

fn arguments() -> Result<Arguments> {
    let mut made = Arguments {
        impressions: 1_000_000,
        journal_bytes: 256 << 20,
        folder: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = given.next() {
        let value = given.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--impressions" => made.impressions = value.parse()?,
            "--journal-mib" => made.journal_bytes = value.parse::<u64>()? << 20,
            "--folder" => made.folder = value.into(),
            _ => bail!("no argument is named {name}"),
        }
    }
    Ok(made)
}

fn run(folder: &Path, arguments: &Arguments) -> Result<()> {
    let data = folder.join("data");
    let began = Instant::now();
    make(&data, arguments)?;
    let bytes_of = |suffix: &str| -> Result<(usize, u64)> {
        let mut sizes = Vec::new();
        for entry in fs::read_dir(data.join("journal"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(suffix) {
                sizes.push(entry.metadata()?.len());
            }
        }
        Ok((sizes.len(), sizes.iter().sum()))
    };
    let (digests, digest_bytes) = bytes_of(".wdig")?;
    let (segments, segment_bytes) = bytes_of(".wseg")?;
    println!(
        "{} impressions: {digests} digests of {digest_bytes} bytes ({:.2} each), {segments} segments of {segment_bytes} bytes; made in {:.0} s",
        arguments.impressions,
        digest_bytes as f64 / arguments.impressions as f64,
        began.elapsed().as_secs_f64(),
    );
    let config = write_config(folder, &data, arguments)?;
    for cache in STARTS {
        if matches!(cache, Cache::Cold) {
            forget_pages(&data.join("journal"))?;
        }
        start(&config, cache)?;
        // What it began to forward is no part of the next start.
        fs::remove_dir_all(data.join("store"))?;
    }
    Ok(())
}

fn write_config(folder: &Path, data: &Path, arguments: &Arguments) -> Result<PathBuf> {
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let (run, capacity) = (folder.join("run"), arguments.impressions * 5 / 4 + 1_000_000);
    let text = format!(
        "[node]\ndata_dir = {data:?}\nrun_dir = {run:?}\n[workers]\ncores = [0, 1]\n\
         [rx.udp]\nport = {port}\naddresses = [\"127.0.0.1\"]\n[metrics]\nlisten = \"\"\n\
         [dedupe]\ncapacity = {capacity}\n[steer]\nmode = \"none\"\n"
    );
    let path = folder.join("weir.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Writes everything back and drops it from the page cache.
fn forget_pages(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// One start of the daemon, killed when it has said all of interest.
fn start(config: &Path, cache: Cache) -> Result<()> {
    let exe = std::env::current_exe()?;
    let weir = exe.ancestors().nth(2).context("the bench stands in target/release/deps")?.join("weir");
    let began = Instant::now();
    let mut child = Command::new(&weir)
        .args(["run", "--config"])
        .arg(config)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}; build it first", weir.display()))?;
    let said = follow(&mut child, cache, began);
    child.kill()?;
    child.wait()?;
    said
}

fn follow(child: &mut Child, cache: Cache, began: Instant) -> Result<()> {
    let stderr = child.stderr.take().context("stderr is piped")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    let mut ready = None;
    loop {
        let (at, line) = lines.recv_timeout(READY_MAX).context("the daemon says nothing more")?;
        let text = line.split_once("Z ").map_or(line.as_str(), |(_, text)| text.trim());
        println!("  {:7.2} s  {text}", (at - began).as_secs_f64());
        if text.contains("taking clicks") {
            ready = Some(at - began);
            let peak = peak_kib(child.id())?;
            println!(
                "{cache:?}: ready in {:.2} s, peak memory {} MiB",
                (at - began).as_secs_f64(),
                peak >> 10
            );
        }
        if ready.is_some() && text.contains("past is counted") {
            let peak = peak_kib(child.id())?;
            println!(
                "{cache:?}: forwarding after {:.2} s, peak memory {} MiB",
                (at - began).as_secs_f64(),
                peak >> 10
            );
            return Ok(());
        }
        if text.contains("the daemon ended") {
            bail!("the daemon ended");
        }
    }
}

/// The most memory a process ever had.
fn peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A worker's journal, and the digests of its segments.
struct Writer {
    place: Place,
    epoch: Epoch,
    worker: WorkerId,
    journal: Journal,
    builder: BlockBuilder,
    disk: Disk,
    closed: Vec<(SegmentId, BlockSeq)>,
    rows_per_group: u64,
}

impl Writer {
    fn new(folder: &Folder, worker: usize, budget: &Arc<DiskBudget>) -> Self {
        let worker = WorkerId(worker as u16);
        let config = JournalConfig::new(folder.segments().to_owned(), folder.writer(worker));
        let mut writer = Self {
            place: folder.place(),
            epoch: folder.epoch(),
            worker,
            journal: Journal::new(
                JournalConfig { block_bytes_max: BLOCK_BYTES, ..config },
                Arc::clone(budget),
            ),
            builder: BlockBuilder::new(BLOCK_BYTES),
            disk: Disk::default(),
            closed: Vec::new(),
            rows_per_group: u64::MAX,
        };
        writer.drive();
        writer
    }

    fn click(&mut self, now: UnixMs, click: &Click) -> Result<()> {
        let is_full =
            |builder: &BlockBuilder, most| !builder.has_room_for(0) || u64::from(builder.rows()) >= most;
        if self.builder.is_open() && is_full(&self.builder, self.rows_per_group) {
            self.seal()?;
        }
        if !self.builder.is_open() {
            self.builder.begin(self.journal.next_identity(), now);
        }
        let admitted = Admitted { minute: now.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
        let decision = Decision { outcome: Outcome::Accepted, reason: Reason::None };
        Ok(self.builder.push(now, &admitted, &decision, click, &[])?)
    }

    fn seal(&mut self) -> Result<()> {
        if let Some(block) = self.builder.seal(self.journal.previous_crc())
            && self.journal.submit(block).is_err()
        {
            bail!("the journal has no room");
        }
        self.drive();
        while let Some(buffer) = self.journal.reclaim() {
            self.builder.recycle(buffer);
        }
        Ok(())
    }

    /// Runs what the journal asks for, but syncs nothing.
    fn drive(&mut self) {
        while let Some(operation) = self.journal.next_operation(0) {
            match operation {
                Operation::Sync { segment } => {
                    self.journal.complete(Completion::Synced { segment, result: Ok(()) });
                }
                Operation::Close { segment } => {
                    self.closed.push((self.id(segment), self.journal.durable()));
                    self.disk.run(Operation::Close { segment });
                }
                other => {
                    if let Some(completion) = self.disk.run(other) {
                        self.journal.complete(completion);
                    }
                }
            }
        }
    }

    const fn id(&self, segment: SegmentNo) -> SegmentId {
        SegmentId { epoch: self.epoch, worker: self.worker, segment }
    }

    /// Digests what is closed; deletes it too, if its rows are not to be kept.
    fn digest(&mut self, is_kept: bool) -> Result<()> {
        for (id, last) in std::mem::take(&mut self.closed) {
            write_digest(&self.place, id, Some(last), &AtomicBool::new(false))?;
            if !is_kept {
                fs::remove_file(self.place.segments.join(id.file_name()))?;
            }
        }
        Ok(())
    }
}

fn make(data: &Path, arguments: &Arguments) -> Result<()> {
    let folder = Folder::open(data, NodeId(1))?;
    let shards = ShardMap::even(WORKERS);
    let budget = Arc::new(DiskBudget::new(u64::MAX, 0));
    let mut writers: Vec<_> = (0..WORKERS).map(|worker| Writer::new(&folder, worker, &budget)).collect();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let count = arguments.impressions;
    let kept = (arguments.journal_bytes / 4096 * ROWS_PER_GROUP).min(count);
    for n in 0..count {
        if n == count - kept {
            for writer in &mut writers {
                writer.seal()?;
                writer.digest(false)?;
                writer.rows_per_group = ROWS_PER_GROUP;
            }
        }
        let received_at =
            UnixMs(now_ms - SPAN_MS + (u128::from(n) * u128::from(SPAN_MS) / u128::from(count)) as u64);
        // Clicks come out of the order of their impressions, by some seconds.
        let shuffled = (n & 0xfff).wrapping_mul(2_654_435_761) & 0xfff;
        let impression = ((n & !0xfff) | shuffled) * ISSUED_PER_CLICKED;
        let issued_at_s = ((now_ms - SPAN_MS) / 1000
            + impression / ISSUED_PER_CLICKED * (SPAN_MS / 1000) / count) as u32
            - 30;
        let click = Click {
            impression: ImpressionId::issued(Issuer(1), KeyId(1), issued_at_s, impression),
            ad: (n % 1000).into(),
            price_micros: 1000.into(),
            country: *b"PL",
            ..Click::zeroed()
        };
        let writer = &mut writers[usize::from(shards.owner(click.shard()).0)];
        writer.click(received_at, &click)?;
        if !writer.closed.is_empty() {
            writer.digest(n >= count - kept)?;
        }
    }
    for writer in &mut writers {
        writer.seal()?;
        writer.digest(true)?;
    }
    Ok(())
}

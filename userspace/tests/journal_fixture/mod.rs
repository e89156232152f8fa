//! What the journal and forwarding tests share: a folder, writers of it, and clicks.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir::admission::Admitted;
use weir::journal::{
    BlockBuilder, DayKeys, Disk, DiskBudget, Folder, Journal, JournalConfig, Recovery, SegmentId, recover,
};
use weir::ledger::Decision;
use weir::traffic::Flags;
use weir_common::id::{ImpressionId, Issuer, KeyId, NodeId, WorkerId};
use weir_common::reason::{Outcome, Reason};
use weir_common::row::Row;
use weir_common::time::{MS_PER_MINUTE, UnixMs};
use weir_common::wire::Click;

pub(crate) const NODE: NodeId = NodeId(7);
/// Some minute of 2023; the exact one means nothing.
pub(crate) const START: UnixMs = UnixMs(28_333_333 * MS_PER_MINUTE);

/// Click number `n`: its own impression, one of 3 ads, so that buckets fill, one of 6 users or an
/// unknown one.
pub(crate) fn click(n: u64, extension: &[u8]) -> Click {
    Click {
        impression: ImpressionId::issued(Issuer(1), KeyId(1), START.seconds(), n),
        ad: (n % 3).into(),
        price_micros: (1000 + n).into(),
        user_key: (n % 7).into(), // one in seven is unknown
        country: *b"PL",
        device: (n % 2) as u8,
        extension_len: (extension.len() as u16).into(),
        ..Click::zeroed()
    }
}

/// The number of a click made by [`click`].
pub(crate) fn number(click: &Click) -> u64 {
    click.impression.sequence()
}

pub(crate) fn admitted(received_at: UnixMs) -> Admitted {
    Admitted { minute: received_at.minute(), row_flags: 0, traffic: Flags::NONE, late: false }
}

/// Most clicks are accepted, some repeat, some filtered.
pub(crate) fn decision(n: u64) -> Decision {
    match n % 10 {
        0 => Decision { outcome: Outcome::Filtered, reason: Reason::Prefetch },
        1 => Decision { outcome: Outcome::Repeat, reason: Reason::None },
        _ => Decision { outcome: Outcome::Accepted, reason: Reason::None },
    }
}

/// The row of click number `n` received at `at`.
pub(crate) fn row(at: UnixMs, n: u64) -> Row {
    let decision = decision(n);
    let filtered = decision.outcome == Outcome::Filtered;
    Row {
        received_at_ms: at.0.into(),
        minute: at.minute().0.into(),
        outcome: decision.outcome as u8,
        reason: if filtered { decision.reason as u8 } else { 0 },
        flags: 0,
        traffic: 0,
        click: click(n, &[]),
    }
}

/// A worker's journal and block builder with a blocking disk.
pub(crate) struct Writer {
    pub(crate) journal: Journal,
    pub(crate) builder: BlockBuilder,
    pub(crate) disk: Disk,
    pub(crate) now_ms: u64,
}

/// Small, so that a test has many segments.
pub(crate) fn config(folder: &Folder, worker: u16) -> JournalConfig {
    JournalConfig {
        segment_bytes: 64 << 10,
        block_bytes_max: 4 << 10,
        queue_bytes_max: 8 << 10,
        started_at: START,
        keys: folder.sealing_keys(),
        ..JournalConfig::new(folder.segments().to_owned(), folder.writer(WorkerId(worker)))
    }
}

impl Writer {
    pub(crate) fn new(folder: &Folder, worker: u16) -> Self {
        Self::with(config(folder, worker), Arc::new(DiskBudget::new(u64::MAX, 0)))
    }

    pub(crate) fn with(config: JournalConfig, budget: Arc<DiskBudget>) -> Self {
        let builder = BlockBuilder::new(config.block_bytes_max);
        let mut writer =
            Self { journal: Journal::new(config, budget), builder, disk: Disk::default(), now_ms: 0 };
        writer.commit();
        writer
    }

    /// Seals a block of these clicks, all received at the same time, and submits it.
    pub(crate) fn submit(&mut self, received_at: UnixMs, clicks: impl IntoIterator<Item = u64>) {
        self.builder.begin(self.journal.next_identity(), received_at);
        for n in clicks {
            let extension = vec![b'x'; (n % 5) as usize * 40];
            let admitted = admitted(received_at);
            self.builder
                .push(received_at, &admitted, &decision(n), &click(n, &extension), &extension)
                .unwrap();
        }
        let block = self.builder.seal(self.journal.previous_crc()).unwrap();
        self.journal.submit(block).unwrap();
    }

    /// Runs operations until there are none.
    pub(crate) fn commit(&mut self) {
        self.disk.drive(&mut self.journal, self.now_ms);
        while let Some(buffer) = self.journal.reclaim() {
            self.builder.recycle(buffer);
        }
    }

    pub(crate) fn write(&mut self, received_at: UnixMs, clicks: impl IntoIterator<Item = u64>) {
        self.submit(received_at, clicks);
        self.commit();
        assert!(self.journal.is_idle());
    }
}

pub(crate) fn open(dir: &Path) -> Folder {
    Folder::open(dir, NODE).unwrap()
}

/// The folder, whose new segments are encrypted, and the keys beside it.
pub(crate) fn open_sealed(dir: &Path) -> Folder {
    let folder = open(dir);
    let keys = DayKeys::open(&dir.join("keys"), folder.incarnation()).unwrap();
    folder.with_keys(Arc::new(keys))
}

/// What is in a folder, in the order of the names.
pub(crate) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The folder's segments, in the order of their names.
pub(crate) fn segments(folder: &Folder) -> Vec<PathBuf> {
    files_in(folder.segments())
}

/// The segment a file is.
pub(crate) fn id_of(path: &Path) -> SegmentId {
    SegmentId::parse(path.file_name().unwrap().to_str().unwrap()).unwrap()
}

/// Recovers the folder; the numbers of the clicks in the order they came.
pub(crate) fn recovered(folder: &Folder) -> (Vec<u64>, Recovery) {
    let mut numbers = Vec::new();
    let recovery = recover(folder, |_, row, _| numbers.push(number(&row.click))).unwrap();
    (numbers, recovery)
}

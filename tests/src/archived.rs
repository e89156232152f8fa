//! What a central tier has of a past day, without nodes and without Kafka: an archive and a store that a lab fills with
//! the same rows, and the tier's own routes that answer from that store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{oneshot, watch};
use weir_central::archive::place::Place;
use weir_central::archive::{self, Archiver, Limits};
use weir_central::config::Serve;
use weir_central::kafka::Delivered;
use weir_central::merge::Changes;
use weir_central::merger::Seen;
use weir_central::record::{Life, Revision, Told, Word};
use weir_central::serve::access::Access;
use weir_central::serve::cache::Answers;
use weir_central::serve::{self, Counted, Served};
use weir_central::store::Store;
use weir_central::watermark::{Offsets, Watermarks};
use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::id::{ImpressionId, Incarnation, NodeId};
use weir_common::reason::Outcome;
use weir_common::row::{Row, length_prefix};
use weir_common::time::{Minute, UnixMs};
use weir_common::wire::Click;
use zerocopy::{FromBytes, IntoBytes};

use crate::port::free_ports;
use crate::process::{Process, binary};

/// The day of the clicks.
pub const DAY: &str = "2026-03-01";
/// Its first minute, and the one after its last.
pub const MINUTES: std::ops::Range<u32> = 29_538_720..29_540_160;
const LIMITS: Limits = Limits { object_bytes: 1 << 20, close_after: Duration::from_secs(60) };

/// What one node counted of an ad in a minute.
type Bucket = (u32, u64, u32);

/// A tier that runs over an archive; both are gone when dropped.
#[derive(Debug)]
pub struct ArchivedTier {
    folder: tempfile::TempDir,
    store: Store,
    seen: watch::Sender<Seen>,
    buckets: BTreeMap<Bucket, BucketTotals>,
    /// Blocks so far, and flushes.
    blocks: u64,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// The first click on an impression, signed, at a price of 500 micros, in a minute of the day.
#[must_use]
pub fn accepted(impression: u128, campaign: u32, minute: u32) -> Row {
    let received_at_ms = u64::from(MINUTES.start + minute) * 60_000 + 1000;
    let click = Click {
        impression: ImpressionId(impression.to_le_bytes()),
        ad: u64::from(campaign * 10).into(),
        campaign: campaign.into(),
        price_micros: 500.into(),
        clicked_at_ms: received_at_ms.into(),
        ..Click::zeroed()
    };
    Row {
        received_at_ms: received_at_ms.into(),
        minute: (MINUTES.start + minute).into(),
        outcome: Outcome::Accepted as u8,
        reason: 0,
        flags: 0,
        traffic: 0,
        click,
    }
}

fn life(node: u32) -> Life {
    Life { node: NodeId(node), incarnation: Incarnation(u64::from(node) * 100) }
}

fn answer(listener: std::net::TcpListener, served: Served, stop: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let until = async { drop(stop.await) };
        serve::serve(listener, Arc::new(served), until).await.expect("served");
    });
}

impl ArchivedTier {
    /// Starts one without clicks and nodes. `config` is appended to the config of what asks it.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn start(config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let archive = folder.path().join("archive");
        let data = folder.path().join("data");
        let text = format!(
            "[central]\ndata_dir = {data:?}\n[kafka]\nbrokers = [\"none:1\"]\n[serve]\nlisten = \"{listen}\"\n\
             [archive]\nurl = {archive:?}\n{config}"
        );
        std::fs::write(folder.path().join("central.toml"), text)?;
        let store = Store::open(&folder.path().join("store"))?;
        let (seen, shown) = watch::channel(Seen::default());
        let served = Served {
            store: store.clone(),
            seen: shown,
            counted: Counted::default(),
            archive: None,
            has_alerts: false,
            answers: Answers::new(1 << 20),
            access: Access::of(&Serve::default())?,
        };
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let server = std::thread::spawn(move || answer(listener, served, stopped));
        let (stop, server) = (Some(stop), Some(server));
        let mut tier = Self { folder, store, seen, buckets: BTreeMap::new(), blocks: 0, stop, server };
        tier.is_final_before(&[(1, MINUTES.end), (2, MINUTES.end)]);
        Ok(tier)
    }

    /// The config of what asks it.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("central.toml")
    }

    /// A file beside the config.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// Each of these nodes is final before this minute, and no other has spoken.
    pub fn is_final_before(&mut self, nodes: &[(u32, u32)]) {
        let mut marks = Watermarks::default();
        for (node, minute) in nodes {
            let counted_until = Some(UnixMs(u64::from(*minute) * 60_000));
            marks.tell(life(*node), Told { final_before: Minute(*minute), counted_until, ..Told::default() });
        }
        marks.asks();
        marks.ends(Some(Offsets::new()));
        marks.read_to(&Offsets::new());
        self.seen.send_modify(|seen| seen.progress = marks.progress(&[]));
    }

    /// A node has counted these rows, and they are archived as a batch.
    ///
    /// # Errors
    /// When archive or store do not take them.
    pub fn take(&mut self, node: u32, rows: &[Row]) -> Result<()> {
        self.count(node, rows)?;
        let (counters, go) = (archive::Counters::default(), AtomicBool::new(false));
        let place =
            Place::open(self.archive().to_str().context("a path that is no text")?, &BTreeMap::new())?;
        let staging = self.folder.path().join("staging");
        let mut archiver = Archiver::open(place, &staging, LIMITS, (&counters, &go))?;
        archiver.take(&self.record(node, rows))?;
        archiver.close(&[((0, 0), self.blocks as i64)].into())?;
        Ok(())
    }

    /// A node has counted these rows, and they are nowhere else.
    ///
    /// # Errors
    /// When the store does not take them.
    pub fn count(&mut self, node: u32, rows: &[Row]) -> Result<()> {
        self.blocks += 1;
        let mut changes = Changes::default();
        for row in rows {
            let bucket = (node, row.click.ad.get(), row.minute.get());
            let totals = self.buckets.entry(bucket).or_default();
            totals.count(row);
            let key = BucketKey { ad: row.click.ad, minute: row.minute, ..BucketKey::default() };
            // A row is a revision of its bucket: the last one has all of them.
            let revision = Revision(totals.gross() + totals.late.get());
            let word = Word::Bucket { life: life(node), revision, key, totals: *totals };
            changes.take(&self.store, word)?;
        }
        Ok(self.store.apply(&changes, &[], &Offsets::new(), &[])?)
    }

    fn record(&self, node: u32, rows: &[Row]) -> Delivered {
        let mut value = Vec::new();
        for row in rows {
            value.extend_from_slice(row.as_bytes());
            let (prefix, len) = length_prefix(0);
            value.extend_from_slice(&prefix[..len]);
        }
        let mut header = BlockHeader::read_from_bytes(&[0; BLOCK_HEADER_LEN]).expect("zeros are a header");
        header.incarnation = life(node).incarnation.0.into();
        (header.epoch, header.sequence) = (1.into(), self.blocks.into());
        header.rows = (rows.len() as u32).into();
        header.body_crc = crc32c::crc32c(&value).into();
        header.header_crc = crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_OFFSET]).into();
        let headers = vec![("block".to_owned(), header.as_bytes().to_vec())];
        Delivered { offset: self.blocks as i64, value, headers, ..Delivered::default() }
    }

    /// A `weir-central` with this config; the first argument is its command.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("weir-central"));
        command.args(&arguments[..1]).arg("--config").arg(self.config()).args(&arguments[1..]);
        command
    }

    /// Runs one to its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context("cannot run weir-central")
    }

    /// Starts one that a lab may kill.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(&self, arguments: &[&str]) -> Result<Running> {
        let output = std::fs::File::create(self.folder.path().join("command.log"))?;
        let mut command = self.command(arguments);
        command.stdout(output.try_clone()?).stderr(output);
        Process::start("weir-central", &mut command).map(Running)
    }
}

impl Drop for ArchivedTier {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            let _ = server.join(); // its panic was printed
        }
    }
}

/// A command that runs; killed when dropped.
#[derive(Debug)]
pub struct Running(Process);

impl Running {
    /// Ends it as a crash does.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.0.signal(rustix::process::Signal::KILL)?;
        self.0.wait(Duration::from_secs(10)).map(drop)
    }

    /// Waits for its end; whether it ended well.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(mut self) -> Result<bool> {
        Ok(self.0.wait(Duration::from_secs(60))?.success())
    }
}

//! The deterministic simulation: a whole node in one thread, with time, network, disk and sink
//! decided by a seed.
//!
//! What runs is the daemon's own: the worker's loop, desk, ledger, journal, hand-off rings,
//! recovery, refold, forwarder and trim, and the SDK's senders. Simulated are the clocks, the
//! network ([`world`]), the disk ([`disk`]) and the sink ([`sink`]). An oracle that shares no
//! code with the ledger ([`oracle`]) looks on at every step. A seed repeats its run exactly.
//!
//! Start reading at [`run`], then at `World::step`.

pub mod aside;
pub mod chance;
pub mod damage;
pub mod disk;
pub mod host;
pub mod limits;
pub mod medium;
pub mod node;
pub mod opener;
pub mod oracle;
pub mod plan;
pub mod segments;
pub mod senders;
pub mod sink;
pub mod vault;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use plan::Encryption;
use world::{Tally, World};

/// A wrong that the harness does on purpose, so that a test can see the oracle find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Canary {
    /// Clicks are acknowledged that no disk has.
    WrongAck,
    /// A bucket counts one click too many.
    DoubleCount,
    /// A block never gets to the sink.
    LostRow,
    /// What a start reports of a damaged journal is not heard.
    SilentDamage,
    /// A sketch of unique users has one it should not have.
    WrongSketch,
    /// The node is told that its clock is right, whatever it shows.
    BelievedClock,
    /// A key is destroyed that segments need.
    LostKey,
    /// A click stands in an encrypted segment as it is.
    PlainClick,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Decides everything.
    pub seed: u64,
    /// Steps before the faults end.
    pub steps: u64,
    /// Print every step.
    pub trace: bool,
    /// Segments the journal may take; `None` leaves it to the seed.
    pub segments_max: Option<u64>,
    /// Whether the journal is encrypted; `None` leaves it to the seed.
    pub encrypted: Option<bool>,
    /// Do this wrong.
    pub canary: Option<Canary>,
}

impl Run {
    /// Whether its journal is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        Encryption::draw(self.seed, self.encrypted).is_some()
    }
}

/// Runs one seed, in a folder of its own below `scratch`.
///
/// # Errors
/// What was not as it should be.
pub fn run(run: Run, scratch: &Path) -> Result<Tally, String> {
    let text = |error: std::io::Error| format!("the simulation's own folder: {error}");
    let folder = tempfile::Builder::new().prefix("weir-sim-").tempdir_in(scratch).map_err(text)?;
    plant(folder.path()).map_err(text)?;
    let path = folder.path().to_owned();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(run, path)?;
        world.go().map_err(|wrong| format!("step {}: {wrong}", world.tally.steps))?;
        Ok(world.tally)
    }));
    ran.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        Err(format!("panicked: {}", words.unwrap_or_default()))
    })
}

/// Where runs have their folders: in the system's memory, where there is such a place, for files
/// are the page cache here.
#[must_use]
pub fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A journal folder that is born, with an incarnation that is always the same: the only thing a
/// node draws at random from the system.
fn plant(folder: &Path) -> std::io::Result<()> {
    let line = "weir journal 1 node 1 incarnation 00000000600dcafe";
    std::fs::write(
        folder.join("incarnation"),
        format!("{line} crc {:08x}\n", crc32c::crc32c(line.as_bytes())),
    )?;
    std::fs::write(folder.join("epoch"), "0\n")
}

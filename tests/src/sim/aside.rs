//! What a node does beside its workers and its forwarder: it digests closed segments, and counts
//! the rows that a start left for later. Threads of the daemon, steps here.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};

use weir::daemon::past::Past;
use weir::digest::digester::Lookout;
use weir::digest::header::digest_path;
use weir::digest::write::remove_unfinished;
use weir::digest::{DigestHeader, Digests, Shelf};
use weir::forward::{self, Counted, Forwarder, Sink, Uniques};
use weir::journal::{Folder, Place, Position, SegmentId};
use weir_common::id::{Epoch, WorkerId};

use super::plan::Plan;

/// Headers that wait for the forwarder; more than a run makes between two of its turns.
const WAITING_MAX: usize = 1024;
/// A digest is never given up.
static RUN_ON: AtomicBool = AtomicBool::new(false);

/// That work of one start.
pub struct Aside {
    place: Place,
    lookout: Lookout,
    written: SyncSender<DigestHeader>,
    past: Option<(Past, SyncSender<Counted>)>,
}

impl Aside {
    /// What is to be done beside this forwarder, which is told where the results come from.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn of<S: Sink>(
        folder: &Folder,
        (shelf, past, uniques): (Shelf, Option<Past>, Uniques),
        ends: BTreeMap<(Epoch, WorkerId), Position>,
        plan: &Plan,
        forwarder: &mut Forwarder<S>,
    ) -> Result<Self, String> {
        let place = folder.place();
        remove_unfinished(&place.segments).map_err(|error| error.to_string())?;
        let lookout = Lookout::new(place.clone(), folder.epoch(), &shelf, ends);
        let past = past.map(|past| {
            let (sender, counted) = sync_channel(1);
            forwarder.await_past(forward::Past { counted });
            (past, sender)
        });
        if past.is_none() {
            forwarder.go_on_with(uniques);
        }
        let (written, headers) = sync_channel(WAITING_MAX);
        forwarder.keep_digests(Digests::new(place.clone(), shelf, plan.limits.lifetime_ms, headers));
        Ok(Self { place, lookout, written, past })
    }

    /// Counts the past, if there is one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn count_past(&mut self) -> Result<bool, String> {
        let Some((past, sender)) = self.past.take() else { return Ok(false) };
        let counted = past.count().map_err(|error| error.to_string())?;
        drop(sender.send(counted));
        Ok(true)
    }

    /// Digests one closed segment, if there is any; it is durable then, and nobody knows of it yet.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn digest(&mut self) -> Result<Option<Digested>, String> {
        let closed = self.lookout.look().map_err(|error| error.to_string())?;
        let Some(&wanted) = closed.first() else { return Ok(None) };
        let path = digest_path(&self.place, wanted.0);
        let Some(written) = self.lookout.digest(wanted, &RUN_ON) else { return Ok(None) };
        let header = written.map_err(|error| error.to_string());
        Ok(Some(Digested { segment: wanted.0, path, header }))
    }

    /// Tells the forwarder of a digest.
    pub fn tell(&self, header: DigestHeader) {
        let _forwarder_is_gone = self.written.send(header).is_err();
    }
}

/// What became of a segment's digest.
pub struct Digested {
    /// The segment.
    pub segment: SegmentId,
    /// Where the digest is, if it is.
    pub path: PathBuf,
    /// It, or why there is none.
    pub header: Result<DigestHeader, String>,
}

impl Digested {
    /// Makes of it what a crash in the middle leaves: a part, under the name of unfinished ones.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn cut(&self) -> io::Result<()> {
        let bytes = std::fs::read(&self.path)?;
        std::fs::remove_file(&self.path)?;
        let unfinished = self.path.with_extension(&weir::digest::header::UNFINISHED_SUFFIX[1..]);
        std::fs::write(unfinished, &bytes[..bytes.len() / 2])
    }
}

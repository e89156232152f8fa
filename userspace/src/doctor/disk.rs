//! The disk under the journal: its kind, its room, how long it takes to sync.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::finding::{Read, Unread, Verdict};
use crate::config::quantity::size_text;

/// Syncs that are measured: enough for a median, and over within a second on a disk that is fit.
const SYNCS: usize = 64;
/// No further sync is begun after this, ...
const SYNCS_MAX: Duration = Duration::from_secs(3);
/// ... and one that takes so long is not waited for.
const SYNC_WAIT: Duration = Duration::from_secs(15);
/// A group takes at least one page.
const PAGE: usize = 4096;
/// A median above this makes every ack slow; a worker's commit window is 2 ms.
const MEDIAN_MAX: Duration = Duration::from_millis(10);
/// What an ack may take at the 99th percentile.
const SLOWEST_MAX: Duration = Duration::from_millis(50);
/// No device is as fast: what answers so has kept nothing but a promise.
const MEDIAN_MIN: Duration = Duration::from_micros(5);
/// A start needs room beside the segments: its epoch, the lock, the store's own files.
const START_BYTES: u64 = 1 << 20;

/// The folder itself, or the nearest one above it that is there.
pub(super) fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// What a file system is, by `f_type` of statfs(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// ext2 to ext4, XFS.
    Sound(&'static str),
    /// Copies on write.
    Copying(&'static str),
    /// In memory.
    Memory(&'static str),
    /// A layer of a container.
    Layer(&'static str),
    /// On another host.
    Remote(&'static str),
    /// None that anything is known of.
    Other(u32),
}

impl Kind {
    const fn of(number: u32) -> Self {
        match number {
            0xef53 => Self::Sound("ext4"),
            0x5846_5342 => Self::Sound("xfs"),
            0x9123_683e => Self::Copying("btrfs"),
            0x2fc1_2fc1 => Self::Copying("zfs"),
            0xca45_1a4e => Self::Copying("bcachefs"),
            0x0102_1994 => Self::Memory("tmpfs"),
            0x8584_58f6 => Self::Memory("ramfs"),
            0x794c_7630 => Self::Layer("overlay"),
            0x6969 => Self::Remote("nfs"),
            0xff53_4d42 => Self::Remote("cifs"),
            0xfe53_4d42 => Self::Remote("smb2"),
            0x00c3_6400 => Self::Remote("ceph"),
            0x6573_5546 => Self::Remote("fuse"),
            other => Self::Other(other),
        }
    }
}

/// The kind of the file system a folder is on.
pub(super) fn kind(folder: &Path) -> Read<Kind> {
    // The number is a word; some platforms widen it with its sign.
    rustix::fs::statfs(folder)
        .map(|found| Kind::of(found.f_type as u32))
        .map_err(cannot("ask the file system of", folder))
}

fn cannot(doing: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Unread {
    let path = path.display().to_string();
    move |error| Unread(format!("cannot {doing} {path}: {error}"))
}

pub(super) fn judge_kind(kind: &Read<Kind>) -> Verdict {
    let required = "ext4 or xfs on a local disk";
    match kind {
        Ok(Kind::Sound(name)) => Verdict::ok(required, *name),
        Ok(Kind::Copying(name)) => Verdict::note(
            required,
            format!("{name}: copies on write, so a sync costs more and old sectors stay"),
        ),
        Ok(Kind::Memory(name)) => Verdict::fatal(
            required,
            format!("{name}: in memory, so acknowledged clicks do not survive a power cut"),
        ),
        Ok(Kind::Layer(name)) => {
            Verdict::warning(required, format!("{name}: a container's own layer goes with the container"))
        }
        Ok(Kind::Remote(name)) => {
            Verdict::warning(required, format!("{name}: what a sync means is decided elsewhere"))
        }
        Ok(Kind::Other(number)) => {
            Verdict::unknown(required, &Unread(format!("nothing is known of kind {number:#x}")))
        }
        Err(why) => Verdict::unknown(required, why),
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syncs {
    pub(super) count: usize,
    pub(super) median: Duration,
    pub(super) slowest: Duration,
}

/// The median and the slowest of these; none of none.
fn summed(mut times: Vec<Duration>) -> Option<Syncs> {
    times.sort_unstable();
    let slowest = *times.last()?;
    Some(Syncs { count: times.len(), median: times[times.len() / 2], slowest })
}

/// Why there is no measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoSyncs {
    /// The disk refused.
    Refused(String),
    /// It did not answer.
    Silent,
}

/// Writes and syncs pages in a file of its own, which is gone when this returns.
pub(super) fn measure(folder: &Path, kind: &Read<Kind>) -> Result<Syncs, NoSyncs> {
    let (folder, is_named) = (folder.to_owned(), !matches!(kind, Ok(Kind::Sound(_))));
    let path = folder.clone();
    let (done, times) = sync_channel(1);
    let measuring = move || {
        // Nobody may be waiting any more.
        let _ = done.send(sync_pages(&folder, is_named));
    };
    let spawned = std::thread::Builder::new().name("weir-doctor-fsync".to_owned()).spawn(measuring);
    spawned.map_err(|error| NoSyncs::Refused(format!("no thread for it: {error}")))?;
    match times.recv_timeout(SYNC_WAIT) {
        Ok(Ok(times)) => summed(times).ok_or(NoSyncs::Silent),
        Ok(Err(error)) => Err(NoSyncs::Refused(format!("{} takes no file: {error}", path.display()))),
        Err(_) => Err(NoSyncs::Silent),
    }
}

/// How long each of the syncs took. A file without a name is gone also when the process is killed; but
/// not every file system syncs one (btrfs does not), so elsewhere it has a name until it is dropped.
fn sync_pages(folder: &Path, is_named: bool) -> std::io::Result<Vec<Duration>> {
    if is_named {
        let file = tempfile::Builder::new().prefix(".weir-doctor-").tempfile_in(folder)?;
        sync_each_page(file.as_file())
    } else {
        sync_each_page(&tempfile::tempfile_in(folder)?)
    }
}

fn sync_each_page(file: &File) -> std::io::Result<Vec<Duration>> {
    // As segments are: where the file system can, it has its blocks before anything is written.
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, (SYNCS * PAGE) as u64) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    let (begun, page) = (Instant::now(), [0x57; PAGE]);
    let mut times = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        let before = Instant::now();
        file.write_all_at(&page, (number * PAGE) as u64)?;
        file.sync_data()?;
        times.push(before.elapsed());
        if begun.elapsed() > SYNCS_MAX {
            break;
        }
    }
    Ok(times)
}

pub(super) fn judge_syncs(measured: &Result<Syncs, NoSyncs>) -> Verdict {
    let required = format!("p50 at most {MEDIAN_MAX:?}, max at most {SLOWEST_MAX:?}");
    let Syncs { count, median, slowest } = match measured {
        Ok(measured) => *measured,
        Err(NoSyncs::Refused(why)) => {
            return Verdict::fatal(required, why)
                .fix("Let the user that the node runs as write there, and see that there is room.");
        }
        Err(NoSyncs::Silent) => return Verdict::fatal(required, format!("no answer within {SYNC_WAIT:?}")),
    };
    let current = format!("p50 {}, max {} of {count}", time_text(median), time_text(slowest));
    if median > MEDIAN_MAX || slowest > SLOWEST_MAX {
        Verdict::warning(required, current)
    } else if median < MEDIAN_MIN {
        Verdict::warning(required, format!("{current}: faster than any device"))
            .fix("See whether the disk, or what is between, keeps what it has synced; a cache without power does not.")
    } else {
        Verdict::ok(required, current)
    }
}

/// Milliseconds with two places, or microseconds.
fn time_text(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} us", time.as_micros())
    } else {
        format!("{:.2} ms", time.as_secs_f64() * 1e3)
    }
}

/// The room for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes that are free for who is not root.
    pub(super) free: u64,
    /// Bytes that journal files take already.
    pub(super) used: u64,
}

impl Room {
    /// The room in a journal's folder, which may not be there yet.
    pub(super) fn read(journal: &Path) -> Read<Self> {
        let folder = nearest_existing(journal);
        let found = rustix::fs::statvfs(&folder).map_err(cannot("ask the room of", &folder))?;
        let entries = fs::read_dir(journal).into_iter().flatten().flatten();
        let used = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
        Ok(Self { free: found.f_bavail.saturating_mul(found.f_frsize), used })
    }
}

pub(super) fn judge_room(room: &Read<Room>, journal_max: u64, segment: u64, workers: usize) -> Verdict {
    let required = format!("{} for the journal", size_text(journal_max));
    let Room { free, used } = match room {
        Ok(room) => *room,
        Err(why) => return Verdict::unknown(required, why),
    };
    let mib = |bytes: u64| size_text(bytes >> 20 << 20);
    let current = format!("{} free, {} taken by it", mib(free), mib(used));
    // One segment a worker, or nothing is ever acknowledged; a node that ran has them.
    let least = START_BYTES + (workers as u64).saturating_mul(segment).saturating_sub(used);
    if free < least {
        Verdict::fatal(required, current).fix(format!(
            "Free at least {}: each worker needs a segment to begin with.",
            mib(least - free + (1 << 20))
        ))
    } else if free.saturating_add(used) < journal_max {
        Verdict::warning(required, current)
    } else {
        Verdict::ok(required, current)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown, Warning};
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_file_system_is_judged_by_what_becomes_of_what_it_synced() {
        for (number, severity) in [
            (0xef53, Fine),
            (0x5846_5342, Fine),
            (0x9123_683e, Note),
            (0x0102_1994, Fatal),
            (0x794c_7630, Warning),
            (0x6969, Warning),
            (7, Unknown),
        ] {
            assert_eq!(judge_kind(&Ok(Kind::of(number))).severity, severity, "{number:#x}");
        }
        assert_eq!(judge_kind(&Err(Unread("hidden".to_owned()))).severity, Unknown);
    }

    #[test]
    fn a_slow_sync_is_a_warning_and_so_is_one_too_fast_to_be_true() {
        let judged = |median, slowest| judge_syncs(&Ok(Syncs { count: 64, median, slowest })).severity;
        assert_eq!(judged(ms(1), ms(9)), Fine);
        assert_eq!(judged(ms(10), ms(50)), Fine);
        assert_eq!(judged(ms(11), ms(50)), Warning);
        assert_eq!(judged(ms(1), ms(51)), Warning);
        assert_eq!(judged(Duration::from_micros(1), ms(1)), Warning);
        let refused = judge_syncs(&Err(NoSyncs::Refused("full".to_owned())));
        assert_eq!((refused.severity, refused.current.as_str()), (Fatal, "full"));
        assert!(refused.fix.contains("write there"), "{refused:?}");
        assert_eq!(judge_syncs(&Err(NoSyncs::Silent)).severity, Fatal);
    }

    #[test]
    fn the_median_is_of_all_and_the_slowest_the_slowest() {
        let times = [5, 1, 9, 3, 7].map(ms).to_vec();
        assert_eq!(summed(times), Some(Syncs { count: 5, median: ms(5), slowest: ms(9) }));
        assert_eq!(summed(Vec::new()), None);
    }

    #[test]
    fn a_measurement_leaves_no_file_behind_named_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        for kind in [Ok(Kind::Sound("ext4")), Err(Unread("hidden".to_owned()))] {
            let measured = measure(folder.path(), &kind).expect("syncs");
            assert!(measured.count > 0 && measured.median <= measured.slowest);
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        }
        let nowhere = folder.path().join("nowhere");
        assert!(matches!(measure(&nowhere, &Ok(Kind::Other(0))), Err(NoSyncs::Refused(_))));
    }

    #[test]
    fn room_for_less_than_a_segment_a_worker_is_fatal_and_for_less_than_the_bound_a_warning() {
        let (journal, segment) = (1 << 30, 20 << 20);
        let judged = |free, used| judge_room(&Ok(Room { free, used }), journal, segment, 2).severity;
        assert_eq!(judged(1 << 30, 0), Fine);
        assert_eq!(judged(1 << 29, 1 << 29), Fine);
        assert_eq!(judged((1 << 30) - 1, 0), Warning);
        assert_eq!(judged(41 << 20, 0), Warning);
        assert_eq!(judged((41 << 20) - 1, 0), Fatal);
        assert_eq!(judged(2 << 20, 40 << 20), Warning);
        assert_eq!(judged(0, 1 << 30), Fatal);
        let unread = Err(Unread("hidden".to_owned()));
        assert_eq!(judge_room(&unread, journal, segment, 2).severity, Unknown);
    }

    #[test]
    fn the_nearest_folder_that_is_there_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(nearest_existing(&folder.path().join("a/b/c")), folder.path());
        assert_eq!(nearest_existing(folder.path()), folder.path());
        assert!(nearest_existing(Path::new("no-such-folder/a")).is_dir());
    }
}

//! A switch that makes the journal's disk fail as it is told: for labs, and only in a build with
//! the feature `disk-faults`. Without it nothing of this is in the daemon but calls that do
//! nothing and are compiled away.
//!
//! The variable `WEIR_DISK_FAULTS` names a file with one rule a line, read again whenever it
//! changes; a changed file begins to count anew:
//!
//! ```text
//! OPERATION [skip N] [times N] KIND
//! ```
//!
//! Operations are `create`, `allocate`, `header`, `file-sync`, `folder-sync` (the steps of making a
//! segment), `write` and `sync`. Kinds are `EIO`, `ENOSPC`, `EDQUOT`, `EROFS`; `short`, for a write
//! that takes half of its bytes; `lost`, for a sync that fails with EIO and takes with it what it
//! should have synced, as the kernel may; `delay MS`, for a sync that is late. Without `times` a rule
//! holds once.
//!
//! Beside the file grows a log, its name with `.log`: a line for each operation, with worker,
//! segment and what became of it. So a lab can see that no segment is used again after a failure.

#[cfg(feature = "disk-faults")]
pub(super) use switch::DiskFaults;

/// What became of an operation.
#[cfg_attr(not(feature = "disk-faults"), expect(dead_code, reason = "nothing is injected"))]
pub(super) enum Injected<T> {
    /// Nothing: it is to be done.
    No,
    /// It is over, with this result.
    Over(std::io::Result<T>),
    /// It comes with [`DiskFaults::due`].
    Later,
}

/// The switch of a build that has none.
#[cfg(not(feature = "disk-faults"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskFaults;

#[cfg(not(feature = "disk-faults"))]
mod absent {
    use std::fs::File;
    use std::io;
    use std::sync::Arc;

    use weir_common::id::WorkerId;

    use super::{DiskFaults, Injected};
    use crate::journal::SegmentNo;
    use crate::journal::disk::CreationStep;

    #[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "the shape of the other build")]
    impl DiskFaults {
        pub(in super::super) const fn new(_: WorkerId) -> Self {
            Self
        }

        #[expect(clippy::unnecessary_wraps, reason = "the shape of the other build")]
        pub(in super::super) const fn creation(&self, _: SegmentNo, _: CreationStep) -> io::Result<()> {
            Ok(())
        }

        pub(in super::super) const fn write(
            &mut self,
            _: SegmentNo,
            _: &Arc<File>,
            _: u64,
            _: &[u8],
        ) -> Injected<usize> {
            Injected::No
        }

        pub(in super::super) const fn sync(&mut self, _: SegmentNo, _: &Arc<File>) -> Injected<()> {
            Injected::No
        }

        pub(in super::super) const fn due(&mut self) -> Option<(SegmentNo, io::Result<()>)> {
            None
        }
    }
}

#[cfg(feature = "disk-faults")]
mod switch {
    use std::collections::VecDeque;
    use std::fs::{File, OpenOptions};
    use std::io::{self, Write};
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::time::{Duration, Instant};

    use weir_common::id::WorkerId;

    use super::Injected;
    use crate::journal::SegmentNo;
    use crate::journal::disk::CreationStep;

    /// The rules of all workers: a failing disk fails for all.
    static PLAN: OnceLock<Option<Mutex<Plan>>> = OnceLock::new();

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Error(i32),
        Short,
        Lost,
        Delay(Duration),
    }

    #[derive(Debug)]
    struct Rule {
        operation: String,
        skip: u64,
        times: u64,
        kind: Kind,
    }

    impl Rule {
        fn parse(line: &str) -> Option<Self> {
            let mut words = line.split_whitespace();
            let operation = words.next()?.to_owned();
            let mut rule = Self { operation, skip: 0, times: 1, kind: Kind::Short };
            loop {
                rule.kind = match words.next()? {
                    "skip" => {
                        rule.skip = words.next()?.parse().ok()?;
                        continue;
                    }
                    "times" => {
                        rule.times = words.next()?.parse().ok()?;
                        continue;
                    }
                    "EIO" => Kind::Error(libc::EIO),
                    "ENOSPC" => Kind::Error(libc::ENOSPC),
                    "EDQUOT" => Kind::Error(libc::EDQUOT),
                    "EROFS" => Kind::Error(libc::EROFS),
                    "short" => Kind::Short,
                    "lost" => Kind::Lost,
                    "delay" => Kind::Delay(Duration::from_millis(words.next()?.parse().ok()?)),
                    _ => return None,
                };
                return Some(rule);
            }
        }
    }

    #[derive(Debug)]
    struct Plan {
        path: PathBuf,
        text: String,
        rules: Vec<Rule>,
        log: File,
    }

    impl Plan {
        fn from_environment() -> Option<Mutex<Self>> {
            let path = PathBuf::from(std::env::var_os("WEIR_DISK_FAULTS")?);
            let mut log = path.clone().into_os_string();
            log.push(".log");
            let log = OpenOptions::new().create(true).append(true).open(log).ok()?;
            tracing::warn!(path = %path.display(), "this build lets its disk fail as the file says");
            Some(Mutex::new(Self { path, text: String::new(), rules: Vec::new(), log }))
        }

        /// What the rules say of this operation, which is logged with it.
        fn ask(&mut self, operation: &str, worker: WorkerId, segment: SegmentNo) -> Option<Kind> {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            if text != self.text {
                self.rules = text.lines().filter_map(Rule::parse).collect();
                self.text = text;
            }
            let mut found = None;
            for rule in self.rules.iter_mut().filter(|rule| rule.operation == operation) {
                if rule.skip > 0 {
                    rule.skip -= 1;
                } else if rule.times > 0 && found.is_none() {
                    rule.times -= 1;
                    found = Some(rule.kind);
                }
            }
            let what = found.map_or_else(|| "done".to_owned(), |kind| format!("{kind:?}"));
            // One write a line, so that threads and lives do not mix.
            let line = format!("{operation} {} {} {what}\n", worker.0, segment.0);
            let _a_lab_misses_the_line = self.log.write_all(line.as_bytes());
            found
        }
    }

    /// One worker's end of the switch.
    #[derive(Clone, Debug)]
    pub(in super::super) struct DiskFaults {
        worker: WorkerId,
        /// Written since the last sync of the segment: what a lost sync takes with it.
        unsynced: Vec<(u64, usize)>,
        late: VecDeque<(Instant, SegmentNo, Arc<File>)>,
    }

    impl DiskFaults {
        pub(in super::super) const fn new(worker: WorkerId) -> Self {
            Self { worker, unsynced: Vec::new(), late: VecDeque::new() }
        }

        fn ask(&self, operation: &str, segment: SegmentNo) -> Option<Kind> {
            let plan = PLAN.get_or_init(Plan::from_environment).as_ref()?;
            plan.lock().unwrap_or_else(PoisonError::into_inner).ask(operation, self.worker, segment)
        }

        /// Before a step of making a segment.
        pub(in super::super) fn creation(&self, segment: SegmentNo, step: CreationStep) -> io::Result<()> {
            let operation = match step {
                CreationStep::Create => "create",
                CreationStep::Allocate => "allocate",
                CreationStep::Header => "header",
                CreationStep::FileSync => "file-sync",
                CreationStep::FolderSync => "folder-sync",
            };
            match self.ask(operation, segment) {
                Some(Kind::Error(code)) => Err(io::Error::from_raw_os_error(code)),
                Some(Kind::Lost) => Err(io::Error::from_raw_os_error(libc::EIO)),
                Some(Kind::Delay(delay)) => {
                    std::thread::sleep(delay); // on the helper thread, which may wait
                    Ok(())
                }
                _ => Ok(()),
            }
        }

        /// Before a write goes to the ring.
        pub(in super::super) fn write(
            &mut self,
            segment: SegmentNo,
            file: &Arc<File>,
            offset: u64,
            bytes: &[u8],
        ) -> Injected<usize> {
            self.unsynced.push((offset, bytes.len()));
            match self.ask("write", segment) {
                Some(Kind::Error(code)) => Injected::Over(Err(io::Error::from_raw_os_error(code))),
                Some(Kind::Lost) => Injected::Over(Err(io::Error::from_raw_os_error(libc::EIO))),
                Some(Kind::Short) => Injected::Over(file.write_at(&bytes[..bytes.len().div_ceil(2)], offset)),
                _ => Injected::No,
            }
        }

        /// Before a sync goes to the ring.
        pub(in super::super) fn sync(&mut self, segment: SegmentNo, file: &Arc<File>) -> Injected<()> {
            let unsynced = std::mem::take(&mut self.unsynced);
            match self.ask("sync", segment) {
                Some(Kind::Error(code)) => Injected::Over(Err(io::Error::from_raw_os_error(code))),
                Some(Kind::Lost) => {
                    for (offset, len) in unsynced {
                        let _lost_either_way = file.write_all_at(&vec![0; len], offset);
                    }
                    Injected::Over(Err(io::Error::from_raw_os_error(libc::EIO)))
                }
                Some(Kind::Delay(delay)) => {
                    self.late.push_back((Instant::now() + delay, segment, Arc::clone(file)));
                    Injected::Later
                }
                _ => Injected::No,
            }
        }

        /// A late sync whose time has come.
        pub(in super::super) fn due(&mut self) -> Option<(SegmentNo, io::Result<()>)> {
            let is_due = self.late.front().is_some_and(|(at, ..)| *at <= Instant::now());
            let (_, segment, file) = if is_due { self.late.pop_front()? } else { return None };
            Some((segment, file.sync_data()))
        }
    }
}

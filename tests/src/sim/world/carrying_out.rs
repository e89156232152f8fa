//! What the disk does of what workers asked for, and what it fails.

use std::cell::RefCell;
use std::rc::Rc;

use weir::day::Day;
use weir::journal::disk::create_segment;
use weir::journal::seal::SealingKey;
use weir::journal::{DayKeys, KeyError};
use weir::uring::{Completion, Write};
use weir::worker::host::Creation;

use super::super::disk::{FileNo, Trouble};
use super::super::host::{Request, Station};
use super::super::medium::FaultyMedium;
use super::super::oracle::Verdict;
use super::World;

impl World {
    /// The disk does one thing that a worker asked for.
    pub(super) fn serve(&mut self, worker: usize) -> Verdict {
        let Some(node) = &self.node else { return Ok(()) };
        let station = Rc::clone(&node.stations[worker]);
        let waiting = station.borrow().requests.len() as u64;
        if waiting == 0 {
            return Ok(());
        }
        let request = station.borrow_mut().requests.swap_remove(self.chance.below(waiting) as usize);
        match request {
            Request::Write(file, write) => {
                let ended = self.write(file, write)?;
                station.borrow_mut().ended.push(ended);
            }
            Request::Sync(file, tag) => {
                let result = self.sync(file)?;
                station.borrow_mut().ended.push(Completion::Synced { tag, result });
            }
            Request::Create(creation) => return self.create(creation, &station),
            Request::TakeKey(keys, day) => {
                let taken = self.take_key(&keys, day);
                station.borrow_mut().keys_taken.extend(taken);
            }
            Request::Remove(path) => {
                if self.trouble().is_none() && !self.chance.per_mille(self.plan.remove_fails) {
                    let _never_there = self.disk.borrow_mut().remove(&path);
                }
            }
        }
        Ok(())
    }

    pub(super) fn create(&mut self, creation: Creation, station: &RefCell<Station>) -> Verdict {
        let Creation { segment, path, bytes, header } = creation;
        let (result, calls_left) = {
            let mut medium = FaultyMedium {
                trouble: self.trouble(),
                share: self.plan.create_fails,
                calls_left: station.borrow().calls_left,
                disk: &mut self.disk.borrow_mut(),
                chance: &mut self.chance,
            };
            (create_segment(&mut medium, &path, bytes, &header), medium.calls_left)
        };
        self.tell(|| format!("create {path:?}: {result:?}"));
        station.borrow_mut().calls_left = calls_left;
        station.borrow_mut().created.push_back((segment, result));
        if calls_left == Some(0) { self.crash("a call of a creation") } else { Ok(()) }
    }

    /// A helper takes a key, or fails to.
    fn take_key(&mut self, keys: &DayKeys, day: Day) -> Option<Result<SealingKey, KeyError>> {
        let now_ms = self.now_ms();
        let plan = self.plan.encryption?;
        let taken = self.vault.as_mut()?.take(keys, day, (&plan, now_ms));
        let counter = if taken.is_ok() { &mut self.tally.keys_taken } else { &mut self.tally.keys_refused };
        *counter += 1;
        self.tell(|| format!("take the key of {day}: {:?}", taken.as_ref().map(|taken| taken.key.id())));
        Some(taken)
    }

    /// What every change of the disk fails with now.
    pub(super) const fn trouble(&self) -> Option<Trouble> {
        match (self.disk_is_read_only, self.disk_is_full) {
            (true, _) => Some(Trouble::ReadOnly),
            (false, true) => Some(Trouble::Full),
            (false, false) => None,
        }
    }

    pub(super) fn write(&mut self, file: FileNo, write: Write) -> Result<Completion<usize>, String> {
        let Write { offset, buffer, from, tag } = write;
        let len = buffer.len() - from;
        let mut written = len;
        let mut error = None;
        if self.disk_is_read_only {
            (written, error) = (0, Some(Trouble::ReadOnly));
        } else if self.chance.per_mille(self.plan.write_fails) {
            // What is allocated can be written on a full disk; some file systems want more.
            let trouble = if self.disk_is_full { Trouble::Full } else { Trouble::Broken };
            (written, error) = (self.chance.below(len as u64 + 1) as usize, Some(trouble));
        } else if self.chance.per_mille(self.plan.write_is_short) {
            written = self.chance.below(len as u64 + 1) as usize;
        }
        let bytes = &buffer[from..from + written];
        self.disk.borrow_mut().write(file, offset as usize, bytes).map_err(|error| error.to_string())?;
        self.tell(|| format!("write {file:?} at {offset}: {written} of {len} {error:?}"));
        let result = error.map_or(Ok(written), |error| Err(error.error()));
        Ok(Completion::Written { tag, offset, buffer, result })
    }

    pub(super) fn sync(&mut self, file: FileNo) -> Result<std::io::Result<()>, String> {
        let text = |error: std::io::Error| error.to_string();
        if self.disk_is_read_only || self.chance.per_mille(self.plan.sync_fails) {
            self.tell(|| format!("sync {file:?} FAILS"));
            self.disk.borrow_mut().fail_sync(file, &mut self.chance).map_err(text)?;
            let trouble = if self.disk_is_read_only { Trouble::ReadOnly } else { Trouble::Broken };
            return Ok(Err(trouble.error()));
        }
        self.tell(|| format!("sync {file:?}"));
        let synced = self.disk.borrow_mut().sync(file).map_err(text)?;
        if let Some(synced) = synced {
            let synced = self.sing_in_segment(synced);
            self.oracle.durable(&synced)?;
        }
        Ok(Ok(()))
    }
}

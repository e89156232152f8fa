//! What a worker stands on: a clock, datagrams, files. Under a running node that is the kernel
//! ([`super::kernel`]); a simulation has one of its own.
//!
//! The worker decides; a host only carries out. It may be late, fail, or say that it failed, in
//! any order that a kernel may. Dispatch is static, so the seam costs nothing at run time.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::reply::SendSlots;
use crate::day::Day;
use crate::journal::seal::SealingKey;
use crate::journal::{DayKeys, KeyError, SegmentNo};
use crate::rx::http::door::Streams;
use crate::uring::{Completion, Datagram, ReceiverId, UringError, Write};

/// A segment that is to be made, as [`crate::journal::Operation::CreateSegment`] says.
#[derive(Debug)]
pub struct Creation {
    /// The segment.
    pub segment: SegmentNo,
    /// The file.
    pub path: PathBuf,
    /// Its full size.
    pub bytes: u64,
    /// Its first bytes.
    pub header: Vec<u8>,
}

/// The system under one worker.
pub trait Host: SendSlots + Streams {
    /// Names a filled receive buffer.
    type Buffer;
    /// An open segment.
    type File: Clone;

    /// Both clocks now.
    fn now(&mut self) -> Now;

    /// Starts what was asked for, waits until something completes or `timeout` passes, and
    /// collects what completed into `out`.
    ///
    /// # Errors
    /// When the worker cannot go on.
    fn wait(&mut self, timeout: Duration, out: &mut Vec<Completion<Self::Buffer>>) -> Result<(), UringError>;

    /// How other workers name this one when they wake it.
    fn bell(&self) -> RawFd;

    /// Wakes another worker.
    fn wake(&mut self, bell: RawFd);

    /// Number of receivers; all of them receive at the start.
    fn receivers(&self) -> usize;

    /// Starts a stopped receiver again.
    fn arm(&mut self, receiver: ReceiverId);

    /// Stops receiving; the receiver answers with [`Completion::ReceiverStopped`].
    fn stop_receiving(&mut self, receiver: ReceiverId);

    /// Datagrams the receiver's socket has dropped so far, modulo 2^32, where that can be told.
    fn socket_drops(&self, receiver: ReceiverId) -> Option<u32>;

    /// The datagram in a filled buffer.
    fn datagram(&self, buffer: &Self::Buffer, filled: usize) -> Option<Datagram<'_>>;

    /// Gives a buffer back.
    fn recycle(&mut self, buffer: Self::Buffer);

    /// Makes a segment that survives a crash, without holding up the worker; its end comes from
    /// [`Host::created`].
    ///
    /// # Errors
    /// When it cannot even be tried.
    fn create(&mut self, creation: Creation) -> io::Result<()>;

    /// The end of a creation, when one has ended.
    fn created(&mut self) -> Option<(SegmentNo, io::Result<Self::File>)>;

    /// Takes the key of a day, without holding up the worker; it comes from [`Host::key_taken`].
    ///
    /// # Errors
    /// When it cannot even be tried, as on a host without keys.
    fn take_key(&mut self, _keys: Arc<DayKeys>, _day: Day) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The key that was asked for, when it is there or cannot be had.
    fn key_taken(&mut self) -> Option<Result<SealingKey, KeyError>> {
        None
    }

    /// Writes `write.buffer[write.from..]` at `write.offset`; the buffer comes back with
    /// [`Completion::Written`].
    fn write(&mut self, file: &Self::File, write: Write);

    /// Syncs the data of a file; ends with [`Completion::Synced`].
    fn sync_data(&mut self, file: &Self::File, tag: u64);

    /// Deletes a file.
    ///
    /// # Errors
    /// As the system fails.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

//! Receive buffers that the kernel picks from: a provided buffer ring (Linux 5.19).
//!
//! The ring of descriptors is shared with the kernel: we write entries and the tail, it reads
//! them. A buffer is either the kernel's (its entry lies between head and tail) or ours (a
//! completion named it and it was not put back). [`BufferId`] is not `Clone`, so a buffer cannot
//! be put back twice.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::BufferId;

/// Bytes of a datagram's buffer: the kernel's framing ([`super::receive`]), then a payload larger than
/// any the protocol allows over UDP, so that an oversized datagram is seen as such.
pub(super) const BUFFER_LEN: usize = 2048;
/// The buffer group of datagrams.
pub(super) const GROUP: u16 = 0;

/// An anonymous mapping: page-aligned, zeroed, unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh anonymous mapping aliases nothing; the result is checked below. No
        // safe allocator promises page alignment, which buffer rings need.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of a mapping this struct made and alone owns.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The buffers of one group.
pub(super) struct ProvidedBuffers {
    descriptors: Option<Mapping>,
    memory: Option<Mapping>,
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    count: u16,
    buffer_len: usize,
    tail: u16,
    ours: usize,
}

impl ProvidedBuffers {
    /// Maps `count` buffers (a power of two) of `buffer_len` bytes and registers them with `ring`.
    pub(super) fn register(ring: &IoUring, count: u16, group: u16, buffer_len: usize) -> io::Result<Self> {
        if !count.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the number of buffers is not a power of two",
            ));
        }
        let descriptors = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_len)?;
        let (entries, bytes) = (descriptors.base.cast::<BufRingEntry>(), memory.base);
        // SAFETY: the mapping holds `count` descriptors, is page-aligned, and outlives the
        // ring: `Uring` drops its ring first, and leaks the mapping when operations linger.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0) }?;
        let mut buffers = Self {
            descriptors: Some(descriptors),
            memory: Some(memory),
            entries,
            bytes,
            count,
            buffer_len,
            tail: 0,
            ours: usize::from(count),
        };
        for id in 0..count {
            buffers.put_back(BufferId(id));
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Notes that the kernel gave us a buffer.
    pub(super) fn take(&mut self) {
        self.ours += 1;
        debug_assert!(self.ours <= usize::from(self.count));
    }

    /// Queues a buffer for the kernel; it sees it after [`ProvidedBuffers::publish`].
    pub(super) fn put_back(&mut self, buffer: BufferId) {
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, the number of descriptors in the mapping.
        let entry = unsafe { self.entries.add(slot) };
        // SAFETY: descriptors at and after the tail are ours to write; the kernel reads none of
        // them before `publish` moves the tail. At most `count` buffers exist, so the tail
        // never laps the head.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(self.address(&buffer).as_ptr() as u64);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(buffer.0);
        self.tail = self.tail.wrapping_add(1);
        self.ours = self.ours.saturating_sub(1);
    }

    /// Shows the kernel every buffer put back so far.
    pub(super) fn publish(&mut self) {
        // SAFETY: `entries` points at the first descriptor of a registered ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is aligned, valid as long as the mapping, and from registration on
        // accessed only atomically: by us here and by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The first `len` bytes of a buffer that the kernel filled.
    pub(super) fn filled(&self, buffer: &BufferId, len: usize) -> &[u8] {
        let start = self.address(buffer).as_ptr();
        // SAFETY: a `BufferId` exists only between a completion that named the buffer and
        // `put_back`; in between the kernel does not write it. The mapping was zeroed, so all
        // its bytes are initialised, and `len` is capped at the buffer's own.
        unsafe { std::slice::from_raw_parts(start, len.min(self.buffer_len)) }
    }

    fn address(&self, buffer: &BufferId) -> NonNull<u8> {
        debug_assert!(buffer.0 < self.count);
        // SAFETY: ids come from the kernel, which only names buffers we provided: below `count`.
        unsafe { self.bytes.add(usize::from(buffer.0) * self.buffer_len) }
    }

    /// Keeps the memory mapped for ever, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(self.descriptors.take());
        std::mem::forget(self.memory.take());
    }
}

//! The io_uring layer: one ring per worker, with all memory the kernel may touch.
//!
//! Safe on its outside. Everything that an operation in flight refers to (receive buffers, send
//! slots, file buffers, message headers, descriptors) is owned by [`Uring`] until its completion
//! was seen, so no caller can free or reuse it too early. It knows sockets and files as
//! descriptors only: what they mean is the business of [`crate::rx`] and [`crate::journal`].
//!
//! Supported: multishot `recvmsg` into provided buffers (Linux 6.0), `sendmsg`, multishot `accept`
//! (5.19) and `recv` (6.0) with one `send` a stream, positioned
//! writes, `fdatasync`, and waking another worker's ring (`MSG_RING`, 5.18). Set up with
//! `SINGLE_ISSUER | DEFER_TASKRUN` (6.1), so that completions run on the worker's own core at
//! the moment it asks for them. Nothing else is supported.
//!
//! Start reading at [`Uring::wait`].

mod file;
mod provided;
mod receive;
mod send;
mod stream;
mod token;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use file::FileOperations;
pub use file::Write;
use provided::{BUFFER_LEN, GROUP, ProvidedBuffers};
pub use receive::Datagram;
pub use receive::Peer;
use receive::Receiver;
use send::SendSlots;
pub use send::{SLOT_PAYLOAD, SlotId};
use stream::Streams;
pub use stream::{ListenerId, STREAM_BUFFER_LEN, StreamBuffer, StreamEvent, StreamId};
use token::{Kind, Token};

/// Why the layer could not be set up or used.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// `io_uring_setup` failed.
    #[error(
        "cannot set up io_uring: {0}; it needs Linux 6.1 or newer, `sysctl kernel.io_uring_disabled=0`, \
         and no seccomp filter that forbids it"
    )]
    Setup(io::Error),
    /// The receive buffers could not be mapped or registered.
    #[error(
        "cannot provide {count} receive buffers: {source}; lower `rx.udp.buffers_per_worker` or `rx.http.buffers_per_worker`, or add memory"
    )]
    Buffers {
        /// How many were asked for.
        count: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `io_uring_enter` failed.
    #[error("io_uring_enter failed: {0}; this is a defect or a kernel out of memory")]
    Enter(io::Error),
}

/// How large a ring is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Receive buffers; a power of two up to 32,768. A burst longer than this waits in the
    /// socket's own buffer.
    pub receive_buffers: u16,
    /// Datagrams that may be on their way out at once.
    pub send_slots: u16,
    /// Streams that may be open at once, 0 for none; [`Uring::streams`] makes room for them.
    pub streams: u32,
    /// Buffers that they are read into; a power of two.
    pub stream_buffers: u16,
}

impl Settings {
    /// A ring for datagrams and files alone.
    #[must_use]
    pub const fn datagrams(receive_buffers: u16, send_slots: u16) -> Self {
        Self { receive_buffers, send_slots, streams: 0, stream_buffers: 0 }
    }
}

/// Number of a receiver: the order in which sockets were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceiverId(pub u16);

/// Number of a filled receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(u16);

/// Something the kernel finished; `B` names a filled receive buffer.
#[derive(Debug)]
pub enum Completion<B = BufferId> {
    /// A datagram arrived; read it with [`Uring::datagram`], give it back with [`Uring::recycle`].
    Received {
        /// Where.
        receiver: ReceiverId,
        /// In which buffer.
        buffer: B,
        /// Bytes filled, with the layer's own header.
        filled: usize,
    },
    /// A receiver stopped by itself (buffers ran out, or an error) and must be armed again.
    ReceiverStopped {
        /// Which.
        receiver: ReceiverId,
        /// Why; `ENOBUFS` is no fault, `ECANCELED` answers [`Uring::stop_receiving`].
        error: Option<io::Error>,
    },
    /// A datagram was handed to the kernel, or refused by it.
    Sent(io::Result<()>),
    /// A write ended; the buffer comes back.
    Written {
        /// The caller's own number.
        tag: u64,
        /// The offset that was asked for.
        offset: u64,
        /// The buffer that was written from.
        buffer: Vec<u8>,
        /// Bytes written.
        result: io::Result<usize>,
    },
    /// An fdatasync ended.
    Synced {
        /// The caller's own number.
        tag: u64,
        /// Whether the data is on the device.
        result: io::Result<()>,
    },
    /// Something happened to a listener or a stream.
    Stream(StreamEvent),
    /// Another worker rang.
    Woken,
}

/// A ring and the memory of its operations. Belongs to the thread that made it.
pub struct Uring {
    // Declared before the memory below, so that it is dropped, and with it every operation in
    // flight cancelled, before that memory goes.
    ring: IoUring,
    buffers: ProvidedBuffers,
    receivers: Vec<Receiver>,
    sends: SendSlots,
    files: FileOperations,
    streams: Option<Streams>,
    in_flight: usize,
}

impl Uring {
    /// Makes the calling thread's ring.
    ///
    /// # Errors
    /// When the kernel has no io_uring, refuses it, or lacks memory for the buffers.
    pub fn new(settings: Settings) -> Result<Self, UringError> {
        // Every buffer, slot and file operation can complete at once; the queue must hold them
        // all, because an overflowing completion queue costs a slow path in the kernel.
        let datagrams = u32::from(settings.receive_buffers) + u32::from(settings.send_slots);
        let streams = u32::from(settings.stream_buffers) + 2 * settings.streams;
        let completions = datagrams + streams + 256;
        // The kernel refuses a completion queue smaller than the submission queue.
        let completions = completions.next_power_of_two().max(2 * SUBMISSIONS);
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            // With tens of thousands of streams that is more than the kernel has; it gives what it has.
            .setup_clamp()
            .build(SUBMISSIONS)
            .map_err(UringError::Setup)?;
        let failed = |count| move |source| UringError::Buffers { count, source };
        let count = settings.receive_buffers;
        let buffers = ProvidedBuffers::register(&ring, count, GROUP, BUFFER_LEN).map_err(failed(count))?;
        let count = settings.stream_buffers;
        let streams = (settings.streams > 0).then(|| Streams::new(&ring, settings.streams, count));
        Ok(Self {
            streams: streams.transpose().map_err(failed(count))?,
            ring,
            buffers,
            receivers: Vec::new(),
            sends: SendSlots::new(settings.send_slots),
            files: FileOperations::default(),
            in_flight: 0,
        })
    }

    /// The descriptor other workers ring with [`Uring::wake`].
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Submits what is queued, then waits until something completes or `timeout` passes, and
    /// collects all completions there are into `out`.
    ///
    /// # Errors
    /// When the kernel refuses to enter the ring; nothing is lost by calling again.
    pub fn wait(&mut self, timeout: Duration, out: &mut Vec<Completion>) -> Result<(), UringError> {
        self.buffers.publish();
        if let Some(streams) = &mut self.streams {
            streams.buffers.publish();
        }
        let timespec = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timespec);
        let want = usize::from(!timeout.is_zero());
        match self.ring.submitter().submit_with_args(want, &args) {
            Ok(_) => {}
            Err(error) if is_no_fault(&error) => {}
            Err(error) => return Err(UringError::Enter(error)),
        }
        self.collect(out);
        Ok(())
    }

    fn collect(&mut self, out: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let token = Token::from_user_data(entry.user_data());
            let more = cqueue::more(entry.flags());
            if token.kind() != Kind::Wake && !more {
                self.in_flight -= 1;
            }
            match token.kind() {
                Kind::Receive => {
                    let receiver = ReceiverId(token.index() as u16);
                    let buffer = cqueue::buffer_select(entry.flags()).map(BufferId);
                    match (entry.result(), buffer) {
                        (filled @ 0.., Some(buffer)) => {
                            self.buffers.take();
                            out.push(Completion::Received { receiver, buffer, filled: filled as usize });
                        }
                        (_, Some(buffer)) => self.buffers.put_back(buffer),
                        (_, None) => {}
                    }
                    if !more {
                        let error =
                            (entry.result() < 0).then(|| io::Error::from_raw_os_error(-entry.result()));
                        out.push(Completion::ReceiverStopped { receiver, error });
                    }
                }
                Kind::Send => {
                    self.sends.release(SlotId(token.index() as u16));
                    out.push(Completion::Sent(outcome(entry.result()).map(drop)));
                }
                Kind::Write => {
                    let done = self.files.finish(token.index());
                    let result = outcome(entry.result());
                    out.push(Completion::Written {
                        tag: done.tag,
                        offset: done.offset,
                        buffer: done.buffer,
                        result,
                    });
                }
                Kind::Sync => {
                    let tag = self.files.finish(token.index()).tag;
                    out.push(Completion::Synced { tag, result: outcome(entry.result()).map(drop) });
                }
                Kind::Wake => out.push(Completion::Woken),
                Kind::Ignored => {}
                Kind::Accept | Kind::StreamReceive | Kind::StreamSend => {
                    if let Some(streams) = &mut self.streams {
                        streams.collect(token, &entry, |event| out.push(Completion::Stream(event)));
                    }
                }
            }
        }
    }

    /// Adds a socket and starts to receive from it. The socket stays open as long as the ring.
    pub fn add_receiver(&mut self, socket: OwnedFd) -> ReceiverId {
        let id = ReceiverId(self.receivers.len() as u16);
        self.receivers.push(Receiver::new(socket));
        self.arm(id);
        id
    }

    /// Starts a stopped receiver again.
    pub fn arm(&mut self, id: ReceiverId) {
        let entry = self.receivers[usize::from(id.0)].entry(Token::new(Kind::Receive, u64::from(id.0)));
        self.push(entry);
    }

    /// Stops receiving; the receiver answers with [`Completion::ReceiverStopped`].
    pub fn stop_receiving(&mut self, id: ReceiverId) {
        let target = Token::new(Kind::Receive, u64::from(id.0)).user_data();
        let entry =
            opcode::AsyncCancel::new(target).build().user_data(Token::new(Kind::Ignored, 0).user_data());
        self.push(entry);
    }

    /// The datagram in a filled buffer; `None` when the kernel's own framing does not hold.
    #[must_use]
    pub fn datagram(&self, buffer: &BufferId, filled: usize) -> Option<Datagram<'_>> {
        Datagram::parse(self.buffers.filled(buffer, filled))
    }

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, buffer: BufferId) {
        self.buffers.put_back(buffer);
    }

    /// A free send slot, or `None` when all are on their way out.
    pub fn free_slot(&mut self) -> Option<SlotId> {
        self.sends.take()
    }

    /// The bytes of a taken slot.
    pub fn slot_payload(&mut self, slot: &SlotId) -> &mut [u8; SLOT_PAYLOAD] {
        self.sends.payload(slot)
    }

    /// Sends the first `len` bytes of a slot back to where `to` came from.
    pub fn send(&mut self, slot: SlotId, len: usize, to: &Peer) {
        let fd = types::Fd(self.receivers[usize::from(to.receiver.0)].raw_fd());
        let entry = self.sends.entry(slot, len, to, fd);
        self.push(entry);
    }

    /// Writes `write.buffer[write.from..]` at `write.offset`; the buffer comes back with
    /// [`Completion::Written`].
    pub fn write(&mut self, file: &Arc<File>, write: Write) {
        let entry = self.files.write_entry(file, write);
        self.push(entry);
    }

    /// Syncs the data of `file` to its device.
    pub fn sync_data(&mut self, file: &Arc<File>, tag: u64) {
        let entry = self.files.sync_entry(file, tag);
        self.push(entry);
    }

    /// Rings another worker's ring, which then sees [`Completion::Woken`].
    pub fn wake(&mut self, ring: RawFd) {
        let wake = Token::new(Kind::Wake, 0).user_data();
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, wake, None)
            .build()
            .user_data(Token::new(Kind::Ignored, 0).user_data());
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: an entry's pointers must stay valid until its completion. They point into
        // receivers, send slots and file buffers, which this struct owns, never moves and never
        // reuses before `collect` has seen the completion.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full: let the kernel take what is there. It always can, because
            // taking an entry needs no room in the completion queue.
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Closing a ring cancels its operations, but not before this function returns: memory
        // they refer to could be freed under the kernel. So cancel and wait first; what does
        // not end within the bound keeps its memory for ever.
        let everything = types::CancelBuilder::any();
        let deadline = Some(types::Timespec::from(Duration::from_millis(100)));
        let _ = self.ring.submitter().register_sync_cancel(deadline, everything);
        let mut out = Vec::new();
        for _ in 0..50 {
            if self.in_flight == 0 {
                return;
            }
            let _ = self.wait(Duration::from_millis(10), &mut out);
            out.clear();
        }
        self.buffers.leak();
        if let Some(streams) = &mut self.streams {
            streams.leak();
        }
        self.sends.leak();
        self.files.leak();
        std::mem::take(&mut self.receivers).into_iter().for_each(std::mem::forget);
    }
}

/// Entries of the submission queue: enough for one loop's acks without an extra system call.
const SUBMISSIONS: u32 = 1024;

fn outcome(result: i32) -> io::Result<usize> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) }
}

/// A wait that timed out, was interrupted, or found the completion queue busy is no fault.
fn is_no_fault(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

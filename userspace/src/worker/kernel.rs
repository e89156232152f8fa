//! The kernel as a worker's host: one ring, its sockets, the clocks, and a helper thread that
//! creates segments, because that one blocks.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use weir_common::id::WorkerId;

use super::WorkerError;
use super::clock::{Clock, Now};
use super::disk_faults::{DiskFaults, Injected};
use super::host::{Creation, Host};
use super::reply::SendSlots;
use crate::clock::NodeClock;
use crate::day::Day;
use crate::journal::disk::{Stepwise, create_segment};
use crate::journal::seal::SealingKey;
use crate::journal::{DayKeys, KeyError, SegmentNo};
use crate::rx::http::door::Streams;
use crate::rx::udp::socket_drops;
use crate::uring::{
    self, BufferId, Completion, Datagram, ListenerId, Peer, ReceiverId, SLOT_PAYLOAD, SlotId, StreamBuffer,
    StreamId, Uring, UringError, Write,
};

/// Segments a journal may have asked for and not got yet: it asks for one at a time.
const CREATIONS: usize = 2;

/// What a worker asks its helper thread for.
enum Wanted {
    Segment(Creation),
    Key(Arc<DayKeys>, Day),
}

/// What the helper answers.
enum Done {
    Segment(SegmentNo, io::Result<File>),
    Key(Result<SealingKey, KeyError>),
}

/// The thread that creates segments and takes keys, both of which block. It ends when its worker
/// drops this.
struct Creator {
    wanted: SyncSender<Wanted>,
    done: Receiver<Done>,
    /// What came while the other was asked for.
    keys: Vec<Result<SealingKey, KeyError>>,
    created: Vec<(SegmentNo, io::Result<File>)>,
}

impl Creator {
    fn start(worker: WorkerId) -> io::Result<Self> {
        let (wanted, to_create) = sync_channel::<Wanted>(CREATIONS);
        let (answer, done) = sync_channel(CREATIONS);
        let faults = DiskFaults::new(worker);
        std::thread::Builder::new().name(format!("weir-segment-{}", worker.0)).spawn(move || {
            for wanted in to_create {
                let done = match wanted {
                    Wanted::Key(keys, day) => Done::Key(keys.take(day)),
                    Wanted::Segment(Creation { segment, path, bytes, header }) => {
                        let mut disk = Stepwise(|step| faults.creation(segment, step));
                        Done::Segment(segment, create_segment(&mut disk, &path, bytes, &header))
                    }
                };
                if answer.send(done).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, done, keys: Vec::new(), created: Vec::new() })
    }

    fn ask(&self, wanted: Wanted) -> io::Result<()> {
        self.wanted.try_send(wanted).map_err(|_| io::Error::other("the thread that creates segments is gone"))
    }

    /// Takes what is done.
    fn collect(&mut self) {
        for done in self.done.try_iter() {
            match done {
                Done::Segment(segment, result) => self.created.push((segment, result)),
                Done::Key(result) => self.keys.push(result),
            }
        }
    }
}

/// What a worker of a running node stands on. Belongs to the thread that made it.
pub struct Kernel {
    uring: Uring,
    /// A second descriptor of each socket, to read counters from; the first is the ring's.
    sockets: Vec<OwnedFd>,
    creator: Creator,
    clock: Clock,
    faults: DiskFaults,
    /// What the faults answered in the ring's place.
    answered: Vec<Completion>,
}

impl Kernel {
    /// Sets up the ring, the sockets and the helper thread of a worker, on its own thread.
    ///
    /// # Errors
    /// When the kernel refuses the ring, a thread or a descriptor.
    pub fn start(
        worker: WorkerId,
        ring: uring::Settings,
        sockets: Vec<OwnedFd>,
        clock: Arc<NodeClock>,
    ) -> Result<Self, WorkerError> {
        let start = |operation| move |source| WorkerError::Start { worker: worker.0, operation, source };
        let mut uring = Uring::new(ring)?;
        let mut kept = Vec::with_capacity(sockets.len());
        for socket in sockets {
            kept.push(socket.try_clone().map_err(start("duplicate a socket"))?);
            uring.add_receiver(socket);
        }
        let creator = Creator::start(worker).map_err(start("start its segment thread"))?;
        let (clock, faults) = (Clock::new(clock), DiskFaults::new(worker));
        Ok(Self { uring, sockets: kept, creator, clock, faults, answered: Vec::new() })
    }
}

impl Kernel {
    /// Accepts connections on a socket.
    pub fn listen(&mut self, socket: OwnedFd) {
        self.uring.add_listener(socket);
    }

    /// Whether a fault on this file waits to be told: what comes for it meanwhile is not tried.
    fn has_failed(&self, file: u64) -> bool {
        self.answered.iter().any(|answer| match answer {
            Completion::Written { tag, result: Err(_), .. } | Completion::Synced { tag, result: Err(_) } => {
                *tag == file
            }
            _ => false,
        })
    }
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::CANCELED.raw_os_error())
}

impl Host for Kernel {
    type Buffer = BufferId;
    type File = Arc<File>;

    fn now(&mut self) -> Now {
        self.clock.read()
    }

    fn wait(&mut self, timeout: Duration, out: &mut Vec<Completion>) -> Result<(), UringError> {
        while let Some((segment, result)) = self.faults.due() {
            self.answered.push(Completion::Synced { tag: u64::from(segment.0), result });
        }
        let timeout = if self.answered.is_empty() { timeout } else { Duration::ZERO };
        out.append(&mut self.answered);
        self.uring.wait(timeout, out)
    }

    fn bell(&self) -> RawFd {
        self.uring.raw_fd()
    }

    fn wake(&mut self, bell: RawFd) {
        self.uring.wake(bell);
    }

    fn receivers(&self) -> usize {
        self.sockets.len()
    }

    fn arm(&mut self, receiver: ReceiverId) {
        self.uring.arm(receiver);
    }

    fn stop_receiving(&mut self, receiver: ReceiverId) {
        self.uring.stop_receiving(receiver);
    }

    fn socket_drops(&self, receiver: ReceiverId) -> Option<u32> {
        socket_drops(self.sockets[usize::from(receiver.0)].as_fd())
    }

    fn datagram(&self, buffer: &BufferId, filled: usize) -> Option<Datagram<'_>> {
        self.uring.datagram(buffer, filled)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.uring.recycle(buffer);
    }

    fn create(&mut self, creation: Creation) -> io::Result<()> {
        self.creator.ask(Wanted::Segment(creation))
    }

    fn created(&mut self) -> Option<(SegmentNo, io::Result<Arc<File>>)> {
        self.creator.collect();
        self.creator.created.pop().map(|(segment, result)| (segment, result.map(Arc::new)))
    }

    fn take_key(&mut self, keys: Arc<DayKeys>, day: Day) -> io::Result<()> {
        self.creator.ask(Wanted::Key(keys, day))
    }

    fn key_taken(&mut self) -> Option<Result<SealingKey, KeyError>> {
        self.creator.collect();
        self.creator.keys.pop()
    }

    fn write(&mut self, file: &Arc<File>, write: Write) {
        let Write { offset, ref buffer, from, tag } = write;
        if self.has_failed(tag) {
            let result = Err(cancelled());
            self.answered.push(Completion::Written { tag, offset, buffer: write.buffer, result });
            return;
        }
        match self.faults.write(SegmentNo(tag as u32), file, offset, &buffer[from..]) {
            Injected::Over(result) => {
                self.answered.push(Completion::Written { tag, offset, buffer: write.buffer, result });
            }
            Injected::No | Injected::Later => self.uring.write(file, write),
        }
    }

    fn sync_data(&mut self, file: &Arc<File>, tag: u64) {
        if self.has_failed(tag) {
            self.answered.push(Completion::Synced { tag, result: Err(cancelled()) });
            return;
        }
        match self.faults.sync(SegmentNo(tag as u32), file) {
            Injected::No => self.uring.sync_data(file, tag),
            Injected::Over(result) => self.answered.push(Completion::Synced { tag, result }),
            Injected::Later => {}
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

impl Streams for Kernel {
    fn arm_listener(&mut self, listener: ListenerId) {
        self.uring.arm_listener(listener);
    }

    fn stop_accepting(&mut self, listener: ListenerId) {
        self.uring.stop_accepting(listener);
    }

    fn arm_stream(&mut self, stream: StreamId) {
        self.uring.arm_stream(stream);
    }

    fn pause_stream(&mut self, stream: StreamId) {
        self.uring.pause_stream(stream);
    }

    fn arrived(&self, buffer: &StreamBuffer, filled: usize) -> &[u8] {
        self.uring.arrived(buffer, filled)
    }

    fn recycle_stream(&mut self, buffer: StreamBuffer) {
        self.uring.recycle_stream(buffer);
    }

    fn send_stream(&mut self, stream: StreamId, bytes: Vec<u8>) {
        self.uring.send_stream(stream, bytes);
    }

    fn finish_stream(&mut self, stream: StreamId) {
        self.uring.finish_stream(stream);
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.uring.close_stream(stream);
    }

    fn peer_of(&mut self, stream: StreamId) -> Option<SocketAddr> {
        self.uring.stream_peer(stream)
    }
}

impl SendSlots for Kernel {
    type Slot = SlotId;

    fn free_slot(&mut self) -> Option<SlotId> {
        self.uring.free_slot()
    }

    fn payload(&mut self, slot: &SlotId) -> &mut [u8; SLOT_PAYLOAD] {
        self.uring.slot_payload(slot)
    }

    fn send(&mut self, slot: SlotId, len: usize, to: &Peer) {
        self.uring.send(slot, len, to);
    }
}

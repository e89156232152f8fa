//! A worker's host in a simulation: its calls become requests that the world carries out when
//! and how it likes. After the call at which the node dies nothing happens any more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir::clock::NodeClock;
use weir::day::Day;
use weir::journal::seal::SealingKey;
use weir::journal::{DayKeys, KeyError, SegmentNo};
use weir::rx::http::door::Streams;
use weir::uring::{
    Completion, Datagram, ListenerId, Peer, ReceiverId, SLOT_PAYLOAD, StreamBuffer, StreamId, UringError,
    Write,
};
use weir::worker::clock::{Clock, Now};
use weir::worker::host::{Creation, Host};
use weir::worker::reply::SendSlots;
use weir_common::time::UnixMs;

use super::disk::FileNo;

/// Receive buffers of a worker: few, so that they run out.
pub const BUFFERS: usize = 8;
/// Send slots of a worker.
const SLOTS: usize = 6;
/// Datagrams a socket holds.
const SOCKET: usize = 16;

/// What the clocks of the node's system show, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The wall clock.
    pub wall: UnixMs,
    /// The monotonic clock.
    pub monotonic_ns: u64,
}

/// The system's clocks, shared by all.
pub type Clocks = Rc<Cell<Shown>>;

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Who sent it, or whom it goes to.
    pub peer: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Something a worker wants of the disk.
#[derive(Debug)]
pub enum Request {
    /// Write the buffer from there on.
    Write(FileNo, Write),
    /// Sync the file.
    Sync(FileNo, u64),
    /// Make a segment.
    Create(Creation),
    /// Delete a file.
    Remove(PathBuf),
    /// Take the key of a day.
    TakeKey(Arc<DayKeys>, Day),
}

/// What a host shares with the world.
#[derive(Debug, Default)]
pub struct Station {
    /// Datagrams in the socket.
    socket: VecDeque<Packet>,
    /// Datagrams the socket had no room for.
    pub socket_drops: u32,
    /// What the worker wants and did not get yet.
    pub requests: Vec<Request>,
    /// What has ended and the worker has not seen.
    pub ended: Vec<Completion<usize>>,
    /// Creations that have ended and the worker has not seen.
    pub created: VecDeque<(SegmentNo, io::Result<FileNo>)>,
    /// Keys that were taken, or not, and the worker has not seen.
    pub keys_taken: VecDeque<Result<SealingKey, KeyError>>,
    /// Datagrams sent.
    pub sent: Vec<Packet>,
    /// Datagrams whose buffers came back: their clicks are decided.
    pub decided: Vec<Packet>,
    is_stopped: bool,
    /// Calls until the node dies; `None` for never.
    pub calls_left: Option<u64>,
}

impl Station {
    /// A datagram arrives at the socket.
    pub fn arrive(&mut self, packet: Packet) {
        if self.socket.len() < SOCKET {
            self.socket.push_back(packet);
        } else {
            self.socket_drops += 1;
        }
    }

    /// Whether the node died at one of this host's calls.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.calls_left == Some(0)
    }

    /// Counts a call; whether it has an effect.
    fn call(&mut self) -> bool {
        if let Some(left) = &mut self.calls_left {
            *left = left.saturating_sub(1);
        }
        !self.is_dead()
    }
}

/// One worker's host.
#[derive(Debug)]
pub struct SimulatedHost {
    bell: RawFd,
    clocks: Clocks,
    clock: Clock,
    station: Rc<RefCell<Station>>,
    buffers: Vec<Option<Packet>>,
    slots: Vec<[u8; SLOT_PAYLOAD]>,
    free: Vec<usize>,
    in_flight: Vec<usize>,
    armed: bool,
    /// The receiver has not said yet that it stopped.
    has_to_say_so: Option<i32>,
}

impl SimulatedHost {
    /// The host of worker number `bell`.
    #[must_use]
    pub fn new(bell: RawFd, clocks: Clocks, clock: Arc<NodeClock>, station: Rc<RefCell<Station>>) -> Self {
        Self {
            bell,
            clocks,
            clock: Clock::new(clock),
            station,
            buffers: vec![None; BUFFERS],
            slots: vec![[0; SLOT_PAYLOAD]; SLOTS],
            free: (0..SLOTS).collect(),
            in_flight: Vec::new(),
            armed: true,
            has_to_say_so: None,
        }
    }

    fn receive(&mut self, out: &mut Vec<Completion<usize>>) {
        let station = &mut *self.station.borrow_mut();
        if station.is_stopped && self.armed {
            self.armed = false;
            self.has_to_say_so = Some(125); // ECANCELED
        }
        while self.armed && !station.socket.is_empty() {
            let Some(buffer) = self.buffers.iter().position(Option::is_none) else {
                self.armed = false;
                self.has_to_say_so = Some(105); // ENOBUFS
                break;
            };
            let packet = station.socket.pop_front();
            let filled = packet.as_ref().map_or(0, |packet| packet.payload.len());
            self.buffers[buffer] = packet;
            out.push(Completion::Received { receiver: ReceiverId(0), buffer, filled });
        }
        if let Some(code) = self.has_to_say_so.take() {
            let error = Some(io::Error::from_raw_os_error(code));
            out.push(Completion::ReceiverStopped { receiver: ReceiverId(0), error });
        }
    }
}

impl Host for SimulatedHost {
    type Buffer = usize;
    type File = FileNo;

    fn now(&mut self) -> Now {
        self.clock.at(self.clocks.get().monotonic_ns)
    }

    fn wait(&mut self, _: Duration, out: &mut Vec<Completion<usize>>) -> Result<(), UringError> {
        self.station.borrow_mut().call();
        for slot in self.in_flight.drain(..) {
            self.free.push(slot);
            out.push(Completion::Sent(Ok(())));
        }
        out.append(&mut self.station.borrow_mut().ended);
        self.receive(out);
        Ok(())
    }

    fn bell(&self) -> RawFd {
        self.bell
    }

    fn wake(&mut self, _: RawFd) {}

    fn receivers(&self) -> usize {
        1
    }

    fn arm(&mut self, _: ReceiverId) {
        self.armed = true;
    }

    fn stop_receiving(&mut self, _: ReceiverId) {
        self.station.borrow_mut().is_stopped = true;
    }

    fn socket_drops(&self, _: ReceiverId) -> Option<u32> {
        Some(self.station.borrow().socket_drops)
    }

    fn datagram(&self, &buffer: &usize, filled: usize) -> Option<Datagram<'_>> {
        let packet = self.buffers[buffer].as_ref()?;
        Some(Datagram {
            from: packet.peer,
            local: None,
            payload: &packet.payload[..filled],
            truncated: false,
            socket_drops: None,
        })
    }

    fn recycle(&mut self, buffer: usize) {
        self.station.borrow_mut().decided.extend(self.buffers[buffer].take());
    }

    fn create(&mut self, creation: Creation) -> io::Result<()> {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.requests.push(Request::Create(creation));
        }
        Ok(())
    }

    fn created(&mut self) -> Option<(SegmentNo, io::Result<FileNo>)> {
        self.station.borrow_mut().created.pop_front()
    }

    fn take_key(&mut self, keys: Arc<DayKeys>, day: Day) -> io::Result<()> {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.requests.push(Request::TakeKey(keys, day));
        }
        Ok(())
    }

    fn key_taken(&mut self) -> Option<Result<SealingKey, KeyError>> {
        self.station.borrow_mut().keys_taken.pop_front()
    }

    fn write(&mut self, &file: &FileNo, write: Write) {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.requests.push(Request::Write(file, write));
        }
    }

    fn sync_data(&mut self, &file: &FileNo, tag: u64) {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.requests.push(Request::Sync(file, tag));
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.requests.push(Request::Remove(path.to_owned()));
        }
        Ok(())
    }
}

impl SendSlots for SimulatedHost {
    type Slot = usize;

    fn free_slot(&mut self) -> Option<usize> {
        self.free.pop()
    }

    fn payload(&mut self, &slot: &usize) -> &mut [u8; SLOT_PAYLOAD] {
        &mut self.slots[slot]
    }

    fn send(&mut self, slot: usize, len: usize, to: &Peer) {
        let mut station = self.station.borrow_mut();
        if station.call() {
            station.sent.push(Packet { peer: to.address, payload: self.slots[slot][..len].to_vec() });
        }
        self.in_flight.push(slot);
    }
}

/// There are no streams here: what is simulated comes in as datagrams.
impl Streams for SimulatedHost {
    fn arm_listener(&mut self, _: ListenerId) {}

    fn stop_accepting(&mut self, _: ListenerId) {}

    fn arm_stream(&mut self, _: StreamId) {}

    fn pause_stream(&mut self, _: StreamId) {}

    fn arrived(&self, _: &StreamBuffer, _: usize) -> &[u8] {
        &[]
    }

    fn recycle_stream(&mut self, _: StreamBuffer) {}

    fn send_stream(&mut self, _: StreamId, _: Vec<u8>) {}

    fn finish_stream(&mut self, _: StreamId) {}

    fn close_stream(&mut self, _: StreamId) {}

    fn peer_of(&mut self, _: StreamId) -> Option<SocketAddr> {
        None
    }
}

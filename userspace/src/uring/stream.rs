//! Streams: connections that multishot `accept` opens (Linux 5.19) and multishot `recv` reads into
//! buffers of their own group (6.0).
//!
//! A stream has one receive and one send in flight at the most. A closed one keeps its place until
//! both have ended, so what the kernel still says of it is never taken for another's.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::SockRef;

use super::provided::ProvidedBuffers;
use super::token::{Kind, Token};
use super::{BufferId, Uring};

/// The buffer group of streams.
const GROUP: u16 = 1;
/// Bytes of one buffer: most requests of browsers, and a TLS record in two.
pub const STREAM_BUFFER_LEN: usize = 8192;

/// Number of a listener: the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u16);

/// A place in the table of streams. The next connection may have it once this one is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub u32);

/// A filled buffer of a stream. Not `Clone`: given back once.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamBuffer(pub(super) BufferId);

/// What the kernel says of listeners and streams.
#[derive(Debug)]
pub enum StreamEvent {
    /// A connection came in.
    Accepted {
        /// Where.
        listener: ListenerId,
        /// Its place; none when there was no room, and it is closed.
        stream: Option<StreamId>,
    },
    /// A listener stopped and must be armed again.
    AcceptStopped {
        /// Which.
        listener: ListenerId,
        /// Why; `ECANCELED` answers [`Uring::stop_accepting`].
        error: Option<io::Error>,
    },
    /// Bytes came in; read them with [`Uring::arrived`], give the buffer back with
    /// [`Uring::recycle_stream`].
    Arrived {
        /// On which stream.
        stream: StreamId,
        /// In which buffer.
        buffer: StreamBuffer,
        /// Bytes filled.
        filled: usize,
    },
    /// A stream is read no more until it is armed again.
    Stopped {
        /// Which.
        stream: StreamId,
        /// None: the other side sends nothing more. `ENOBUFS` and `ECANCELED`, which answers
        /// [`Uring::pause_stream`], are no faults.
        error: Option<io::Error>,
    },
    /// A send on a stream ended: all of it, or an error.
    Sent {
        /// Which.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
        /// How many went out.
        result: io::Result<usize>,
    },
}

#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    is_receiving: bool,
    /// The bytes that the kernel reads while a send is in flight.
    sending: Option<Vec<u8>>,
    is_closed: bool,
}

/// All listeners and streams of a ring.
pub(super) struct Streams {
    pub(super) buffers: ProvidedBuffers,
    listeners: Vec<OwnedFd>,
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
}

impl Streams {
    /// Room for `streams` connections and `buffers` buffers, a power of two.
    pub(super) fn new(ring: &IoUring, streams: u32, buffers: u16) -> io::Result<Self> {
        Ok(Self {
            buffers: ProvidedBuffers::register(ring, buffers, GROUP, STREAM_BUFFER_LEN)?,
            listeners: Vec::new(),
            slots: (0..streams).map(|_| None).collect(),
            free: (0..streams).rev().collect(),
        })
    }

    pub(super) fn add_listener(&mut self, socket: OwnedFd) -> ListenerId {
        self.listeners.push(socket);
        ListenerId(self.listeners.len() as u16 - 1)
    }

    pub(super) fn accept_entry(&self, id: ListenerId) -> Option<squeue::Entry> {
        let listener = self.listeners.get(usize::from(id.0))?;
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        Some(accept.build().user_data(Token::new(Kind::Accept, u64::from(id.0)).user_data()))
    }

    /// Takes an accepted connection in; none, and it is closed, when there is no room.
    fn take_in(&mut self, socket: RawFd) -> Option<StreamId> {
        // SAFETY: the kernel made this descriptor for our accept and told nobody else of it, so it is
        // open and ours alone. Needed because a completion is a number.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let id = self.free.pop()?;
        let stream = Stream { socket, is_receiving: false, sending: None, is_closed: false };
        self.slots[id as usize] = Some(stream);
        Some(StreamId(id))
    }

    fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    /// The request that receives; none when one is under way, or the stream is closed.
    pub(super) fn receive_entry(&mut self, id: StreamId) -> Option<squeue::Entry> {
        let stream = self.get(id).filter(|stream| !stream.is_receiving && !stream.is_closed)?;
        stream.is_receiving = true;
        let receive = opcode::RecvMulti::new(types::Fd(stream.socket.as_raw_fd()), GROUP);
        Some(receive.build().user_data(receive_token(id)))
    }

    /// What cancels the receive under way.
    pub(super) fn pause_entry(&mut self, id: StreamId) -> Option<squeue::Entry> {
        self.get(id).filter(|stream| stream.is_receiving)?;
        let cancel = opcode::AsyncCancel::new(receive_token(id)).build();
        Some(cancel.user_data(Token::new(Kind::Ignored, 0).user_data()))
    }

    /// The request that sends all of `bytes`; none when one is under way, or the stream is closed.
    pub(super) fn send_entry(&mut self, id: StreamId, bytes: Vec<u8>) -> Option<squeue::Entry> {
        let stream = self.get(id).filter(|stream| stream.sending.is_none() && !stream.is_closed)?;
        // Moving the vector into its place does not move its heap bytes.
        let bytes = stream.sending.insert(bytes);
        let fd = types::Fd(stream.socket.as_raw_fd());
        let send = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        Some(send.user_data(Token::new(Kind::StreamSend, u64::from(id.0)).user_data()))
    }

    /// The receive of a stream is over; whether anybody is to hear of it.
    fn received_last(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.get(id) else { return false };
        stream.is_receiving = false;
        let is_open = !stream.is_closed;
        self.let_go(id);
        is_open
    }

    /// A send is over; the bytes come back, when anybody is to hear of it.
    fn sent(&mut self, id: StreamId) -> Option<Vec<u8>> {
        let stream = self.get(id)?;
        let bytes = stream.sending.take();
        let is_open = !stream.is_closed;
        self.let_go(id);
        bytes.filter(|_| is_open)
    }

    /// Sorts a completion of a listener or a stream.
    pub(super) fn collect(&mut self, token: Token, entry: &cqueue::Entry, mut out: impl FnMut(StreamEvent)) {
        let (result, is_last) = (entry.result(), !cqueue::more(entry.flags()));
        let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
        let stream = StreamId(token.index() as u32);
        match token.kind() {
            Kind::Accept => {
                let listener = ListenerId(token.index() as u16);
                if result >= 0 {
                    out(StreamEvent::Accepted { listener, stream: self.take_in(result) });
                }
                if is_last {
                    out(StreamEvent::AcceptStopped { listener, error });
                }
            }
            Kind::StreamReceive => {
                if let Some(buffer) = cqueue::buffer_select(entry.flags()).map(BufferId) {
                    self.buffers.take();
                    if result > 0 && self.is_open(stream) {
                        let (buffer, filled) = (StreamBuffer(buffer), result as usize);
                        out(StreamEvent::Arrived { stream, buffer, filled });
                    } else {
                        self.buffers.put_back(buffer);
                    }
                }
                if is_last && self.received_last(stream) {
                    // A receive that ends with bytes in hand has not seen the end of the stream.
                    let cut_short = || io::Error::from_raw_os_error(libc::ENOBUFS);
                    let error = error.or_else(|| (result > 0).then(cut_short));
                    out(StreamEvent::Stopped { stream, error });
                }
            }
            _ => {
                if let Some(bytes) = self.sent(stream) {
                    let result = error.map_or(Ok(result as usize), Err);
                    out(StreamEvent::Sent { stream, bytes, result });
                }
            }
        }
    }

    fn is_open(&mut self, id: StreamId) -> bool {
        self.get(id).is_some_and(|stream| !stream.is_closed)
    }

    pub(super) fn peer(&mut self, id: StreamId) -> Option<SocketAddr> {
        SockRef::from(&self.get(id)?.socket).peer_addr().ok()?.as_socket()
    }

    /// Tells the other side that nothing more comes.
    pub(super) fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id) {
            // A connection that is gone already needs no telling.
            let _ = SockRef::from(&stream.socket).shutdown(Shutdown::Write);
        }
    }

    /// Closes a stream: now, or when the kernel is done with it.
    pub(super) fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.get(id) {
            stream.is_closed = true;
            // Ends what is in flight.
            let _ = SockRef::from(&stream.socket).shutdown(Shutdown::Both);
            self.let_go(id);
        }
    }

    fn let_go(&mut self, id: StreamId) {
        let is_done = self
            .get(id)
            .is_some_and(|stream| stream.is_closed && !stream.is_receiving && stream.sending.is_none());
        if is_done {
            self.slots[id.0 as usize] = None;
            self.free.push(id.0);
        }
    }

    pub(super) fn leak(&mut self) {
        self.buffers.leak();
        std::mem::take(&mut self.slots).into_iter().for_each(std::mem::forget);
    }
}

const fn receive_token(id: StreamId) -> u64 {
    Token::new(Kind::StreamReceive, id.0 as u64).user_data()
}

/// What callers do with listeners and streams; on a ring without room for streams, nothing.
impl Uring {
    /// Adds a listening socket and starts to accept from it; it stays open as long as the ring. None
    /// on a ring without room for streams.
    pub fn add_listener(&mut self, socket: OwnedFd) -> Option<ListenerId> {
        let id = self.streams.as_mut()?.add_listener(socket);
        self.arm_listener(id);
        Some(id)
    }

    /// Starts a stopped listener again.
    pub fn arm_listener(&mut self, id: ListenerId) {
        let entry = self.streams.as_ref().and_then(|streams| streams.accept_entry(id));
        self.push_some(entry);
    }

    /// Stops accepting; the listener answers with [`StreamEvent::AcceptStopped`].
    pub fn stop_accepting(&mut self, id: ListenerId) {
        let target = Token::new(Kind::Accept, u64::from(id.0)).user_data();
        let cancel = opcode::AsyncCancel::new(target).build();
        self.push(cancel.user_data(Token::new(Kind::Ignored, 0).user_data()));
    }

    /// Reads a stream, until it stops.
    pub fn arm_stream(&mut self, id: StreamId) {
        let entry = self.streams.as_mut().and_then(|streams| streams.receive_entry(id));
        self.push_some(entry);
    }

    /// Reads a stream no more; what is on its way still comes, then [`StreamEvent::Stopped`].
    pub fn pause_stream(&mut self, id: StreamId) {
        let entry = self.streams.as_mut().and_then(|streams| streams.pause_entry(id));
        self.push_some(entry);
    }

    /// Bytes that arrived.
    #[must_use]
    pub fn arrived(&self, buffer: &StreamBuffer, filled: usize) -> &[u8] {
        self.streams.as_ref().map_or(&[], |streams| streams.buffers.filled(&buffer.0, filled))
    }

    /// Gives a stream's buffer back to the kernel.
    pub fn recycle_stream(&mut self, buffer: StreamBuffer) {
        if let Some(streams) = &mut self.streams {
            streams.buffers.put_back(buffer.0);
        }
    }

    /// Sends bytes on a stream that is not sending; they come back with [`StreamEvent::Sent`].
    pub fn send_stream(&mut self, id: StreamId, bytes: Vec<u8>) {
        let entry = self.streams.as_mut().and_then(|streams| streams.send_entry(id, bytes));
        self.push_some(entry);
    }

    /// Whom a stream leads to.
    pub fn stream_peer(&mut self, id: StreamId) -> Option<SocketAddr> {
        self.streams.as_mut()?.peer(id)
    }

    /// Tells the other side of a stream that nothing more comes.
    pub fn finish_stream(&mut self, id: StreamId) {
        if let Some(streams) = &mut self.streams {
            streams.finish(id);
        }
    }

    /// Closes a stream; nothing more is heard of it.
    pub fn close_stream(&mut self, id: StreamId) {
        if let Some(streams) = &mut self.streams {
            streams.close(id);
        }
    }

    fn push_some(&mut self, entry: Option<squeue::Entry>) {
        if let Some(entry) = entry {
            self.push(entry);
        }
    }
}

//! Streams against the real kernel, over loopback.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

/// A ring for `streams` connections, its listener's address, and what it has been told.
struct Lab {
    ring: Uring,
    address: std::net::SocketAddr,
    heard: Vec<StreamEvent>,
}

impl Lab {
    fn new(streams: u32, stream_buffers: u16) -> Self {
        let settings = Settings { streams, stream_buffers, ..Settings::datagrams(2, 2) };
        let mut ring = Uring::new(settings).expect("io_uring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        assert_eq!(ring.add_listener(listener.into()), Some(ListenerId(0)));
        Self { ring, address, heard: Vec::new() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// Waits for a completion that is about what `is_it` says.
    fn wait_for(&mut self, is_it: impl Fn(&StreamEvent) -> bool) -> StreamEvent {
        let start = std::time::Instant::now();
        loop {
            if let Some(at) = self.heard.iter().position(&is_it) {
                return self.heard.remove(at);
            }
            assert!(start.elapsed() < PATIENCE, "still waiting after {:?}", self.heard);
            self.wait(Duration::from_millis(100));
        }
    }

    fn wait(&mut self, timeout: Duration) {
        let mut all = Vec::new();
        self.ring.wait(timeout, &mut all).expect("wait");
        self.heard.extend(all.into_iter().map(|done| match done {
            Completion::Stream(event) => event,
            other => panic!("{other:?}"),
        }));
    }

    fn accepted(&mut self) -> Option<StreamId> {
        match self.wait_for(|done| matches!(done, StreamEvent::Accepted { .. })) {
            StreamEvent::Accepted { stream, .. } => stream,
            _ => None,
        }
    }

    /// Reads a stream until it has sent so much; it is armed again whenever it stops.
    fn read(&mut self, of: StreamId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.wait_for(|done| matches!(done, StreamEvent::Arrived { stream, .. } | StreamEvent::Stopped { stream, .. } if *stream == of)) {
                StreamEvent::Arrived { buffer, filled, .. } => {
                    bytes.extend_from_slice(self.ring.arrived(&buffer, filled));
                    self.ring.recycle_stream(buffer);
                }
                StreamEvent::Stopped { error, .. } => {
                    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::ENOBUFS));
                    self.ring.arm_stream(of);
                }
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    fn end_of(&mut self, of: StreamId) -> Option<i32> {
        match self.wait_for(|done| matches!(done, StreamEvent::Stopped { stream, .. } if *stream == of)) {
            StreamEvent::Stopped { error, .. } => error.and_then(|error| error.raw_os_error()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn connections_are_accepted_read_and_answered_each_for_itself() {
    let mut lab = Lab::new(4, 8);
    let mut clients = [lab.connect(), lab.connect()];
    let streams = [lab.accepted().expect("room"), lab.accepted().expect("room")];
    assert_ne!(streams[0], streams[1]);
    for (client, text) in clients.iter_mut().zip(["one", "two"]) {
        client.write_all(text.as_bytes()).expect("write");
    }
    for stream in streams {
        lab.ring.arm_stream(stream);
        let text = lab.read(stream, 3);
        lab.ring.send_stream(stream, [b"re: ", &text[..]].concat());
    }
    for (client, answer) in clients.iter_mut().zip(["re: one", "re: two"]) {
        lab.wait(Duration::from_millis(20));
        let mut read = [0; 7];
        client.read_exact(&mut read).expect("answer");
        assert_eq!(read, answer.as_bytes());
    }
    for stream in streams {
        let sent = lab.wait_for(|done| matches!(done, StreamEvent::Sent { stream: of, .. } if *of == stream));
        assert!(matches!(sent, StreamEvent::Sent { result: Ok(7), .. }), "{sent:?}");
    }
    let peer = lab.ring.stream_peer(streams[0]).expect("peer");
    assert!(clients.iter().any(|client| client.local_addr().expect("address") == peer));
}

#[test]
fn more_than_the_buffers_hold_comes_in_order_and_the_end_is_told() {
    let mut lab = Lab::new(1, 2);
    let mut client = lab.connect();
    let stream = lab.accepted().expect("room");
    let sent: Vec<u8> = (0..10 * STREAM_BUFFER_LEN).map(|n| (n / 7) as u8).collect();
    let to_send = sent.clone();
    let sender = std::thread::spawn(move || {
        client.write_all(&to_send).expect("write");
        client.shutdown(std::net::Shutdown::Write).expect("shutdown");
        client
    });
    lab.ring.arm_stream(stream);
    assert_eq!(lab.read(stream, sent.len()), sent);
    let mut end = lab.end_of(stream);
    while end == Some(libc::ENOBUFS) {
        lab.ring.arm_stream(stream);
        end = lab.end_of(stream);
    }
    assert_eq!(end, None);
    // The other direction still works.
    let mut client = sender.join().expect("sender");
    lab.ring.send_stream(stream, b"bye".to_vec());
    lab.wait_for(|done| matches!(done, StreamEvent::Sent { .. }));
    lab.ring.finish_stream(stream);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("rest");
    assert_eq!(rest, b"bye");
}

#[test]
fn a_paused_stream_keeps_what_comes_and_goes_on_where_it_was() {
    let mut lab = Lab::new(1, 4);
    let mut client = lab.connect();
    let stream = lab.accepted().expect("room");
    lab.ring.arm_stream(stream);
    client.write_all(b"a").expect("write");
    assert_eq!(lab.read(stream, 1), b"a");
    lab.ring.pause_stream(stream);
    assert_eq!(lab.end_of(stream), Some(libc::ECANCELED));
    client.write_all(b"b").expect("write");
    lab.wait(Duration::from_millis(20));
    assert!(lab.heard.is_empty(), "{:?}", lab.heard);
    lab.ring.arm_stream(stream);
    assert_eq!(lab.read(stream, 1), b"b");
}

#[test]
fn a_connection_beyond_the_room_is_closed_and_said_and_a_closed_ones_place_is_free_again() {
    let mut lab = Lab::new(1, 2);
    let mut first = lab.connect();
    let stream = lab.accepted().expect("room");
    let mut second = lab.connect();
    assert_eq!(lab.accepted(), None);
    assert_eq!(second.read(&mut [0]).expect("closed"), 0);
    lab.ring.arm_stream(stream);
    lab.ring.close_stream(stream);
    assert_eq!(first.read(&mut [0]).expect("closed"), 0);
    lab.wait(Duration::from_millis(20));
    assert!(lab.heard.is_empty(), "nothing is heard of a closed one: {:?}", lab.heard);
    let _third = lab.connect();
    assert_eq!(lab.accepted(), Some(stream));
}

#[test]
fn a_listener_that_is_stopped_accepts_no_more() {
    let mut lab = Lab::new(2, 2);
    lab.wait(Duration::ZERO);
    lab.ring.stop_accepting(ListenerId(0));
    let stopped = lab.wait_for(|done| matches!(done, StreamEvent::AcceptStopped { .. }));
    let StreamEvent::AcceptStopped { error: Some(error), .. } = stopped else { panic!("{stopped:?}") };
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
}

#[test]
fn a_ring_for_as_many_streams_as_the_config_allows_can_be_had() {
    let settings = Settings { streams: 1 << 15, stream_buffers: 256, ..Settings::datagrams(1 << 15, 64) };
    assert!(Uring::new(settings).is_ok());
}

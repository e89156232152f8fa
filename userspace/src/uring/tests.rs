//! Against the real kernel, over loopback and a temporary file.

use std::net::UdpSocket;
use std::os::unix::fs::FileExt;

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn ring(receive_buffers: u16) -> Uring {
    Uring::new(Settings::datagrams(receive_buffers, 4)).expect("io_uring")
}

/// Waits until `enough` accepts what has completed so far.
fn wait_until(ring: &mut Uring, enough: impl Fn(&[Completion]) -> bool) -> Vec<Completion> {
    let mut all = Vec::new();
    let start = std::time::Instant::now();
    while !enough(&all) {
        assert!(start.elapsed() < PATIENCE, "still waiting after {all:?}");
        ring.wait(Duration::from_millis(100), &mut all).expect("wait");
    }
    all
}

fn received(all: &[Completion]) -> usize {
    all.iter().filter(|done| matches!(done, Completion::Received { .. })).count()
}

#[test]
fn one_request_receives_many_datagrams_and_answers_reach_their_senders() {
    let mut ring = ring(16);
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = server.local_addr().expect("address");
    ring.add_receiver(server.into());
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind")).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send_to(&[number as u8; 10], address).expect("send");
    }

    for done in wait_until(&mut ring, |all| received(all) == 3) {
        let Completion::Received { receiver, buffer, filled } = done else { panic!("{done:?}") };
        let datagram = ring.datagram(&buffer, filled).expect("framing");
        assert!(!datagram.truncated && datagram.payload.len() == 10);
        let (peer, first) = (datagram.peer(receiver), datagram.payload[0]);
        ring.recycle(buffer);
        let slot = ring.free_slot().expect("slot");
        ring.slot_payload(&slot)[0] = first + 100;
        ring.send(slot, 1, &peer);
    }
    let sent =
        |all: &[Completion]| all.iter().filter(|done| matches!(done, Completion::Sent(Ok(())))).count();
    wait_until(&mut ring, |all| sent(all) == 3);
    for (number, client) in clients.iter().enumerate() {
        let mut answer = [0; 10];
        client.set_read_timeout(Some(PATIENCE)).expect("timeout");
        assert_eq!(client.recv(&mut answer).expect("answer"), 1);
        assert_eq!(usize::from(answer[0]), number + 100);
    }
}

#[test]
fn a_receiver_that_ran_out_of_buffers_goes_on_once_they_are_recycled() {
    let mut ring = ring(2);
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = server.local_addr().expect("address");
    let receiver = ring.add_receiver(server.into());
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for number in 0..5_u8 {
        client.send_to(&[number], address).expect("send");
    }

    let mut seen = Vec::new();
    while seen.len() < 5 {
        let stopped =
            |all: &[Completion]| all.iter().any(|d| matches!(d, Completion::ReceiverStopped { .. }));
        let left = 5 - seen.len();
        for done in wait_until(&mut ring, |all| stopped(all) || received(all) == left) {
            match done {
                Completion::Received { buffer, filled, .. } => {
                    seen.push(ring.datagram(&buffer, filled).expect("framing").payload[0]);
                    ring.recycle(buffer);
                }
                Completion::ReceiverStopped { error, .. } => {
                    assert_eq!(error.and_then(|e| e.raw_os_error()), Some(libc::ENOBUFS));
                    ring.arm(receiver);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_datagram_longer_than_a_buffer_is_marked_truncated() {
    let mut ring = ring(4);
    let server = UdpSocket::bind("[::1]:0").expect("bind");
    let address = server.local_addr().expect("address");
    ring.add_receiver(server.into());
    UdpSocket::bind("[::1]:0").expect("bind").send_to(&[7; 4000], address).expect("send");
    let all = wait_until(&mut ring, |all| received(all) == 1);
    let Completion::Received { buffer, filled, .. } = &all[0] else { panic!("{all:?}") };
    let datagram = ring.datagram(buffer, *filled).expect("framing");
    assert!(datagram.truncated);
    assert!(datagram.from.ip().is_loopback() && datagram.from.is_ipv6());
}

#[test]
fn a_write_and_its_sync_come_back_with_buffer_and_tag() {
    let mut ring = ring(2);
    let file: Arc<File> = Arc::new(tempfile::tempfile().expect("file"));
    ring.write(&file, Write { offset: 4096, buffer: b"..over the weir".to_vec(), from: 2, tag: 11 });
    let all = wait_until(&mut ring, |all| all.len() == 1);
    assert!(
        matches!(&all[0], Completion::Written { tag: 11, offset: 4096, buffer, result: Ok(13) } if buffer == b"..over the weir")
    );
    ring.sync_data(&file, 12);
    let all = wait_until(&mut ring, |all| all.len() == 1);
    assert!(matches!(all[0], Completion::Synced { tag: 12, result: Ok(()) }));
    let mut read = [0; 13];
    file.read_exact_at(&mut read, 4096).expect("read");
    assert_eq!(&read, b"over the weir");
}

#[test]
fn a_ring_wakes_another_that_sleeps() {
    let (tell, told) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let mut ring = ring(2);
        tell.send(ring.raw_fd()).expect("tell");
        let all = wait_until(&mut ring, |all| !all.is_empty());
        assert!(matches!(all[0], Completion::Woken));
    });
    let mut ring = ring(2);
    ring.wake(told.recv().expect("descriptor"));
    ring.wait(Duration::from_millis(1), &mut Vec::new()).expect("wait");
    sleeper.join().expect("the sleeper woke");
}

#[test]
fn a_stopped_receiver_says_so() {
    let mut ring = ring(2);
    let receiver = ring.add_receiver(UdpSocket::bind("127.0.0.1:0").expect("bind").into());
    ring.wait(Duration::ZERO, &mut Vec::new()).expect("wait");
    ring.stop_receiving(receiver);
    let all = wait_until(&mut ring, |all| !all.is_empty());
    let Completion::ReceiverStopped { error: Some(error), .. } = &all[0] else { panic!("{all:?}") };
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
}

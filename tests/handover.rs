//! A node that is restarted while clicks come: its sockets outlive it, and what waits in them is its successor's.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_common::wire::Click;
use weir_labs::clicks::numbered;
use weir_labs::door::{Door, click_json};
use weir_labs::keeper::Keeper;
use weir_labs::{Node, NodeFolder};
use weir_sdk::{Config, Ledger, UdpClient};

/// Longer than a lab takes: nothing is sent again, so a datagram that is lost has no answer.
const PATIENCE_NS: u64 = 600_000_000_000;
const SOON: Duration = Duration::from_secs(30);
const CLICKS_PER_S: u32 = 2_000;

/// A sender that never gives up a datagram before a restart is over.
fn sender(folder: &NodeFolder) -> UdpClient {
    let config = Config { seed: rand::random(), ack_timeout_ns: PATIENCE_NS, ..Config::default() };
    UdpClient::connect(([127, 0, 0, 1], folder.port()).into(), config).expect("a sender")
}

/// Sends these clicks at their pace until told to stop; the books when each has its answer.
fn send_until(client: &mut UdpClient, first: u128, stop: &AtomicBool) -> Ledger {
    let began = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Acquire) {
        let due = (began.elapsed().as_secs_f64() * f64::from(CLICKS_PER_S)) as u128;
        for click in numbered(first + sent, due - sent) {
            client.offer(&click, &[]).expect("room");
        }
        sent = due;
        client.poll(|_| {});
        std::thread::sleep(Duration::from_millis(1));
    }
    client.flush(SOON).expect("answers");
    *client.ledger()
}

fn offer(client: &mut UdpClient, clicks: &[Click]) {
    for click in clicks {
        client.offer(click, &[]).expect("room");
    }
}

fn next<'a>(keeper: &Keeper, folder: &'a NodeFolder) -> Node<'a> {
    let mut node = keeper.start(folder).expect("start");
    node.wait_until_ready().expect("ready");
    node
}

fn first(keeper: &Keeper, folder: &NodeFolder) {
    let node = next(keeper, folder);
    node.hand_over().expect("a first process");
}

fn rows(folder: &NodeFolder) -> Value {
    folder.audit(None).expect("audit")["audit"]["rows"].clone()
}

#[test]
fn restarts_under_load_lose_no_datagram() {
    let mut folder = NodeFolder::new("").expect("folder");
    // Groups of both families, as a node has them.
    folder.reconfigure("addresses", "addresses = [\"127.0.0.1\", \"::1\"]").expect("config");
    let keeper = Keeper::of(&mut folder).expect("keeper");
    let stop = AtomicBool::new(false);
    let first = next(&keeper, &folder);
    let (ledger, node) = std::thread::scope(|scope| {
        let load = scope.spawn(|| send_until(&mut sender(&folder), rand::random::<u128>() >> 1, &stop));
        let mut node = first;
        for restart in 0..5 {
            std::thread::sleep(Duration::from_millis(500));
            let began = Instant::now();
            node.hand_over().expect("hand over");
            let ended = began.elapsed();
            node = next(&keeper, &folder);
            println!("restart {restart}: ended after {ended:?}, ready after {:?}", began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Release);
        (load.join().expect("load"), node)
    });
    assert!(ledger.acked_created > 3 * u64::from(CLICKS_PER_S), "{ledger:?}");
    assert_eq!(ledger.acked_created, ledger.created, "{ledger:?}");
    node.drain().expect("drain");
    assert_eq!(rows(&folder), ledger.acked_created);
    assert!(!folder.log_text().contains("datagrams go to any worker"), "{}", folder.log_tail());
}

#[test]
fn what_comes_while_no_process_runs_is_its_successors_also_after_a_crash() {
    let mut folder = NodeFolder::new("").expect("folder");
    let keeper = Keeper::of(&mut folder).expect("keeper");
    next(&keeper, &folder).kill().expect("kill");
    let mut client = sender(&folder);
    offer(&mut client, &numbered(1, 500));
    client.flush(Duration::from_millis(200)).expect_err("there is nobody");
    let node = next(&keeper, &folder);
    client.flush(SOON).expect("answers");
    assert_eq!(client.ledger().acked_created, 500, "{:?}", client.ledger());
    node.drain().expect("drain");
    assert_eq!(rows(&folder), 500);
}

#[test]
fn what_sockets_dropped_while_no_process_ran_is_counted_once() {
    // The least there is: some datagrams, and the rest is dropped.
    let mut folder = NodeFolder::new("[workers]\ncores = [0]\n").expect("folder");
    folder.reconfigure("[rx.udp]", "[rx.udp]\nsocket_buffer = \"64KiB\"").expect("config");
    let keeper = Keeper::of(&mut folder).expect("keeper");
    first(&keeper, &folder);
    const SENT: u64 = 1_000;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let send = || socket.send_to(&[0; 1_000], ("127.0.0.1", folder.port())).expect("a datagram");
    for _ in 1..SENT {
        send();
    }
    let mut node = next(&keeper, &folder);
    // A socket tells what it has dropped with the next datagram.
    send();
    let seen = |status: &Value| -> [u64; 2] {
        let clicks = &status["clicks"];
        [&clicks["unseen"]["socket_overflow"], &clicks["reasons"]["bad_magic"]]
            .map(|count| count.as_u64().unwrap_or(0))
    };
    let mut last = [0; 2];
    node.wait_until("done with what waited", |status| {
        last = seen(status);
        last.iter().sum::<u64>() >= SENT
    })
    .unwrap_or_else(|error| panic!("{last:?}: {error}"));
    assert!(last.iter().all(|&count| count > 0) && last.iter().sum::<u64>() == SENT, "{last:?}");
    node.hand_over().expect("hand over");
    let node = next(&keeper, &folder);
    assert_eq!(seen(&node.status().expect("status")), [0, 0], "what is counted is counted");
    node.drain().expect("drain");
}

#[test]
fn sockets_that_are_not_used_any_more_are_let_go() {
    let mut folder = NodeFolder::new("[workers]\ncores = [0]\n").expect("folder");
    let keeper = Keeper::of(&mut folder).expect("keeper");
    first(&keeper, &folder);
    let one = keeper.names();
    assert_eq!(one.len(), 1, "{one:?}");
    folder.reconfigure("cores = [0]", "cores = [0, 1]").expect("config");
    let node = next(&keeper, &folder);
    let mut client = sender(&folder);
    offer(&mut client, &numbered(1, 200));
    client.flush(SOON).expect("no part of them goes to a socket that nobody reads");
    assert_eq!(keeper.names().len(), 2);
    node.drain().expect("drain");
}

#[test]
fn a_connection_made_while_no_process_runs_is_answered_by_the_next() {
    let mut door = Door::folder("").expect("folder");
    let keeper = Keeper::of(&mut door.folder).expect("keeper");
    first(&keeper, &door.folder);
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| door.post("application/json", click_json(1).as_bytes()).expect("curl"));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!reply.is_finished(), "it waits");
        let node = next(&keeper, &door.folder);
        assert_eq!(reply.join().expect("a reply").statuses(), ["created"]);
        node.drain().expect("drain");
    });
}

#[test]
fn without_somebody_who_keeps_the_sockets_they_are_read_empty() {
    let folder = NodeFolder::new("").expect("folder");
    let node = folder.start_ready().expect("ready");
    let mut client = sender(&folder);
    offer(&mut client, &numbered(1, 300));
    // All are on their way when it is asked to end.
    client.flush(Duration::ZERO).expect_err("no answer yet");
    node.hand_over().expect("it ends in order");
    client.flush(SOON).expect("answers");
    assert_eq!(client.ledger().acked_created, 300, "{:?}", client.ledger());
}

//! A node that its operator takes out of service: its connections end in order, and it says that nobody should come.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use weir_labs::clicks::{numbered, send};
use weir_labs::door::{Door, click_json};
use weir_labs::keeper::Keeper;
use weir_labs::{Node, NodeFolder, binary};

const ANSWER_MAX: Duration = Duration::from_secs(20);
const CLIENTS: u64 = 4;

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    connections: AtomicU64,
    /// Requests whose connection ended without an answer.
    broken: AtomicU64,
    /// Answers that took the click.
    taken: AtomicU64,
}

/// A client that keeps its connection for as long as it may, and asks again and again.
fn ask(port: u16, client: u64, seen: &Seen, stop: &AtomicBool) {
    let mut connection: Option<TcpStream> = None;
    let mut number = client << 32;
    while !stop.load(Ordering::Acquire) {
        let mut stream = connection.take().unwrap_or_else(|| {
            seen.connections.fetch_add(1, Ordering::Relaxed);
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stream.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
            stream
        });
        number += 1;
        match request(&mut stream, number) {
            Some(head) => {
                seen.answers.fetch_add(1, Ordering::Relaxed);
                seen.taken.fetch_add(u64::from(head.starts_with("HTTP/1.1 2")), Ordering::Relaxed);
                connection = (!head.contains("Connection: close")).then_some(stream);
            }
            None => _ = seen.broken.fetch_add(1, Ordering::Relaxed),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The head of the answer to one click; none when the connection ended before it.
fn request(stream: &mut TcpStream, number: u64) -> Option<String> {
    let body = click_json(number);
    let length = body.len();
    let request = format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(len) => text.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        let answer = String::from_utf8_lossy(&text);
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                return Some(head.to_owned());
            }
        }
    }
}

fn weir(folder: &NodeFolder, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(binary("weir"))
        .args(arguments)
        .arg("--config")
        .arg(folder.config())
        .output()
        .expect("weir");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

fn is_ready(node: &Node<'_>) -> bool {
    node.status().expect("status")["readiness"]["ready"] == true
}

/// Runs something beside clients; what they have seen.
fn beside_clients(port: u16, work: impl FnOnce(&Seen)) -> Seen {
    let (seen, stop) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (seen, stop) = (&seen, &stop);
            scope.spawn(move || ask(port, client, seen, stop));
        }
        // Whatever becomes of it, the clients end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&seen)));
        stop.store(true, Ordering::Release);
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
    seen
}

fn wait_for(count: &AtomicU64, more: u64) {
    let goal = count.load(Ordering::Relaxed) + more;
    let deadline = std::time::Instant::now() + ANSWER_MAX;
    while count.load(Ordering::Relaxed) < goal {
        assert!(std::time::Instant::now() < deadline, "{count:?} of {goal}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_operator_takes_a_node_out_of_service_for_good_and_no_request_is_cut_off() {
    let door = Door::folder("").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let seen = beside_clients(door.port(), |seen| {
        wait_for(&seen.answers, 100);
        let kept = seen.connections.load(Ordering::Relaxed);
        assert_eq!(kept, CLIENTS, "connections are kept");
        let told = weir(&door.folder, &["drain", "--wait", "2"]);
        assert!(told.contains("out of service: not ready"), "{told}");
        assert!(!is_ready(&node));
        wait_for(&seen.answers, 100);
        let since = seen.connections.load(Ordering::Relaxed) - kept;
        assert!(since > 90, "{since}: each request is the last of its connection");
    });
    assert_eq!(seen.broken.into_inner(), 0);
    assert_eq!(seen.taken.into_inner(), seen.answers.into_inner(), "what comes all the same is taken");
    let told = weir(&door.folder, &["drain"]);
    assert_eq!(told, "out of service: not ready, and no connection is open\n");
    let sent = send(&door.folder, &numbered(1 << 100, 50)).expect("answers");
    assert_eq!(sent.acked_created, 50);
    node.drain().expect("drain");
    let mut node = door.folder.start().expect("start");
    node.wait_until("running", |status| status["state"] == "running").expect("running");
    assert!(!is_ready(&node), "also over a restart");
    assert_eq!(weir(&door.folder, &["undrain"]), "in service\n");
    assert!(is_ready(&node));
    node.drain().expect("drain");
    let told = weir(&door.folder, &["drain"]);
    assert_eq!(told, "the node does not run; it will start out of service\n");
}

#[test]
fn restarts_of_a_node_out_of_service_cut_off_no_connection() {
    let mut door = Door::folder("").expect("folder");
    let keeper = Keeper::of(&mut door.folder).expect("keeper");
    let mut node = Some(keeper.start(&door.folder).expect("start"));
    let ready =
        |node: &mut Option<Node<'_>>| node.as_mut().expect("a node").wait_until_ready().expect("ready");
    ready(&mut node);
    let seen = beside_clients(door.port(), |seen| {
        weir(&door.folder, &["drain", "--wait", "1"]);
        for _ in 0..4 {
            wait_for(&seen.taken, 50);
            node.take().expect("a node").hand_over().expect("hand over");
            node = Some(keeper.start(&door.folder).expect("start"));
            ready(&mut node);
        }
        wait_for(&seen.taken, 50);
    });
    println!("{seen:?}");
    assert_eq!(seen.broken.into_inner(), 0);
    node.take().expect("a node").drain().expect("drain");
}

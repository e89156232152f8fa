//! A node that its operator takes out of service: its connections end in order, and it says that nobody should come.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use weir_kafka_lab::{Authority, Holder};
use weir_labs::clicks::{numbered, send};
use weir_labs::door::{Door, click_json};
use weir_labs::keeper::Keeper;
use weir_labs::{Node, NodeFolder, binary};

const ANSWER_MAX: Duration = Duration::from_secs(20);
const CLIENTS: u64 = 4;
const NAME: &str = "clicks.example";

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    connections: AtomicU64,
    /// Requests whose connection ended without an answer.
    broken: AtomicU64,
    /// Connections that ended after their last answer, and not in order.
    reset: AtomicU64,
    /// Answers that took the click.
    taken: AtomicU64,
}

/// The door of a node as clients know it.
struct Target {
    port: u16,
    /// What they trust, where they speak TLS.
    tls: Option<Arc<ClientConfig>>,
}

/// A connection, whatever it speaks.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Target {
    const fn plain(door: &Door) -> Self {
        Self { port: door.port(), tls: None }
    }

    /// HTTPS at a door that has a certificate of this authority.
    fn tls(door: &Door, authority: &Authority) -> Self {
        authority.issue("door", Holder::Name(NAME), 1).expect("certificate");
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(door.file("ca.pem")).expect("PEM")).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Self { port: door.tls_port(), tls: Some(Arc::new(config)) }
    }

    fn connect(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
        match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = NAME.try_into().expect("a name");
                let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
                Box::new(StreamOwned::new(session, stream))
            }
        }
    }
}

/// A client that keeps its connection for as long as it may, and asks again and again.
fn ask(target: &Target, client: u64, seen: &Seen, stop: &AtomicBool) {
    let mut connection: Option<Box<dyn Stream>> = None;
    let mut number = client << 32;
    while !stop.load(Ordering::Acquire) {
        let mut stream = connection.take().unwrap_or_else(|| {
            seen.connections.fetch_add(1, Ordering::Relaxed);
            target.connect()
        });
        number += 1;
        match request(&mut stream, number) {
            Some(head) => {
                seen.answers.fetch_add(1, Ordering::Relaxed);
                seen.taken.fetch_add(u64::from(head.starts_with("HTTP/1.1 2")), Ordering::Relaxed);
                if head.contains("Connection: close") {
                    // What ends without having been closed in order is an error of the read: of TCP, and of TLS.
                    let is_closed = stream.read(&mut [0]).is_ok_and(|len| len == 0);
                    seen.reset.fetch_add(u64::from(!is_closed), Ordering::Relaxed);
                } else {
                    connection = Some(stream);
                }
            }
            None => _ = seen.broken.fetch_add(1, Ordering::Relaxed),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The head of the answer to one click; none when the connection ended before it.
fn request(stream: &mut dyn Stream, number: u64) -> Option<String> {
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
fn beside_clients(target: &Target, work: impl FnOnce(&Seen)) -> Seen {
    let (seen, stop) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (seen, stop) = (&seen, &stop);
            scope.spawn(move || ask(target, client, seen, stop));
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
    let seen = beside_clients(&Target::plain(&door), |seen| {
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
    assert_eq!([seen.broken.into_inner(), seen.reset.into_inner()], [0, 0]);
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

/// Takes a node out of service and restarts it again and again, while clients ask.
fn restarts_cut_off_no_connection(mut door: Door, target: &Target) {
    let keeper = Keeper::of(&mut door.folder).expect("keeper");
    let mut node = Some(keeper.start(&door.folder).expect("start"));
    let ready =
        |node: &mut Option<Node<'_>>| node.as_mut().expect("a node").wait_until_ready().expect("ready");
    ready(&mut node);
    let seen = beside_clients(target, |seen| {
        wait_for(&seen.taken, 50);
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
    assert_eq!([seen.broken.into_inner(), seen.reset.into_inner()], [0, 0]);
    node.take().expect("a node").drain().expect("drain");
}

#[test]
fn restarts_of_a_node_out_of_service_cut_off_no_connection() {
    let door = Door::folder("").expect("folder");
    let target = Target::plain(&door);
    restarts_cut_off_no_connection(door, &target);
}

#[test]
fn restarts_of_a_node_out_of_service_cut_off_no_connection_over_tls() {
    let door = Door::with_tls("").expect("folder");
    let authority = Authority::new(door.folder.path()).expect("authority");
    let target = Target::tls(&door, &authority);
    restarts_cut_off_no_connection(door, &target);
}

#[test]
fn a_drain_that_was_broken_off_is_gone_on_with_by_the_next() {
    let door = Door::folder("").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let told = door.folder.data().join("drained");
    let mut kept = Target::plain(&door).connect();
    assert!(request(&mut kept, 1).is_some_and(|head| !head.contains("Connection: close")));
    // As it is when a drain ends before the connections do.
    let mut drain = Command::new(binary("weir"))
        .args(["drain", "--wait", "600", "--config"])
        .arg(door.folder.config())
        .stdout(Stdio::piped())
        .spawn()
        .expect("weir");
    let waits = BufReader::new(drain.stdout.take().expect("output")).lines().next();
    assert_eq!(waits.expect("a line").expect("text"), "1 connections are open");
    drain.kill().expect("kill");
    drain.wait().expect("an end");
    assert_eq!(std::fs::read_to_string(&told).expect("the file"), "finishing\n");
    assert!(is_ready(&node), "it is not out yet");
    // The node looks at the file now and then.
    let deadline = std::time::Instant::now() + ANSWER_MAX;
    let mut number = 2;
    while !request(&mut kept, number).expect("an answer").contains("Connection: close") {
        assert!(std::time::Instant::now() < deadline, "the node does not hear of it");
        number += 1;
    }
    drop(kept);
    let said = weir(&door.folder, &["drain"]);
    assert!(said.ends_with("out of service: not ready, and no connection is open\n"), "{said}");
    assert_eq!(std::fs::read_to_string(&told).expect("the file"), "withdrawn\n");
    assert!(!is_ready(&node));
    node.drain().expect("drain");
}

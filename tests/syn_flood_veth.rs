//! A flood of SYNs from one source, in front of the HTTP door of a whole node, over a real veth with the
//! XDP program in the driver: it costs nobody else a connection, and every SYN is accounted for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use weir_kafka_lab::{Authority, Holder};
use weir_labs::NodeFolder;
use weir_labs::door::click_json;
use weir_labs::veth::{NODE, NODE_INTERFACE, SENDERS, Veth, frames};

const PLAIN: u16 = 80;
const HTTPS: u16 = 443;
const BURST: u64 = 20;
const SYNS_PER_S: u64 = 10;
/// Connections of the sender that does not flood: within its burst.
const POSTS: u64 = 15;
/// What the flood sends at the least.
const FLOOD: u64 = 20_000;
/// What it never goes beyond, however slow the posts are.
const FLOOD_MAX: u64 = 5_000_000;

#[test]
fn one_source_floods_the_door_with_syns_and_another_connects_and_each_syn_is_accounted_for() {
    let veth = match Veth::new() {
        Ok(veth) => veth,
        Err(error) => return eprintln!("skipped: no network namespaces: {error:#}"),
    };
    let folder = door();
    let node = folder.start_ready().expect("ready");
    let status = node.status().expect("status");
    assert_eq!(status["steering"]["rung"], "native", "{:#}", status["steering"]);

    let [flooder, other] = SENDERS;
    let done = AtomicBool::new(false);
    let started = Instant::now();
    // Both on threads of the senders' namespace. The flooder has a connection before it floods.
    let (flood_sent, opened) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            veth.senders.enter().expect("the namespace");
            let mut stream = connect_from(flooder);
            post(&mut stream, 1);
            let sent = flood(flooder, || done.load(Ordering::Relaxed));
            post(&mut stream, 2);
            (sent, stream)
        });
        let posts = scope.spawn(|| {
            veth.senders.enter().expect("the namespace");
            for number in 0..POSTS {
                post_from(other, folder.path(), 100 + number);
            }
            done.store(true, Ordering::Relaxed);
        });
        posts.join().expect("the posts");
        let (sent, stream) = flood.join().expect("the flood");
        drop(stream);
        let opened = scope.spawn(|| {
            veth.senders.enter().expect("the namespace");
            syns_of_the_kernel()
        });
        (sent, opened.join().expect("the counters"))
    });
    let seconds = started.elapsed().as_secs() + 1;
    let lost = veth.lost().expect("the counters of the veth");

    node.drain().expect("drain");
    let status = folder.final_status().expect("final status");
    let (passed, limited) = (frames(&status, "syn_passed"), frames(&status, "syn_rate_limited"));
    println!(
        "{flood_sent} + {opened} SYNs sent: {passed} passed, {limited} limited, {lost} lost on the veth"
    );
    assert!(flood_sent >= FLOOD && opened > POSTS);
    // A lost packet was a SYN of the flood in all likelihood, but may be any.
    let seen = passed + limited;
    assert!((flood_sent + opened - lost..=flood_sent + opened).contains(&seen));
    if lost == 0 {
        assert_eq!(seen, flood_sent + opened);
    }
    let of_flooder = passed - POSTS;
    assert!((BURST..=BURST + SYNS_PER_S * seconds).contains(&of_flooder), "{of_flooder} passed");
    // The books of clicks know nothing of SYNs.
    let clicks = &status["clicks"];
    assert_eq!((&clicks["received"], &clicks["residual"]), (&(POSTS + 2).into(), &0.into()), "{clicks:#}");
    assert_eq!(clicks["outcomes"]["accepted"], POSTS + 2);
    assert_eq!(clicks["reasons"].get("syn_rate_limited"), None);
}

/// A node with a door of both kinds and a rate of connections.
fn door() -> NodeFolder {
    let folder = NodeFolder::new(&format!(
        "[admission]\nallow_unsigned = true\n[rx.http]\nport = {PLAIN}\ntls_port = {HTTPS}\n\
         addresses = [\"{NODE}\"]\ncertificate_file = \"door.pem\"\nkey_file = \"door.key\"\n\
         [steer]\nmode = \"native\"\ninterface = \"{NODE_INTERFACE}\"\naddresses = [\"{NODE}\"]\n\
         [steer.syn_rate]\nsyns_per_s = {SYNS_PER_S}\nburst = {BURST}\n"
    ));
    let folder = folder.expect("folder");
    let authority = Authority::new(folder.path()).expect("authority");
    authority.issue("door", Holder::Address(NODE), 2).expect("certificate");
    folder
}

fn click(number: u64) -> String {
    click_json(number).replace("\"spring-sale\"", "42")
}

/// A connection of its own over TLS, by curl, with one click.
fn post_from(source: &str, folder: &Path, number: u64) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--interface", source, "--cacert"]);
    curl.arg(folder.join("ca.pem")).args(["--header", "Content-Type: application/json"]);
    let output =
        curl.args(["--data", &click(number)]).arg(format!("https://{NODE}:{HTTPS}/v1/clicks")).output();
    let output = output.expect("curl, which `cargo xtask setup` installs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"created\""), "{text} {}", String::from_utf8_lossy(&output.stderr));
}

fn connect_from(source: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: Ipv4Addr = source.parse().expect("an address");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("bind");
    let target: SocketAddr = format!("{NODE}:{PLAIN}").parse().expect("an address");
    socket.connect(&target.into()).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    socket.into()
}

/// A click over a connection that stands.
fn post(stream: &mut TcpStream, number: u64) {
    let body = click(number);
    let head = format!("POST /v1/clicks HTTP/1.1\r\nHost: {NODE}\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("send");
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("created") {
        let count = stream.read(&mut bytes).expect("an answer");
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.extend(&bytes[..count]);
    }
}

/// Sends SYNs, each a connection of its own, until it is told to stop; returns how many.
fn flood(source: &str, stop: impl Fn() -> bool) -> u64 {
    let source: Ipv4Addr = source.parse().expect("an address");
    let target: Ipv4Addr = NODE.parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("a raw socket");
    socket.bind(&SocketAddrV4::new(source, 0).into()).expect("bind");
    let address = SocketAddrV4::new(target, 0).into();
    let mut sent = 0;
    while sent < FLOOD || !stop() {
        assert!(sent < FLOOD_MAX, "the posts do not end");
        let segment = syn(source, target, 1024 + (sent % 30_000) as u16, sent as u32);
        assert_eq!(socket.send_to(&segment, &address).expect("a SYN is sent"), segment.len());
        sent += 1;
        // The ring of a veth takes 256 packets, and the node's side has the CPUs to share.
        if sent % 32 == 0 {
            std::thread::yield_now();
        }
    }
    sent
}

/// A SYN with its checksum (RFC 9293, section 3.1).
fn syn(source: Ipv4Addr, target: Ipv4Addr, port: u16, sequence: u32) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&port.to_be_bytes());
    segment[2..4].copy_from_slice(&HTTPS.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[12..16].copy_from_slice(&[0x50, 1 << 1, 0xff, 0xff]);
    let pseudo = [&source.octets()[..], &target.octets(), &[0, 6, 0, 20], &segment].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// SYNs that the kernel of this namespace sent itself, with those it sent again.
fn syns_of_the_kernel() -> u64 {
    counter("snmp", "Tcp:", "ActiveOpens") + counter("netstat", "TcpExt:", "TCPSynRetrans")
}

/// A counter of `/proc/net`, which has a line of names and one of values.
fn counter(file: &str, table: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("the counters");
    let mut lines = text.lines().filter(|line| line.starts_with(table));
    let mut cells = || lines.next().expect("a line").split_whitespace();
    let (names, values) = (cells(), cells());
    let found = names.zip(values).find(|(found, _)| *found == name);
    found.and_then(|(_, value)| value.parse().ok()).expect("the counter")
}

//! HTTPS at the door of a whole node: certificates that are right, wrong, expired and replaced, and
//! bytes that are no TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use weir_kafka_lab::{Authority, Holder};
use weir_labs::Node;
use weir_labs::door::{Door, Reply, click_json};

const NAME: &str = "clicks.example";

fn started(door: &Door) -> Node<'_> {
    door.folder.start_ready().expect("ready")
}

/// A door of HTTPS with a certificate for this name, and the authority that made it.
fn door(name: &str, days: u32, keys: &str) -> (Door, Authority) {
    let door = Door::with_tls(keys).expect("folder");
    let authority = Authority::new(door.folder.path()).expect("authority");
    authority.issue("door", Holder::Name(name), days).expect("certificate");
    (door, authority)
}

/// Posts a click by HTTPS, as one who trusts the authority.
fn post(door: &Door, number: u64, more: &[&str]) -> anyhow::Result<Reply> {
    let (url, body) = (door.tls_url(NAME, "/v1/clicks"), click_json(number));
    let (authority, resolve) = (door.file("ca.pem"), format!("{NAME}:{}:127.0.0.1", door.tls_port()));
    let authority = authority.to_str().expect("a path");
    let arguments = [
        "--cacert",
        authority,
        "--resolve",
        &resolve,
        "--header",
        "Content-Type: application/json",
        "--data",
        &body,
    ];
    door.curl(&[&arguments[..], more, &[&url]].concat())
}

#[test]
fn clicks_come_in_by_tls_1_3_and_by_1_2_only_where_it_is_allowed() {
    let (strict, _) = door(NAME, 1, "");
    let node = started(&strict);
    assert_eq!(post(&strict, 1, &["--tlsv1.3"]).expect("curl").statuses(), ["created"]);
    let refused = post(&strict, 2, &["--tls-max", "1.2"]).expect_err("TLS 1.2 is off").to_string();
    assert!(refused.contains("alert") || refused.contains("35"), "{refused}");
    node.drain().expect("drain");
    let (older, _) = door(NAME, 1, "older_tls = true\n");
    let node = started(&older);
    assert_eq!(post(&older, 1, &["--tls-max", "1.2"]).expect("curl").statuses(), ["created"]);
    node.drain().expect("drain");
}

#[test]
fn a_client_sees_that_a_certificate_is_expired_or_for_another_name() {
    let (other, _) = door("other.example", 1, "");
    let node = started(&other);
    let refused = post(&other, 1, &[]).expect_err("another name").to_string();
    assert!(refused.contains("SSL") && refused.contains("60"), "{refused}");
    node.drain().expect("drain");
    let (expired, _) = door(NAME, 0, "");
    std::thread::sleep(Duration::from_millis(1100)); // it is valid for no day, which openssl counts in seconds
    let node = started(&expired);
    let refused = post(&expired, 1, &[]).expect_err("expired").to_string();
    assert!(refused.contains("expired"), "{refused}");
    assert_eq!(node.status().expect("status")["clicks"]["received"], 0);
    node.drain().expect("drain");
}

#[test]
fn a_certificate_is_replaced_under_connections_that_go_on() {
    let (door, authority) = door(NAME, 1, "");
    let mut node = started(&door);
    assert_eq!(post(&door, 1, &[]).expect("curl").statuses(), ["created"]);
    let serial = |door: &Door| {
        let shown = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "openssl s_client -connect 127.0.0.1:{} -servername {NAME} </dev/null 2>/dev/null | openssl x509 -noout -serial",
                door.tls_port()
            ))
            .output()
            .expect("openssl");
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let before = serial(&door);
    assert!(before.starts_with("serial="), "{before}");
    // One who keeps a connection open over the change.
    let mut kept = TcpStream::connect(("127.0.0.1", door.port())).expect("connect");
    kept.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n").expect("write");
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).expect("answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
    };
    ask(&mut kept);
    authority.issue("door", Holder::Name(NAME), 1).expect("certificate");
    node.reload().expect("SIGHUP");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while serial(&door) == before {
        assert!(std::time::Instant::now() < deadline, "the old certificate is still shown");
    }
    ask(&mut kept);
    assert_eq!(post(&door, 2, &[]).expect("curl").statuses(), ["created"]);
    // A certificate that cannot be read does not replace one that works.
    std::fs::write(door.file("door.pem"), "nothing").expect("write");
    node.reload_until_told("the certificate is not replaced").expect("reload");
    assert_eq!(post(&door, 3, &[]).expect("curl").statuses(), ["created"]);
    node.drain().expect("drain");
}

#[test]
fn bytes_that_are_no_tls_end_their_connection_and_no_other() {
    let (door, _) = door(NAME, 1, "");
    let node = started(&door);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(("127.0.0.1", door.tls_port())).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        stream.write_all(garbage).expect("write");
        let mut answer = Vec::new();
        let _closed_or_reset = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let failures = |status: &serde_json::Value| status["http"]["tls_failures"].as_u64() >= Some(3);
    let mut node = node;
    node.wait_until("counting failures", failures).expect("counted");
    assert_eq!(post(&door, 1, &[]).expect("curl").statuses(), ["created"]);
    node.drain().expect("drain");
}

//! Statements to a server that does as it is told, on a port of loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use weir_common::record::BUCKET_RECORD_LEN;

use super::*;
use crate::clickhouse::batch::Batch;
use crate::kafka::Delivered;

/// What the server does with a request, after it has read it.
#[derive(Clone, Copy)]
enum Does {
    Answer(&'static str),
    Close,
    /// Answers nothing, and keeps the connection until the other end closes it.
    Hang,
}

const DONE: Does = Does::Answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n42\n");
const BUSY: Does = Does::Answer(
    "HTTP/1.1 500 Internal Server Error\r\nx-clickhouse-exception-code: 252\r\ncontent-length: 4\r\n\
     connection: close\r\n\r\nmany",
);
const NO_TABLE: Does = Does::Answer(
    "HTTP/1.1 404 Not Found\r\nx-clickhouse-exception-code: 60\r\ncontent-length: 13\r\n\
     connection: close\r\n\r\nUNKNOWN_TABLE",
);

/// A request: its head and its body.
type Request = (String, Vec<u8>);

/// A server that does these things, one a request, and what it was asked.
fn server(script: Vec<Does>) -> (SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = channel();
    thread::spawn(move || {
        for does in script {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let lower = head.to_lowercase();
            let len =
                lower.split_once("content-length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
            let mut body = vec![0; len.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            asked.send((head, body)).unwrap();
            match does {
                Does::Answer(answer) => reader.get_mut().write_all(answer.as_bytes()).unwrap(),
                Does::Close => {}
                Does::Hang => _ = reader.read(&mut [0]).unwrap_or(0),
            }
        }
    });
    (address, requests)
}

fn config(address: SocketAddr, more: &str) -> Clickhouse {
    toml::from_str(&format!("url = \"http://{address}\"\n{more}")).unwrap()
}

#[test]
fn an_insert_that_failed_is_made_again_with_the_same_rows_and_token() {
    let (address, requests) = server(vec![BUSY, Does::Close, DONE]);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let client = Client::open(&config(address, ""), (&counters, &stop)).unwrap();
    let value = vec![7; BUCKET_RECORD_LEN];
    let mut batch = Batch::default();
    batch.take(&Delivered { partition: 0, offset: 1, value: value.clone(), ..Delivered::default() }).unwrap();
    batch.insert(&client, "t").unwrap();
    let heads: Vec<_> = (0..3)
        .map(|_| {
            let (head, body) = requests.recv().unwrap();
            assert_eq!(body, value);
            head.lines().next().unwrap().to_owned()
        })
        .collect();
    assert!(heads[0].contains("insert_deduplication_token=t+0%3A1-1+"), "{}", heads[0]);
    assert!(heads[0].contains("query=INSERT+INTO+weir.buckets+FORMAT+RowBinary"), "{}", heads[0]);
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    assert_eq!(counters.retries.load(Ordering::Relaxed), 2);
}

#[test]
fn what_an_operator_has_to_mend_is_told_and_not_tried_again() {
    let (address, requests) = server(vec![NO_TABLE]);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let client = Client::open(&config(address, ""), (&counters, &stop)).unwrap();
    let error = client.ask("SELECT 1".to_owned(), &[]).unwrap_err().to_string();
    assert!(error.contains("UNKNOWN_TABLE") && error.contains("clickhouse-schema"), "{error}");
    assert_eq!(requests.recv().unwrap().1, b"SELECT 1");
    assert_eq!(counters.retries.load(Ordering::Relaxed), 0);
}

#[test]
fn told_to_stop_it_waits_for_no_answer() {
    let (address, requests) = server(vec![Does::Hang]);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let client = Client::open(&config(address, ""), (&counters, &stop)).unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.ask("SELECT 1".to_owned(), &[]));
        requests.recv().unwrap();
        stop.store(true, Ordering::Release);
        assert!(matches!(asked.join().unwrap(), Err(ClickhouseError::Stopped)));
    });
}

#[test]
fn who_asks_stands_in_the_head_and_the_configs_settings_come_before_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, "secret\n").unwrap();
    let (address, requests) = server(vec![DONE, DONE]);
    let (counters, stop) = (Counters::default(), AtomicBool::new(false));
    let one = Client::open(&config(address, ""), (&counters, &stop)).unwrap();
    assert_eq!(one.ask("SELECT 42".to_owned(), &[]).unwrap(), "42\n");
    let (head, _) = requests.recv().unwrap();
    assert!(!head.contains("x-clickhouse-key") && !head.contains("insert_quorum"), "{head}");
    let more = format!(
        "user = \"weir\"\npassword_file = {path:?}\ncluster = \"eu\"\n[settings]\ninsert_quorum = \"2\"\n"
    );
    let many = Client::open(&config(address, &more), (&counters, &stop)).unwrap();
    many.ask("SELECT 42".to_owned(), &[]).unwrap();
    let (head, _) = requests.recv().unwrap();
    assert!(head.contains("x-clickhouse-user: weir\r\n"), "{head}");
    assert!(head.contains("x-clickhouse-key: secret\r\n"), "{head}");
    assert!(head.contains("insert_quorum=2") && !head.contains("insert_quorum=auto"), "{head}");
    assert!(head.contains("select_sequential_consistency=1") && head.contains("async_insert=0"), "{head}");
}

//! A webhook's receiver on a real port that answers as it is told, and keeps what came.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use ring::hmac;

/// What it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Success,
    Failure,
    /// It hangs up.
    Nothing,
    /// It sends elsewhere: to an address where nobody should go.
    Elsewhere,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).to_owned()
    }

    /// Holds the signature against the secret, as a receiver of the standard does.
    pub(crate) fn verify(&self, secret: &[u8]) {
        let signed =
            [&self.header("webhook-id"), ".", &self.header("webhook-timestamp"), ".", &self.body].concat();
        let signature = self.header("webhook-signature");
        let signature = BASE64.decode(signature.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes(), &signature).unwrap();
    }
}

type Kept = Arc<(Mutex<Vec<Request>>, Condvar)>;

pub(crate) struct Receiver {
    port: u16,
    kept: Kept,
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut octets = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&octets).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() >= length.parse().ok()? {
                return Some(Request { head: head.to_owned(), body: body.to_owned() });
            }
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        octets.extend_from_slice(&chunk[..count]);
    }
}

impl Receiver {
    /// One that answers so, one request after the other, and then with success.
    pub(crate) fn start(says: &[Says]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (kept, says) = (Kept::default(), says.to_vec());
        let keep = Arc::clone(&kept);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let Some(request) = read(&mut stream) else { continue };
                let answer = match says.get(number).unwrap_or(&Says::Success) {
                    Says::Success => "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
                    Says::Failure => "HTTP/1.1 503 Away\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                    Says::Nothing => "",
                    Says::Elsewhere => {
                        "HTTP/1.1 307 There\r\nlocation: /elsewhere\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    }
                };
                let _ = stream.write_all(answer.as_bytes());
                keep.0.lock().unwrap().push(request);
                keep.1.notify_all();
            }
        });
        Self { port, kept }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Request> {
        self.kept.0.lock().unwrap().clone()
    }

    /// Whether so many requests come within this time.
    pub(crate) fn wait_for(&self, count: usize, within: Duration) -> bool {
        let kept = self.kept.0.lock().unwrap();
        let (_kept, timeout) =
            self.kept.1.wait_timeout_while(kept, within, |kept| kept.len() < count).unwrap();
        !timeout.timed_out()
    }
}

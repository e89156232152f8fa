//! Listens to a node's heartbeat, and connects again for as long as there is none.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

use super::judge::Event;

/// Between two attempts to find a heartbeat: a node that is back is heard within two beats.
const CONNECT_EVERY: Duration = Duration::from_millis(100);
/// A beat is a number and some words; what is longer without an end is none.
const LINE_BYTES_MAX: usize = 1024;

/// The heartbeat of one node.
#[derive(Debug)]
pub(super) struct Pulse {
    path: PathBuf,
    stream: Option<UnixStream>,
    /// What was read and not told yet.
    read: Vec<u8>,
    /// No attempt to connect before this.
    not_before: Instant,
}

impl Pulse {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stream: None, read: Vec::new(), not_before: Instant::now() }
    }

    /// The next thing that is heard. What is given up before it ends has lost nothing.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = take_line(&mut self.read) {
                return event;
            }
            let Some(stream) = &self.stream else {
                sleep_until(self.not_before).await;
                self.not_before = Instant::now() + CONNECT_EVERY;
                match UnixStream::connect(&self.path).await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(error) => return Event::Unreachable(format!("{}: {error}", self.path.display())),
                }
                continue;
            };
            let mut chunk = [0; LINE_BYTES_MAX];
            let read = match stream.readable().await {
                Ok(()) => stream.try_read(&mut chunk),
                Err(error) => Err(error),
            };
            match read {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(len) if len > 0 && self.read.len() < LINE_BYTES_MAX => {
                    self.read.extend_from_slice(&chunk[..len]);
                }
                // It ended, or is no heartbeat.
                Ok(_) | Err(_) => {
                    self.stream = None;
                    self.read.clear();
                    return Event::Ended;
                }
            }
        }
    }
}

/// Takes the first whole line of what was read.
fn take_line(read: &mut Vec<u8>) -> Option<Event> {
    let end = read.iter().position(|&octet| octet == b'\n')?;
    let line: Vec<_> = read.drain(..=end).collect();
    Some(heard(String::from_utf8_lossy(&line[..end]).as_ref()))
}

/// What a beat says. What no node says is no word for it.
fn heard(line: &str) -> Event {
    match line.split_once(' ') {
        None if line == "1" => Event::Ready,
        Some(("0", reason)) => Event::Unready(reason.to_owned()),
        _ => Event::Unready(format!("{line:?}, which is no beat; are both of one version?")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_beat_is_a_one_or_a_zero_with_its_reason() {
        let mut read = b"1\n0 the journal is full\n2\n1".to_vec();
        assert_eq!(take_line(&mut read), Some(Event::Ready));
        assert_eq!(take_line(&mut read), Some(Event::Unready("the journal is full".to_owned())));
        assert!(matches!(take_line(&mut read), Some(Event::Unready(why)) if why.contains("no beat")));
        assert_eq!((take_line(&mut read), read.as_slice()), (None, b"1".as_slice()));
    }

    #[test]
    fn a_node_that_comes_beats_and_goes_is_heard_in_that_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pulse = Pulse::new(path.clone());
            assert!(matches!(pulse.next().await, Event::Unreachable(_)));
            let listener = UnixListener::bind(&path).unwrap();
            let node = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                // In pieces, as the kernel may give them.
                for piece in ["1", "\n0 drain", "ing\n1\n"] {
                    stream.write_all(piece.as_bytes()).unwrap();
                }
            });
            let mut heard = Vec::new();
            while heard.last() != Some(&Event::Ended) {
                heard.push(pulse.next().await);
            }
            let expected = [Event::Ready, Event::Unready("draining".to_owned()), Event::Ready, Event::Ended];
            assert_eq!(heard, expected);
            node.join().unwrap();
        });
    }

    #[test]
    fn who_says_more_than_a_beat_can_be_is_no_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let node = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            // It is cut off; how far it gets is not looked at. Until then it stays.
            let _ = stream.write_all(&vec![b'1'; 1 << 20]);
            let _ = stream.read(&mut [0]);
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let heard = runtime.block_on(async {
            let mut pulse = Pulse::new(path);
            tokio::time::timeout(Duration::from_secs(20), pulse.next()).await
        });
        assert_eq!(heard.expect("in time"), Event::Ended);
        node.join().unwrap();
    }
}

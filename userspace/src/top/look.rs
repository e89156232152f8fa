//! Looks at nodes: by their status socket, by their HTTP port, or at what was recorded of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::control::{Status, fetch};

/// Where a node's HTTP port is if nothing else is said: the default of `metrics.listen`.
const PORT: u16 = 9464;
/// A node answers within milliseconds, and the way to it takes some more.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// As the status socket has it.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What was seen of one node at one time. A line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Since the first look, in ms.
    pub(super) at_ms: u64,
    /// What the node is called.
    pub(super) node: String,
    /// Its status, if it answered.
    pub(super) status: Option<Status>,
    /// Why it did not, if it did not.
    pub(super) trouble: Option<String>,
}

/// Where a node is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Socket(PathBuf),
    /// At its HTTP port: a host, or a host and a port.
    Host(String),
}

impl Place {
    fn name(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Host(host) => host.clone(),
        }
    }

    fn look(&self) -> Result<Status, String> {
        match self {
            Self::Socket(path) => fetch(path).map_err(|error| error.to_string()),
            Self::Host(host) => ask(host),
        }
    }

    /// The host with its port.
    fn address(host: &str) -> String {
        if host.parse::<Ipv6Addr>().is_ok() {
            return format!("[{host}]:{PORT}");
        }
        let after_brackets = host.rsplit(']').next().unwrap_or(host);
        if after_brackets.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") }
    }
}

/// Asks the HTTP port of a node for its status.
fn ask(host: &str) -> Result<Status, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = async { timeout(ANSWER_MAX, exchange(&Place::address(host))).await };
    let body = runtime.map_err(|error| error.to_string())?.block_on(asked);
    let body = body.map_err(|_| format!("no answer within {} s", ANSWER_MAX.as_secs()))??;
    serde_json::from_slice(&body).map_err(|error| format!("its answer is no status: {error}"))
}

async fn exchange(address: &str) -> Result<Bytes, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    let failed = |error: hyper::Error| format!("{address}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get("/status").header(hyper::header::HOST, address).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("{address} says {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("{address}: {error}"))?.to_bytes())
    };
    // The connection does its part as long as the answer takes, and ends with it.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => { ended.map_err(failed)?; answered.await }
    }
}

/// What looks are taken from.
pub(super) enum Eyes {
    /// Nodes that run.
    Live {
        /// Where they are.
        places: Vec<Place>,
        /// When the first look was.
        first: Instant,
        /// From one look to the next.
        interval: Duration,
    },
    /// A recording.
    Replay {
        /// What is left of it.
        lines: Lines<BufReader<File>>,
        /// The first line of the next look.
        next: Option<Box<Seen>>,
    },
}

impl Eyes {
    /// Looks at these nodes.
    #[must_use]
    pub(super) fn live(places: Vec<Place>, interval: Duration) -> Self {
        Self::Live { places, first: Instant::now(), interval }
    }

    /// Looks at what was recorded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn replay(path: &Path) -> io::Result<Self> {
        let mut lines = BufReader::new(File::open(path)?).lines();
        let next = next_seen(&mut lines)?;
        Ok(Self::Replay { lines, next })
    }

    /// Takes a look at all nodes at once; nothing at the end of a recording.
    ///
    /// # Errors
    /// When a recording cannot be read. A node that does not answer says so in what is seen.
    pub(super) fn look(&mut self) -> io::Result<Vec<Seen>> {
        match self {
            Self::Live { places, first, .. } => {
                let at_ms = first.elapsed().as_millis() as u64;
                Ok(look_at(places, at_ms))
            }
            Self::Replay { lines, next } => {
                let Some(first) = next.take() else { return Ok(Vec::new()) };
                let (at_ms, mut look) = (first.at_ms, vec![*first]);
                *next = next_seen(lines)?;
                while let Some(seen) = next.take_if(|seen| seen.at_ms == at_ms) {
                    look.push(*seen);
                    *next = next_seen(lines)?;
                }
                Ok(look)
            }
        }
    }

    /// How long after a look at `at_ms` the next one is due; none when there is no other.
    #[must_use]
    pub(super) fn pause(&self, at_ms: u64) -> Option<Duration> {
        match self {
            Self::Live { interval, .. } => Some(*interval),
            Self::Replay { next, .. } => {
                next.as_ref().map(|next| Duration::from_millis(next.at_ms.saturating_sub(at_ms)))
            }
        }
    }
}

fn look_at(places: &[Place], at_ms: u64) -> Vec<Seen> {
    thread::scope(|scope| {
        let looks: Vec<_> = places.iter().map(|place| (place, scope.spawn(|| place.look()))).collect();
        let seen = looks.into_iter().map(|(place, look)| {
            let looked = look.join().unwrap_or_else(|_| Err("looking at it failed".to_owned()));
            let (status, trouble) = match looked {
                Ok(status) => (Some(status), None),
                Err(trouble) => (None, Some(trouble)),
            };
            Seen { at_ms, node: place.name(), status, trouble }
        });
        seen.collect()
    })
}

fn next_seen(lines: &mut Lines<BufReader<File>>) -> io::Result<Option<Box<Seen>>> {
    let Some(line) = lines.next().transpose()? else { return Ok(None) };
    let seen = serde_json::from_str(&line);
    seen.map(Some).map_err(|error| io::Error::other(format!("a line of it is no look at a node: {error}")))
}

/// Writes looks to a file, for [`Eyes::replay`].
pub(super) struct Recorder(File);

impl Recorder {
    /// A new recording.
    ///
    /// # Errors
    /// When the file cannot be made, or is there already.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::options().write(true).create_new(true).open(path).map(Self)
    }

    /// Writes what was seen.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn write(&mut self, look: &[Seen]) -> io::Result<()> {
        let mut text = String::new();
        for seen in look {
            text.push_str(&serde_json::to_string(seen)?);
            text.push('\n');
        }
        self.0.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    fn seen(at_ms: u64, node: &str, trouble: Option<&str>) -> Seen {
        let status = trouble.is_none().then(Status::default);
        Seen { at_ms, node: node.to_owned(), status, trouble: trouble.map(str::to_owned) }
    }

    #[test]
    fn what_was_recorded_is_seen_again_look_by_look_at_its_pace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording");
        let looks = [
            vec![seen(0, "a", None), seen(0, "b", Some("no answer"))],
            vec![seen(1_000, "a", None), seen(1_000, "b", None)],
            vec![seen(3_500, "a", None)],
        ];
        let mut recorder = Recorder::open(&path).unwrap();
        looks.iter().for_each(|look| recorder.write(look).unwrap());
        let mut eyes = Eyes::replay(&path).unwrap();
        for (look, pause_ms) in looks.iter().zip([Some(1_000), Some(2_500), None]) {
            assert_eq!(&eyes.look().unwrap(), look);
            assert_eq!(eyes.pause(look[0].at_ms), pause_ms.map(Duration::from_millis));
        }
        assert_eq!(eyes.look().unwrap(), []);
        assert!(Recorder::open(&path).is_err(), "nothing is written over");
    }

    #[test]
    fn a_line_that_is_no_look_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording");
        std::fs::write(&path, "{\"at_ms\":0}\n").unwrap();
        let error = Eyes::replay(&path).err().unwrap().to_string();
        assert!(error.contains("no look at a node"), "{error}");
    }

    #[test]
    fn a_node_that_hangs_is_given_up_and_the_others_are_seen() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hanging, sound) = (listen(), listen());
        let places = [&hanging, &sound].map(|one| Place::Host(one.local_addr().unwrap().to_string()));
        let answers = thread::spawn(move || {
            let (mut stream, _) = sound.accept().unwrap();
            let _request = stream.read(&mut [0; 1024]).unwrap();
            let body = serde_json::to_string(&Status::default()).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let began = Instant::now();
        let seen = look_at(&places, 0);
        assert!(began.elapsed() < 2 * ANSWER_MAX, "{:?}", began.elapsed());
        assert_eq!(seen[0].trouble.as_deref(), Some("no answer within 2 s"));
        assert!(seen[1].status.is_some(), "{:?}", seen[1].trouble);
        answers.join().unwrap();
    }

    #[test]
    fn a_host_has_the_port_of_metrics_unless_it_says_another() {
        let cases = [
            ("pop-1", "pop-1:9464"),
            ("pop-1:80", "pop-1:80"),
            ("192.0.2.7", "192.0.2.7:9464"),
            ("2001:db8::7", "[2001:db8::7]:9464"),
            ("[2001:db8::7]", "[2001:db8::7]:9464"),
            ("[2001:db8::7]:80", "[2001:db8::7]:80"),
        ];
        for (host, address) in cases {
            assert_eq!(Place::address(host), address);
        }
    }
}

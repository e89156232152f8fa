//! The status socket: a request line in, one JSON line out. Both ends of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::status::{Sources, Status, gather};

/// Name of the socket in the run folder.
pub const SOCKET_NAME: &str = "weir.sock";
/// A request is one word.
const REQUEST_BYTES_MAX: u64 = 64;
/// A status is some 10 KiB; with 1,024 workers that all count every reason it stays below 3 MiB.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Viewers at once: more than operators look at one node.
const CONNECTIONS_MAX: usize = 16;
/// A viewer that says nothing for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The control side answers within milliseconds; a client that waits longer waits in vain.
const CLIENT_WAIT: Duration = Duration::from_secs(2);

/// Why no status came.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum ClientError {
    /// cannot reach the daemon at {path}: {source}; is it running with this run_dir?
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// the daemon at {path} did not answer: {source}
    Exchange {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// the answer of {path} is no status: {source}; use a `weir` of the daemon's version
    Decode {
        /// The socket.
        path: PathBuf,
        /// Where it is not.
        source: serde_json::Error,
    },
}

/// Asks a running daemon for its status.
///
/// # Errors
/// When there is no daemon, or it does not answer within 2 s, or not with a status.
pub fn fetch(path: &Path) -> Result<Status, ClientError> {
    let answer = fetch_json(path)?;
    serde_json::from_str(&answer).map_err(|source| ClientError::Decode { path: path.to_owned(), source })
}

/// Asks a running daemon for its status, as the JSON it sends.
///
/// # Errors
/// As [`fetch`], but for what the answer is.
pub fn fetch_json(path: &Path) -> Result<String, ClientError> {
    let failed = |source| ClientError::Exchange { path: path.to_owned(), source };
    let mut stream = BlockingStream::connect(path)
        .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
    stream.set_read_timeout(Some(CLIENT_WAIT)).map_err(failed)?;
    stream.set_write_timeout(Some(CLIENT_WAIT)).map_err(failed)?;
    stream.write_all(b"status\n").map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(answer)
}

pub(super) async fn serve(listener: UnixListener, sources: Arc<Sources>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to be closed rather than spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            // An error means that the viewer went away.
            let _ = answer(stream, &sources).await;
            drop(permit);
        });
    }
}

async fn answer(stream: UnixStream, sources: &Sources) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = AsyncReader::new(reader);
    loop {
        let mut request = String::new();
        let mut line = (&mut reader).take(REQUEST_BYTES_MAX);
        if timeout(IDLE_MAX, line.read_line(&mut request)).await?? == 0 {
            return Ok(());
        }
        let mut answer = match request.trim_end() {
            "status" => serde_json::to_string(&gather(sources).0)?,
            other => serde_json::json!({ "error": format!("no such request: {other:?}; ask for status") })
                .to_string(),
        };
        answer.push('\n');
        timeout(CLIENT_WAIT, writer.write_all(answer.as_bytes())).await??;
    }
}

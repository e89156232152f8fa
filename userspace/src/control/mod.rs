//! The tokio side: status socket, metrics, health, heartbeat, signals. Never on the click path.
//!
//! One thread with a current-thread runtime reads the workers' counters when somebody asks, and
//! writes nothing they read but the drain flag. While nobody asks it sleeps, so watching costs
//! the workers nothing and not watching costs nobody anything.
//!
//! It never waits for a worker, and no worker waits for it. Start reading at [`Control::start`];
//! [`status`] says what is shown and what must add up.

mod explain;
mod heartbeat;
mod http;
pub mod metrics;
pub mod readiness;
mod recovery;
pub mod service_manager;
mod socket;
pub mod standing;
pub mod status;
mod turning;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

pub use explain::{UnknownName, explain};
pub use heartbeat::{BEAT, HEARTBEAT_NAME};
pub use recovery::RecoveryStatus;
pub use socket::{ClientError, SOCKET_NAME, fetch, fetch_json};
pub use status::{
    AtomicState, FrameSource, FrameTotals, Identity, NoFrames, Sources, State, Status, Steering, gather,
};

/// Name of the last status in the run folder: the counters after a drain.
pub const FINAL_STATUS_NAME: &str = "final-status.json";

/// Why the control side cannot start, or cannot write its last word.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum Error {
    /// another daemon answers at {path}; give this one a run_dir of its own
    SocketTaken {
        /// The socket.
        path: PathBuf,
    },
    /// cannot {action} {path}: {source}
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// cannot listen on metrics.listen = "{address}": {source}; choose a free port, or "" for none
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// cannot start the control thread: {source}
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Where the control side listens.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the status socket; made when it is not there.
    pub run_dir: PathBuf,
    /// Address of the HTTP server; none for no server.
    pub http: Option<SocketAddr>,
}

/// How the control side tells the daemon to drain, at the first SIGTERM or SIGINT; to hand over to a successor, at
/// SIGUSR2; and to read again what can be replaced while it runs, at SIGHUP.
pub struct Drain {
    /// Set first.
    pub flag: Arc<AtomicBool>,
    /// Set before it where a successor takes over the sockets.
    pub hands_over: Arc<AtomicBool>,
    /// Set at SIGHUP; whoever acts on it clears it.
    pub reload: Arc<AtomicBool>,
    /// Called then: wakes whoever sleeps too long to look at the flag.
    pub wake: Box<dyn Fn() + Send>,
}

/// The control side.
pub struct Control;

impl Control {
    /// Opens the sockets and the HTTP port, and starts the thread that serves them and waits for
    /// signals. All are open when it returns.
    ///
    /// # Errors
    /// When a socket or the port cannot be had; nothing is left running then.
    pub fn start(settings: Settings, sources: Sources, drain: Drain) -> Result<ControlHandle, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Thread { source })?;
        let entered = runtime.enter();
        let unix = bind_socket(&settings.run_dir, &settings.run_dir.join(SOCKET_NAME))?;
        let heartbeat = bind_socket(&settings.run_dir, &settings.run_dir.join(HEARTBEAT_NAME))?;
        let tcp = settings.http.map(bind_http).transpose()?;
        let http = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let signals = Signals::watch().map_err(|source| Error::Thread { source })?;
        drop(entered);
        let sources = Arc::new(sources);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&sources);
        let run = move || {
            runtime.block_on(async {
                tokio::spawn(service_manager::watch(Arc::clone(&served)));
                tokio::spawn(socket::serve(unix, Arc::clone(&served)));
                tokio::spawn(heartbeat::serve(heartbeat, Arc::clone(&served)));
                if let Some(tcp) = tcp {
                    tokio::spawn(http::serve(tcp, served));
                }
                tokio::spawn(signals.drain_on(drain));
                // Ends when the handle is dropped; what was spawned ends with the runtime.
                let _ = stopped.await;
            });
        };
        let thread = thread::Builder::new()
            .name("weir-control".to_owned())
            .spawn(run)
            .map_err(|source| Error::Thread { source })?;
        Ok(ControlHandle { run_dir: settings.run_dir, sources, http, stop: Some(stop), thread: Some(thread) })
    }
}

/// The running control side. Dropping it stops the thread and removes the sockets.
pub struct ControlHandle {
    run_dir: PathBuf,
    sources: Arc<Sources>,
    http: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ControlHandle {
    /// The address HTTP is served on: with a port of its own when port 0 was asked for.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Writes [`FINAL_STATUS_NAME`]: call it when the drain is over and no counter moves any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_final_status(&self) -> Result<PathBuf, Error> {
        let path = self.run_dir.join(FINAL_STATUS_NAME);
        let (status, _) = gather(&self.sources);
        let failed = |source| Error::File { action: "write", path: path.clone(), source };
        let mut text = serde_json::to_string_pretty(&status).map_err(|error| failed(error.into()))?;
        text.push('\n');
        // By way of a second name, so that nobody reads half of it.
        let half = path.with_extension("json.tmp");
        fs::write(&half, text).and_then(|()| fs::rename(&half, &path)).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was reported when it happened.
            let _ = thread.join();
        }
        for name in [SOCKET_NAME, HEARTBEAT_NAME] {
            let _ = fs::remove_file(self.run_dir.join(name));
        }
    }
}

fn bind_socket(run_dir: &Path, path: &Path) -> Result<UnixListener, Error> {
    let failed = |action| move |source| Error::File { action, path: path.to_owned(), source };
    fs::create_dir_all(run_dir).map_err(failed("make the folder of"))?;
    // What a killed daemon left behind refuses connections; what answers is in use.
    if UnixStream::connect(path).is_ok() {
        return Err(Error::SocketTaken { path: path.to_owned() });
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(source)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    // Owner and group: counters are no secret, but nobody else needs to ask.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("protect"))?;
    Ok(listener)
}

fn bind_http(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|source| Error::Http { address, source })
}

/// SIGTERM, SIGINT, SIGUSR2 and SIGHUP, caught from the moment they are watched.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    hand_over: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    /// Sets the drain flag at every signal. Later ones change nothing: a drain always ends, and
    /// who cannot wait has SIGKILL, which loses no acknowledged click either.
    async fn drain_on(mut self, drain: Drain) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hand_over.recv() => {
                    // Where nobody keeps the sockets they are read empty, as at any drain.
                    drain.hands_over.store(service_manager::is_there(), Ordering::Release);
                    "SIGUSR2"
                }
                _ = self.hangup.recv() => {
                    drain.reload.store(true, Ordering::Release);
                    (drain.wake)();
                    continue;
                }
            };
            tracing::info!(signal = name, "draining");
            drain.flag.store(true, Ordering::Release);
            (drain.wake)();
        }
    }
}

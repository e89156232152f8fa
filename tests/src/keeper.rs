//! What a service manager does for a node's sockets: keeps them when it is given them, and hands them to the next
//! process (sd_notify(3), `FDSTORE=1`; sd_listen_fds(3)).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::node::{Node, NodeFolder};

/// Above every descriptor that a node gets by its number.
const NUMBERS_FROM: i32 = 400;
/// How often the thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A socket where systemd's would be, and a thread that does what systemd does.
#[derive(Debug)]
pub struct Keeper {
    kept: Kept,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Stands in for the service manager of this folder's nodes.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn of(folder: &mut NodeFolder) -> Result<Self> {
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(TICK))?;
        folder.run_with("weir", "NOTIFY_SOCKET", path);
        let (kept, is_over) = (Kept::default(), Arc::new(AtomicBool::new(false)));
        let (keeps, ends) = (Arc::clone(&kept), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Acquire) {
                hear(&socket, &keeps);
            }
        });
        Ok(Self { kept, is_over, thread: Some(thread) })
    }

    /// The names of what it keeps, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Starts a node with all that is kept; it may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<'a>(&self, folder: &'a NodeFolder) -> Result<Node<'a>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given = Vec::new();
        for (_, socket) in kept.iter() {
            let copy = fcntl_dupfd_cloexec(socket, NUMBERS_FROM)?;
            fcntl_setfd(&copy, FdFlags::empty())?;
            given.push(copy);
        }
        if given.is_empty() {
            return folder.start();
        }
        let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let (count, names) = (names.len(), names.join(":"));
        // From 3 on, as sd_listen_fds(3) has it; the copies themselves stay here.
        let numbers = (3..).zip(&given).map(|(number, copy)| format!(" {number}<&{}", copy.as_raw_fd()));
        let closed = given.iter().map(|copy| format!(" {}<&-", copy.as_raw_fd()));
        let redirections: String = numbers.chain(closed).collect();
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES='{names}'; exec \"$@\"{redirections}"
        );
        folder.start_under(&["bash", "-c", &script, "bash"])
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Takes one message, if there is one, and does what it asks for.
fn hear(socket: &UnixDatagram, kept: &Kept) {
    let mut text = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut text)];
    let Ok(told) = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) else { return };
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets: Vec<_> = sockets.flatten().collect();
    let text = String::from_utf8_lossy(&text[..told.bytes]).into_owned();
    let Some(name) = text.lines().find_map(|line| line.strip_prefix("FDNAME=")) else { return };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if text.contains("FDSTOREREMOVE=1") {
        kept.retain(|(one, _)| one != name);
    } else if text.contains("FDSTORE=1") {
        kept.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket)));
    }
}

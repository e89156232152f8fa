//! Sockets that a service manager has kept for this process from the one before it (`LISTEN_FDS` of
//! sd_listen_fds(3)), so that what came while none ran waits in the kernel.
//!
//! It takes them over and nothing else: which of them are used, and that others are kept, [`crate::daemon`] sees to.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Socket, Type};

/// The descriptors are taken: a second taker would own them too.
static ARE_TAKEN: AtomicBool = AtomicBool::new(false);

/// What a socket is kept as: who takes it again knows by this which of its group it is.
#[must_use]
pub fn name(kind: Type, address: SocketAddr, worker: usize) -> String {
    let kind = if kind == Type::DGRAM { "udp" } else { "tcp" };
    // A colon ends a name in `LISTEN_FDNAMES`.
    let ip = address.ip().to_string().replace(':', "_");
    format!("{kind}-{ip}-{}-{worker}", address.port())
}

/// The worker whose socket is kept under this name.
fn worker_of(name: &str) -> Option<usize> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// The sockets of this process that nobody has asked for yet, with their names.
#[derive(Debug, Default)]
pub struct Held(Vec<(String, Socket)>);

impl Held {
    /// Takes what was kept for this process; nothing the second time.
    #[must_use]
    pub fn take() -> Self {
        if ARE_TAKEN.swap(true, Ordering::AcqRel) {
            return Self::default();
        }
        let told = sd_notify::listen_fds_with_names();
        let held = told.map(|told| {
            told.map(|(descriptor, name)| {
                // SAFETY: the service manager opened it for this process, which is told so by pid, and nobody but
                // this function, once, takes it. Needed because it is known by its number alone.
                (name, Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
            })
            .collect()
        });
        match held {
            Ok(held) => Self(held),
            Err(error) => {
                tracing::warn!(%error, "what the service manager kept cannot be taken; the sockets are opened anew");
                Self::default()
            }
        }
    }

    /// The sockets of one address in worker order, with their names.
    ///
    /// # Errors
    /// With the names of those there are, when they are not one for each worker. They are closed.
    pub fn group(
        &mut self,
        kind: Type,
        address: SocketAddr,
        workers: usize,
    ) -> Result<Vec<(String, Socket)>, Vec<String>> {
        let is_its = |(_, socket): &(String, Socket)| {
            socket.r#type().is_ok_and(|found| found == kind)
                && socket.local_addr().is_ok_and(|local| local.as_socket() == Some(address))
        };
        let (mut group, others): (Vec<_>, Vec<_>) = self.0.drain(..).partition(is_its);
        self.0 = others;
        group.sort_by_key(|(name, _)| worker_of(name));
        if group.iter().map(|(name, _)| worker_of(name)).eq((0..workers).map(Some)) {
            return Ok(group);
        }
        Err(group.into_iter().map(|(name, _)| name).collect())
    }

    /// The names of those that nobody asked for, which are closed now.
    #[must_use]
    pub fn rest(self) -> Vec<String> {
        self.0.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(ip: &str) -> (SocketAddr, Socket) {
        let socket = std::net::UdpSocket::bind(format!("{ip}:0")).unwrap();
        (socket.local_addr().unwrap(), socket.into())
    }

    #[test]
    fn a_group_is_given_whole_and_in_worker_order_or_not_at_all() {
        let (address, socket) = bound("127.0.0.1");
        let (other, _) = bound("127.0.0.1");
        let names = [0, 1].map(|worker| name(Type::DGRAM, address, worker));
        let both = || Held([1, 0].map(|worker| (names[worker].clone(), socket.try_clone().unwrap())).into());
        let mut held = both();
        assert_eq!(held.group(Type::STREAM, address, 2).unwrap_err(), [""; 0]);
        assert_eq!(held.group(Type::DGRAM, other, 2).unwrap_err(), [""; 0]);
        let group = held.group(Type::DGRAM, address, 2).unwrap();
        assert_eq!(group.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        assert_eq!(held.rest(), [""; 0]);
        for workers in [1, 3] {
            let mut held = both();
            assert_eq!(held.group(Type::DGRAM, address, workers).unwrap_err(), names);
            assert_eq!(held.rest(), [""; 0], "they are gone");
        }
    }

    #[test]
    fn what_nobody_asks_for_is_named() {
        let (address, socket) = bound("127.0.0.1");
        let held = Held(vec![(name(Type::DGRAM, address, 0), socket)]);
        assert_eq!(held.rest(), [format!("udp-127.0.0.1-{}-0", address.port())]);
        assert_eq!(name(Type::STREAM, "[2001:db8::1]:80".parse().unwrap(), 3), "tcp-2001_db8__1-80-3");
    }
}

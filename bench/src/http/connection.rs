//! One connection to the door: a socket that never blocks, TLS on it or not, and what is under way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::body::Sent;

/// Bytes read in one call: the largest response of a batch fits a few.
pub const READ_BYTES: usize = 64 << 10;

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the certificates of a PEM file and expects a name.
    ///
    /// # Errors
    /// The file cannot be read, holds no certificate, or the name is none.
    pub fn new(ca_file: &Path, server_name: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(ca_file)
            .with_context(|| format!("cannot read {}", ca_file.display()))?;
        for certificate in certificates {
            let certificate = certificate.with_context(|| format!("{} is no PEM", ca_file.display()))?;
            roots.add(certificate).with_context(|| format!("a certificate of {}", ca_file.display()))?;
        }
        anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", ca_file.display());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(server_name.to_owned())
            .with_context(|| format!("--server-name {server_name} is no name"))?;
        Ok(Self { config: Arc::new(config), name })
    }
}

/// A request, kept until each of its clicks has its status.
#[derive(Debug, Default)]
pub struct Request {
    /// When it was to be sent first, in ns since the start.
    pub planned_ns: u64,
    /// When it was sent last.
    pub sent_ns: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// Its clicks that have no final status yet.
    pub clicks: Vec<Sent>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is none; it is opened again at this time.
    Closed {
        /// In ns since the start.
        again_ns: u64,
    },
    /// The socket connects.
    Connecting,
    /// The TLS handshake goes on.
    Handshake,
    /// It can take a request, or has one under way.
    Open,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// What it does.
    pub phase: Phase,
    /// The request under way.
    pub request: Option<Request>,
    /// What arrived and is not used yet.
    pub input: Vec<u8>,
    socket: Option<TcpStream>,
    tls: Option<ClientConnection>,
    out: Vec<u8>,
    written: usize,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            phase: Phase::Closed { again_ns: 0 },
            request: None,
            input: Vec::new(),
            socket: None,
            tls: None,
            out: Vec::new(),
            written: 0,
        }
    }
}

impl Connection {
    /// Begins to connect. The socket must be watched from then on, by its edges.
    ///
    /// # Errors
    /// No socket, or no way to the target.
    pub fn open(&mut self, target: SocketAddr, tls: Option<&Tls>) -> anyhow::Result<&TcpStream> {
        let domain = socket2::Domain::for_address(target);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).context("no TCP socket")?;
        socket.set_nonblocking(true).context("non-blocking")?;
        socket.set_tcp_nodelay(true).context("TCP_NODELAY")?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error).with_context(|| format!("no way to {target}"));
            }
            _ => {}
        }
        self.close(0);
        if let Some(tls) = tls {
            let mut session =
                ClientConnection::new(Arc::clone(&tls.config), tls.name.clone()).context("a TLS session")?;
            // Requests are made one by one: what is written is all that waits.
            session.set_buffer_limit(None);
            self.tls = Some(session);
        }
        self.phase = Phase::Connecting;
        Ok(self.socket.insert(socket.into()))
    }

    /// Closes it; gives the request that was under way.
    pub fn close(&mut self, again_ns: u64) -> Option<Request> {
        (self.socket, self.tls) = (None, None);
        self.input.clear();
        self.out.clear();
        self.written = 0;
        self.phase = Phase::Closed { again_ns };
        self.request.take()
    }

    /// Whether it can take a request.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Open && self.request.is_none()
    }

    /// Goes on with what the socket allows; what arrives stands in `input`. False: the other side has
    /// ended.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn advance(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        if self.phase == Phase::Connecting {
            let Some(socket) = &self.socket else { return Ok(false) };
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            if socket.peer_addr().is_err() {
                return Ok(true);
            }
            self.phase = if self.tls.is_some() { Phase::Handshake } else { Phase::Open };
        }
        self.flush()?;
        let goes_on = self.receive(scratch)?;
        if self.phase == Phase::Handshake {
            self.flush()?;
            if self.tls.as_ref().is_some_and(|tls| !tls.is_handshaking()) {
                self.phase = Phase::Open;
            }
        }
        Ok(goes_on)
    }

    /// Sends bytes, now as far as the socket takes them.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(plain)?,
            None => self.out.extend_from_slice(plain),
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
        }
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while self.written < self.out.len() {
            match socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        loop {
            let read = match socket.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match &mut self.tls {
                Some(tls) => decrypt(tls, &scratch[..read], &mut self.input)?,
                None => self.input.extend_from_slice(&scratch[..read]),
            }
            // What arrives after a short read makes a new edge.
            if read < scratch.len() {
                return Ok(true);
            }
        }
    }
}

fn decrypt(tls: &mut ClientConnection, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let len = state.plaintext_bytes_to_read();
        if len > 0 {
            let at = plain.len();
            plain.resize(at + len, 0);
            tls.reader().read_exact(&mut plain[at..])?;
        }
    }
    Ok(())
}

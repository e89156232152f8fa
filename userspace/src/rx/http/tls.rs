//! TLS without sockets: bytes of a stream in, plain bytes out, and back.
//!
//! The session is rustls'. What it has to send stands in the caller's vector; what it cannot read ends
//! the connection, after its alert. Certificates: [`Certificates`], which can be replaced under running
//! connections; those keep what they began with.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("cannot read {path}: {why}; it must be PEM, and readable for the node")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is nothing in it.
    #[error("{path} holds no certificate; it must have the chain as PEM, the node's own first")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// They do not belong together.
    #[error("{certificate} and {key} cannot be used together: {source}; are they of one pair?")]
    Pair {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The settings.
    #[error("TLS cannot be set up: {0}; this is a defect")]
    Settings(rustls::Error),
}

/// The node's certificate and key, as the files have them.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads them again, for connections from now on.
    ///
    /// # Errors
    /// As [`Certificates::load`]; then the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// What sessions are made with; TLS 1.3, and 1.2 where it is allowed.
    ///
    /// # Errors
    /// When rustls refuses its own defaults.
    pub fn settings(self: &Arc<Self>, allow_tls12: bool) -> Result<Arc<ServerConfig>, TlsError> {
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        let versions = if allow_tls12 { BOTH } else { &BOTH[..1] };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(TlsError::Settings)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Held for a pointer's copy, once a handshake, and written only at a reload.
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let file = |path: &Path, why: String| TlsError::File { path: path.to_owned(), why };
    let text = fs::read(certificate).map_err(|error| file(certificate, error.to_string()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| file(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_owned() });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, error.to_string()))?;
    let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let certified = CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(pair)?;
    certified.keys_match().map_err(pair)?;
    Ok(certified)
}

/// One connection's session.
#[derive(Debug)]
pub struct Session(Box<ServerConnection>);

impl Session {
    /// A session that begins.
    ///
    /// # Errors
    /// When rustls refuses its own settings.
    pub fn new(settings: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(Arc::clone(settings))?;
        // What is sent is bounded by whoever sends it.
        session.set_buffer_limit(None);
        Ok(Self(Box::new(session)))
    }

    /// Takes bytes of the stream: what they say is appended to `plain`, what is to be answered to
    /// `out`.
    ///
    /// # Errors
    /// When they are no TLS; `out` has the alert.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let mut read = Ok(());
        while !bytes.is_empty() && read.is_ok() {
            // Into a vector nothing fails; a session that has more than it may says so by an error.
            if !self.0.read_tls(&mut bytes).is_ok_and(|taken| taken > 0) {
                break;
            }
            read = self.0.process_new_packets().map(drop);
            if let Err(error) = self.0.reader().read_to_end(plain)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                break;
            }
        }
        self.flush(out);
        read
    }

    /// Encrypts bytes to be sent.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let _a_vector_takes_all = self.0.writer().write_all(plain);
        self.flush(out);
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            if !self.0.write_tls(out).is_ok_and(|written| written > 0) {
                break;
            }
        }
    }
}

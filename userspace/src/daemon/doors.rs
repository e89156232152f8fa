//! The HTTP doors of a run: opened before the workers, and reloaded under them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::Type;

use super::held::{Inheritance, Kept};
use crate::admission::Admission;
use crate::config::{Config, Http};
use crate::published::{Published, Shared};
use crate::rx::http::catalog::{Catalog, CatalogError};
use crate::rx::http::door::{Door, Settings};
use crate::rx::http::listener::{ListenError, open_group};
use crate::rx::http::tls::{Certificates, TlsError};
use crate::stats::OwnStats;
use crate::uring::ListenerId;
use crate::withdrawal::AtomicWithdrawal;

/// Why the doors cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// The doors of all workers. Without a port there are none.
#[derive(Debug)]
pub(super) struct Doors {
    http: Http,
    settings: Settings,
    catalog: Arc<Published<Catalog>>,
    certificates: Option<Arc<Certificates>>,
    withdrawal: Arc<AtomicWithdrawal>,
    /// The listeners of each address, in worker order.
    listeners: Vec<Vec<Kept>>,
}

impl Doors {
    /// Binds the listeners, or takes those of the last process, and reads certificate and catalog.
    pub(super) fn open(
        config: &Config,
        workers: usize,
        left: &mut Inheritance,
        withdrawal: &Arc<AtomicWithdrawal>,
    ) -> Result<Self, DoorError> {
        let http = &config.http;
        let catalog = Published::new(catalog_of(http)?);
        let certificates = match (&http.tls_port, &http.certificate_file, &http.key_file) {
            (Some(_), Some(certificate), Some(key)) => Some(Arc::new(Certificates::load(certificate, key)?)),
            _ => None,
        };
        let listeners = http
            .listeners()
            .map(|(address, _)| left.group(Type::STREAM, address, workers, || open_group(address, workers)));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let plain = http.listeners().filter(|(_, is_tls)| !is_tls).count() as u16;
        let tls =
            certificates.as_ref().map(|certificates| certificates.settings(http.older_tls)).transpose()?;
        let settings = Settings {
            limits: http.limits(),
            connections_max: http.connections_per_worker,
            clicks_max: http.clicks_waiting_max,
            head_ns_max: nanoseconds(http.head_timeout),
            body_ns_max: nanoseconds(http.body_timeout),
            idle_ns_max: nanoseconds(http.idle_timeout),
            send_ns_max: nanoseconds(http.send_timeout),
            listeners: listeners.len() as u16,
            tls: tls.map(|settings| (ListenerId(plain), settings)),
        };
        let withdrawal = Arc::clone(withdrawal);
        Ok(Self { http: http.clone(), settings, catalog, certificates, withdrawal, listeners })
    }

    /// The listeners of each worker, in worker order.
    pub(super) fn listeners(&mut self, workers: usize) -> Vec<Vec<OwnedFd>> {
        let mut own: Vec<Vec<OwnedFd>> = (0..workers).map(|_| Vec::new()).collect();
        for group in self.listeners.drain(..) {
            own.iter_mut().zip(group).for_each(|(own, listener)| own.push(listener.socket.into()));
        }
        own
    }

    /// A worker's door, if there are any.
    pub(super) fn door(&self, admission: Shared<Admission>, stats: OwnStats) -> Option<Door> {
        let withdrawal = Arc::clone(&self.withdrawal);
        let door = || Door::new(self.settings.clone(), self.catalog.reader(), admission, withdrawal, stats);
        self.http.is_on().then(door)
    }

    /// Reads certificate and catalog again. What cannot be read stays as it was.
    pub(super) fn reload(&self) {
        if let Some(path) = &self.http.catalog_file {
            let catalog = Catalog::load(path).map(|catalog| self.catalog.publish(catalog));
            tell_reload("catalog", catalog);
        }
        if let Some(certificates) = &self.certificates {
            tell_reload("certificate", certificates.reload());
        }
    }

    /// Frees what was replaced and no worker uses any more.
    pub(super) fn free_replaced(&self) {
        self.catalog.free_retired();
    }
}

fn tell_reload<E: std::fmt::Display>(what: &str, reloaded: Result<(), E>) {
    match reloaded {
        Ok(()) => tracing::info!("the {what} is read again"),
        Err(error) => tracing::error!(%error, "the {what} is not replaced"),
    }
}

fn catalog_of(http: &Http) -> Result<Catalog, CatalogError> {
    http.catalog_file.as_deref().map_or_else(|| Ok(Catalog::default()), Catalog::load)
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

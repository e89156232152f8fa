//! One run of the tier: the merging thread, the archiving thread, and the server, which all end when one
//! of them fails or a signal comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::alert::webhook::{Webhook, WebhookError};
use crate::alert::{self, AlertError};
use crate::archive::contents::Catalog;
use crate::archive::place::{Place, PlaceError};
use crate::archive::{self, ArchiveError, Limits};
use crate::clickhouse::{self, ClickhouseError};
use crate::config::{self, Alerts, Config, ConfigError};
use crate::merger::{self, MergeError, Seen};
use crate::serve::access::{Access, AccessError};
use crate::serve::cache::Answers;
use crate::serve::{self, Counted, Served};
use crate::store::{Store, StoreError};

/// What is being answered when a signal comes has this long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Why a run ends.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RunError {
    /// {0}
    Config(#[from] ConfigError),
    /// {0}
    Access(#[from] AccessError),
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Store(#[from] StoreError),
    /// {0}
    Merge(#[from] MergeError),
    /// {0}
    Archive(#[from] ArchiveError),
    /// {0}
    Alert(#[from] AlertError),
    /// {0}
    Webhook(#[from] WebhookError),
    /// {0}
    Clickhouse(#[from] ClickhouseError),
    /// the folder {path} cannot be made: {source}
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// {address} cannot be listened on: {source}; look at serve.listen
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// threads, signals or sockets fail: {0}
    Host(#[from] std::io::Error),
    /// a thread is gone without a word; this is a defect
    Lost,
}

/// Runs until a signal comes.
///
/// # Errors
/// When a part fails; the others are ended in order before.
pub fn run(config: &Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all(config))
}

/// The parts that run, each on a thread of its own.
struct Parts {
    config: Config,
    stop: Arc<AtomicBool>,
    ended: mpsc::UnboundedSender<()>,
    started: Vec<JoinHandle<Result<(), RunError>>>,
}

impl Parts {
    /// Starts one, which says when it has ended.
    fn start(
        &mut self,
        name: &str,
        part: impl FnOnce(&Config, &AtomicBool) -> Result<(), RunError> + Send + 'static,
    ) -> Result<(), RunError> {
        let (config, stop, ended) = (self.config.clone(), Arc::clone(&self.stop), self.ended.clone());
        let body = move || {
            let result = part(&config, &stop);
            let _ = ended.send(()); // nobody waits for it any more when all ends anyway
            result
        };
        self.started.push(Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// Ends all of them; the first error of any.
    fn end(self) -> Result<(), RunError> {
        self.stop.store(true, Ordering::Release);
        let ended: Vec<_> = self.started.into_iter().map(JoinHandle::join).collect();
        ended.into_iter().try_for_each(|part| part.map_err(|_| RunError::Lost)?)
    }
}

/// Starts what archives raw batches, and learns campaigns from them.
fn start_archive(
    parts: &mut Parts,
    (place, settings): (Place, config::Archive),
    (store, counters): (&Store, Arc<archive::Counters>),
) -> Result<(), RunError> {
    let store = store.clone();
    parts.start("archive", move |config, stop| {
        let (cluster, folder) = (config.cluster(), config.staging());
        let of = (&cluster, config.kafka.topic_prefix.as_str());
        let close_after = Duration::from_millis(settings.close_after_ms);
        let limits = Limits { object_bytes: settings.object_bytes, close_after };
        Ok(archive::archive(of, (&place, &folder, limits), &store, (&counters, stop))?)
    })
}

/// Starts what watches campaigns, and what tells a webhook if there is one.
fn start_alerts(
    parts: &mut Parts,
    alerts: &Alerts,
    (store, seen, counters): (&Store, watch::Receiver<Seen>, &Arc<alert::Counters>),
) -> Result<(), RunError> {
    let settings = (alerts.limits(), alerts.window_minutes, alerts.webhook.is_some());
    if let Some(webhook) = &alerts.webhook {
        let webhook = Webhook::open(&webhook.url, &webhook.secret_file)?;
        let (store, counters) = (store.clone(), Arc::clone(counters));
        parts.start("webhook", move |_, stop| Ok(alert::tell(&store, &webhook, (&counters, stop))?))?;
    }
    let (store, counters) = (store.clone(), Arc::clone(counters));
    parts.start("alerts", move |_, stop| Ok(alert::watch(&store, &seen, settings, (&counters, stop))?))
}

/// Starts what inserts buckets into ClickHouse.
fn start_inserting(
    parts: &mut Parts,
    settings: config::Clickhouse,
    counters: Arc<clickhouse::Counters>,
) -> Result<(), RunError> {
    parts.start("clickhouse", move |config, stop| {
        let (cluster, retired) = (config.cluster(), config.retired());
        let of = (&cluster, config.kafka.topic_prefix.as_str());
        Ok(clickhouse::feed(of, (&settings, &retired), (&counters, stop))?)
    })
}

async fn all(config: &Config) -> Result<(), RunError> {
    // First, so that a signal ends it in order from here on.
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let access = Access::of(&config.serve)?;
    let path = config.store();
    std::fs::create_dir_all(&path).map_err(|source| RunError::Folder { path: path.clone(), source })?;
    let store = Store::open(&path)?;
    let place = config.archive.as_ref().map(|archive| Place::open(&archive.url, &archive.options));
    let place = place.transpose()?;
    let address = config.serve.listen;
    let listen = serve::listen(address).await;
    let listener = listen.map_err(|source| RunError::Listen { address, source })?;
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let (seen, shown) = watch::channel(Seen::default());
    let (watched, counted) = (shown.clone(), Counted::default());
    let served = Served {
        store: store.clone(),
        seen: shown,
        counted: counted.clone(),
        archive: place.clone().map(Catalog::of),
        has_alerts: config.alerts.is_some(),
        answers: Answers::new(config.serve.cache_bytes),
        access,
    };
    let mut parts = Parts { config: config.clone(), stop: Arc::clone(&stop), ended, started: Vec::new() };
    parts.start("merge", {
        let (store, merged) = (store.clone(), counted.merged);
        move |config, stop| {
            let (cluster, retired) = (config.cluster(), config.retired());
            let of = (&cluster, config.kafka.topic_prefix.as_str());
            Ok(merger::merge(&store, of, &retired, (&seen, &merged), stop)?)
        }
    })?;
    if let Some((place, settings)) = place.zip(config.archive.clone()) {
        start_archive(&mut parts, (place, settings), (&store, counted.archived))?;
    }
    if let Some(alerts) = &config.alerts {
        start_alerts(&mut parts, alerts, (&store, watched, &counted.alerted))?;
    }
    if let Some(settings) = config.clickhouse.clone() {
        start_inserting(&mut parts, settings, counted.inserted)?;
    }
    let (going, mut is_going) = watch::channel(());
    let until = {
        let stop = Arc::clone(&stop);
        async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
                _ = has_ended.recv() => {}
            }
            // Streams end when nothing is merged any more.
            stop.store(true, Ordering::Release);
            drop(going);
        }
    };
    tracing::info!(%address, "answering");
    let overdue = async {
        let _ = is_going.changed().await; // fails when the other end is gone: that is the word
        tokio::time::sleep(ANSWERED_WITHIN).await;
    };
    let served = tokio::select! {
        served = serve::serve(listener, Arc::new(served), until) => served,
        () = overdue => Ok(()),
    };
    parts.end()?;
    Ok(served?)
}

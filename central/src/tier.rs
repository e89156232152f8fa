//! One run of the tier: the merging thread, the archiving thread, and the server, which all end when one
//! of them fails or a signal comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::archive::place::{Place, PlaceError};
use crate::archive::{self, ArchiveError, Limits};
use crate::config::{Config, ConfigError};
use crate::merger::{self, Counters, MergeError, Seen};
use crate::serve::access::{Access, AccessError};
use crate::serve::cache::Answers;
use crate::serve::{self, Served};
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

type Part = JoinHandle<Result<(), RunError>>;

/// Starts a part on a thread of its own, which says when it has ended.
fn start(
    name: &str,
    ended: &mpsc::UnboundedSender<()>,
    part: impl FnOnce() -> Result<(), RunError> + Send + 'static,
) -> Result<Part, RunError> {
    let ended = ended.clone();
    let body = move || {
        let result = part();
        let _ = ended.send(()); // nobody waits for it any more when all ends anyway
        result
    };
    Ok(Builder::new().name(name.to_owned()).spawn(body)?)
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
    let (counters, archived) = (Arc::new(Counters::default()), Arc::new(archive::Counters::default()));
    let served = Served {
        store: store.clone(),
        seen: shown,
        counters: Arc::clone(&counters),
        archived: Arc::clone(&archived),
        answers: Answers::new(config.serve.cache_bytes),
        access,
    };
    let mut parts = vec![start("merge", &ended, {
        let (config, stop) = (config.clone(), Arc::clone(&stop));
        move || {
            let (cluster, retired) = (config.cluster(), config.retired());
            let of = (&cluster, config.kafka.topic_prefix.as_str());
            Ok(merger::merge(&store, of, &retired, (&seen, &counters), &stop)?)
        }
    })?];
    if let Some((place, settings)) = place.zip(config.archive.clone()) {
        let (config, stop) = (config.clone(), Arc::clone(&stop));
        parts.push(start("archive", &ended, move || {
            let cluster = config.cluster();
            let of = (&cluster, config.kafka.topic_prefix.as_str());
            let close_after = Duration::from_millis(settings.close_after_ms);
            let limits = Limits { object_bytes: settings.object_bytes, close_after };
            Ok(archive::archive(of, (&place, &config.staging(), limits), (&archived, &stop))?)
        })?);
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
    stop.store(true, Ordering::Release);
    for part in parts {
        part.join().map_err(|_| RunError::Lost)??;
    }
    Ok(served?)
}

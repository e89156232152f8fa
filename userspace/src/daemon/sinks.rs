//! Opens the sink that the config names, and says how far it is.

use weir_common::id::NodeId;

use super::threads::AnySink;
use super::{DaemonError, store_path};
use crate::config::{self, Cluster, Config};
use crate::forward::embedded::Store;
use crate::forward::forwarder::StartError;
use crate::forward::kafka::{Identity, KafkaSink, Takes};
use crate::forward::{Checkpoint, Reopening, Sink, SinkError, Split};
use crate::journal::disk::create_folder;
use crate::journal::{Folder, Recovery};

/// A sink before the forwarder has it.
pub(super) enum Opened {
    /// The embedded store: what the journal lost is read back from it.
    Embedded(Store),
    /// Kafka, in one cluster or two, which may be away.
    Kafka(AnySink),
}

/// The sink, and its checkpoint.
///
/// # Errors
/// When the sink cannot be opened and never will be. Kafka may be away: its checkpoint is asked
/// for again later by the forwarder, and till then is the default. So everything in the journal counts as
/// owed, which is more than is, and harmless: the forwarder learns the real one before it sends,
/// and takes no bucket of a minute that is final there, for the journal may lack rows of it. That
/// no minute is known to be final means for admission that it closes none. Its own bound on late
/// clicks is the closer one, unless the clock was ahead before and was set back since; the
/// forwarder tells of that, and what is final stays as it is.
pub(super) fn open(config: &Config, folder: &Folder) -> Result<(Opened, Checkpoint), DaemonError> {
    match config.forward.sink {
        config::Sink::Embedded => {
            let store = open_store(config, folder)?;
            let checkpoint = store.checkpoint_of(folder.incarnation())?;
            Ok((Opened::Embedded(store), checkpoint))
        }
        config::Sink::Kafka => {
            let mut sink = kafka(config, folder);
            let checkpoint = match sink.checkpoint() {
                Ok(checkpoint) => checkpoint,
                Err(SinkError::Retry(why)) => {
                    tracing::warn!(why, "Kafka is away; clicks are taken, and wait in the journal");
                    Checkpoint::default()
                }
                Err(error) => return Err(StartError::Sink(error).into()),
            };
            Ok((Opened::Kafka(sink), checkpoint))
        }
    }
}

impl Opened {
    /// The sink as the forwarder has it, when the journal is known.
    ///
    /// # Errors
    /// When the embedded store cannot be tidied.
    pub(super) fn settled(
        self,
        config: &Config,
        folder: &Folder,
        recovery: &Recovery,
    ) -> Result<AnySink, DaemonError> {
        match self {
            Self::Embedded(store) => {
                settle_orphans(&store, folder, recovery)?;
                Ok(Box::new(reopening(store, config, folder)))
            }
            Self::Kafka(sink) => Ok(sink),
        }
    }
}

fn kafka(config: &Config, folder: &Folder) -> AnySink {
    let identity = Identity {
        node: NodeId(config.node.id),
        incarnation: folder.incarnation(),
        epoch: folder.epoch(),
        region: config.node.region.clone(),
        pop: config.node.pop.clone(),
    };
    let sink = |cluster: &Cluster, takes| {
        KafkaSink::new(cluster.settings.clone(), config.kafka.topics.clone(), takes, identity.clone())
    };
    let raw = &config.kafka.cluster;
    match &config.kafka.buckets {
        None => Box::new(sink(raw, Takes::All)),
        Some(buckets) => Box::new(Split::new(sink(raw, Takes::Raw), sink(buckets, Takes::Buckets))),
    }
}

fn open_store(config: &Config, folder: &Folder) -> Result<Store, DaemonError> {
    let path = store_path(config);
    create_folder(&path).map_err(|source| DaemonError::StoreFolder { path: path.clone(), source })?;
    Ok(Store::open(&path, folder.incarnation())?)
}

/// The store as the forwarder has it: opened again after a failure, without a restart.
fn reopening(store: Store, config: &Config, folder: &Folder) -> Reopening<Store> {
    let (path, incarnation) = (store_path(config), folder.incarnation());
    let open = move || Store::reopen(&path, incarnation).map_err(|error| SinkError::Fatal(error.to_string()));
    Reopening::new(store, Box::new(open))
}

/// Removes raw batches that a crash left without a transaction, where the journal has the blocks.
fn settle_orphans(store: &Store, folder: &Folder, recovery: &Recovery) -> Result<(), DaemonError> {
    let orphans = store.resolve_orphans(|incarnation, epoch, worker, sequence| {
        incarnation == folder.incarnation() && recovery.has_block(epoch, worker, sequence)
    })?;
    for orphan in orphans {
        let kept = if orphan.removed {
            "removed; the journal has its blocks"
        } else {
            "kept: it may be the only copy"
        };
        tracing::warn!(id = ?orphan.id, kept, "a raw batch that no transaction names");
    }
    Ok(())
}

//! The command line of `weir-central`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::run::{self, Counters, MergeError, Seen};
use crate::serve::access::{Access, AccessError};
use crate::serve::cache::Answers;
use crate::serve::{self, Served};
use crate::store::{Store, StoreError};

/// Merges what nodes count, and answers what was counted.
#[derive(Debug, Parser)]
#[command(name = "weir-central", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Merge and serve until SIGTERM
    Run {
        /// The config file
        #[arg(long, value_name = "FILE", default_value = "/etc/weir/central.toml")]
        config: PathBuf,
    },
    /// Read the config and say whether it is valid
    CheckConfig {
        /// The config file
        #[arg(long, value_name = "FILE", default_value = "/etc/weir/central.toml")]
        config: PathBuf,
    },
}

/// Why the program ends.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum RunError {
    /// {0}
    Config(#[from] ConfigError),
    /// {0}
    Access(#[from] AccessError),
    /// {0}
    Store(#[from] StoreError),
    /// {0}
    Merge(#[from] MergeError),
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
    /// the merging thread is gone without a word; this is a defect
    Lost,
}

/// The program: its exit status is 0, 1 when it failed, 2 when its config is wrong.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let done = match Arguments::parse().command {
        Command::Run { config } => run_all(&config),
        Command::CheckConfig { config } => {
            Config::load(&config).map(|_| println!("valid")).map_err(Into::into)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-central: {error}");
            ExitCode::from(if matches!(error, RunError::Config(_) | RunError::Access(_)) { 2 } else { 1 })
        }
    }
}

fn run_all(config: &Path) -> Result<(), RunError> {
    let config = Config::load(config)?;
    let access = Access::of(&config.serve)?;
    let path = config.store();
    std::fs::create_dir_all(&path).map_err(|source| RunError::Folder { path: path.clone(), source })?;
    let store = Store::open(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(merge_and_serve(&config, store, access))
}

/// Runs both until a signal, or until one of them fails; then the other ends too.
async fn merge_and_serve(config: &Config, store: Store, access: Access) -> Result<(), RunError> {
    let address = config.serve.listen;
    let listen = serve::listen(address).await;
    let listener = listen.map_err(|source| RunError::Listen { address, source })?;
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, shown) = watch::channel(Seen::default());
    let counters = Arc::new(Counters::default());
    let answers = Answers::new(config.serve.cache_bytes);
    let served =
        Served { store: store.clone(), seen: shown, counters: Arc::clone(&counters), answers, access };
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let merging = {
        let (cluster, prefix, retired) =
            (config.cluster(), config.kafka.topic_prefix.clone(), config.retired());
        let stop = Arc::clone(&stop);
        let body = move || {
            let result = run::merge(&store, (&cluster, &prefix), &retired, (&seen, &counters), &stop);
            let _ = ended.send(()); // nobody waits for it any more when all ends anyway
            result
        };
        std::thread::Builder::new().name("merge".to_owned()).spawn(body)?
    };
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let until = {
        let stop = Arc::clone(&stop);
        async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
                _ = has_ended => {}
            }
            // Streams end when nothing is merged any more.
            stop.store(true, Ordering::Release);
        }
    };
    tracing::info!(%address, "answering");
    let served = serve::serve(listener, Arc::new(served), until).await;
    stop.store(true, Ordering::Release);
    merging.join().map_err(|_| RunError::Lost)??;
    Ok(served?)
}

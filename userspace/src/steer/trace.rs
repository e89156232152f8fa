//! What a tracing build of the XDP program says of each packet it refuses, into the log.
//!
//! Only with the feature `ebpf-trace`, which builds such a program: each of its records takes a
//! lock that all CPUs share. A live node has the counters. Start reading at [`Trace::start`].

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// How often the ring is emptied: 128 KiB hold more than a thousand records, and what does not fit
/// is lost, as the program waits for nobody.
const FLUSH: Duration = Duration::from_millis(50);

/// A thread that reads, until this is dropped.
#[derive(Debug)]
pub(super) struct Trace {
    _alive: Arc<()>,
}

impl Trace {
    /// Starts to read what the loaded program says; without, and a warning, when that fails.
    pub(super) fn start(ebpf: &mut Ebpf) -> Option<Self> {
        let warn = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "what the XDP program says of refused packets cannot be read");
        };
        let mut logger = EbpfLogger::init_with_logger(ebpf, ToLog).inspect_err(|e| warn(e)).ok()?;
        let alive = Arc::new(());
        let running = Arc::downgrade(&alive);
        let read = move || {
            while running.strong_count() > 0 {
                logger.flush();
                thread::sleep(FLUSH);
            }
        };
        let named = thread::Builder::new().name("weir-xdp-trace".to_owned());
        named.spawn(read).inspect_err(|e| warn(e)).ok()?;
        Some(Self { _alive: alive })
    }
}

/// Hands a record to the daemon's own log.
struct ToLog;

impl Log for ToLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::info!(target: "weir::xdp", "{}", record.args());
    }

    fn flush(&self) {}
}

//! A control side over hand-filled counters.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use weir::control::{
    AtomicState, Control, ControlHandle, Drain, FrameSource, FrameTotals, Identity, RecoveryStatus, Settings,
    Sources, Steering,
};
use weir::stats::{ForwardStats, WorkerStats};
use weir_common::reason::{Outcome, Reason};

pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) workers: Arc<[WorkerStats]>,
    pub(crate) forward: Arc<ForwardStats>,
    pub(crate) state: Arc<AtomicState>,
    pub(crate) recovery: Arc<OnceLock<RecoveryStatus>>,
    pub(crate) drain: Arc<AtomicBool>,
    pub(crate) wakes: Arc<AtomicUsize>,
}

struct Frames;

impl FrameSource for Frames {
    fn steering(&self) -> Steering {
        Steering { rung: "generic".to_owned(), reasons: vec!["native: the driver has no XDP".to_owned()] }
    }

    fn frames(&self) -> Vec<FrameTotals> {
        vec![
            FrameTotals { reason: Reason::Steered, packets: 70, bytes: 7_000, packets_by_cpu: vec![30, 40] },
            FrameTotals { reason: Reason::BadMagic, packets: 3, bytes: 180, packets_by_cpu: vec![0, 3] },
        ]
    }
}

impl Fixture {
    /// Two workers: one read 10 clicks and gave 4 to the other.
    pub(crate) fn new() -> Self {
        let workers: Arc<[WorkerStats]> = (0..2).map(|_| WorkerStats::default()).collect();
        workers[0].clicks_received.add(10);
        workers[0].datagrams_received.add(2);
        workers[0].clicks_handed_off.add(4);
        workers[0].count(Outcome::Accepted, Reason::None, 5);
        workers[0].count(Outcome::Refused, Reason::BadTag, 1);
        workers[0].reasons[Reason::SocketOverflow as usize].add(3);
        workers[0].ack_latency.record(3_000_000, 2);
        workers[1].clicks_taken_over.add(4);
        workers[1].count(Outcome::Filtered, Reason::Prefetch, 4);
        workers[1].ack_latency.record(9_000_000, 1);
        Self {
            folder: tempfile::tempdir().unwrap(),
            workers,
            forward: Arc::default(),
            state: Arc::default(),
            recovery: Arc::default(),
            drain: Arc::default(),
            wakes: Arc::default(),
        }
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            config: "[node]\nid = 7\n".to_owned(),
            withdrawal: Arc::default(),
            identity: Identity {
                node: 7,
                region: "eu".to_owned(),
                pop: "ams".to_owned(),
                epoch: 42,
                cores: vec![0, 3],
            },
            workers: Arc::clone(&self.workers),
            forward: Arc::clone(&self.forward),
            frames: Arc::new(Frames),
            state: Arc::clone(&self.state),
            recovery: Arc::clone(&self.recovery),
            clock: Arc::default(),
            spool: Arc::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { run_dir: self.folder.path().join("run"), http: Some(([127, 0, 0, 1], 0).into()) }
    }

    pub(crate) fn start(&self) -> ControlHandle {
        let wakes = Arc::clone(&self.wakes);
        let wake = Box::new(move || {
            wakes.fetch_add(1, Ordering::Release);
        });
        let drain =
            Drain { flag: Arc::clone(&self.drain), hands_over: Arc::default(), reload: Arc::default(), wake };
        Control::start(self.settings(), self.sources(), drain).unwrap_or_else(|error| panic!("{error}"))
    }
}

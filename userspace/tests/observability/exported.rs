//! The metrics of a node of two workers in which everything there is was counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use weir::control::metrics::{Format, render};
use weir::control::{FrameSource, FrameTotals, Identity, Sources, Steering, gather};
use weir::stats::WorkerStats;
use weir_common::reason::{Outcome, Reason};

/// Every reason was met by frames.
struct AllFrames;

impl FrameSource for AllFrames {
    fn steering(&self) -> Steering {
        Steering { rung: "native".to_owned(), reasons: Vec::new() }
    }

    fn frames(&self) -> Vec<FrameTotals> {
        let met = |&reason| FrameTotals { reason, packets: 2, bytes: 128, packets_by_cpu: vec![1, 1] };
        Reason::ALL.iter().map(met).collect()
    }
}

/// One line of the text: a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// Its name, a histogram's with `_bucket`, `_sum` or `_count`.
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// All metrics, as the older text has them.
pub(crate) fn text() -> String {
    let workers: Arc<[WorkerStats]> = (0..2).map(|_| WorkerStats::default()).collect();
    for worker in workers.iter() {
        for &reason in Reason::ALL {
            worker.count(Outcome::Refused, reason, 1);
        }
        for outcome in Outcome::ALL {
            worker.count(outcome, Reason::None, 1);
        }
        for latency in [&worker.ack_latency, &worker.commit_latency, &worker.request_latency] {
            (0..60).for_each(|power| latency.record(1 << power, 1));
        }
    }
    let place = || "a-region-with-a-name".to_owned();
    let identity = Identity { node: 1, region: place(), pop: place(), epoch: 1, cores: vec![0, 1] };
    let sources = Sources {
        config: String::new(),
        withdrawal: Arc::default(),
        identity,
        workers,
        forward: Arc::default(),
        frames: Arc::new(AllFrames),
        state: Arc::default(),
        recovery: Arc::default(),
        clock: Arc::default(),
        spool: Arc::default(),
        started: Instant::now(),
    };
    let (mut status, latencies) = gather(&sources);
    status.spool.hours_to_full = Some(7.5);
    render(&status, &latencies, Format::Classic)
}

/// The series of all metrics.
pub(crate) fn series() -> Vec<Series> {
    text().lines().filter(|line| !line.starts_with('#')).map(parse).collect()
}

fn parse(line: &str) -> Series {
    let (name, _value) = line.rsplit_once(' ').expect("a sample has a value");
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    let labels =
        labels.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect();
    Series { name: name.to_owned(), labels }
}

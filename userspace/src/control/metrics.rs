//! The status as Prometheus metrics. Built anew for each scrape, from the same snapshot that the
//! status socket sends: the two cannot disagree.
//!
//! Two forms of one text: OpenMetrics 1.0 for who asks for it, the older text format 0.0.4 for
//! everybody else (`promtool check metrics` reads that one).

use std::collections::BTreeSet;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use weir_common::reason::{Class, Reason};

use super::status::{Latencies, State, Status, WorkerStatus};
use crate::clock::Doubt;
use crate::journal::spool::Level;
use crate::stats::JournalHealth;
use crate::stats::{Histogram, HistogramSnapshot};

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Classic,
    /// OpenMetrics text 1.0.
    OpenMetrics,
}

impl Format {
    /// The form that an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Classic }
    }

    /// The content type of the text.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Powers of two that bound a latency's buckets: 8 us to 17 s, each twice the one before.
const LATENCY_POWERS: std::ops::RangeInclusive<u32> = 13..=34;

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The metrics of one snapshot, as text.
#[must_use]
pub fn render(status: &Status, latencies: &Latencies, format: Format) -> String {
    let mut registry = Registry::with_prefix("weir");
    registry.register_collector(Box::new(Scrape { status: status.clone(), latencies: latencies.clone() }));
    let mut text = String::new();
    // Writing to a String fails only if the encoder itself refuses; a test covers every metric.
    encode(&mut text, &registry).unwrap_or_default();
    match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    }
}

/// OpenMetrics names a counter's family without its `_total`; the older format names the samples.
fn classic(open_metrics: &str) -> String {
    let types = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: BTreeSet<&str> =
        types.filter(|(_, kind)| *kind == "counter").map(|(name, _)| name).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        let head = (words.next(), words.next(), words.next(), words.next());
        match head {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[derive(Debug)]
struct Scrape {
    status: Status,
    latencies: Latencies,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.node(&mut out)?;
        self.frames(&mut out)?;
        self.clicks(&mut out)?;
        self.workers(&mut out)?;
        self.http(&mut out)?;
        self.journal_and_forward(&mut out)?;
        self.latencies(&mut out)
    }
}

impl Scrape {
    fn node(&self, out: &mut Out<'_>) -> fmt::Result {
        let status = &self.status;
        let build = vec![
            ("version", status.version.as_str()),
            ("region", status.region.as_str()),
            ("pop", status.pop.as_str()),
        ];
        out.gauges("node_info", "The daemon's version and place", [(build, 1)])?;
        let states = [State::Recovering, State::Running, State::Draining];
        let states = states.map(|state| (vec![("state", state.name())], i64::from(state == status.state)));
        out.gauges("state", "1 beside the state the daemon is in", states)?;
        let doubts = Doubt::ALL.iter().map(|doubt| {
            let is_it = status.time.doubt.as_deref() == Some(doubt.name());
            (vec![("doubt", doubt.name())], i64::from(is_it))
        });
        out.gauges("time_uncertain", "1 beside the reason why the node's time is uncertain", doubts)?;
        let rungs = ["native", "generic", "none"]
            .map(|rung| (vec![("rung", rung)], i64::from(rung == status.steering.rung)));
        out.gauges("steering", "1 beside the rung steering stands on", rungs)?;
        out.gauges(
            "epoch",
            "The start of the daemon, as blocks carry it",
            [(vec![], i64::from(status.epoch))],
        )?;
        out.gauges("uptime_seconds", "Seconds since the daemon started", [(vec![], status.uptime_s as i64)])
    }

    fn frames(&self, out: &mut Out<'_>) -> fmt::Result {
        let labelled = |count: fn(&super::status::FrameStatus) -> u64| {
            self.status.frames.iter().map(move |frame| {
                let labels = vec![("reason", frame.reason.as_str()), ("class", frame.class.as_str())];
                (labels, count(frame))
            })
        };
        out.counters("frames", "Frames the XDP program saw, by reason", labelled(|frame| frame.packets))?;
        out.counters("frame_bytes", "Bytes of those frames", labelled(|frame| frame.bytes))
    }

    fn clicks(&self, out: &mut Out<'_>) -> fmt::Result {
        let clicks = &self.status.clicks;
        let outcomes = clicks.outcomes.iter().map(|(name, count)| (vec![("outcome", name.as_str())], *count));
        out.counters("clicks", "Clicks by outcome", outcomes)?;
        let of_clicks = |class| matches!(class, Class::Malformed | Class::Refused | Class::Filtered);
        let reasons = Reason::ALL.iter().filter(|reason| of_clicks(reason.class())).map(|reason| {
            let labels = vec![("reason", reason.name()), ("outcome", reason.class().name())];
            (labels, clicks.reasons.get(reason.name()).copied().unwrap_or(0))
        });
        out.counters("clicks_by_reason", "Clicks by reason, where their outcome has one", reasons)?;
        let unseen = Reason::ALL.iter().filter(|reason| reason.class() == Class::Unseen).map(|reason| {
            let count = clicks.unseen.get(reason.name()).copied().unwrap_or(0);
            (vec![("reason", reason.name())], count)
        });
        out.counters("unseen_datagrams", "Datagrams lost before the daemon saw them", unseen)?;
        let help = "Clicks received and not decided; 0 at rest, or the books do not close";
        out.gauges("ledger_residual_clicks", help, [(vec![], clicks.residual)])
    }

    fn workers(&self, out: &mut Out<'_>) -> fmt::Result {
        type Read = fn(&WorkerStatus) -> u64;
        const COUNTERS: [(&str, &str, Read); 17] = [
            ("received_clicks", "Clicks read from the sockets", |w| w.clicks),
            ("received_datagrams", "Datagrams read from the sockets", |w| w.datagrams),
            ("received_bytes", "Bytes of those datagrams", |w| w.bytes),
            ("handed_off_clicks", "Clicks given to other workers", |w| w.handed_off),
            ("taken_over_clicks", "Clicks taken from other workers", |w| w.taken_over),
            ("activity_missed", "Users and addresses whose click was no activity", |w| w.activity_missed),
            ("activity_pushed_out", "Users and addresses that lost their minute", |w| w.activity_pushed_out),
            ("budgets_uncharged", "Budgets a click could not be charged to", |w| w.budgets_uncharged),
            ("windows_missed", "Refractory windows there was no room for", |w| w.windows_missed),
            ("users_unsalted", "Clicks written without their user, for want of a salt", |w| w.users_unsalted),
            ("acks", "Acks sent", |w| w.acks),
            ("ack_datagrams", "Datagrams those acks went out in", |w| w.ack_datagrams),
            ("ack_send_failures", "Ack datagrams the kernel did not take", |w| w.ack_send_failures),
            ("journal_blocks", "Blocks made durable", |w| w.blocks),
            ("journal_failures", "Writes, syncs and new segments that failed", |w| w.journal_failures),
            ("worker_sleeps", "Times a worker slept for want of work", |w| w.sleeps),
            ("worker_turns", "Turns of a worker's loop; they stand still when it hangs", |w| w.turns),
        ];
        const GAUGES: [(&str, &str, Read); 3] = [
            ("waiting_datagrams", "Datagrams whose clicks wait to be durable", |w| w.waiting),
            ("live_impressions", "Impressions held for dedupe", |w| w.impressions_live),
            ("open_buckets", "Buckets held", |w| w.buckets_open),
        ];
        let workers = &self.status.workers;
        let names: Vec<String> = workers.iter().map(|worker| worker.worker.to_string()).collect();
        let labels = || names.iter().map(|name| vec![("worker", name.as_str())]);
        for (name, help, read) in COUNTERS {
            out.counters(name, help, labels().zip(workers.iter().map(read)))?;
        }
        for (name, help, read) in GAUGES {
            let values = workers.iter().map(|worker| i64::try_from(read(worker)).unwrap_or(i64::MAX));
            out.gauges(name, help, labels().zip(values))?;
        }
        let states = workers.iter().zip(&names).flat_map(|(worker, name)| {
            JournalHealth::ALL.map(|state| {
                let labels = vec![("worker", name.as_str()), ("state", state.name())];
                (labels, i64::from(state == worker.journal_state))
            })
        });
        out.gauges("journal_state", "1 beside the state a worker's journal is in", states)
    }

    fn http(&self, out: &mut Out<'_>) -> fmt::Result {
        let http = &self.status.http;
        let totals = [
            ("http_connections_accepted", "Connections accepted", http.connections_accepted),
            ("http_connections_refused", "Connections closed for want of room", http.connections_refused),
            (
                "http_connections_timed_out",
                "Connections closed for taking too long",
                http.connections_timed_out,
            ),
            ("http_tls_failures", "Connections ended because what came was no TLS", http.tls_failures),
            ("http_requests", "Whole requests", http.requests),
            ("http_requests_refused", "Requests refused as a whole", http.requests_refused),
        ];
        for (name, help, total) in totals {
            out.counters(name, help, [(vec![], total)])?;
        }
        let open = i64::try_from(http.connections_open).unwrap_or(i64::MAX);
        out.gauges("http_connections", "Connections now", [(vec![], open)])
    }

    fn journal_and_forward(&self, out: &mut Out<'_>) -> fmt::Result {
        let forward = &self.status.forward;
        let totals = [
            ("journal_bytes", "Bytes of blocks made durable", self.status.journal.bytes),
            ("forward_flushes", "Flushes committed to the sink", forward.flushes),
            ("forward_flush_failures", "Flushes that failed and are tried again", forward.flush_failures),
            ("forward_blocks", "Blocks committed to the sink", forward.blocks),
            ("forward_rows", "Rows committed to the sink", forward.rows),
            ("forward_raw_bytes", "Bytes of raw batches committed to the sink", forward.raw_bytes),
            ("forward_bucket_revisions", "Bucket revisions committed to the sink", forward.buckets),
            ("forward_bucket_bytes", "Bytes of those revisions", forward.bucket_bytes),
            ("forward_rejects", "Samples of malformed input committed to the sink", forward.rejects),
            ("rejects_sampled", "Malformed input copied for the sink", self.status.clicks.rejects_sampled),
            ("rejects_unsampled", "Malformed input only counted", self.status.clicks.rejects_unsampled),
            ("forward_sketches", "Sketches of unique users committed to the sink", forward.uniques.sketches),
            ("forward_sketch_bytes", "Bytes of those sketches", forward.uniques.sketch_bytes),
            ("forward_sketches_withheld", "Sketches that stayed for too few users", forward.uniques.withheld),
            (
                "forward_sketches_incomplete",
                "Minutes committed without the sketches of all their ads",
                forward.uniques.unsketched_minutes,
            ),
            (
                "forward_unsketched_clicks",
                "Clicks of those minutes that are known to be in no sketch",
                forward.uniques.unsketched_clicks,
            ),
        ];
        for (name, help, total) in totals {
            out.counters(name, help, [(vec![], total)])?;
        }
        let spool = &self.status.spool;
        let gauge = |value: u64| [(vec![], i64::try_from(value).unwrap_or(i64::MAX))];
        out.gauges("spool_bytes", "Bytes of segments and digests", gauge(spool.used_bytes))?;
        let help = "Bytes there may be of them: journal.max_size, or what the device has room for";
        out.gauges("spool_capacity_bytes", help, gauge(spool.capacity_bytes))?;
        let help = "Seconds until the journal is full, at the rate of the last quarter of an hour; absent when it does not fill";
        let seconds = spool.hours_to_full.map(|hours| (vec![], (hours * 3600.0) as i64));
        out.gauges("spool_seconds_to_full", help, seconds)?;
        let levels = Level::ALL.map(|level| (vec![("level", level.name())], i64::from(level == spool.level)));
        out.gauges("spool_level", "1 beside how full the journal is", levels)?;
        let lost = self.status.recovery.as_ref().map_or(0, |recovery| recovery.lost_blocks);
        let help = "Blocks that the start found to be gone from the journal";
        out.gauges("recovery_lost_blocks", help, [(vec![], i64::try_from(lost).unwrap_or(i64::MAX))])?;
        let uniques = [
            ("uniques_sets", "Sets of users held, one an ad and open minute", forward.uniques.held),
            ("uniques_memory_bytes", "Memory they take", forward.uniques.held_bytes),
        ];
        for (name, help, value) in uniques {
            out.gauges(name, help, [(vec![], i64::try_from(value).unwrap_or(i64::MAX))])?;
        }
        let failing = i64::from(forward.last_error.is_some());
        out.gauges("forward_failing", "1 while the last flush has not reached the sink", [(vec![], failing)])
    }

    fn latencies(&self, out: &mut Out<'_>) -> fmt::Result {
        let latencies = &self.latencies;
        let ack = "From reading a datagram to handing its ack to the kernel";
        out.histogram("ack_latency_seconds", ack, &latencies.ack)?;
        let commit = "From a commit group's write to its fdatasync's completion";
        let request = "From reading a request with clicks to its response";
        out.histogram("http_request_seconds", request, &latencies.request)?;
        out.histogram("journal_commit_seconds", commit, &latencies.commit)?;
        out.histogram("forward_flush_seconds", "How long a flush takes in the sink", &latencies.flush)?;
        let bucket = "From the receive time of a flush's oldest click to its commit";
        out.histogram("click_to_bucket_seconds", bucket, &latencies.click_to_bucket)
    }
}

/// The encoder, one metric a call.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                let labels: &[_] = &labels;
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, i64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                let labels: &[_] = &labels;
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, snapshot: &HistogramSnapshot) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let sum_s = snapshot.sum_ns as f64 / 1e9;
        metric.encode_histogram::<NoLabelSet>(sum_s, snapshot.count(), &latency_buckets(snapshot), None)
    }
}

/// (upper bound in seconds, events) for each bucket; the last one has no bound.
fn latency_buckets(snapshot: &HistogramSnapshot) -> Vec<(f64, u64)> {
    let bounds_ns = LATENCY_POWERS.map(|power| 1_u64 << power);
    let mut buckets: Vec<_> = bounds_ns.map(|bound| (bound, 0)).chain([(u64::MAX, 0)]).collect();
    for (cell, &events) in snapshot.cells().iter().enumerate() {
        let floor = Histogram::cell_floor_ns(cell);
        if let Some(bucket) = buckets.iter_mut().find(|(bound, _)| floor < *bound) {
            bucket.1 += events;
        }
    }
    let seconds = |bound| if bound == u64::MAX { f64::INFINITY } else { bound as f64 / 1e9 };
    buckets.into_iter().map(|(bound, events)| (seconds(bound), events)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_in_the_bucket_whose_bound_its_cell_stays_below() {
        let histogram = Histogram::default();
        let bound = 1_u64 << 22;
        for ns in [bound - 1, bound, u64::MAX] {
            histogram.record(ns, 1);
        }
        let mut snapshot = HistogramSnapshot::default();
        snapshot.merge(&histogram.snapshot());
        let buckets = latency_buckets(&snapshot);
        let filled: Vec<_> =
            buckets.iter().filter(|(_, events)| *events > 0).map(|(bound, _)| *bound).collect();
        assert_eq!(filled, [bound as f64 / 1e9, (bound * 2) as f64 / 1e9, f64::INFINITY]);
        assert_eq!(buckets.iter().map(|(_, events)| events).sum::<u64>(), 3);
    }

    #[test]
    fn no_metric_is_refused_by_the_encoder() {
        let text = render(&Status::default(), &Latencies::default(), Format::OpenMetrics);
        assert!(text.contains("weir_click_to_bucket_seconds_count 0\n"), "{text}");
    }
}

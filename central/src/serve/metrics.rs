//! What Prometheus is told.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Counted, Served, now};

/// The metrics as text.
pub(super) fn text(served: &Served) -> String {
    let mut registry = Registry::with_prefix("weir_central");
    let Counted { merged, archived, alerted, inserted } = &served.counted;
    let counted: [(&str, &str, &AtomicU64); 15] = [
        ("archived_rows", "Rows that were archived", &archived.rows),
        ("archived_batches", "Batches that were archived", &archived.batches),
        (
            "archive_unreadable_records",
            "Records of clicks that are no block, kept as they came",
            &archived.unreadable,
        ),
        ("archive_retries", "Puts into the archive that were tried again", &archived.retries),
        ("alerts_opened", "Alerts that were opened", &alerted.opened),
        ("alert_messages", "Messages that the webhook took", &alerted.sent),
        ("alert_retries", "Messages that the webhook did not take, each time", &alerted.failed),
        ("alert_messages_lost", "Messages that were given up, or found no room", &alerted.given_up),
        ("clickhouse_rows", "Buckets inserted into ClickHouse, each revision by itself", &inserted.rows),
        ("clickhouse_builds", "Statements that built windows in ClickHouse", &inserted.builds),
        ("clickhouse_retries", "Requests to ClickHouse that were tried again", &inserted.retries),
        ("records", "Records read from Kafka", &merged.records),
        ("unreadable_records", "Records that say nothing a node would say", &merged.unreadable),
        ("buckets", "Buckets that were set", &merged.buckets),
        ("sketches", "Sketches that were set", &merged.sketches),
    ];
    for (name, help, counter) in counted {
        registry.register(name, help, ConstCounter::new(counter.load(Ordering::Relaxed)));
    }
    let seen = served.seen.borrow().clone();
    registry.register(
        "nodes",
        "Nodes that have spoken and are not retired",
        ConstGauge::new(seen.progress.nodes.len() as u64),
    );
    registry.register(
        "rewrites",
        "Writes that changed minutes which were final",
        ConstCounter::new(seen.rewrites),
    );
    if let Some(until) = seen.progress.counted_until() {
        let lag_s = now().0.saturating_sub(until.0) as f64 / 1000.0;
        registry.register(
            "lag_seconds",
            "Time for which some click may not be counted yet",
            ConstGauge::new(lag_s),
        );
    }
    let until_ms = inserted.counted_until_ms.load(Ordering::Relaxed);
    if until_ms > 0 {
        registry.register(
            "clickhouse_lag_seconds",
            "Time for which some click may not be in ClickHouse yet",
            ConstGauge::new(now().0.saturating_sub(until_ms) as f64 / 1000.0),
        );
    }
    let mut text = String::new();
    let _ = encode(&mut text, &registry); // a String takes whatever is written
    text
}

//! What the status says of the HTTP door.

use serde::{Deserialize, Serialize};

use super::{Latencies, Quantiles};
use crate::stats::{Counter, WorkerStats};

/// The HTTP doors of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// Connections now.
    pub connections_open: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections closed at once, for want of room.
    pub connections_refused: u64,
    /// Connections closed for taking too long.
    pub connections_timed_out: u64,
    /// Connections that ended because what came was no TLS, or none the node speaks.
    pub tls_failures: u64,
    /// Whole requests.
    pub requests: u64,
    /// Requests refused as a whole.
    pub requests_refused: u64,
    /// From reading a request with clicks to its response.
    pub request_latency_ns: Quantiles,
}

impl HttpStatus {
    pub(super) fn of(workers: &[WorkerStats], latencies: &Latencies) -> Self {
        let sum = |counter: fn(&WorkerStats) -> &Counter| workers.iter().map(|own| counter(own).get()).sum();
        Self {
            connections_open: sum(|own| &own.connections_open),
            connections_accepted: sum(|own| &own.connections_accepted),
            connections_refused: sum(|own| &own.connections_refused),
            connections_timed_out: sum(|own| &own.connections_timed_out),
            tls_failures: sum(|own| &own.tls_failures),
            requests: sum(|own| &own.requests_received),
            requests_refused: sum(|own| &own.requests_refused),
            request_latency_ns: Quantiles::from(&latencies.request),
        }
    }
}

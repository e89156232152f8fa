//! The panels: what each shows, of which metric, in which unit, and what to think when it looks odd.
//!
//! Queries are written without what all of them have: the nodes that were chosen, and the interval of a rate. Units are
//! Grafana's names: `cps` counts a second, `pps` packets, `Bps` bytes, `s` seconds.

/// What a panel looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One figure, the newest.
    Figure,
    /// A line for each series.
    Lines,
    /// Series on top of each other: their sum means something.
    Stack,
}

/// One panel.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) kind: Kind,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    /// Legend and query.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

/// Panels under one title.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: &'static [Panel],
}

/// All of them.
pub(super) const ROWS: &[Row] = &[OVERVIEW, LEDGER, DROPS, JOURNAL_AND_FORWARD, LATENCY, DOORS];

const fn panel(
    kind: Kind,
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { kind, title, unit, description, queries }
}

const OVERVIEW: Row = Row {
    title: "Overview",
    panels: &[
        panel(
            Kind::Figure,
            "Nodes up",
            "none",
            "Nodes that answer the scrapes of Prometheus.",
            &[("", "sum(up)")],
        ),
        panel(
            Kind::Figure,
            "Nodes that take clicks",
            "none",
            "Nodes in the state running: not recovering, not draining.",
            &[("", "sum(weir_state{state='running'})")],
        ),
        panel(
            Kind::Figure,
            "Clicks a second",
            "cps",
            "Clicks read from sockets and requests, over all nodes chosen.",
            &[("", "sum(rate(weir_received_clicks_total))")],
        ),
        panel(
            Kind::Figure,
            "Ack latency, p99",
            "s",
            "99 % of acks were handed to the kernel within this.",
            &[("", "histogram_quantile(0.99, sum by (le) (rate(weir_ack_latency_seconds_bucket)))")],
        ),
        panel(
            Kind::Figure,
            "Journal used",
            "percentunit",
            "The fullest journal, as a part of what there may be of it.",
            &[("", "max(weir_spool_bytes / weir_spool_capacity_bytes)")],
        ),
        panel(
            Kind::Figure,
            "Clocks in doubt",
            "none",
            "Nodes whose time is uncertain, for whatever reason.",
            &[("", "sum(weir_time_uncertain)")],
        ),
        panel(
            Kind::Lines,
            "Clicks by node",
            "cps",
            "Clicks read. A node that falls while others rise has lost its announcement, or a worker.",
            &[("{{instance}}", "sum by (instance) (rate(weir_received_clicks_total))")],
        ),
        panel(
            Kind::Lines,
            "State of the nodes",
            "none",
            "1 beside the state of each node.",
            &[("{{instance}} {{state}}", "weir_state == 1")],
        ),
        panel(
            Kind::Lines,
            "Uptime",
            "s",
            "Since the start of each node. A saw is a node that does not stay up.",
            &[("{{instance}}", "weir_uptime_seconds")],
        ),
        panel(
            Kind::Lines,
            "Versions",
            "none",
            "How many nodes run which version.",
            &[("{{version}}", "count by (version) (weir_node_info)")],
        ),
    ],
};

const LEDGER: Row = Row {
    title: "Ledger",
    panels: &[
        panel(
            Kind::Stack,
            "Clicks by outcome",
            "cps",
            "What became of clicks. Each has exactly one outcome.",
            &[("{{outcome}}", "sum by (outcome) (rate(weir_clicks_total))")],
        ),
        panel(
            Kind::Lines,
            "Residual",
            "none",
            "Clicks read and not decided: 0 at rest. What remains at rest is lost, what is below 0 counted twice.",
            &[("{{instance}}", "weir_ledger_residual_clicks")],
        ),
        panel(
            Kind::Lines,
            "Clicks by worker",
            "cps",
            "What each worker reads. Unequal ones: do senders group datagrams by shard, is steering on?",
            &[("{{instance}}/{{worker}}", "rate(weir_received_clicks_total)")],
        ),
        panel(
            Kind::Lines,
            "Hand-off",
            "cps",
            "Clicks that a worker read that does not own them. Near to all of them: steering does nothing.",
            &[
                ("given {{instance}}", "sum by (instance) (rate(weir_handed_off_clicks_total))"),
                ("taken {{instance}}", "sum by (instance) (rate(weir_taken_over_clicks_total))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Live impressions",
            "none",
            "Impressions held for dedupe, against dedupe.capacity of the config.",
            &[("{{instance}}", "sum by (instance) (weir_live_impressions)")],
        ),
        panel(
            Kind::Lines,
            "Open buckets",
            "none",
            "Buckets held, against buckets.capacity of the config.",
            &[("{{instance}}", "sum by (instance) (weir_open_buckets)")],
        ),
        panel(
            Kind::Lines,
            "Turns of workers",
            "cps",
            "Turns of each worker's loop: a hundred a second when it idles, none when it hangs.",
            &[("{{instance}}/{{worker}}", "rate(weir_worker_turns_total)")],
        ),
        panel(
            Kind::Lines,
            "Bounds that were met",
            "cps",
            "What found no place within a bound of the config (limits, refractory, activity), and users without a salt.",
            &[
                ("budgets", "sum(rate(weir_budgets_uncharged_total))"),
                ("windows", "sum(rate(weir_windows_missed_total))"),
                ("activity pushed out", "sum(rate(weir_activity_pushed_out_total))"),
                ("activity missed", "sum(rate(weir_activity_missed_total))"),
                ("users without a salt", "sum(rate(weir_users_unsalted_total))"),
            ],
        ),
    ],
};

const DROPS: Row = Row {
    title: "Drops",
    panels: &[
        panel(
            Kind::Stack,
            "Clicks not counted as valid",
            "cps",
            "Refused, malformed and filtered clicks; docs/reasons.md has cause and remedy of each reason.",
            &[("{{reason}}", "sum by (reason) (rate(weir_clicks_by_reason_total)) > 0")],
        ),
        panel(
            Kind::Stack,
            "Frames dropped",
            "pps",
            "Frames that the XDP program dropped, by reason.",
            &[("{{reason}}", "sum by (reason) (rate(weir_frames_total{class=~'malformed|refused'})) > 0")],
        ),
        panel(
            Kind::Lines,
            "Datagrams that nobody saw",
            "pps",
            "Lost in the kernel before a worker could read them; senders send again.",
            &[("{{instance}} {{reason}}", "rate(weir_unseen_datagrams_total)")],
        ),
        panel(
            Kind::Lines,
            "Clicks told to retry",
            "cps",
            "For want of room in tables, journal, rings or budgets, or of a time that is certain.",
            &[(
                "{{reason}}",
                "sum by (reason) (rate(weir_clicks_by_reason_total{reason=~'table_full|journal_full|handoff_full|time_uncertain|over_budget|overloaded|draining'}))",
            )],
        ),
        panel(
            Kind::Lines,
            "Malformed input",
            "cps",
            "What breaks the protocol: copied for the sink, or only counted.",
            &[
                ("sampled", "sum(rate(weir_rejects_sampled_total))"),
                ("only counted", "sum(rate(weir_rejects_unsampled_total))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Frames on their way to a worker",
            "pps",
            "Frames of clicks that XDP let through: steered to the owner's core, or there already.",
            &[("{{reason}}", "sum by (reason) (rate(weir_frames_total{class='delivered'}))")],
        ),
    ],
};

const JOURNAL_AND_FORWARD: Row = Row {
    title: "Journal and forward",
    panels: &[
        panel(
            Kind::Lines,
            "Journal",
            "bytes",
            "Segments and digests, and what there may be of them.",
            &[("used {{instance}}", "weir_spool_bytes"), ("room {{instance}}", "weir_spool_capacity_bytes")],
        ),
        panel(
            Kind::Lines,
            "Time until the journal is full",
            "s",
            "At the rate of the last quarter of an hour; no line while it does not fill.",
            &[("{{instance}}", "weir_spool_seconds_to_full")],
        ),
        panel(
            Kind::Lines,
            "Journal written",
            "Bps",
            "Bytes of blocks made durable.",
            &[("{{instance}}", "rate(weir_journal_bytes_total)")],
        ),
        panel(
            Kind::Lines,
            "Journals that do not run",
            "none",
            "1 beside a worker whose journal has no space or has halted.",
            &[("{{instance}}/{{worker}} {{state}}", "weir_journal_state{state!='running'} == 1")],
        ),
        panel(
            Kind::Lines,
            "Failures of disk and sink",
            "cps",
            "Writes, syncs and segments that failed, and flushes that did not reach the sink.",
            &[
                ("journal {{instance}}", "sum by (instance) (rate(weir_journal_failures_total))"),
                ("flush {{instance}}", "rate(weir_forward_flush_failures_total)"),
            ],
        ),
        panel(
            Kind::Lines,
            "Sink away",
            "none",
            "1 while the last flush of a node has not reached the sink.",
            &[("{{instance}}", "weir_forward_failing")],
        ),
        panel(
            Kind::Lines,
            "Rows forwarded",
            "cps",
            "Rows committed to the sink.",
            &[("{{instance}}", "rate(weir_forward_rows_total)")],
        ),
        panel(
            Kind::Lines,
            "Bytes forwarded",
            "Bps",
            "Bytes committed to the sink, by what they are.",
            &[
                ("raw", "sum(rate(weir_forward_raw_bytes_total))"),
                ("buckets", "sum(rate(weir_forward_bucket_bytes_total))"),
                ("sketches", "sum(rate(weir_forward_sketch_bytes_total))"),
            ],
        ),
    ],
};

const LATENCY: Row = Row {
    title: "Latency",
    panels: &[
        panel(
            Kind::Lines,
            "Ack",
            "s",
            "From reading a datagram to handing its ack to the kernel, the sync of its click included.",
            &[
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(weir_ack_latency_seconds_bucket)))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(weir_ack_latency_seconds_bucket)))"),
                ("p99.9", "histogram_quantile(0.999, sum by (le) (rate(weir_ack_latency_seconds_bucket)))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Sync",
            "s",
            "From the write of a group of blocks to the end of its sync: the disk's part of an ack.",
            &[
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(weir_journal_commit_seconds_bucket)))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(weir_journal_commit_seconds_bucket)))"),
                (
                    "p99.9",
                    "histogram_quantile(0.999, sum by (le) (rate(weir_journal_commit_seconds_bucket)))",
                ),
            ],
        ),
        panel(
            Kind::Lines,
            "Click to bucket",
            "s",
            "From the receive time of a flush's oldest click to its commit in the sink.",
            &[
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(weir_click_to_bucket_seconds_bucket)))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(weir_click_to_bucket_seconds_bucket)))"),
                (
                    "p99.9",
                    "histogram_quantile(0.999, sum by (le) (rate(weir_click_to_bucket_seconds_bucket)))",
                ),
            ],
        ),
        panel(
            Kind::Lines,
            "Flush",
            "s",
            "How long a flush takes in the sink.",
            &[
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(weir_forward_flush_seconds_bucket)))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(weir_forward_flush_seconds_bucket)))"),
                ("p99.9", "histogram_quantile(0.999, sum by (le) (rate(weir_forward_flush_seconds_bucket)))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Ack datagrams not sent",
            "pps",
            "Ack datagrams that the kernel did not take; their senders send again.",
            &[("{{instance}}", "sum by (instance) (rate(weir_ack_send_failures_total))")],
        ),
        panel(
            Kind::Lines,
            "Datagrams that wait",
            "none",
            "Datagrams whose clicks wait for the disk or for another worker.",
            &[("{{instance}}", "sum by (instance) (weir_waiting_datagrams)")],
        ),
    ],
};

const DOORS: Row = Row {
    title: "Doors",
    panels: &[
        panel(
            Kind::Lines,
            "Datagrams",
            "pps",
            "Datagrams read from the UDP sockets.",
            &[("{{instance}}", "sum by (instance) (rate(weir_received_datagrams_total))")],
        ),
        panel(
            Kind::Lines,
            "Steering",
            "none",
            "1 beside the rung each node stands on: native, generic, or none without XDP.",
            &[("{{instance}} {{rung}}", "weir_steering == 1")],
        ),
        panel(
            Kind::Lines,
            "Requests",
            "reqps",
            "Whole requests at the HTTP door, and those refused as a whole.",
            &[
                ("requests", "sum(rate(weir_http_requests_total))"),
                ("refused", "sum(rate(weir_http_requests_refused_total))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Request",
            "s",
            "From reading a request with clicks to its response.",
            &[
                ("p50", "histogram_quantile(0.5, sum by (le) (rate(weir_http_request_seconds_bucket)))"),
                ("p99", "histogram_quantile(0.99, sum by (le) (rate(weir_http_request_seconds_bucket)))"),
                ("p99.9", "histogram_quantile(0.999, sum by (le) (rate(weir_http_request_seconds_bucket)))"),
            ],
        ),
        panel(
            Kind::Lines,
            "Connections",
            "none",
            "Connections of the HTTP door now, by node.",
            &[("{{instance}}", "weir_http_connections")],
        ),
        panel(
            Kind::Lines,
            "Connections opened and lost",
            "cps",
            "New connections; those closed for want of room or for taking too long; those that were no TLS.",
            &[
                ("accepted", "sum(rate(weir_http_connections_accepted_total))"),
                ("no room", "sum(rate(weir_http_connections_refused_total))"),
                ("too slow", "sum(rate(weir_http_connections_timed_out_total))"),
                ("no TLS", "sum(rate(weir_http_tls_failures_total))"),
            ],
        ),
        panel(
            Kind::Lines,
            "SYNs",
            "pps",
            "Requests for connections that XDP passed, and those above the rate of their source.",
            &[(
                "{{reason}}",
                "sum by (reason) (rate(weir_frames_total{reason=~'syn_passed|syn_rate_limited'}))",
            )],
        ),
        panel(
            Kind::Lines,
            "Sources beyond the limit",
            "pps",
            "Frames of new sources that came too many at once to be limited by rate.",
            &[("{{instance}}", "rate(weir_frames_total{reason='flood_bypass'})")],
        ),
    ],
};

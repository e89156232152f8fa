//! A real Prometheus scrapes a running node, and is asked all that the dashboard and the alerts ask.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use weir_labs::prometheus::Prometheus;
use weir_labs::{Generator, Load, NodeFolder, free_ports};

const LOAD: Load = Load { profile: "demo", rate: 4000, duration: Duration::from_secs(4), seed: 7 };

/// Panels without data on a node on loopback that is well: no XDP, and no trouble.
const EMPTY: [&str; 6] = [
    "Frames dropped",
    "Frames on their way to a worker",
    "Journals that do not run",
    "SYNs",
    "Sources beyond the limit",
    "Time until the journal is full",
];

/// What may be true of a node on loopback under the load of the demo, which forges clicks: there is no XDP, and a busy
/// machine is slow.
const MAY_BE_TRUE: [&str; 6] = [
    "WeirAcksLate",
    "WeirBucketsLate",
    "WeirDatagramsUnseen",
    "WeirInputMalformed",
    "WeirSignaturesRefused",
    "WeirSteeringNone",
];

fn tree(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Title and query of each target, as Grafana would send it with all nodes chosen.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(tree("deploy/grafana/weir.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().map_or(&[][..], Vec::as_slice) {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
            let query = query.replace("$job", ".+").replace("$instance", ".+");
            queries.push((panel["title"].as_str().expect("a title").to_owned(), query));
        }
    }
    queries
}

#[test]
fn a_real_prometheus_takes_every_query_and_alert_and_has_data_for_them() {
    if !Prometheus::is_installed() {
        return println!(
            "skipped: prometheus does not start; it is in Debian's prometheus (cargo xtask setup)"
        );
    }
    let folder = NodeFolder::new("").expect("folder");
    let [port] = free_ports().expect("port");
    folder.reconfigure("listen", &format!("listen = \"127.0.0.1:{port}\"")).expect("config");
    let node = folder.start_ready().expect("ready");
    let mut prometheus =
        Prometheus::start(port, &tree("deploy/prometheus/weir.rules.yml")).expect("prometheus");
    prometheus.wait_for("weir_uptime_seconds").expect("a scrape");
    Generator::start(&folder, LOAD).expect("load").finish(Duration::from_secs(60)).expect("load");
    // Two scrapes after the load: rates need what was before and what is after.
    prometheus.wait_for("weir_forward_rows_total > 0").expect("rows");
    let scrapes = prometheus.query("count_over_time(weir_uptime_seconds[5m])").expect("scrapes");
    let scrapes =
        scrapes[0]["value"][1].as_str().and_then(|count| count.parse::<u32>().ok()).expect("a count");
    prometheus
        .wait_for(&format!("count_over_time(weir_uptime_seconds[5m]) >= {}", scrapes + 2))
        .expect("scrapes");

    for (title, query) in queries() {
        let samples = prometheus.query(&query).unwrap_or_else(|error| panic!("{title}: {error:#}"));
        assert!(!samples.is_empty() || EMPTY.contains(&title.as_str()), "{title} has no data: {query}");
    }
    let rules = prometheus.rules().expect("rules");
    let mut true_now = BTreeSet::new();
    for rule in &rules {
        let (name, query) =
            (rule["name"].as_str().expect("a name"), rule["query"].as_str().expect("a query"));
        assert_eq!(rule["health"], "ok", "{rule:#}");
        if !prometheus.query(query).unwrap_or_else(|error| panic!("{name}: {error:#}")).is_empty() {
            true_now.insert(name.to_owned());
        }
    }
    assert!(rules.len() >= 30, "{} rules", rules.len());
    assert!(true_now.contains("WeirSteeringNone"), "{true_now:?}");
    assert!(
        true_now.iter().all(|name| MAY_BE_TRUE.contains(&name.as_str())),
        "of a node that is well: {true_now:?}"
    );
    node.drain().expect("drain");
}

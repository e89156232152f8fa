//! The dashboard asks for nothing that a node does not say.

use serde_json::Value;

use super::exported::series;
use super::promql::selectors;
use super::read;

#[test]
fn a_dashboard_asks_only_for_what_a_node_exports() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/weir.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() >= 50, "{} queries", queries.len());
    let series = series();
    for query in queries {
        for selector in selectors(query) {
            assert_eq!(selector.missing(&series), None, "{query}");
            assert!(selector.is_used_as_it_is(), "{query}: {} as a counter or none", selector.metric);
        }
    }
}

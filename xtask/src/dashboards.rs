//! `cargo xtask dashboards`: the Grafana dashboard of a fleet, made of one table of panels.
//!
//! A dashboard that was drawn by hand drifts from the metrics, and nobody can review its JSON. Start reading at
//! [`panels::ROWS`]; what is common to all panels is here.

mod panels;

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use panels::{Kind, Panel, ROWS, Row};

/// Where it is kept.
pub(crate) const DASHBOARD: &str = "deploy/grafana/weir.json";

/// Grafana's grid has this many columns.
const COLUMNS: usize = 24;
/// Of a panel with lines, two beside each other ...
const GRAPH: (usize, usize) = (COLUMNS / 2, 8);
/// ... and of one with a figure, six.
const FIGURE: (usize, usize) = (COLUMNS / 6, 4);
/// The least Grafana whose panels these are.
const SCHEMA: u32 = 36;

/// Writes it anew.
pub(crate) fn run() -> Result<()> {
    let path = crate::root().join(DASHBOARD);
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    fs::write(&path, text()?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{DASHBOARD} is written");
    Ok(())
}

fn text() -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(&dashboard())?))
}

fn dashboard() -> Value {
    json!({
        "uid": "weir", "title": "Weir", "tags": ["weir"], "schemaVersion": SCHEMA, "version": 1,
        "description": "Nodes of Weir. Made by cargo xtask dashboards; change the table there.",
        "editable": false, "graphTooltip": 1, "timezone": "utc", "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "templating": { "list": [
            { "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" },
            choice("job", "Job", "label_values(weir_node_info, job)"),
            choice("instance", "Node", "label_values(weir_node_info{job=~\"$job\"}, instance)"),
        ] },
        "panels": laid_out(ROWS),
    })
}

/// A variable that is any number of the values of a label.
fn choice(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "query": query, "datasource": source(),
        "includeAll": true, "allValue": ".+", "multi": true, "refresh": 2, "sort": 1,
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Panels from left to right, a new line where one has no room.
fn laid_out(rows: &[Row]) -> Vec<Value> {
    let mut made = Vec::new();
    let mut y = 0;
    for row in rows {
        made.push(json!({
            "id": made.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        }));
        y += 1;
        let (mut x, mut line) = (0, 0);
        for panel in row.panels {
            let (width, height) = if panel.kind == Kind::Figure { FIGURE } else { GRAPH };
            if x + width > COLUMNS || line != height && x > 0 {
                (x, y) = (0, y + line);
            }
            line = height;
            let place = json!({ "x": x, "y": y, "w": width, "h": height });
            made.push(one(panel, made.len() + 1, &place));
            x += width;
        }
        y += line;
    }
    made
}

fn one(panel: &Panel, id: usize, place: &Value) -> Value {
    let targets = panel.queries.iter().zip('A'..).map(|((legend, query), letter)| {
        json!({ "refId": letter.to_string(), "expr": completed(query), "legendFormat": legend, "datasource": source() })
    });
    let mut defaults = json!({ "unit": panel.unit });
    let mut options =
        json!({ "tooltip": { "mode": "multi", "sort": "desc" }, "legend": { "displayMode": "list" } });
    if panel.kind == Kind::Figure {
        options = json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "colorMode": "value" });
    } else {
        let stacked = if panel.kind == Kind::Stack { "normal" } else { "none" };
        defaults["custom"] = json!({ "fillOpacity": 10, "stacking": { "mode": stacked, "group": "A" } });
    }
    json!({
        "id": id, "type": if panel.kind == Kind::Figure { "stat" } else { "timeseries" },
        "title": panel.title, "description": panel.description, "datasource": source(), "gridPos": place,
        "fieldConfig": { "defaults": defaults, "overrides": [] }, "options": options,
        "targets": targets.collect::<Vec<_>>(),
    })
}

/// A query with what all have: the nodes that were chosen, and Grafana's interval for a rate.
fn completed(query: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut made = String::new();
    let mut rest = query;
    while let Some(begin) = rest.find("weir_").or_else(|| rest.find("up)")) {
        let is_rated = rest[..begin].ends_with("rate(");
        let (before, from) = rest.split_at(begin);
        let (metric, after) = from.split_at(from.find(|c| !is_name(c)).unwrap_or(from.len()));
        let inside = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (labels, after) =
            inside.map_or((String::new(), after), |(labels, after)| (format!(",{labels}"), after));
        let labels = labels.replace('\'', "\"");
        let interval = if is_rated { "[$__rate_interval]" } else { "" };
        made.extend([before, metric, "{job=~\"$job\",instance=~\"$instance\"", &labels, "}", interval]);
        rest = after;
    }
    made + rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Panel> {
        ROWS.iter().flat_map(|row| row.panels)
    }

    #[test]
    fn the_dashboard_in_the_tree_is_what_the_table_makes() {
        if std::env::var_os("WEIR_BLESS").is_some() {
            run().unwrap();
        }
        let kept = fs::read_to_string(crate::root().join(DASHBOARD)).unwrap();
        assert!(kept == text().unwrap(), "{DASHBOARD} is another one: run `cargo xtask dashboards`");
    }

    #[test]
    fn every_panel_says_what_it_shows_in_which_unit_and_of_which_nodes() {
        let mut titles = BTreeSet::new();
        for panel in all() {
            assert!(titles.insert(panel.title), "{} is there twice", panel.title);
            assert!(
                panel.description.ends_with(['.', '?']) && panel.description.len() > 20,
                "{}",
                panel.title
            );
            assert!(!panel.unit.is_empty() && !panel.queries.is_empty(), "{}", panel.title);
            for (legend, query) in panel.queries {
                assert!(!legend.is_empty() || panel.kind == Kind::Figure, "{}: no legend", panel.title);
                let query = completed(query);
                let metrics = query.matches("weir_").count() + query.matches("(up{").count();
                let chosen = query.matches("{job=~\"$job\",instance=~\"$instance\"").count();
                assert_eq!(metrics, chosen, "{}: {query}", panel.title);
                assert_eq!(
                    query.matches("rate(").count(),
                    query.matches("[$__rate_interval]").count(),
                    "{query}"
                );
            }
        }
        let rows: Vec<_> = ROWS.iter().map(|row| row.title).collect();
        assert_eq!(rows, ["Overview", "Ledger", "Drops", "Journal and forward", "Latency", "Doors"]);
    }

    #[test]
    fn a_query_gets_the_chosen_nodes_and_the_interval_of_its_rates() {
        let query = completed("sum(rate(weir_a_total{b='c'})) / weir_d");
        let chosen = "job=~\"$job\",instance=~\"$instance\"";
        let expected =
            format!("sum(rate(weir_a_total{{{chosen},b=\"c\"}}[$__rate_interval])) / weir_d{{{chosen}}}");
        assert_eq!(query, expected);
    }

    #[test]
    fn no_panel_lies_over_another() {
        let mut taken = BTreeSet::new();
        for panel in laid_out(ROWS) {
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= COLUMNS as u64, "{panel:#}");
            for y in place("y")..place("y") + place("h") {
                for x in place("x")..place("x") + place("w") {
                    assert!(taken.insert((x, y)), "{panel:#}");
                }
            }
        }
    }
}

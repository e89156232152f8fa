//! Each alert has its tests and its page, and asks for nothing that a node does not say.

use std::collections::BTreeSet;
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

use super::exported::series;
use super::promql::selectors;
use super::{path, read};

const RULES: &str = "deploy/prometheus/weir.rules.yml";
const TESTS: &str = "deploy/prometheus/weir.rules.test.yml";
const RUNBOOK: &str = "docs/runbook.md";

#[track_caller]
fn load(name: &str) -> Yaml {
    YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}")).remove(0)
}

fn items(yaml: &Yaml) -> &[Yaml] {
    yaml.as_vec().map_or(&[], Vec::as_slice)
}

#[track_caller]
fn text(yaml: &Yaml) -> String {
    yaml.as_str().unwrap_or_else(|| panic!("{yaml:?} is no text")).to_owned()
}

fn rules() -> Vec<Yaml> {
    items(&load(RULES)["groups"]).iter().flat_map(|group| items(&group["rules"]).to_vec()).collect()
}

fn names() -> BTreeSet<String> {
    rules().iter().map(|rule| text(&rule["alert"])).collect()
}

/// The alerts that have a section, each with its text.
fn sections(runbook: &str) -> Vec<(&str, &str)> {
    let sections = runbook.split("\n### ").skip(1).filter_map(|section| section.split_once('\n'));
    sections.map(|(title, rest)| (title, rest.split("\n## ").next().unwrap_or(rest))).collect()
}

#[test]
fn every_alert_says_how_much_it_matters_what_is_so_and_what_to_do() {
    let mut seen = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule["alert"]);
        assert!(seen.insert(name.clone()), "{name} is there twice");
        let severity = text(&rule["labels"]["severity"]);
        assert!(["critical", "warning", "info"].contains(&severity.as_str()), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            assert!(text(&rule["annotations"][annotation]).len() > 20, "{name}: {annotation}");
        }
    }
    assert!(seen.len() >= 30, "{seen:?}");
}

#[test]
fn every_alert_has_a_page_of_the_runbook_and_every_page_an_alert() {
    let runbook = read(RUNBOOK);
    let sections = sections(&runbook);
    for rule in rules() {
        let name = text(&rule["alert"]);
        assert_eq!(text(&rule["annotations"]["runbook"]), format!("{RUNBOOK}#{}", name.to_lowercase()));
        let (_, page) =
            sections.iter().find(|(title, _)| *title == name).unwrap_or_else(|| panic!("{name}: no page"));
        for part in ["- **Means** ", "- **Look** ", "- **Do** "] {
            assert_eq!(page.matches(part).count(), 1, "{name}: {part}");
        }
    }
    let pages: Vec<_> = sections.iter().map(|(title, _)| (*title).to_owned()).collect();
    assert_eq!(pages.iter().cloned().collect::<BTreeSet<_>>(), names());
    assert_eq!(pages.len(), names().len(), "a page is there twice");
}

/// Whether a test expects an alert in this state, and of the node that is sick alone.
fn expects(test: &Yaml, alert: &str, state: &str) -> bool {
    let samples = items(&test["exp_samples"]);
    let names_well = samples.iter().any(|sample| text(&sample["labels"]).contains("well"));
    assert!(!names_well, "{alert} is {state} for the node that is well");
    let asked = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"{state}\"}}");
    text(&test["expr"]).contains(&asked) && !samples.is_empty()
}

#[test]
fn every_alert_is_seen_to_wait_to_fire_and_not_to_fire() {
    let groups = load(TESTS)["tests"].clone();
    for rule in rules() {
        let name = text(&rule["alert"]);
        let is_of_it = |group: &&Yaml| text(&group["name"]).split(' ').next() == Some(name.as_str());
        let groups: Vec<_> = items(&groups).iter().filter(is_of_it).collect();
        let is_seen = |state| {
            groups
                .iter()
                .flat_map(|group| items(&group["promql_expr_test"]))
                .any(|test| expects(test, &name, state))
        };
        let is_well = |series: &Yaml| text(&series["series"]).contains("job=\"weir\",instance=\"well\"");
        assert!(is_seen("firing"), "{name} is never seen to fire");
        assert!(rule["for"].is_badvalue() || is_seen("pending"), "{name} is never seen to wait");
        let mut series = groups.iter().flat_map(|group| items(&group["input_series"]));
        assert!(series.any(is_well), "{name} is never seen not to fire");
    }
}

#[test]
fn an_alert_asks_only_for_what_a_node_exports() {
    let series = series();
    for rule in rules() {
        let (name, expression) = (text(&rule["alert"]), text(&rule["expr"]));
        for selector in selectors(&expression) {
            assert_eq!(selector.missing(&series), None, "{name}");
            assert!(selector.is_used_as_it_is(), "{name}: {} as a counter or none", selector.metric);
        }
    }
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    for arguments in [["check", "rules", RULES], ["test", "rules", TESTS]] {
        let mut promtool = Command::new("promtool");
        let output = match promtool.args(&arguments[..2]).arg(path(arguments[2])).output() {
            Ok(output) => output,
            Err(error) => {
                return println!("skipped: promtool does not start ({error}); it is in Debian's prometheus");
            }
        };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

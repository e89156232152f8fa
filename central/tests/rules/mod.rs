//! Prometheus' rules about the central tier: each asks for what is exported, and has its tests and its page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_central::config::Serve;
use yaml_rust2::{Yaml, YamlLoader};

use super::served::{Central, DAY};

const RULES: &str = "deploy/prometheus/weir-central.rules.yml";
const TESTS: &str = "deploy/prometheus/weir-central.rules.test.yml";
const PAGES: &str = "docs/central.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn rules() -> Vec<Yaml> {
    let rules = YamlLoader::load_from_str(&read(RULES)).unwrap().remove(0);
    let groups = rules["groups"].as_vec().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_vec().unwrap().clone()).collect()
}

/// The metrics that an expression asks for.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("weir_"))
}

#[tokio::test]
async fn an_alert_asks_only_for_what_is_exported() {
    let central = Central::new(&Serve::default());
    central.is_final_before(&[(1, DAY)]);
    let (_, exported) = central.get("/metrics").await;
    let mut asked = 0;
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        for metric in metrics(expression) {
            assert!(exported.contains(&format!("\n{metric} ")), "{metric} is not exported:\n{exported}");
            asked += 1;
        }
    }
    assert!(asked >= 7, "{asked} metrics");
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let document = read(PAGES);
    let (_, pages) = document.split_once("## When an alert fires").unwrap();
    let (pages, _) = pages.split_once("\n## ").unwrap();
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        assert_eq!(runbook, format!("{PAGES}#{}", name.to_lowercase()));
        let page = pages.split("\n### ").find(|page| page.lines().next() == Some(name));
        let page = page.unwrap_or_else(|| panic!("{name} has no page"));
        for part in ["- **Means** ", "- **Look** ", "- **Do** "] {
            assert_eq!(page.matches(part).count(), 1, "{name}: {part}");
        }
        assert!(names.insert(name.to_owned()), "{name} is there twice");
    }
    assert_eq!(pages.matches("\n### ").count(), names.len());
}

#[test]
fn every_alert_is_seen_to_fire_of_the_sick_and_not_of_the_well() {
    let tests = YamlLoader::load_from_str(&read(TESTS)).unwrap().remove(0);
    let tests = tests["tests"].as_vec().unwrap();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let test = tests.iter().find(|test| test["name"].as_str() == Some(name));
        let text = format!("{:?}", test.unwrap_or_else(|| panic!("{name} has no test")));
        let waits = !rule["for"].is_badvalue();
        assert_eq!(text.contains("pending"), waits, "{name} is to be seen waiting, if it waits");
        assert!(text.contains("firing") && text.contains("sick") && text.contains("well"), "{name}");
    }
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

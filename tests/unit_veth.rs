//! A node with the capabilities of its systemd unit and no others, root's none among them: they are enough for XDP in
//! the driver and for a port below 1024, and each of them is needed.

use std::process::Command;

use weir_labs::NodeFolder;
use weir_labs::veth::{NODE_INTERFACE, Veth};

const UNIT: &str = include_str!("../deploy/systemd/weir.service");

/// The capabilities of the unit, as setpriv writes them.
fn capabilities(key: &str) -> Vec<String> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("such a line");
    line.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect()
}

/// What becomes the node with these capabilities alone: root is then a user like any other.
fn setpriv(capabilities: &[&str]) -> Vec<String> {
    let alone = capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let mut words = vec!["setpriv".to_owned(), "--no-new-privs".to_owned()];
    words.push("--securebits=+noroot,+noroot_locked".to_owned());
    words.extend(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={alone}")));
    words
}

#[test]
fn the_units_capabilities_are_enough_and_each_of_them_is_needed() {
    let _veth = match Veth::new() {
        Ok(veth) => veth,
        Err(error) => return eprintln!("skipped: no network namespaces: {error:#}"),
    };
    if !Command::new("setpriv").arg("--version").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: there is no setpriv to take capabilities away with");
    }
    let folder = NodeFolder::new(&format!(
        "[steer]\nmode = \"native\"\ninterface = \"{NODE_INTERFACE}\"\n\
         [rx.http]\nport = 80\naddresses = [\"127.0.0.1\"]\n"
    ));
    let folder = folder.expect("folder");
    let given = capabilities("CapabilityBoundingSet");
    assert_eq!(capabilities("AmbientCapabilities"), given);
    let start = |with: &[&str]| {
        let words = setpriv(with);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut node = folder.start_under(&words).expect("start");
        node.wait_until_ready().map(|()| node)
    };
    let all: Vec<_> = given.iter().map(String::as_str).collect();
    let node = start(&all).expect("enough");
    assert_eq!(node.status().expect("status")["steering"]["rung"], "native");
    node.drain().expect("drain");
    for missing in &all {
        let rest: Vec<_> = all.iter().copied().filter(|name| name != missing).collect();
        assert!(start(&rest).is_err(), "{missing} is not needed");
    }
}

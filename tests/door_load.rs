//! The HTTP door under a load generator nobody here wrote: what wrk counts as answered is what the node counts.

use std::io::ErrorKind;
use std::process::Command;

use serde_json::Value;
use weir_labs::door::Door;

/// Connections of wrk, each with one request under way.
const CONNECTIONS: u64 = 64;
/// The script that makes the requests and prints the counts.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/door_load.lua");

/// What wrk counted in five seconds; none where it is not installed, which is said.
fn load(door: &Door) -> Option<Value> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "2", "--duration", "5s", "--timeout", "30s"]);
    wrk.args(["--connections", &CONNECTIONS.to_string(), "--script", SCRIPT, &door.url("/")]);
    let output = match wrk.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no wrk; `cargo xtask setup` installs it");
            return None;
        }
        ran => ran.expect("wrk runs"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let counts = said.lines().find(|line| line.starts_with('{')).expect("the line that the script prints");
    println!("wrk: {counts}");
    Some(serde_json::from_str(counts).expect("JSON"))
}

#[test]
fn under_the_load_of_wrk_every_request_is_taken_and_the_books_are_those_of_wrk() {
    let door = Door::folder("").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let Some(counts) = load(&door) else { return };
    node.drain().expect("drain");
    for fault in ["refused", "unconnected", "unread", "unwritten", "timeouts"] {
        assert_eq!(counts[fault], 0, "{counts}");
    }
    let completed = counts["completed"].as_u64().expect("a number");
    let status = door.folder.final_status().expect("final status");
    let clicks = &status["clicks"];
    let accepted = clicks["outcomes"]["accepted"].as_u64().expect("a number");
    // Each connection may have had one request under way when wrk stopped: the node counts it, wrk does not.
    assert!(completed > CONNECTIONS && completed <= accepted, "{counts}: {clicks:#}");
    assert!(accepted <= completed + CONNECTIONS, "{counts}: {clicks:#}");
    assert_eq!((&clicks["received"], &clicks["residual"]), (&accepted.into(), &0.into()), "{clicks:#}");
    let found = door.folder.audit(None).expect("audit");
    let audit = &found["audit"];
    assert_eq!((&audit["sound"], &audit["clicks_twice"]), (&true.into(), &0.into()), "{found:#}");
    assert_eq!(audit["rows"], accepted, "{found:#}");
}

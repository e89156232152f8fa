//! Every folder and every renamed file that a node makes has its name synced: seen in its system
//! calls.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_labs::clicks::{Known, send};
use weir_labs::{NodeFolder, Setup};

/// What is between the first pair of quotes after `at`.
fn quoted(line: &str, at: usize) -> Option<&str> {
    line[at..].split('"').nth(1)
}

/// The folder a line syncs, if it does: `fsync(7</path>) = 0`.
fn synced(line: &str) -> Option<&str> {
    let call = line.split_once("fsync(")?.1;
    line.ends_with("= 0").then(|| call.split_once('<')?.1.split_once('>').map(|(path, _)| path)).flatten()
}

/// The names that appear in a line: a new folder, or the second name of a rename.
fn named(line: &str) -> Option<&str> {
    if !line.ends_with("= 0") {
        return None;
    }
    if let Some(at) = line.find("mkdir") {
        return quoted(line, at);
    }
    line.find("rename").and_then(|at| line[at..].split('"').nth(3))
}

/// The trace, once the tracer has written the last line of it.
fn whole(trace: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(trace).expect("trace");
        if text.trim_end().ends_with("+++ exited with 0 +++") {
            return text;
        }
        assert!(Instant::now() < deadline, "the trace does not end:\n{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_name_that_a_node_makes_is_synced_in_its_folder() {
    let place = tempfile::tempdir().expect("folder");
    let deep = place.path().join("new/and/deep");
    let setup = Setup { data: Some(&deep), ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let trace = folder.path().join("trace");
    let mut node =
        folder.start_traced("mkdir,mkdirat,rename,renameat,renameat2,fsync", &trace).expect("start");
    node.wait_until_ready().expect("ready");
    let sent = send(&folder, &Known::new(1).with_rows).expect("answers");
    assert_eq!(sent.acked_created, 40);
    node.drain().expect("drain");
    let text = whole(&trace);
    let lines: Vec<_> = text.lines().collect();
    let own = |name: &&str| {
        // What the database makes inside its folder is its own affair.
        name.starts_with(place.path().to_str().expect("a path")) && !name.contains("/store/db/")
    };
    let names: Vec<_> = lines
        .iter()
        .enumerate()
        .filter_map(|(at, line)| Some((at, named(line)?)))
        .filter(|(_, name)| own(name))
        .collect();
    assert!(names.len() >= 8, "three folders above, data, journal, store, raw, db, epoch: {names:#?}");
    for (at, name) in names {
        let parent = Path::new(name).parent().and_then(Path::to_str);
        let is_synced = lines[at + 1..].iter().any(|line| synced(line) == parent);
        assert!(is_synced, "{name} is not synced in its folder:\n{text}");
    }
}

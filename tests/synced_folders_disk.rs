//! Every folder and every renamed file that a node makes has its name synced, a key of the journal is on the disk
//! before anything is under it, and an operator's word before it is confirmed: seen in the system calls.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_labs::clicks::{Known, send};
use weir_labs::{NodeFolder, Setup, binary};

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
        let text = fs::read_to_string(trace).expect("trace");
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

#[test]
fn a_key_and_its_name_are_on_the_disk_before_the_first_segment_under_it_is_made() {
    let place = tempfile::tempdir().expect("folder");
    let keys = place.path().join("keys");
    let journal = format!("segment_size = \"4MiB\"\nencrypt = true\nkeys_dir = {keys:?}");
    let setup = Setup { journal: Some(&journal), ..Setup::default() };
    let folder = NodeFolder::with(setup).expect("folder");
    let trace = folder.path().join("trace");
    let mut node =
        folder.start_traced("mkdir,mkdirat,rename,renameat,renameat2,fsync,openat", &trace).expect("start");
    node.wait_until_ready().expect("ready");
    node.drain().expect("drain");
    let text = whole(&trace);
    let lines: Vec<_> = text.lines().collect();
    // One thread takes the key and makes the segment: a call begins when the one before it has ended.
    let begins =
        |call: &str, of: &str| lines.iter().position(|line| line.contains(call) && line.contains(of));
    let own = fs::read_dir(&keys).expect("keys").next().expect("a folder").expect("entry").path();
    let file = fs::read_dir(&own).expect("keys").next().expect("a key").expect("entry").path();
    let (written, own) = (file.with_extension("new"), format!("<{}>", own.display()));
    let order = [
        ("the key is synced", begins("fsync(", written.to_str().expect("a path"))),
        ("it gets its name", begins("rename", file.to_str().expect("a path"))),
        ("its name is synced", begins("fsync(", &own)),
        ("the segment is made", begins("O_EXCL", ".wseg")),
    ];
    assert!(order.iter().all(|(_, at)| at.is_some()), "{order:?}\n{text}");
    assert!(order.is_sorted_by_key(|(_, at)| *at), "{order:?}\n{text}");
}

#[test]
fn what_an_operator_said_is_on_the_disk_before_it_is_confirmed() {
    let folder = NodeFolder::new("").expect("folder");
    folder.start_ready().expect("ready").drain().expect("drain");
    let trace = folder.path().join("trace");
    let data = format!("{}>", folder.data().display());
    for (command, makes) in [("drain", "rename"), ("undrain", "unlink")] {
        let mut traced = Command::new("strace");
        traced.args(["-f", "-y", "-s", "256", "-e", "trace=/rename|unlink|fsync|write", "-o"]).arg(&trace);
        traced.arg(binary("weir")).args([command, "--config"]).arg(folder.config());
        assert!(traced.status().expect("strace").success());
        let text = fs::read_to_string(&trace).expect("trace");
        let lines: Vec<_> = text.lines().collect();
        let is_done = |line: &str, call: &str, of: &str| {
            line.contains(call) && line.contains(of) && line.ends_with("= 0")
        };
        let last = |call: &str, of: &str| lines.iter().rposition(|line| is_done(line, call, of));
        let told = lines.iter().position(|line| line.contains("the node does not run"));
        let mut order = vec![last(makes, "/drained"), last("fsync(", &data), told];
        if command == "drain" {
            order.insert(0, last("fsync(", "drained.new>"));
        }
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{command}: {order:?}\n{text}");
    }
}

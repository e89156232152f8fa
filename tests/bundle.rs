//! `weir bundle` of a real node: all that helps is in it, and nothing that is nobody else's to see.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use weir_labs::clicks::{numbered, send};
use weir_labs::{NodeFolder, Setup, binary};

/// The parts of a bundle, and the program's exit code.
fn bundle(folder: &NodeFolder, out: &Path) -> std::process::Output {
    let mut command = Command::new(binary("weir"));
    command.arg("bundle").arg("--config").arg(folder.config()).arg("--out").arg(out);
    command.arg("--log").arg(folder.path().join("weir.log")).output().expect("weir runs")
}

fn parts(path: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(path).expect("bundle")));
    let entries = archive.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        (name, text)
    });
    entries.collect()
}

#[test]
fn a_bundle_has_what_helps_and_no_secret() {
    let secrets = tempfile::tempdir().expect("folder");
    let keys = secrets.path().join("keys");
    let journal = format!("encrypt = true\nkeys_dir = {keys:?}");
    let folder = NodeFolder::with(Setup { journal: Some(&journal), ..Setup::default() }).expect("folder");
    let node = folder.start_ready().expect("ready");
    send(&folder, &numbered(1, 40)).expect("answers");
    let out = folder.path().join("bundle.tar.gz");
    let output = bundle(&folder, &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        fs::metadata(&out).expect("bundle").permissions().mode() & 0o777,
        0o600,
        "nobody else's to see"
    );
    drop(node);
    let parts = parts(&out);
    let part = |name: &str| {
        let name = format!("weir-bundle/{name}");
        parts.iter().find(|(named, _)| *named == name).map(|(_, text)| text.as_str()).expect("it is there")
    };
    assert!(part("config.toml").contains("data_dir") && part("doctor.txt").contains("kernel"));
    assert!(part("status.json").contains("\"received\": 40") && part("log.txt").contains("taking clicks"));
    assert!(part("data.txt").contains("journal/") && part("proc/meminfo.txt").contains("MemTotal"));
    let signing = fs::read_to_string(folder.key()).expect("key");
    let day = fs::read_dir(&keys).expect("folder").flatten().next().expect("a life").path();
    let day = fs::read_dir(day).expect("folder").flatten().next().expect("a key").path();
    let day = fs::read_to_string(day).expect("key");
    let secret = day.split_whitespace().max_by_key(|word| word.len()).expect("a word");
    for secret in [signing.trim(), secret] {
        assert!(secret.len() >= 32, "a test that looks for nothing proves nothing");
        for (name, text) in &parts {
            assert!(!text.contains(secret), "{name} has a key in it");
        }
    }
    let again = bundle(&folder, &out);
    assert!(!again.status.success(), "nothing is written over");
}

#[test]
fn of_a_node_that_does_not_run_a_bundle_says_what_is_not_there() {
    let folder = NodeFolder::new("[unheard]\nof = \"hunter2\"\n").expect("folder");
    let out = folder.path().join("bundle.tar.gz");
    assert!(bundle(&folder, &out).status.success());
    let parts = parts(&out);
    let faults = parts.iter().find(|(name, _)| name.ends_with("config-faults.txt")).expect("faults");
    assert!(faults.1.contains("unheard"), "{}", faults.1);
    assert!(parts.iter().any(|(name, text)| name.ends_with("log.txt") && text.starts_with("not there")));
    assert!(parts.iter().all(|(_, text)| !text.contains("hunter2")));
}

#[test]
fn a_journal_that_may_not_be_read_is_told_and_not_taken_for_an_empty_one() {
    let folder = NodeFolder::new("").expect("folder");
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).expect("folder");
    let journalctl = programs.join("journalctl");
    fs::write(&journalctl, "#!/bin/sh\necho 'No journal files were opened' >&2\nexit 1\n").expect("program");
    fs::set_permissions(&journalctl, fs::Permissions::from_mode(0o755)).expect("mode");
    let out = folder.path().join("bundle.tar.gz");
    let mut command = Command::new(binary("weir"));
    command.arg("bundle").arg("--config").arg(folder.config()).arg("--out").arg(&out).env("PATH", &programs);
    assert!(command.output().expect("weir runs").status.success());
    let log = parts(&out).into_iter().find(|(name, _)| name.ends_with("log.txt")).expect("a part").1;
    assert!(
        log.contains("not there: journalctl: No journal files were opened; name a file by --log"),
        "{log}"
    );
}

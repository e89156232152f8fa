//! Replays the stored fuzz corpus through the bodies of the fuzz targets, on the stable compiler.
//!
//! A crash that fuzzing finds is copied, minimised, to `common/fuzz/corpus/<target>/`.

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

use std::fs;
use std::path::PathBuf;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 4] =
    [("acks", fuzz::acks), ("datagram", fuzz::datagram), ("packet", fuzz::packet), ("rows", fuzz::rows)];

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(folder: &PathBuf) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry can be read").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_stored_input_holds() {
    for (target, body) in TARGETS {
        let folder = corpus().join(target);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            let bytes = fs::read(folder.join(&input)).expect("the input can be read");
            let held = std::panic::catch_unwind(|| body(&bytes));
            assert!(held.is_ok(), "{target}: {input} does not hold");
        }
    }
}

#[test]
fn every_folder_has_its_target() {
    let targets: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
    assert_eq!(names(&corpus()), targets);
}

//! What a config names must be there, and be kept as a secret is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weir::config::{Config, Cores, Error, Host, MemoryEstimate, Secret, load};

fn host() -> Host {
    Host { cores: vec![0, 1] }
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn problems(folder: &Path, config: &str) -> Vec<String> {
    write(folder, "weir.toml", config, 0o644);
    match load(&folder.join("weir.toml"), &host()) {
        Err(Error::Invalid { problems, .. }) => problems.0.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_file_beside_the_config_is_read_in_the_order_of_its_digits() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "k.hex", "000102030405060708090A0b0c0d0e0f\n", 0o600);
    write(folder.path(), "weir.toml", "[[keys]]\nissuer = 1\nkey = 2\nfile = \"k.hex\"", 0o644);
    let config = load(&folder.path().join("weir.toml"), &host()).unwrap();
    assert_eq!(config.keys[0].secret, Secret(std::array::from_fn(|index| index as u8)));
    assert_eq!(config.keys[0].file, folder.path().join("k.hex"));
}

#[test]
fn a_key_is_never_printed() {
    assert_eq!(format!("{:?}", Secret([0xab; 16])), "Secret(..)");
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "k.hex", &"a".repeat(32), 0o604);
    let path = folder.path().join("k.hex");
    let path = path.display();
    assert_eq!(
        problems(folder.path(), "[[keys]]\nissuer = 1\nkey = 2\nfile = \"k.hex\""),
        [format!("keys.file: {path} of issuer 1 key 2: anybody may read it; run `chmod o-rwx {path}`")]
    );
}

#[test]
fn a_file_that_is_no_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sign_and_digits = format!("+{}", "1".repeat(31));
    for wrong in ["", "abc", &"g".repeat(32), &"a".repeat(33), &sign_and_digits, &"a".repeat(1000)] {
        write(folder.path(), "k.hex", wrong, 0o600);
        let found = problems(folder.path(), "[[keys]]\nissuer = 1\nkey = 2\nfile = \"k.hex\"");
        assert!(found[0].ends_with("a key is 32 hex digits"), "{wrong:?}: {found:?}");
    }
    let missing = problems(folder.path(), "[[keys]]\nissuer = 1\nkey = 2\nfile = \"/nowhere/k.hex\"");
    assert!(missing[0].contains("/nowhere/k.hex of issuer 1 key 2: cannot be read: "), "{missing:?}");
}

#[test]
fn a_core_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        problems(folder.path(), "workers.cores = [1, 2, 7]"),
        [
            "workers.cores: core 2 is not there; this machine has [0, 1]",
            "workers.cores: core 7 is not there; this machine has [0, 1]",
        ]
    );
}

#[test]
fn a_config_that_cannot_be_used_is_named_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "weir.toml", "node.id = 0\nlog.level = 1", 0o644);
    let path = folder.path().join("weir.toml");
    let error = load(&path, &host()).unwrap_err().to_string();
    let head = format!(
        "{} cannot be used; mend these lines and check again with `weir check-config`:",
        path.display()
    );
    assert_eq!(error.lines().next(), Some(head.as_str()));
    assert!(
        error.lines().skip(1).all(|line| line.starts_with("  line ")) && error.lines().count() == 3,
        "{error}"
    );
    let error = load(Path::new("/nowhere/weir.toml"), &host()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the config file /nowhere/weir.toml: "), "{error}");
}

#[test]
fn the_memory_estimate_grows_with_each_bound() {
    let config = Config::default();
    let at_default = MemoryEstimate::of(&config, 2);
    assert_eq!(at_default.dedupe_bytes, 3_200_000_000);
    let mut larger = config.clone();
    larger.dedupe.capacity *= 2;
    larger.udp.buffers_per_worker *= 2;
    let more = MemoryEstimate::of(&larger, 2);
    assert_eq!(more.dedupe_bytes, 6_400_000_000);
    assert!(more.receive_bytes > at_default.receive_bytes);
    assert_eq!(host().worker_cores(&config), [0, 1]);
    larger.workers.cores = Cores::These(vec![1]);
    assert_eq!(host().worker_cores(&larger), [1]);
}

//! A whole node whose journal is encrypted: no bytes of a click on its disk, everything there after
//! a crash, and no start without the keys.

use std::fs;
use std::path::{Path, PathBuf};

use weir_common::wire::Click;
use weir_labs::clicks::{numbered, send};
use weir_labs::{NodeFolder, Setup};

const CLICKS: u128 = 500;

/// A node's folder, and one for its keys that outlives it.
struct Lab {
    keys: tempfile::TempDir,
    folder: NodeFolder,
    clicks: Vec<Click>,
}

impl Lab {
    fn new(encrypt: bool) -> Self {
        let keys = tempfile::tempdir().expect("folder");
        let path = keys.path().join("keys");
        let journal = format!("segment_size = \"4MiB\"\nencrypt = {encrypt}\nkeys_dir = {path:?}");
        // Users' keys as they are sent: what is looked for has to be what was sent.
        let config = "[privacy]\nsalts = \"none\"\n";
        let setup = Setup { journal: Some(&journal), config, ..Setup::default() };
        let folder = NodeFolder::with(setup).expect("folder");
        let user = rand::random::<u64>();
        let clicks = numbered(rand::random::<u128>() >> 1, CLICKS);
        let clicks = clicks.into_iter().map(|click| Click { user_key: user.into(), ..click }).collect();
        Self { keys, folder, clicks }
    }

    /// The files of the keys.
    fn key_files(&self) -> Vec<PathBuf> {
        let list = |path: &Path| {
            let entries = fs::read_dir(path).expect("list").map(|entry| entry.expect("entry").path());
            entries.collect::<Vec<_>>()
        };
        list(&self.keys.path().join("keys")).iter().flat_map(|path| list(path)).collect()
    }

    /// All bytes of all segments.
    fn journal(&self) -> Vec<Vec<u8>> {
        let paths = self.folder.segments().expect("segments");
        paths.iter().map(|path| fs::read(path).expect("segment")).collect()
    }
}

fn holds(segments: &[Vec<u8>], wanted: &[u8]) -> bool {
    segments.iter().any(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
}

#[test]
fn an_acknowledged_click_stands_in_a_plain_journal_and_no_byte_of_it_in_an_encrypted_one() {
    for encrypt in [false, true] {
        let lab = Lab::new(encrypt);
        let node = lab.folder.start_ready().expect("ready");
        let sent = send(&lab.folder, &lab.clicks).expect("answers");
        assert_eq!(u128::from(sent.acked_created), CLICKS);
        node.kill().expect("kill");
        let segments = lab.journal();
        for click in [&lab.clicks[0], &lab.clicks[CLICKS as usize - 1]] {
            assert_eq!(holds(&segments, &click.impression.0), !encrypt, "impression");
            assert_eq!(holds(&segments, &click.user_key.get().to_le_bytes()), !encrypt, "user key");
        }
        assert_eq!(lab.key_files().len(), usize::from(encrypt));

        let node = lab.folder.start_ready().expect("ready");
        let sent = send(&lab.folder, &lab.clicks).expect("answers");
        assert_eq!(u128::from(sent.acked_exists), CLICKS, "a crash forgets nothing");
        node.drain().expect("drain");
        let audit = &lab.folder.audit(None).expect("audit")["audit"];
        assert_eq!(audit["sound"], true, "{audit:#}");
        assert_eq!(audit["rows"].as_u64().map(u128::from), Some(CLICKS), "forwarded as plain rows");
    }
}

#[test]
fn a_node_without_its_key_does_not_start_changes_nothing_and_goes_on_when_it_is_back() {
    let lab = Lab::new(true);
    let node = lab.folder.start_ready().expect("ready");
    send(&lab.folder, &lab.clicks).expect("answers");
    node.kill().expect("kill");
    let key = lab.key_files().pop().expect("a key");
    let away = lab.keys.path().join("away");
    fs::rename(&key, &away).expect("take the key away");
    let before = lab.journal();

    let error = lab.folder.start_ready().expect_err("a start without the key").to_string();
    let log = lab.folder.log_text();
    for part in [".wseg", key.to_str().expect("text"), "put the key's file back"] {
        assert!(log.contains(part), "{part} is not named:\n{error}\n{log}");
    }
    assert!(!log.contains("torn tail of"), "{log}");
    assert!(lab.journal() == before, "a segment was changed");

    fs::rename(&away, &key).expect("put the key back");
    let node = lab.folder.start_ready().expect("ready");
    let sent = send(&lab.folder, &lab.clicks).expect("answers");
    assert_eq!(u128::from(sent.acked_exists), CLICKS);
    node.drain().expect("drain");
}

//! How the journal uses a real disk: sizes of files, order of syncs, what a failure leaves behind.

mod journal_fixture;

use std::fs;
use std::sync::Arc;

use journal_fixture::{START, Writer, open};
use weir::journal::{DiskBudget, JournalConfig};
use weir_common::id::WorkerId;

#[test]
fn a_segment_is_as_small_as_the_config_says_and_still_holds_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let config = JournalConfig {
        segment_bytes: 4 << 20,
        ..JournalConfig::new(folder.segments().to_owned(), folder.writer(WorkerId(0)))
    };
    let budget = Arc::new(DiskBudget::new(12 << 20, 0));
    let mut writer = Writer::with(config, Arc::clone(&budget));
    for n in 0..40 {
        writer.write(START, n * 1000..n * 1000 + 1000);
    }
    let sizes: Vec<_> = fs::read_dir(folder.segments())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() >= 2 && sizes.iter().all(|&size| size == 4 << 20), "{sizes:?}");
    assert_eq!(budget.used(), sizes.iter().sum::<u64>());
}

//! From records to an archive that fails, is left in the middle, and is gone on with.

mod archived;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use archived::{LIMITS, NOW_MS, block_on, failing, manifest, names, offsets, record_of};
use object_store::memory::InMemory;
use weir_central::archive::manifest::Hour;
use weir_central::archive::place::Place;
use weir_central::archive::read::{Object, Values};
use weir_central::archive::{Archiver, Counters};
use weir_central::kafka::Delivered;
use weir_common::id::ImpressionId;
use weir_common::row::Row;
use weir_common::wire::Click;

/// Row `n` of a block; no two have a column in common.
fn row(n: u64, received_at_ms: u64) -> Row {
    let click = Click {
        impression: ImpressionId((u128::MAX - u128::from(n)).to_le_bytes()),
        ad: (u64::MAX - n).into(),
        price_micros: (500 + n).into(),
        campaign: (u32::MAX - n as u32).into(),
        user_key: (1 << 63 | n).into(),
        latitude_e6: (-52_000_000 - n as i32).into(),
        country: if n == 1 { [0, 0] } else { *b"PL" },
        ordinal: n as u8,
        extension_len: (n as u16).into(),
        ..Click::zeroed()
    };
    Row {
        received_at_ms: received_at_ms.into(),
        minute: ((received_at_ms / 60_000) as u32).into(),
        outcome: 1,
        reason: 0,
        flags: 3,
        traffic: 0x81,
        click,
    }
}

/// The record of block `sequence` with rows that were received at these times.
fn record(sequence: u64, received_ms: &[u64]) -> Delivered {
    let row = |(n, received_ms): (usize, &u64)| (row(n as u64, *received_ms), vec![b'x'; n]);
    let rows: Vec<_> = received_ms.iter().enumerate().map(row).collect();
    record_of((u64::MAX, 0), sequence, &rows)
}

/// One run: archives these blocks in one batch.
fn run(place: Place, folder: &Path, records: &[Delivered], stop: &AtomicBool) -> u64 {
    let counters = Counters::default();
    let mut archiver = Archiver::open(place, folder, LIMITS, (&counters, stop)).unwrap();
    if !records.is_empty() {
        records.iter().for_each(|record| archiver.take(record).unwrap());
        archiver.close(&offsets(records.len() as i64)).unwrap();
    }
    counters.retries.load(Ordering::Relaxed)
}

/// One run that ends while its puts of `of` are refused.
fn run_into_failure(store: &Arc<InMemory>, of: &'static str, folder: &Path, records: &[Delivered]) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Release);
        });
        run(failing(store, u32::MAX, of), folder, records, &stop);
    });
}

#[test]
fn while_the_place_fails_a_batch_waits_and_is_there_once_afterwards() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let go = AtomicBool::new(false);
    let records = [record(1, &[NOW_MS, NOW_MS]), record(2, &[NOW_MS + 3_600_000])];
    let retries = run(failing(&store, 3, ""), dir.path(), &records, &go);
    assert_eq!(retries, 3);
    let [entry] = &manifest(&store)[..] else { panic!("one batch") };
    assert_eq!((entry.rows, entry.blocks, entry.objects.len()), (3, 2, 2));
    assert_eq!(entry.objects[0].path, "year=2026/month=11/day=23/hour=09/ffffffffffffffff-2-0-1.parquet");
    assert_eq!(names(&store).len(), 3);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("staged")).unwrap().collect();
    assert!(left.is_empty() && !dir.path().join("plan.json").exists());
}

#[test]
fn a_batch_that_was_planned_before_a_crash_is_put_by_the_next_run() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    run_into_failure(&store, "", dir.path(), &[record(1, &[NOW_MS]), record(2, &[NOW_MS])]);
    assert!(names(&store).is_empty() && dir.path().join("plan.json").exists());
    let (counters, go) = (Counters::default(), AtomicBool::new(false));
    let archiver = Archiver::open(failing(&store, 0, ""), dir.path(), LIMITS, (&counters, &go)).unwrap();
    assert_eq!(archiver.offset(3), Some(2));
    assert_eq!(manifest(&store).iter().map(|entry| entry.rows).collect::<Vec<_>>(), [2]);
    drop(archiver);
    // A third run, on another machine, has nothing to do and knows where to go on.
    let elsewhere = tempfile::tempdir().unwrap();
    let third = Archiver::open(failing(&store, 0, ""), elsewhere.path(), LIMITS, (&counters, &go)).unwrap();
    assert_eq!((third.offset(3), manifest(&store).len()), (Some(2), 1));
}

#[test]
fn a_plan_whose_files_are_gone_takes_back_what_was_put_of_it() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    run_into_failure(&store, "_manifest", dir.path(), &[record(1, &[NOW_MS])]);
    assert_eq!(names(&store).len(), 1, "the object, and no entry");
    std::fs::remove_dir_all(dir.path().join("staged")).unwrap();
    let go = AtomicBool::new(false);
    run(failing(&store, 0, ""), dir.path(), &[], &go);
    assert_eq!(names(&store), [""; 0]);
    // Then the same blocks come again, cut in another way.
    run(failing(&store, 0, ""), dir.path(), &[record(1, &[NOW_MS]), record(2, &[NOW_MS])], &go);
    assert_eq!(manifest(&store).iter().map(|entry| entry.rows).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_record_that_is_no_block_is_kept_as_it_came() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let mut damaged = record(1, &[NOW_MS]);
    damaged.value[5] ^= 1;
    let mut cut = record(2, &[NOW_MS]);
    cut.headers.clear();
    let records = [damaged.clone(), cut, record(3, &[NOW_MS])];
    run(failing(&store, 0, ""), dir.path(), &records, &AtomicBool::new(false));
    let [entry] = &manifest(&store)[..] else { panic!("one batch") };
    assert_eq!((entry.rows, entry.unreadable), (1, 2));
    let kept = block_on(failing(&store, 0, "").get("_unreadable/3-1.bin")).unwrap();
    assert_eq!(kept, damaged.value);
}

#[test]
fn a_row_reads_back_as_it_went_in() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    run(failing(&store, 0, ""), dir.path(), &[record(7, &[NOW_MS; 3])], &AtomicBool::new(false));
    let [entry] = &manifest(&store)[..] else { panic!("one batch") };
    assert_eq!(entry.objects[0].hour, Hour::of(NOW_MS));
    let octets = block_on(failing(&store, 0, "").get(&entry.objects[0].path)).unwrap();
    assert_eq!(crc32c::crc32c(&octets), entry.objects[0].crc32c);
    let object = Object::of(octets).unwrap();
    let names =
        ["impression_high", "ad", "campaign", "user_key", "rules", "row", "received_at_ms", "incarnation"];
    let longs = object.columns(0, names).unwrap();
    for n in 0..3_u64 {
        let long = |column: usize| longs[column].longs()[n as usize];
        assert_eq!(long(0), -1, "an unsigned number keeps its bits");
        assert_eq!(long(1).cast_unsigned(), u64::MAX - n);
        assert_eq!(long(2), i64::from(u32::MAX) - n as i64);
        assert_eq!(long(3).cast_unsigned(), 1 << 63 | n);
        assert_eq!((long(4), long(5), long(6)), (9, n as i64, NOW_MS as i64));
        assert_eq!(long(7), -1);
    }
    let ints = object.columns(0, ["ordinal", "traffic", "row_flags", "latitude_e6"]).unwrap();
    assert_eq!(ints[0].ints(), [0, 1, 2]);
    assert_eq!((ints[1].ints()[0], ints[2].ints()[0]), (0x81, 3));
    assert_eq!(ints[3].ints()[2], -52_000_002);
    let [Values::Octets(countries), Values::Octets(extensions)] =
        object.columns(0, ["country", "extension"]).unwrap()
    else {
        panic!("octets")
    };
    let text = |values: &[parquet::data_type::ByteArray]| -> Vec<String> {
        values.iter().map(|value| String::from_utf8(value.data().to_vec()).unwrap()).collect()
    };
    assert_eq!(
        (text(&countries), text(&extensions)),
        (
            vec!["PL".to_owned(), String::new(), "PL".to_owned()],
            vec![String::new(), "x".to_owned(), "xx".to_owned()]
        )
    );
}

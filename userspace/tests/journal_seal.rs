//! Encrypted segments: what stands in the file, what a start makes of it with and without the
//! keys, and when a key comes and goes.

mod journal_fixture;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal_fixture::{
    START, Writer, click, config, files_in, id_of, open, open_sealed, recovered, segments,
};
use weir::day::Day;
use weir::journal::keys::check_keys;
use weir::journal::operation::{Completion, Operation};
use weir::journal::scan::{Found, SegmentScan};
use weir::journal::seal::{DayKeyId, Envelope};
use weir::journal::segment::SegmentHeader;
use weir::journal::trim::{trim, trimmable};
use weir::journal::{
    DayKeys, DiskBudget, Finding, Folder, Journal, JournalState, KeyError, Place, SegmentId,
};
use weir::secret_file::SecretFileError;
use weir_common::id::{BlockSeq, Epoch, WorkerId};
use weir_common::time::{Minute, UnixMs};
use zerocopy::IntoBytes;

const MS_PER_DAY: u64 = 86_400_000;

fn keys_of(folder: &Folder) -> &Arc<DayKeys> {
    folder.day_keys().unwrap()
}

fn key_files(folder: &Folder) -> Vec<PathBuf> {
    files_in(keys_of(folder).folder())
}

/// The key a segment names.
fn key_in(folder: &Folder, path: &Path) -> DayKeyId {
    let bytes = fs::read(path).unwrap();
    let header = SegmentHeader::check(&bytes, id_of(path), folder.incarnation()).unwrap();
    DayKeyId(header.key_id.get())
}

/// When the day after [`START`]'s begins.
fn midnight() -> UnixMs {
    UnixMs((START.0 / MS_PER_DAY + 1) * MS_PER_DAY)
}

fn day_before_midnight() -> Day {
    Day::of(START)
}

/// Whether these bytes stand anywhere in the file.
fn holds(path: &Path, wanted: &[u8]) -> bool {
    fs::read(path).unwrap().windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn no_bytes_of_a_click_stand_in_an_encrypted_segment_and_they_do_in_a_plain_one() {
    for (is_sealed, open) in [(false, open as fn(&Path) -> Folder), (true, open_sealed)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path());
        let mut writer = Writer::new(&folder, 0);
        writer.write(START, 0..20);
        let path = &segments(&folder)[0];
        let click = click(13, &[]);
        let whole = click.as_bytes();
        // None ends in zeros, which stand behind each group.
        for wanted in [&whole[..9], &whole[8..17], b"xxxxxxxxxxxxxxxx", b"WBLK"] {
            assert_eq!(holds(path, wanted), !is_sealed, "{wanted:02x?}");
        }
        assert_eq!(recovered(&folder).0, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_key_is_the_nodes_alone_and_is_there_before_the_first_segment_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let mut journal = Journal::new(config(&folder, 0), Arc::new(DiskBudget::new(u64::MAX, 0)));
    let Some(Operation::TakeKey { keys, day }) = journal.next_operation(0) else {
        panic!("no key is asked for")
    };
    assert!(journal.next_operation(0).is_none(), "a segment is asked for before its key is there");
    journal.complete(Completion::KeyTaken { result: keys.take(day) });
    let files = key_files(&folder);
    assert_eq!(files.len(), 1);
    assert!(matches!(journal.next_operation(0), Some(Operation::CreateSegment { .. })));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files[0]), mode(keys.folder()), mode(&dir.path().join("keys"))), (0o600, 0o700, 0o700));
}

#[test]
fn a_folder_of_keys_that_others_can_look_into_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    fs::set_permissions(dir.path().join("keys"), fs::Permissions::from_mode(0o750)).unwrap();
    let error = DayKeys::open(&dir.path().join("keys"), folder.incarnation()).unwrap_err();
    assert!(matches!(error, KeyError::File(SecretFileError::Open { mode: 0o750, .. })), "{error}");
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn without_its_key_a_segment_is_named_kept_and_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let mut writer = Writer::new(&folder, 0);
    for n in 0..100 {
        writer.write(START, [n]);
    }
    drop(writer);
    let paths = segments(&folder);
    let bytes: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let (key, lost) = (key_files(&folder)[0].clone(), dir.path().join("lost"));
    fs::rename(&key, &lost).unwrap();
    drop(folder);

    let folder = open_sealed(dir.path());
    let error = check_keys(&folder.place()).unwrap_err().to_string();
    for part in
        [paths[0].to_str().unwrap(), key.to_str().unwrap(), "put the key's file back", "move them out"]
    {
        assert!(error.contains(part), "{error} does not say {part}");
    }
    // Should somebody read it all the same:
    let (numbers, recovery) = recovered(&folder);
    assert_eq!(numbers, [0; 0]);
    let report = &recovery.report;
    assert_eq!(report.torn_tails, 0, "{report}");
    assert!(report.findings.iter().all(|found| matches!(found, Finding::KeyMissing { .. })), "{report}");
    let used = recovery.segments.iter().filter(|found| found.damaged).count();
    assert!(used > 1 && report.findings.len() == used, "{report}");
    let never = |_: Epoch, _: WorkerId| BlockSeq(u64::MAX);
    let all = (Minute(u32::MAX), 0);
    let going: Vec<_> = trimmable(&recovery.segments, never, |_| false, all, |_| true).collect();
    assert!(going.iter().all(|found| !found.damaged), "{going:?}");
    for (path, bytes) in paths.iter().zip(bytes) {
        assert!(fs::read(path).unwrap() == bytes, "{} was changed", path.display());
    }

    fs::rename(&lost, &key).unwrap();
    drop(folder);
    let folder = open_sealed(dir.path());
    check_keys(&folder.place()).unwrap();
    assert_eq!(recovered(&folder).0, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_start_without_the_keys_folder_names_it() {
    let dir = tempfile::tempdir().unwrap();
    Writer::new(&open_sealed(dir.path()), 0).write(START, [1]);
    let error = check_keys(&open(dir.path()).place()).unwrap_err();
    assert!(matches!(error, KeyError::NoKeysDir { .. }), "{error}");
    assert!(error.to_string().contains("`journal.keys_dir`"), "{error}");
}

#[test]
fn another_key_under_the_same_name_is_found_out_and_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    Writer::new(&folder, 0).write(START, [1]);
    let path = key_files(&folder)[0].clone();
    let text = fs::read_to_string(&path).unwrap();
    drop(folder);
    let flipped = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        bytes
    };
    for at in 0..text.len() {
        fs::write(&path, flipped(&text, at)).unwrap();
        let folder = open_sealed(dir.path());
        let error = check_keys(&folder.place()).unwrap_err();
        let KeyError::Locked { source, .. } = &error else { panic!("character {at}: {error}") };
        assert!(matches!(**source, KeyError::Damaged { .. }), "character {at}: {error}");
    }
    fs::write(&path, text).unwrap();
    assert_eq!(recovered(&open_sealed(dir.path())).0, [1]);
}

#[test]
fn a_sound_key_of_the_same_day_under_the_name_of_another_is_found_out() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = open_sealed(dir.path());
    Writer::new(&folder, 0).write(START, [1]);
    let path = key_files(&folder)[0].clone();
    let stranger = open_sealed(other.path());
    keys_of(&stranger).take(day_before_midnight()).unwrap();
    fs::copy(&key_files(&stranger)[0], &path).unwrap();
    drop(folder);
    let error = check_keys(&open_sealed(dir.path()).place()).unwrap_err();
    let KeyError::Locked { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, KeyError::Damaged { .. }), "{error}");
}

#[test]
fn a_block_that_strayed_here_from_another_start_costs_the_one_it_hit_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut pages = Vec::new();
    for start in 0..2 {
        let folder = open_sealed(dir.path());
        let mut writer = Writer::new(&folder, 0);
        (0..3).for_each(|n| writer.write(START, [start * 10 + n]));
        let first = segments(&folder).into_iter().find(|path| id_of(path).epoch == folder.epoch()).unwrap();
        let bytes = fs::read(&first).unwrap();
        pages.push((first, bytes));
    }
    let [(path, mut bytes), (_, other)] = <[_; 2]>::try_from(pages).unwrap();
    bytes[4096..8192].copy_from_slice(&other[4096..8192]);
    fs::write(path, bytes).unwrap();
    let (numbers, recovery) = recovered(&open_sealed(dir.path()));
    assert_eq!((numbers, recovery.report.lost_blocks), (vec![1, 2, 10, 11, 12], 1), "{}", recovery.report);
}

#[test]
fn a_new_day_begins_a_new_segment_under_a_new_key_and_no_block_is_under_a_later_days() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let mut writer = Writer::new(&folder, 0);
    let before = UnixMs(midnight().0 - 1);
    for (n, at) in [before, before, midnight(), midnight(), midnight()].into_iter().enumerate() {
        writer.write(at, [n as u64]);
    }
    assert_eq!(key_files(&folder).len(), 2);
    let days = days_of_blocks(&folder);
    let (old, new) = (day_before_midnight(), Day::of(midnight()));
    assert_eq!(days[..2], [(old, old); 2]);
    assert_eq!(days[days.len() - 1], (new, new), "the new day has its key: {days:?}");
    assert_eq!(recovered(&folder).0, [0, 1, 2, 3, 4]);
}

#[test]
fn a_block_that_waited_over_midnight_is_under_the_key_of_the_day_it_was_received_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let mut writer = Writer::new(&folder, 0);
    let before = UnixMs(midnight().0 - 1);
    writer.submit(before, [0]);
    let Some(slow @ Operation::Write { .. }) = writer.journal.next_operation(0) else {
        panic!("a write is due")
    };
    writer.submit(before, [1]);
    writer.submit(midnight(), [2]);
    // Key and segment of the new day are there before the write has ended.
    writer.commit();
    assert_eq!(key_files(&folder).len(), 2);
    let written = writer.disk.run(slow).unwrap();
    writer.journal.complete(written);
    writer.commit();
    writer.write(midnight(), [3]);
    let (old, new) = (day_before_midnight(), Day::of(midnight()));
    assert_eq!(days_of_blocks(&folder), [(old, old), (old, old), (new, old), (new, new)]);
    assert_eq!(recovered(&folder).0, [0, 1, 2, 3]);
}

/// The day each block was received on and that of its key, which is never later.
fn days_of_blocks(folder: &Folder) -> Vec<(Day, Day)> {
    let mut days = Vec::new();
    for path in segments(folder) {
        let key = key_in(folder, &path);
        let mut scan =
            SegmentScan::new(fs::File::open(&path).unwrap(), id_of(&path), &folder.place()).unwrap();
        while let Some(found) = scan.next_found() {
            let Found::Block(_) = found else { panic!("{found:?}") };
            let (header, _) = weir::journal::block::check_block(scan.block()).unwrap();
            let received = Day::of(UnixMs(header.received_at_ms.get()));
            assert!(key.day() <= received, "a block of {received} is under the key of {}", key.day());
            days.push((received, key.day()));
        }
    }
    days
}

/// Trims all segments of earlier epochs, as the forwarder does when they are forwarded and final.
fn trim_past(folder: &Folder) -> u64 {
    let recovery = recovered(folder).1;
    let never = |_: Epoch, _: WorkerId| BlockSeq(u64::MAX);
    let is_open = |id: SegmentId| id.epoch == folder.epoch();
    let going = trimmable(&recovery.segments, never, is_open, (Minute(u32::MAX), 0), |_| true);
    trim(folder.segments(), &DiskBudget::new(u64::MAX, u64::MAX), going).unwrap()
}

fn destroyed(folder: &Folder) -> Vec<Day> {
    let keys = keys_of(folder);
    keys.destroy_unneeded(&folder.place()).unwrap().into_iter().map(DayKeyId::day).collect()
}

#[test]
fn a_key_lives_until_the_last_segment_under_it_is_gone_and_then_a_copy_of_it_is_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    Writer::new(&folder, 0).write(START, 0..20);
    let (path, key) = (segments(&folder)[0].clone(), key_files(&folder)[0].clone());
    let copy = fs::read(&path).unwrap();
    // The key's file, also after its name is gone: what destroying leaves in place of its bytes.
    let linked = dir.path().join("linked");
    fs::hard_link(&key, &linked).unwrap();
    drop(folder);

    let folder = open_sealed(dir.path());
    let mut writer = Writer::new(&folder, 0);
    assert_eq!(destroyed(&folder), [], "a key of the latest day");
    writer.write(midnight(), 20..30);
    writer.write(midnight(), 30..40);
    assert_eq!(destroyed(&folder), [], "the segment is still there");
    assert_eq!(recovered(&folder).0.len(), 40);
    assert!(trim_past(&folder) > 0);
    // The first segments of this epoch were made under the old day's key as well: none is, for a
    // journal begins with the time of its start.
    let old: Vec<_> = segments(&folder)
        .into_iter()
        .filter(|path| key_in(&folder, path).day() < Day::of(midnight()))
        .collect();
    old.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(destroyed(&folder), [day_before_midnight()]);
    assert!(!key.exists() && key_files(&folder).len() == 1);
    assert!(fs::read(&linked).unwrap().iter().all(|&byte| byte == 0), "the key was not overwritten");
    drop(writer);

    fs::write(&path, copy).unwrap();
    let (numbers, recovery) = recovered(&folder);
    assert!(numbers.iter().all(|&n| n >= 20), "{numbers:?}");
    assert!(recovery.report.findings.iter().any(|found| matches!(found, Finding::KeyMissing { .. })));
    assert!(matches!(check_keys(&folder.place()), Err(KeyError::Locked { .. })));
}

#[test]
fn a_key_that_a_journal_still_holds_is_not_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let keys = keys_of(&folder);
    let held = keys.take(day_before_midnight()).unwrap();
    keys.take(Day::of(midnight())).unwrap();
    assert_eq!(destroyed(&folder), [], "a journal may be about to make a segment with it");
    drop(held);
    assert_eq!(destroyed(&folder), [day_before_midnight()]);
}

#[test]
fn no_key_is_destroyed_while_a_segment_does_not_say_which_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    Writer::new(&folder, 0).write(START, [1]);
    let path = segments(&folder)[0].clone();
    drop(folder);
    let folder = open_sealed(dir.path());
    keys_of(&folder).take(Day::of(midnight())).unwrap();
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[10] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(destroyed(&folder), [], "its first block says which");
    assert_eq!(recovered(&folder).0, [1], "and is read by it");
    bytes[4096 + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(destroyed(&folder), [], "nothing says which");
    fs::remove_file(&path).unwrap();
    for path in segments(&folder) {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(destroyed(&folder), [day_before_midnight()]);
}

#[test]
fn a_start_on_the_same_day_takes_the_same_key_and_never_the_same_salt() {
    let dir = tempfile::tempdir().unwrap();
    let envelope = |folder: &Folder, path: &Path| {
        let bytes = fs::read(path).unwrap();
        Envelope::check(&bytes[4096..], folder.incarnation()).unwrap()
    };
    let mut envelopes = Vec::new();
    for start in 0..3 {
        let folder = open_sealed(dir.path());
        for worker in 0..2 {
            Writer::new(&folder, worker).write(START, [start * 2 + u64::from(worker)]);
        }
        let of_start = segments(&folder).into_iter().filter(|path| id_of(path).epoch == folder.epoch());
        let first = of_start.filter(|path| id_of(path).segment.0 == 1);
        envelopes.extend(first.map(|path| envelope(&folder, &path)));
    }
    assert_eq!(envelopes.len(), 6);
    assert!(envelopes.iter().all(|found| found.key == envelopes[0].key), "one key a day");
    for (at, found) in envelopes.iter().enumerate() {
        assert!(envelopes[at + 1..].iter().all(|other| other.salt != found.salt));
    }
    let folder = open_sealed(dir.path());
    assert_eq!(recovered(&folder).0, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_key_that_cannot_be_had_halts_a_new_journal_and_leaves_a_running_one_under_the_last_days() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open_sealed(dir.path());
    let failed = || KeyError::Missing { path: "/keys".into() };
    let mut journal = Journal::new(config(&folder, 0), Arc::new(DiskBudget::new(u64::MAX, 0)));
    let mut now_ms = 0;
    while let Some(Operation::TakeKey { .. }) = journal.next_operation(now_ms) {
        journal.complete(Completion::KeyTaken { result: Err(failed()) });
        now_ms += 10_000;
    }
    let JournalState::Halted(why) = journal.state() else { panic!("{:?}", journal.state()) };
    assert!(why.contains("/keys is missing"), "{why}");

    let mut writer = Writer::new(&folder, 0);
    writer.write(START, [0]);
    let keys = folder.day_keys().unwrap().folder().to_owned();
    fs::rename(&keys, dir.path().join("away")).unwrap();
    for n in 1..60 {
        writer.write(midnight(), [n]);
        writer.now_ms += 100;
    }
    assert_eq!(writer.journal.state(), &JournalState::Running);
    fs::rename(dir.path().join("away"), &keys).unwrap();
    for n in 60..120 {
        writer.write(midnight(), [n]);
        writer.now_ms += 100;
    }
    assert_eq!(recovered(&folder).0, (0..120).collect::<Vec<_>>());
    let last = segments(&folder).pop().unwrap();
    assert_eq!(key_in(&folder, &last).day(), Day::of(midnight()), "it was asked for again");
}

#[test]
fn plain_and_encrypted_segments_are_read_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    Writer::new(&open(dir.path()), 0).write(START, [0]);
    Writer::new(&open_sealed(dir.path()), 0).write(START, [1]);
    let reading = || {
        let folder = open(dir.path());
        let keys = DayKeys::open(&dir.path().join("keys"), folder.incarnation()).unwrap();
        folder.reading_with(Arc::new(keys))
    };
    let folder = reading();
    Writer::new(&folder, 0).write(START, [2]);
    check_keys(&folder.place()).unwrap();
    assert_eq!(recovered(&folder).0, [0, 1, 2]);
    assert!(folder.sealing_keys().is_none());
    drop(folder);
    let folder = reading();
    assert_eq!(destroyed(&folder), []);
    trim_past(&folder);
    assert_eq!(destroyed(&folder), [day_before_midnight()], "encryption is off, so the last key goes too");
}

#[test]
fn a_segment_of_another_folder_is_not_opened_with_this_ones_keys() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (open_sealed(one.path()), open_sealed(other.path()));
    Writer::new(&theirs, 0).write(START, [1]);
    let path = segments(&theirs)[0].clone();
    fs::copy(&path, ours.segments().join(path.file_name().unwrap())).unwrap();
    let place: Place = ours.place();
    assert!(check_keys(&place).is_ok(), "nothing of ours is locked");
    assert_eq!(recovered(&ours).0, [0; 0]);
}

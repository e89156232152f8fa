//! From records to an archive that fails, is left in the middle, and is gone on with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use weir_central::archive::manifest::{Entry, Hour};
use weir_central::archive::place::Place;
use weir_central::archive::read::{Object, Values};
use weir_central::archive::{Archiver, Counters, Limits};
use weir_central::kafka::Delivered;
use weir_central::watermark::Offsets;
use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::id::ImpressionId;
use weir_common::row::{Row, length_prefix};
use weir_common::wire::Click;
use zerocopy::{FromBytes, IntoBytes};

/// 2026-11-23T09:30:00Z.
const NOW_MS: u64 = 1_795_426_200_000;
const LIMITS: Limits = Limits { object_bytes: 1 << 20, close_after: Duration::from_secs(60) };

/// A store in memory that refuses some puts.
#[derive(Debug)]
struct Failing {
    inner: Arc<InMemory>,
    /// How many more puts of these it refuses.
    left: AtomicU32,
    /// Puts of names that begin so.
    of: &'static str,
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Failing({})", self.inner)
    }
}

impl Failing {
    fn judge(&self, location: &ObjectPath) -> Result<()> {
        let refuses = location.as_ref().starts_with(self.of)
            && self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if refuses { Err(Error::Generic { store: "failing", source: "out of order".into() }) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, at: &ObjectPath, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.judge(at)?;
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &ObjectPath,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.judge(at)?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A place that refuses the first `left` puts of names that begin with `of`, and what is in it.
fn failing(inner: &Arc<InMemory>, left: u32, of: &'static str) -> Place {
    Place::of(Arc::new(Failing { inner: Arc::clone(inner), left: AtomicU32::new(left), of }))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The names in a store.
fn names(store: &InMemory) -> Vec<String> {
    let listed = store.list(None).map_ok(|found| found.location.to_string());
    let mut names: Vec<_> = block_on(listed.try_collect()).unwrap();
    names.sort();
    names
}

fn manifest(store: &Arc<InMemory>) -> Vec<Entry> {
    block_on(failing(store, 0, "").manifest()).unwrap()
}

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
    let mut body = Vec::new();
    for (n, received_ms) in received_ms.iter().enumerate() {
        body.extend_from_slice(row(n as u64, *received_ms).as_bytes());
        let (prefix, len) = length_prefix(n as u16);
        body.extend_from_slice(&prefix[..len]);
        body.extend(std::iter::repeat_n(b'x', n));
    }
    let mut header = BlockHeader::read_from_bytes(&[0; BLOCK_HEADER_LEN]).unwrap();
    (header.incarnation, header.epoch, header.sequence) = (u64::MAX.into(), 2.into(), sequence.into());
    (header.rows, header.rules) = ((received_ms.len() as u32).into(), 9.into());
    header.body_crc = crc32c::crc32c(&body).into();
    header.header_crc = crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_OFFSET]).into();
    let headers = vec![("block".to_owned(), header.as_bytes().to_vec())];
    Delivered { partition: 3, offset: sequence as i64, value: body, headers, ..Delivered::default() }
}

fn offsets(next: i64) -> Offsets {
    [((0, 3), next)].into()
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

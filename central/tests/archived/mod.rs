//! An archive in memory, filled with what nodes send: no Kafka, no disk but that of staged files.
#![allow(dead_code, reason = "each test takes the part it needs")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use weir_central::archive::Limits;
use weir_central::archive::manifest::Entry;
use weir_central::archive::place::Place;
use weir_central::kafka::Delivered;
use weir_central::watermark::Offsets;
use weir_common::block::{BLOCK_HEADER_LEN, BlockHeader, HEADER_CRC_OFFSET};
use weir_common::row::{Row, length_prefix};
use zerocopy::{FromBytes, IntoBytes};

/// 2026-11-23T09:30:00Z.
pub(crate) const NOW_MS: u64 = 1_795_426_200_000;
pub(crate) const LIMITS: Limits = Limits { object_bytes: 1 << 20, close_after: Duration::from_secs(60) };

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
pub(crate) fn failing(inner: &Arc<InMemory>, left: u32, of: &'static str) -> Place {
    Place::of(Arc::new(Failing { inner: Arc::clone(inner), left: AtomicU32::new(left), of }))
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The names in a store.
pub(crate) fn names(store: &InMemory) -> Vec<String> {
    let listed = store.list(None).map_ok(|found| found.location.to_string());
    let mut names: Vec<_> = block_on(listed.try_collect()).unwrap();
    names.sort();
    names
}

pub(crate) fn manifest(store: &Arc<InMemory>) -> Vec<Entry> {
    block_on(failing(store, 0, "").manifest()).unwrap()
}

/// The record of block `sequence` of an incarnation and node, with these rows and their extensions.
pub(crate) fn record_of(
    (incarnation, node): (u64, u32),
    sequence: u64,
    rows: &[(Row, Vec<u8>)],
) -> Delivered {
    let mut body = Vec::new();
    for (row, extension) in rows {
        body.extend_from_slice(row.as_bytes());
        let (prefix, len) = length_prefix(extension.len() as u16);
        body.extend_from_slice(&prefix[..len]);
        body.extend_from_slice(extension);
    }
    let mut header = BlockHeader::read_from_bytes(&[0; BLOCK_HEADER_LEN]).unwrap();
    (header.incarnation, header.epoch, header.sequence) = (incarnation.into(), 2.into(), sequence.into());
    header.node = node.into();
    (header.rows, header.rules) = ((rows.len() as u32).into(), 9.into());
    header.body_crc = crc32c::crc32c(&body).into();
    header.header_crc = crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_OFFSET]).into();
    let headers = vec![("block".to_owned(), header.as_bytes().to_vec())];
    Delivered { partition: 3, offset: sequence as i64, value: body, headers, ..Delivered::default() }
}

pub(crate) fn offsets(next: i64) -> Offsets {
    [((0, 3), next)].into()
}

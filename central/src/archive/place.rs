//! Where objects are put: a folder, or whatever speaks S3.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::io::AsyncReadExt;

use super::manifest::{Entry, FOLDER};

/// The octets of a part: S3 takes 10,000 of them, of at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Small objects that are read at the same time: each takes a way there and back, and hardly anything else.
pub const READS_MAX: usize = 16;

/// Why the archive cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum PlaceError {
    /// the archive {url} cannot be used: {why}; a folder begins with /, a bucket with s3://
    Url {
        /// As the config has it.
        url: String,
        /// Why.
        why: String,
    },
    /// the archive does not take or give {path}: {source}; it is tried again
    Object {
        /// The object.
        path: String,
        /// Why.
        source: ObjectError,
    },
    /// {path} cannot be read: {source}
    Staged {
        /// The staged file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// the entry {path} of the archive's manifest cannot be read: {why}
    Manifest {
        /// The entry.
        path: String,
        /// Why.
        why: String,
    },
}

/// An archive.
#[derive(Clone, Debug)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
}

fn object(path: &str) -> impl FnOnce(ObjectError) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::Object { path, source }
}

impl Place {
    /// The archive at a URL. The options are object_store's own (`aws_endpoint`, `aws_region`); who logs in
    /// stands in the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`).
    ///
    /// # Errors
    /// When it is neither a folder nor a bucket, or a folder cannot be made.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, PlaceError> {
        let refused = |why: String| PlaceError::Url { url: url.to_owned(), why };
        if let Some(bucket) = url.strip_prefix("s3://") {
            let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            for (key, value) in options {
                let key = key.parse().map_err(|_| refused(format!("{key} is no option")))?;
                builder = builder.with_config(key, value);
            }
            let store = builder.build().map_err(|error| refused(error.to_string()))?;
            let store: Arc<dyn ObjectStore> =
                if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
            return Ok(Self { store });
        }
        if !url.starts_with('/') {
            return Err(refused("it is neither".to_owned()));
        }
        std::fs::create_dir_all(url).map_err(|error| refused(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(url).map_err(|error| refused(error.to_string()))?;
        Ok(Self { store: Arc::new(store) })
    }

    /// An archive in any store: for tests that let one fail.
    #[must_use]
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Puts a staged file under a name, over whatever is there.
    ///
    /// # Errors
    /// When it cannot be read, or is not taken.
    pub async fn put_file(&self, staged: &Path, path: &str) -> Result<(), PlaceError> {
        let read = |source| PlaceError::Staged { path: staged.display().to_string(), source };
        let mut file = tokio::fs::File::open(staged).await.map_err(read)?;
        let upload = self.store.put_multipart(&ObjectPath::from(path)).await.map_err(object(path))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).await.map_err(read)?;
            if count == 0 {
                break;
            }
            // A part on its way beside the one that is filled.
            writer.wait_for_capacity(1).await.map_err(object(path))?;
            writer.write(&buffer[..count]);
        }
        writer.finish().await.map_err(object(path))?;
        Ok(())
    }

    /// Puts octets under a name, over whatever is there.
    ///
    /// # Errors
    /// When they are not taken.
    pub async fn put(&self, path: &str, octets: Vec<u8>) -> Result<(), PlaceError> {
        self.store.put(&ObjectPath::from(path), octets.into()).await.map_err(object(path))?;
        Ok(())
    }

    /// An object's octets.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn get(&self, path: &str) -> Result<bytes::Bytes, PlaceError> {
        let found = self.store.get(&ObjectPath::from(path)).await.map_err(object(path))?;
        found.bytes().await.map_err(object(path))
    }

    /// Some ranges of an object's octets.
    ///
    /// # Errors
    /// When it is not there, is shorter, or cannot be read.
    pub async fn ranges(
        &self,
        path: &str,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>, PlaceError> {
        self.store.get_ranges(&ObjectPath::from(path), ranges).await.map_err(object(path))
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, path: &str) -> Result<(), PlaceError> {
        match self.store.delete(&ObjectPath::from(path)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(source) => Err(object(path)(source)),
        }
    }

    /// The manifest, in order.
    ///
    /// # Errors
    /// When it cannot be read, or has gaps.
    pub async fn manifest(&self) -> Result<Vec<Entry>, PlaceError> {
        self.manifest_from(0).await
    }

    /// The manifest from this batch on, in order.
    ///
    /// # Errors
    /// When it cannot be read, or has gaps.
    pub async fn manifest_from(&self, from: u64) -> Result<Vec<Entry>, PlaceError> {
        let folder = ObjectPath::from(FOLDER);
        let listed = match from.checked_sub(1) {
            Some(last) => self.store.list_with_offset(Some(&folder), &ObjectPath::from(Entry::path(last))),
            None => self.store.list(Some(&folder)),
        };
        let mut paths: Vec<_> =
            listed.map_ok(|found| found.location.to_string()).try_collect().await.map_err(object(FOLDER))?;
        paths.sort_unstable();
        let octets = stream::iter(paths.clone()).map(async |path| self.get(&path).await);
        let octets: Vec<_> = octets.buffered(READS_MAX).try_collect().await?;
        let mut entries = Vec::new();
        for (octets, path) in octets.into_iter().zip(paths) {
            let entry: Entry = serde_json::from_slice(&octets)
                .map_err(|error| PlaceError::Manifest { path: path.clone(), why: error.to_string() })?;
            let number = from + entries.len() as u64;
            if entry.batch != number {
                let why = format!("batch {} stands where {number} belongs", entry.batch);
                return Err(PlaceError::Manifest { path, why });
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

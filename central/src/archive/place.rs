//! Where objects are put: a folder, or whatever speaks S3.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    Error as ObjectError, GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, ObjectStoreExt,
    PutMode, WriteMultipart, coalesce_ranges,
};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use super::audit::{self, Line};
use super::manifest::{self, Entry};

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
    /// {path} of the archive's manifest or audit cannot be read: {why}
    Manifest {
        /// The entry or line.
        path: String,
        /// Why.
        why: String,
    },
}

impl PlaceError {
    /// There is no such object.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Object { source: ObjectError::NotFound { .. }, .. })
    }

    /// The object is another one than the version that was asked for.
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        matches!(self, Self::Object { source: ObjectError::Precondition { .. }, .. })
    }
}

/// What stands in a folder by its number, from 0 without gaps.
trait Numbered: DeserializeOwned {
    const FOLDER: &str;
    fn path(number: u64) -> String;
    fn number(&self) -> u64;
}

impl Numbered for Entry {
    const FOLDER: &str = manifest::FOLDER;

    fn path(number: u64) -> String {
        Self::path(number)
    }

    fn number(&self) -> u64 {
        self.batch
    }
}

impl Numbered for Line {
    const FOLDER: &str = audit::FOLDER;

    fn path(number: u64) -> String {
        format!("{}/{number:012}.json", audit::FOLDER)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// Which version of an object was read: all else that is read of it is to be of the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Its octets.
    pub bytes: u64,
    e_tag: Option<String>,
}

/// An archive.
#[derive(Clone, Debug)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    /// Where it is a folder: its objects are replaced by renaming what lies in a folder that engines pass over.
    folder: Option<PathBuf>,
}

/// Where objects of a folder are written before they take the place of others.
const REPLACING: &str = "_replacing";

/// Writes a file beside the objects and renames it over one of them, durably.
fn renamed(folder: &Path, to: &Path, octets: &[u8]) -> std::io::Result<()> {
    let staging = folder.join(REPLACING);
    std::fs::create_dir_all(&staging)?;
    let mut file = tempfile::NamedTempFile::new_in(staging)?;
    file.write_all(octets)?;
    file.as_file().sync_all()?;
    file.persist(to)?;
    to.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
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
            return Ok(Self { store, folder: None });
        }
        if !url.starts_with('/') {
            return Err(refused("it is neither".to_owned()));
        }
        std::fs::create_dir_all(url).map_err(|error| refused(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(url).map_err(|error| refused(error.to_string()))?;
        Ok(Self { store: Arc::new(store), folder: Some(PathBuf::from(url)) })
    }

    /// An archive in any store: for tests that let one fail.
    #[must_use]
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None }
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

    /// The last octets of an object, and which version of it that was.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn tail(&self, path: &str, bytes: u64) -> Result<(bytes::Bytes, Version), PlaceError> {
        let options = GetOptions { range: Some(GetRange::Suffix(bytes)), ..GetOptions::default() };
        let found = self.store.get_opts(&ObjectPath::from(path), options).await.map_err(object(path))?;
        let version = Version { bytes: found.meta.size, e_tag: found.meta.e_tag.clone() };
        Ok((found.bytes().await.map_err(object(path))?, version))
    }

    /// Some ranges of a version's octets.
    ///
    /// # Errors
    /// When the object is not there, is another version by now, or cannot be read.
    pub async fn ranges(
        &self,
        path: &str,
        version: &Version,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>, PlaceError> {
        let (store, at) = (&self.store, ObjectPath::from(path));
        let fetch = |range: std::ops::Range<u64>| {
            let (range, if_match) = (Some(GetRange::Bounded(range)), version.e_tag.clone());
            let (options, at) = (GetOptions { range, if_match, ..GetOptions::default() }, at.clone());
            async move { store.get_opts(&at, options).await?.bytes().await }
        };
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await.map_err(object(path))
    }

    /// Puts octets in the place of an object, so that whoever reads finds either the one or the other: also
    /// one who reads a folder by its names, and also when this ends in the middle.
    ///
    /// # Errors
    /// When they are not taken.
    pub async fn replace(&self, path: &str, octets: Vec<u8>) -> Result<(), PlaceError> {
        let Some(folder) = self.folder.clone() else { return self.put(path, octets).await };
        let to = folder.join(path);
        let written = tokio::task::spawn_blocking(move || renamed(&folder, &to, &octets)).await;
        written.unwrap_or_else(|error| Err(error.into())).map_err(|source| {
            let source = ObjectError::Generic { store: "folder", source: source.into() };
            object(path)(source)
        })
    }

    /// Puts a line under its number, if there is none yet; false when there is another one.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn append(&self, line: &Line) -> Result<bool, PlaceError> {
        let path = <Line as Numbered>::path(line.number);
        let octets = serde_json::to_vec(line).unwrap_or_default(); // numbers and names: JSON has them
        let at = ObjectPath::from(&*path);
        match self.store.put_opts(&at, octets.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            // Perhaps it was taken, and the word of that was lost.
            Err(ObjectError::AlreadyExists { .. }) => Ok(self.get(&path).await? == octets),
            Err(source) => Err(object(&path)(source)),
        }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has(&self, path: &str) -> Result<bool, PlaceError> {
        match self.store.head(&ObjectPath::from(path)).await {
            Ok(_) => Ok(true),
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(source) => Err(object(path)(source)),
        }
    }

    /// The names that begin with this folder, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn names(&self, folder: &str) -> Result<Vec<String>, PlaceError> {
        let listed = self.store.list(Some(&ObjectPath::from(folder)));
        let mut names: Vec<_> =
            listed.map_ok(|found| found.location.to_string()).try_collect().await.map_err(object(folder))?;
        names.sort_unstable();
        Ok(names)
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

    /// The manifest, in order, and of each object what has become of it since.
    ///
    /// # Errors
    /// When it cannot be read, or has gaps.
    pub async fn manifest(&self) -> Result<Vec<Entry>, PlaceError> {
        let mut entries = self.manifest_from(0).await?;
        // After the entries: what is deleted meanwhile is known to be.
        audit::apply(&mut entries, &self.audit_from(0).await?);
        Ok(entries)
    }

    /// The manifest from this batch on as it was written, in order.
    ///
    /// # Errors
    /// When it cannot be read, or has gaps.
    pub async fn manifest_from(&self, from: u64) -> Result<Vec<Entry>, PlaceError> {
        self.numbered(from).await
    }

    /// The audit from this line on, in order.
    ///
    /// # Errors
    /// When it cannot be read, or has gaps.
    pub async fn audit_from(&self, from: u64) -> Result<Vec<Line>, PlaceError> {
        self.numbered(from).await
    }

    async fn numbered<T: Numbered>(&self, from: u64) -> Result<Vec<T>, PlaceError> {
        let folder = ObjectPath::from(T::FOLDER);
        let listed = match from.checked_sub(1) {
            Some(last) => self.store.list_with_offset(Some(&folder), &ObjectPath::from(T::path(last))),
            None => self.store.list(Some(&folder)),
        };
        let mut paths: Vec<_> = listed
            .map_ok(|found| found.location.to_string())
            .try_collect()
            .await
            .map_err(object(T::FOLDER))?;
        paths.sort_unstable();
        let octets = stream::iter(paths.clone()).map(async |path| self.get(&path).await);
        let octets: Vec<_> = octets.buffered(READS_MAX).try_collect().await?;
        let mut found = Vec::new();
        for (octets, path) in octets.into_iter().zip(paths) {
            let one: T = serde_json::from_slice(&octets)
                .map_err(|error| PlaceError::Manifest { path: path.clone(), why: error.to_string() })?;
            let number = from + found.len() as u64;
            if one.number() != number {
                let why = format!("number {} stands where {number} belongs", one.number());
                return Err(PlaceError::Manifest { path, why });
            }
            found.push(one);
        }
        Ok(found)
    }
}

//! A model: read from a file once, refused whole or taken whole, then only a function.

use std::path::{Path, PathBuf};

use displaydoc::Display;
use thiserror::Error;

use super::features::{Features, FeaturesVersion};
use super::forest::{Forest, TreeFault};
use super::onnx::{File, FormatFault, quoted};
use crate::operator_file::{self, FileFault};

/// The largest file that is read, in MiB. The most nodes a model may have take some 6.
pub const MAX_FILE_MIB: u64 = 8;
/// Metadata: the version of the list of features.
const KEY_VERSION: &str = "weir.features_version";
/// Metadata: the features by name, in order, with commas between.
const KEY_FEATURES: &str = "weir.features";

/// Why there is no model. The node goes on without: clicks are marked as unscored.
#[derive(Debug, Display, Error)]
pub enum ModelError {
    /// cannot read the model {path}: {fault}; clicks go unscored until there is a sound one and a reload
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// the model {path} is refused: {fault}; clicks go unscored
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: ModelFault,
    },
}

/// What is wrong with the bytes of a model.
#[derive(Clone, Debug, PartialEq, Eq, Display, Error)]
pub enum ModelFault {
    /// {0}
    Format(#[from] FormatFault),
    /// {0}
    Trees(#[from] TreeFault),
    /// its metadata has no {0}; write it as deploy/score/train.py does, so that the node knows what it was trained on
    NoMetadata(&'static str),
    /// it was trained on version {found:?} of the features, this node computes {expected}; train it again, see docs/scoring.md
    OtherVersion {
        /// What it names.
        found: String,
        /// What the node has.
        expected: u32,
    },
    /// its feature {position} is {found:?}, this node's is {expected:?}; train it again, see docs/scoring.md
    OtherFeature {
        /// Which, from 0.
        position: usize,
        /// What the model names; empty where its list has ended.
        found: String,
        /// What the node has; empty where its list has ended.
        expected: &'static str,
    },
}

/// A trained model that was taken. Immutable: a new one takes its place whole.
#[derive(Clone, Debug)]
pub struct Model {
    forest: Forest,
    crc32c: u32,
}

impl Model {
    /// Reads a model; for the control side, never for a worker.
    ///
    /// # Errors
    /// Why there is none, with what to do.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let bytes = operator_file::read(path, MAX_FILE_MIB)
            .map_err(|fault| ModelError::Unreadable { path: path.to_owned(), fault })?;
        Self::parse(&bytes).map_err(|fault| ModelError::Refused { path: path.to_owned(), fault })
    }

    /// Takes a model from its bytes. Ends for any bytes, within memory of some times their length.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelFault> {
        let file = File::parse(bytes)?;
        check_features(&file)?;
        Ok(Self { forest: Forest::grow(&file.ensemble)?, crc32c: crc32c::crc32c(bytes) })
    }

    /// Appends the score of each click, from 0 to 1, in order. Allocates nothing when `out` has
    /// room for them.
    pub fn score(&self, rows: &[Features], out: &mut Vec<f32>) {
        self.forest.score(rows, out);
    }

    /// The CRC-32C of the file: which model gave a score.
    #[must_use]
    pub const fn checksum(&self) -> u32 {
        self.crc32c
    }

    /// How many trees it has.
    #[must_use]
    pub const fn trees(&self) -> usize {
        self.forest.trees()
    }

    /// How many nodes its trees have.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.forest.nodes()
    }

    /// The steps that scoring one click takes.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.forest.steps()
    }
}

impl AsRef<[f32; Self::COUNT]> for Features {
    fn as_ref(&self) -> &[f32; Self::COUNT] {
        self.as_array()
    }
}

/// The model must name this node's features, all of them, in order: by their place alone a model
/// trained on another list would be evaluated without complaint and mean nothing.
fn check_features(file: &File) -> Result<(), ModelFault> {
    let named = |key| file.metadata(key).ok_or(ModelFault::NoMetadata(key));
    let FeaturesVersion(expected) = Features::VERSION;
    let found = named(KEY_VERSION)?;
    if found.parse() != Ok(expected) {
        return Err(ModelFault::OtherVersion { found: quoted(found), expected });
    }
    let found: Vec<&str> = named(KEY_FEATURES)?.split(',').take(Features::COUNT + 1).collect();
    let both = |position| (found.get(position).copied(), Features::NAMES.get(position).copied());
    let differs = (0..=Features::COUNT).find(|&position| both(position).0 != both(position).1);
    differs.map_or(Ok(()), |position| {
        let (found, expected) = both(position);
        let found = quoted(found.unwrap_or_default());
        Err(ModelFault::OtherFeature { position, found, expected: expected.unwrap_or_default() })
    })
}

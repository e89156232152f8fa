//! How likely a click is invalid, as a trained model sees it: a score from 0 to 1, and a mark where
//! it reaches the campaign's threshold.
//!
//! It marks and never drops, and it never stands in a click's way: a node without a model, or whose
//! model was refused, marks clicks [`Mark::Unscored`]. [`Model::load`] reads one file, on the
//! control side; everything a worker calls is a function over values, which does not allocate, wait,
//! fail or read a clock.
//!
//! Start reading at [`Scorer::mark`]. [`Features`] says what a model sees of a click, `onnx` reads
//! the exchange format out of `protobuf`, `forest` checks the trees once and evaluates them.
//! `docs/scoring.md` says how to train a model.

mod features;
mod forest;
mod model;
mod onnx;
mod protobuf;
mod thresholds;

use std::path::PathBuf;
use std::sync::Arc;

use weir_common::row::row_flags;

pub use features::{Activity, Facts, Features, FeaturesVersion};
pub use forest::TreeFault;
pub use model::{MAX_FILE_MIB, Model, ModelError, ModelFault};
pub use onnx::FormatFault;
pub use protobuf::Damage;
pub use thresholds::{Campaign, NotAShare, Score, Threshold, Thresholds};

/// What scoring says of one click.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// There is no model: nothing is known.
    Unscored,
    /// Below the campaign's threshold.
    Below(Score),
    /// At the campaign's threshold or above it.
    Reached(Score),
}

impl Mark {
    /// What a row says of it: bits of [`row_flags`].
    #[must_use]
    pub const fn row_flags(self) -> u8 {
        match self {
            Self::Unscored => row_flags::UNSCORED,
            Self::Below(_) => 0,
            Self::Reached(_) => row_flags::MARKED,
        }
    }
}

/// What a node is to score by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file of the model.
    pub model: PathBuf,
    /// From which score on a click is marked.
    pub thresholds: Thresholds,
}

/// What a worker scores with: a model, or none. Cheap to clone; the model is shared.
#[derive(Clone, Debug, Default)]
pub struct Scorer {
    /// The model; without one, clicks are marked as unscored.
    pub model: Option<Arc<Model>>,
    /// From which score on a click is marked.
    pub thresholds: Arc<Thresholds>,
}

impl Scorer {
    /// Reads the model. What cannot be read leaves the one that was there `before`, or none.
    pub fn load(settings: &Settings, before: Option<&Self>) -> (Self, Result<(), ModelError>) {
        let thresholds = Arc::new(settings.thresholds.clone());
        match Model::load(&settings.model) {
            Ok(model) => (Self { model: Some(Arc::new(model)), thresholds }, Ok(())),
            Err(error) => {
                let model = before.and_then(|before| before.model.clone());
                (Self { model, thresholds }, Err(error))
            }
        }
    }

    /// One number for the model, if there is one, and all thresholds.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let model = self.model.as_ref().map_or([0; 4], |model| model.checksum().to_le_bytes());
        self.thresholds.checksum(crc32c::crc32c(&model))
    }

    /// Scores clicks and appends one mark for each to `marks`, in order. `scratch` is memory that
    /// the caller keeps from batch to batch; what is in it does not matter.
    ///
    /// Batches of some dozens are the fastest: the trees are walked once for several clicks. Without
    /// memory to grow, nothing is allocated.
    pub fn mark(&self, rows: &[(Campaign, Features)], scratch: &mut Scratch, marks: &mut Vec<Mark>) {
        let Some(model) = &self.model else {
            marks.extend(rows.iter().map(|_| Mark::Unscored));
            return;
        };
        scratch.rows.clear();
        scratch.rows.extend(rows.iter().map(|(_, features)| *features));
        scratch.scores.clear();
        model.score(&scratch.rows, &mut scratch.scores);
        marks.extend(rows.iter().zip(&scratch.scores).map(|(&(campaign, _), &score)| {
            let score = Score::clamped(score);
            if self.thresholds.of(campaign).is_reached_by(score) {
                Mark::Reached(score)
            } else {
                Mark::Below(score)
            }
        }));
    }
}

/// Memory of [`Scorer::mark`] between batches.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    rows: Vec<Features>,
    scores: Vec<f32>,
}

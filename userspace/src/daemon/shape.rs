//! The shape of a data folder's buckets: its dimensions, fixed when the folder is born.
//!
//! A bucket is set, never added, under a key that the dimensions make. Under other dimensions the
//! same rows would get other keys, and both would stay in the sink: every click of an open minute
//! would be counted twice. So a folder keeps the dimensions it began with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weir_common::bucket::Dimensions;

use crate::state_file::{self, StateFileError};

/// The file in the data folder that holds the shape.
const FILE_NAME: &str = "dimensions";

/// Why the shape of a folder stands against a start.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// The config names other dimensions.
    #[error(
        "`buckets.dimensions` is {wanted}, but {folder} was begun with {kept}, and buckets of both would count the same \
         clicks twice; set it back, or drain the node and begin with an empty `node.data_dir`"
    )]
    Changed {
        /// The data folder.
        folder: PathBuf,
        /// Its dimensions.
        kept: String,
        /// Those of the config.
        wanted: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] StateFileError),
}

/// Notes the dimensions in a new folder; in an older one they must be the same.
///
/// # Errors
/// When they are not, or the disk fails.
pub(super) fn keep(folder: &Path, dimensions: Dimensions) -> Result<(), ShapeError> {
    let (path, wanted) = (folder.join(FILE_NAME), text(dimensions));
    match fs::read_to_string(&path) {
        Ok(kept) if kept.trim() == wanted => Ok(()),
        Ok(kept) => {
            Err(ShapeError::Changed { folder: folder.to_owned(), kept: kept.trim().to_owned(), wanted })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Whole or not at all: half a file would refuse every later start.
            Ok(state_file::replace(&path, &format!("{wanted}\n"))?)
        }
        Err(source) => Err(StateFileError { doing: "read", path, source }.into()),
    }
}

/// The dimensions as the config names them.
fn text(dimensions: Dimensions) -> String {
    let Dimensions { country, device, os, publisher, placement, creative } = dimensions;
    let all = [
        (country, "country"),
        (device, "device"),
        (os, "os"),
        (publisher, "publisher"),
        (placement, "placement"),
        (creative, "creative"),
    ];
    let named: Vec<_> = all.into_iter().filter(|(split, _)| *split).map(|(_, name)| name).collect();
    format!("{named:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_dimensions_it_began_with() {
        let folder = tempfile::tempdir().expect("folder");
        keep(folder.path(), Dimensions::DEFAULT).expect("a new folder takes any");
        keep(folder.path(), Dimensions::DEFAULT).expect("the same again");
        let other = Dimensions { device: false, ..Dimensions::DEFAULT };
        let error = keep(folder.path(), other).expect_err("other dimensions").to_string();
        assert!(
            error.contains(r#"is ["country"], but"#) && error.contains(r#"with ["country", "device"]"#),
            "{error}"
        );
        keep(folder.path(), Dimensions::DEFAULT).expect("a refusal changes nothing");
    }
}

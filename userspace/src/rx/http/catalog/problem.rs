//! What is wrong with a catalog, said so that the operator can mend it.

use std::fmt;
use std::path::PathBuf;

use crate::operator_file::FileFault;

/// As many problems as a message lists; a generated file may have one for each entry.
const LISTED_MAX: usize = 20;

/// Why there is no catalog. Whoever holds one already keeps it.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum CatalogError {
    /// cannot read the catalog {path}: {source}; correct `rx.http.catalog_file`, or the file
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileFault,
    },
    /// {path}: {source}
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<CatalogError>,
    },
    /// the catalog is no {form}: {message}; a file that ends in .json is read as JSON, any other as TOML
    Syntax {
        /// TOML or JSON.
        form: &'static str,
        /// What was found, and where.
        message: String,
    },
    /// the catalog cannot be used; mend these entries:{problems}
    Invalid {
        /// What is wrong with them.
        problems: CatalogProblems,
    },
}

/// Every problem of one catalog, in the order of its lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogProblems(pub Vec<CatalogProblem>);

impl fmt::Display for CatalogProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0.iter().take(LISTED_MAX) {
            write!(f, "\n  {}: {}", problem.entry, problem.wrong)?;
        }
        match self.0.len().saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// One thing that is wrong, and with which entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogProblem {
    /// The entry: its list, its place in it from 1, and its name or id.
    pub entry: String,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What can be wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, displaydoc::Display)]
pub enum Wrong {
    /// the id {id} is that of entry {first} too; give each its own
    DuplicateId {
        /// The id.
        id: u64,
        /// The place of the entry that had it first, from 1.
        first: usize,
    },
    /// the name {name:?} is that of entry {first} too; give each its own
    DuplicateName {
        /// The name.
        name: String,
        /// The place of the entry that had it first, from 1.
        first: usize,
    },
    /// {key} = {name:?} is no name in [[{list}]]; add it there, or write the id
    UnknownReference {
        /// The key that refers.
        key: &'static str,
        /// To which name.
        name: String,
        /// The list that should have it.
        list: &'static str,
    },
    /// landing = {url:?} {why}
    BadLanding {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// unknown key {key:?}; {hint}
    UnknownKey {
        /// The key.
        key: String,
        /// Which one may be meant, or which there are.
        hint: String,
    },
    /// {key} is missing; expected {expected}
    MissingKey {
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// {key} = {found}: expected {expected}
    BadValue {
        /// The key.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

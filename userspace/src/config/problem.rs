//! What is wrong with a config, said so that the operator can mend it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; none for what the file does not say.
    pub line: Option<usize>,
    /// What is wrong: key, value as written, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Every problem of one config, in the order of the file; each on a new line of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// Why there is no config to run with.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum Error {
    /// cannot read the config file {path}: {source}; name another one with --config
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// {path} cannot be used; mend these lines and check again with `weir check-config`:{problems}
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problems: Problems,
    },
}

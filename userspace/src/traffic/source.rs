//! Text lists as files: read whole, within bounds, and named so that a decision can be traced to
//! the octets it rests on.
//!
//! A list is UTF-8, one entry a line. What follows a `#` is a comment, except inside user agents.
//! A comment `# version: NAME` gives the list a version of its own; without one, its checksum is
//! all there is.

use std::fmt;
use std::path::{Path, PathBuf};

use weir_common::time::UnixMs;

use crate::operator_file::{self, FileFault};

/// The largest text list, in MiB: a million prefixes of 45 octets with a label fit in it.
pub const LIST_MIB_MAX: u64 = 64;
/// The longest line, comments included. Nothing that belongs in a list comes near to it.
pub const LINE_BYTES_MAX: usize = 1024;
/// The longest version a list may give itself.
pub const VERSION_LEN_MAX: usize = 64;
/// As many problems as a message lists; a generated file may have one in each line.
const LISTED_MAX: usize = 20;
/// As many problems as are kept, each some hundred octets; the rest are counted.
const KEPT_MAX: usize = 1000;
/// As much of a wrong entry as a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Which octets a decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListVersion {
    /// What the list is for: its key in the config, without `_file`.
    pub name: &'static str,
    /// What the list says of itself in `# version: ...`; empty when it says nothing.
    pub version: String,
    /// CRC-32C of the whole file.
    pub crc32c: u32,
    /// Entries in it.
    pub entries: u64,
    /// When this node began to judge by it.
    pub activated_at: UnixMs,
}

/// As `robots 2026-11 (crc32c 0badcafe, 120 entries)`.
impl fmt::Display for ListVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, crc32c, entries, .. } = self;
        let space = if version.is_empty() { "" } else { " " };
        write!(f, "{name}{space}{version} (crc32c {crc32c:08x}, {entries} entries)")
    }
}

/// Why a list cannot be used. Whoever judges by an older one goes on with it.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum ListError {
    /// cannot read the list {path}: {source}; correct its path, or the file
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileFault,
    },
    /// the list {path} has at least {entries} entries, more than {max}; merge neighbouring ones, or leave some out
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many there are, at least.
        entries: u64,
        /// How many there may be.
        max: u64,
    },
    /// the list {path} cannot be used; mend these lines:{problems}
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problems: ListProblems,
    },
}

/// The problems of one list, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListProblems {
    /// The first thousand.
    pub first: Vec<ListProblem>,
    /// How many more there are.
    pub more: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListProblem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub text: String,
}

impl fmt::Display for ListProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.first.iter().take(LISTED_MAX) {
            write!(f, "\n  line {}: {}", problem.line, problem.text)?;
        }
        match self.first.len().saturating_sub(LISTED_MAX) + self.more {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl ListProblems {
    /// Notes one more.
    pub(super) fn note(&mut self, line: usize, text: impl Into<String>) {
        if self.first.len() < KEPT_MAX {
            self.first.push(ListProblem { line, text: text.into() });
        } else {
            self.more += 1;
        }
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// A list as it was read: sound UTF-8 within the bounds, and nothing else yet.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
    crc32c: u32,
}

impl Source {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, ListError> {
        let bytes = operator_file::read(path, LIST_MIB_MAX);
        Self::from_bytes(path, bytes.map_err(|source| ListError::Read { path: path.to_owned(), source })?)
    }

    /// Takes what a file held.
    pub(super) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, ListError> {
        let crc32c = crc32c::crc32c(&bytes);
        let mut problems = ListProblems::default();
        for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if let Err(wrong) = line_text(line) {
                problems.note(at + 1, wrong);
            }
        }
        let path = path.to_owned();
        match String::from_utf8(bytes) {
            Ok(text) if problems.is_empty() => Ok(Self { path, text, crc32c }),
            _ => Err(ListError::Invalid { path, problems }),
        }
    }

    /// The lines that are not empty, numbered from 1, with their comments.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty())
    }

    /// The entries, numbered from 1, without comments.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(at, line)| (at, entry(line))).filter(|(_, entry)| !entry.is_empty())
    }

    /// What the list says of its own version.
    pub(super) fn version(&self) -> String {
        self.lines().find_map(|(_, line)| said_version(line)).unwrap_or_default()
    }

    /// The list's version, once all its entries are sound.
    pub(super) fn checked(
        &self,
        name: &'static str,
        entries: usize,
        problems: ListProblems,
        activated_at: UnixMs,
    ) -> Result<ListVersion, ListError> {
        if !problems.is_empty() {
            return Err(ListError::Invalid { path: self.path.clone(), problems });
        }
        let (version, crc32c) = (self.version(), self.crc32c);
        Ok(ListVersion { name, version, crc32c, entries: entries as u64, activated_at })
    }

    /// An error when there are more entries than there may be.
    pub(super) fn bound(&self, entries: usize, max: usize) -> Result<(), ListError> {
        let (entries, max) = (entries as u64, max as u64);
        if entries <= max {
            Ok(())
        } else {
            Err(ListError::TooMany { path: self.path.clone(), entries, max })
        }
    }
}

/// A line without its end as text, or what is wrong with it.
pub(super) fn line_text(line: &[u8]) -> Result<&str, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("has more than {LINE_BYTES_MAX} octets; is this a list?"));
    }
    std::str::from_utf8(line).map_err(|_| "is not UTF-8; save the list as UTF-8".to_owned())
}

/// The entry in a line, without its comment; empty when there is none.
pub(super) fn entry(line: &str) -> &str {
    line.split_once('#').map_or(line, |(entry, _)| entry).trim()
}

/// What a line that is a comment says of its list's version.
pub(super) fn said_version(line: &str) -> Option<String> {
    let comment = line.trim_start().strip_prefix('#')?.trim_start();
    Some(comment.strip_prefix("version:")?.trim().chars().take(VERSION_LEN_MAX).collect())
}

/// An entry as a message repeats it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::from_bytes(Path::new("a.list"), text.into()).unwrap()
    }

    #[test]
    fn entries_are_lines_without_comments_and_keep_their_numbers() {
        let source = source("# a list\n\n one # first\r\ntwo\n#three\n");
        assert_eq!(source.entries().collect::<Vec<_>>(), [(3, "one"), (4, "two")]);
    }

    #[test]
    fn a_list_names_its_version_and_its_octets() {
        let text = "# version: 2026-11\none\n";
        let version = source(text).checked("robots", 1, ListProblems::default(), UnixMs(5)).unwrap();
        assert_eq!((version.version.as_str(), version.crc32c), ("2026-11", crc32c::crc32c(text.as_bytes())));
        assert_eq!(source("one").version(), "");
        let shown = ListVersion { crc32c: 0xbad, ..version }.to_string();
        assert_eq!(shown, "robots 2026-11 (crc32c 00000bad, 1 entries)");
    }

    #[test]
    fn a_list_past_its_bounds_is_refused_with_file_line_and_remedy() {
        let refused =
            |bytes: Vec<u8>| Source::from_bytes(Path::new("a.list"), bytes).unwrap_err().to_string();
        let long = format!("a\n{}\n", "x".repeat(LINE_BYTES_MAX + 1));
        assert!(refused(long.into()).contains("line 2: has more than 1024 octets"));
        let mixed = refused(b"a\nb\n\xff\n".to_vec());
        assert!(mixed.contains("a.list") && mixed.contains("line 3: is not UTF-8; save"), "{mixed}");
        let gone = Source::read(Path::new("/nowhere/a.list")).unwrap_err().to_string();
        assert!(gone.starts_with("cannot read the list /nowhere/a.list: No such file"), "{gone}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.list");
        std::fs::File::create(&path).unwrap().set_len((LIST_MIB_MAX << 20) + 1).unwrap();
        let large = Source::read(&path).unwrap_err().to_string();
        assert!(large.ends_with("a.list: it has more than 64 MiB; correct its path, or the file"), "{large}");
        let no_file = Source::read(folder.path()).unwrap_err().to_string();
        assert!(no_file.contains(": it is no file; correct its path"), "{no_file}");
    }

    #[test]
    fn a_message_lists_twenty_problems_and_counts_the_rest() {
        let mut problems = ListProblems::default();
        (1..=23).for_each(|line| problems.note(line, "is wrong"));
        let text = problems.to_string();
        assert!(text.contains("line 20: is wrong\n  and 3 more") && !text.contains("line 21"), "{text}");
        (24..=5_000).for_each(|line| problems.note(line, "is wrong"));
        assert!(problems.to_string().ends_with("and 4980 more") && problems.first.len() == KEPT_MAX);
    }
}

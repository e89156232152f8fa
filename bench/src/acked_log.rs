//! One line for each acknowledged click, written as the acks come: `issued HEX ORDINAL` or
//! `foreign HEX ORDINAL`, the impression id in the byte order of the wire.
//!
//! Only clicks that a node stores are logged, so every line must be found in the store, whatever
//! was killed in between. A click that was sent twice on purpose may stand here twice.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use weir_common::wire::Click;

/// A thread's end of the log. Lines are gathered and written whole, so threads never mix.
#[derive(Debug)]
pub struct AckedLog {
    file: Arc<File>,
    lines: String,
}

impl AckedLog {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Append mode: each write lands at the end, whichever thread it comes from.
        let _emptied = File::create(path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file: Arc::new(file), lines: String::new() })
    }

    /// Another end of the same log.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { file: Arc::clone(&self.file), lines: String::new() }
    }

    /// Notes one acknowledged click.
    pub fn note(&mut self, click: &Click) {
        let kind = if click.is_foreign() { "foreign" } else { "issued" };
        let id = u128::from_be_bytes(click.impression.0);
        writeln!(self.lines, "{kind} {id:032x} {}", click.ordinal).expect("a string takes all");
    }

    /// Writes what was noted.
    ///
    /// # Errors
    /// The file does not take it.
    pub fn write(&mut self) -> io::Result<()> {
        if !self.lines.is_empty() {
            (&*self.file).write_all(self.lines.as_bytes())?;
            self.lines.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_id_in_wire_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acked");
        let mut log = AckedLog::create(&path).unwrap();
        let mut click = Click::zeroed();
        click.impression.0[0] = 0xab;
        click.ordinal = 2;
        log.note(&click);
        log.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "issued ab000000000000000000000000000000 2\n");
    }
}

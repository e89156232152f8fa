//! `weir actors`: building a filter by hand, and looking at one.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use weir_common::time::UnixMs;

use super::build::{BuildError, Progress, Summary, build};
use super::file::{ActorFilter, FilterError};
use super::key::ActorKey;
use crate::clock::system_clock;

/// Why `weir actors` could not do it.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum CommandError {
    /// {0}
    Build(#[from] BuildError),
    /// {0}
    Filter(#[from] FilterError),
    /// {0}
    Actor(String),
}

/// Builds a filter and tells on `told` how far it is. What cannot be told is not worth a failure.
///
/// # Errors
/// When there is no new filter; the old one is then where it was.
pub fn run_build(list: &Path, out: &Path, told: &mut dyn Write) -> Result<(), CommandError> {
    let started = Instant::now();
    let summary = build(list, out, system_clock(), &mut |progress| {
        let _ = writeln!(told, "{}", progress_text(progress));
    })?;
    let _ = writeln!(told, "{}", summary_text(out, &summary, started.elapsed().as_secs_f64()));
    Ok(())
}

fn progress_text(progress: Progress) -> String {
    match progress {
        Progress::Read { lines } => format!("read {lines} lines"),
        Progress::Built { shards, of } => format!("built {shards} of {of} shards"),
    }
}

fn summary_text(out: &Path, summary: &Summary, seconds: f64) -> String {
    let Summary { lines, actors, bytes } = summary;
    let bits = *bytes as f64 * 8.0 / (*actors).max(1) as f64;
    format!(
        "{}: {actors} actors of {lines} lines, {bytes} octets, {bits:.2} bits an actor, in {seconds:.1} s",
        out.display()
    )
}

/// Checks a whole filter and says what it is and whether it finds these actors, a line each.
///
/// # Errors
/// When it is no sound filter, or an actor cannot be read.
pub fn show(path: &Path, actors: &[String]) -> Result<String, CommandError> {
    let filter = ActorFilter::open("bad_actors", path, UnixMs(0))?;
    let mut text = format!("{}, built at {} ms since 1970\n", filter.version(), filter.built_at().0);
    for written in actors {
        let actor = ActorKey::read(written).map_err(CommandError::Actor)?;
        // Of those who are not listed one in 4,096 is found too.
        let found = if filter.contains(&actor) { "found" } else { "not listed" };
        let _ = writeln!(text, "{actor}: {found}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_tells_how_far_it_is_and_what_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let (list, out) = (folder.path().join("list"), folder.path().join("filter"));
        std::fs::write(&list, "# version: 9\n192.0.2.7\n192.0.2.7\n0x7\n").unwrap();
        let mut told = Vec::new();
        run_build(&list, &out, &mut told).unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("read 4 lines\nbuilt 1 of 1 shards\n"), "{told}");
        assert!(told.contains("filter: 2 actors of 3 lines, ") && told.contains(" octets, "), "{told}");
        let asked = ["192.0.2.7", "2001:db8::7", "7"].map(str::to_owned);
        let shown = show(&out, &asked).unwrap();
        let crc = crc32c::crc32c(&std::fs::read(&list).unwrap());
        assert!(
            shown.starts_with(&format!("bad_actors 9 (crc32c {crc:08x}, 2 entries), built at ")),
            "{shown}"
        );
        let last: Vec<_> = shown.lines().skip(1).collect();
        assert_eq!(
            last,
            ["192.0.2.7: found", "2001:db8:: (its /64): not listed", "0x0000000000000007: found"]
        );
        assert!(
            show(&out, &["nobody".to_owned()]).unwrap_err().to_string().contains("neither an address nor")
        );
    }
}

//! The files the config names: whether they can be used as at a start, and who else may read the secret ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::disk::{self, Kind};
use super::finding::{Read, Verdict, unread};
use crate::clock::system_clock;
use crate::config::{Config, Http, Journal, Privacy, Salting};
use crate::journal::keys::share_a_device;
use crate::pseudonym::Pseudonyms;
use crate::rx::http::catalog::Catalog;
use crate::rx::http::tls::Certificates;
use crate::score::Scorer;
use crate::traffic::Lists;

/// Bits of a mode that let more people in than should be: the group of the node's user may read what an operator
/// brings, as the package sets it up (`root:weir`, 0640).
const TOO_OPEN: u32 = 0o027;
/// The same for what the node makes: its own user alone.
const NOT_PRIVATE: u32 = 0o077;

/// A file or folder with who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarded {
    path: PathBuf,
    mode: u32,
}

/// Who may do what with a file; an error when it cannot be looked at.
fn guarded(path: &Path) -> Read<Guarded> {
    let mode = fs::metadata(path).map_err(unread(&path.display().to_string()))?.permissions().mode() & 0o7777;
    Ok(Guarded { path: path.to_owned(), mode })
}

/// The first of them that has one of these bits, with the command that mends it.
fn too_open(all: &[Guarded], bits: u32) -> Option<(String, String)> {
    let open = all.iter().find(|found| found.mode & bits != 0)?;
    let (path, mode) = (open.path.display(), open.mode & !bits);
    Some((format!("{path} has mode {:o}", open.mode), format!("Run `chmod {mode:o} {path}`.")))
}

/// Judges files that only their owner and its group should read, and that were found sound.
fn judge_private(all: &Read<Vec<Guarded>>, required: &str, sound: String) -> Verdict {
    match all {
        Err(why) => Verdict::unknown(required, why),
        Ok(all) => match too_open(all, TOO_OPEN) {
            Some((current, fix)) => Verdict::warning(required, current).fix(fix),
            None => Verdict::ok(required, sound),
        },
    }
}

/// A folder that the node keeps for itself, and refuses when others may look into it.
fn refused(required: &str, folder: &Guarded) -> Verdict {
    let (current, fix) = too_open(std::slice::from_ref(folder), NOT_PRIVATE).unwrap_or_default();
    Verdict::fatal(required, current).fix(fix)
}

/// Files of signing keys; that they hold keys and not everybody may read them the config has seen to.
pub(super) fn signing_keys(config: &Config) -> Verdict {
    if config.keys.is_empty() {
        return Verdict::not_needed("no [[keys]]: unsigned clicks alone");
    }
    let all: Read<Vec<_>> = config.keys.iter().map(|key| guarded(&key.file)).collect();
    let sound = format!("{} keys", config.keys.len());
    judge_private(&all, "only their owner and its group may read them", sound)
}

/// The folder of salts.
pub(super) fn salts(privacy: &Privacy) -> Verdict {
    let (folder, is_drawn) = match &privacy.salting {
        Salting::None => {
            return Verdict::not_needed("privacy.salts is none: users' keys are written as they are sent");
        }
        Salting::Brought(folder) => (folder, false),
        Salting::Drawn(folder) => (folder, true),
    };
    let required = "usable, and nobody but the node may look into it";
    if is_drawn && !folder.exists() {
        return Verdict::ok(required, "not there yet: the node makes it");
    }
    match Pseudonyms::load(&privacy.salting) {
        Err(error) => Verdict::fatal(required, error.to_string()),
        Ok(loaded) => judge_salts(required, guarded(folder), loaded.days(), is_drawn),
    }
}

fn judge_salts(required: &str, folder: Read<Guarded>, days: usize, is_drawn: bool) -> Verdict {
    if days == 0 && !is_drawn {
        return Verdict::warning(required, "no salt of any day: clicks are written without their users");
    }
    match &folder {
        Ok(folder) if is_drawn && folder.mode & NOT_PRIVATE != 0 => refused(required, folder),
        _ => judge_private(&folder.map(|folder| vec![folder]), required, format!("salts of {days} days")),
    }
}

/// The folder of the journal's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeysFolder {
    shares_device: bool,
    is_memory: bool,
    /// None as long as it is not there.
    guarded: Option<Guarded>,
}

pub(super) fn journal_keys(journal: &Journal, segments: &Path) -> Verdict {
    let Some(folder) = journal.keys_dir.as_ref().filter(|_| journal.encrypt) else {
        return Verdict::not_needed("journal.encrypt is off");
    };
    let (near, beside) = (disk::nearest_existing(folder), disk::nearest_existing(segments));
    let found = disk::kind(&near).and_then(|kind| {
        let guarded = if folder.is_dir() { Some(guarded(folder)?) } else { None };
        let is_memory = matches!(kind, Kind::Memory(_));
        Ok(KeysFolder { shares_device: share_a_device(&near, &beside), is_memory, guarded })
    });
    judge_journal_keys(&found)
}

fn judge_journal_keys(found: &Read<KeysFolder>) -> Verdict {
    let required = "another device, not memory, mode 0700";
    match found {
        Err(why) => Verdict::unknown(required, why),
        Ok(found) if found.is_memory => {
            Verdict::fatal(required, "in memory: a power cut takes the keys, and with them the clicks")
        }
        Ok(KeysFolder { guarded: Some(folder), .. }) if folder.mode & NOT_PRIVATE != 0 => {
            refused(required, folder)
        }
        Ok(found) if found.shares_device => Verdict::warning(required, "on the device of the segments"),
        Ok(_) => Verdict::ok(required, "on another device"),
    }
}

/// The lists of invalid traffic, all read.
pub(super) fn lists(config: &Config) -> Verdict {
    let mut traffic = config.traffic.clone();
    let named = traffic.files().iter().filter(|(_, file)| file.is_some()).count();
    let read =
        || Lists::load(&config.traffic.rules, system_clock()).map(drop).map_err(|error| error.to_string());
    judge_used(named, read, "lists", true)
}

/// The model, read.
pub(super) fn model(config: &Config) -> Verdict {
    let read = || match &config.score {
        Some(settings) => Scorer::load(settings, None).1.map_err(|error| error.to_string()),
        None => Ok(()),
    };
    judge_used(usize::from(config.score.is_some()), read, "model", false)
}

/// The catalog, read.
pub(super) fn catalog(http: &Http) -> Verdict {
    let file = http.catalog_file.as_deref().filter(|_| http.is_on());
    let read =
        || file.map_or(Ok(()), |path| Catalog::load(path).map(drop).map_err(|error| error.to_string()));
    judge_used(usize::from(file.is_some()), read, "catalog", true)
}

/// Judges files that a start reads.
fn judge_used(
    named: usize,
    read: impl FnOnce() -> Result<(), String>,
    what: &str,
    is_demanded: bool,
) -> Verdict {
    if named == 0 {
        return Verdict::not_needed(format!("the config names no {what}"));
    }
    let required = "can be used";
    match read() {
        Ok(()) => Verdict::ok(required, format!("read: {named}")),
        Err(why) if is_demanded => Verdict::fatal(required, why),
        Err(why) => Verdict::warning(required, why),
    }
}

/// Certificate and key of HTTPS.
pub(super) fn certificate(http: &Http) -> Verdict {
    let (Some(_), Some(certificate), Some(key)) = (http.tls_port, &http.certificate_file, &http.key_file)
    else {
        return Verdict::not_needed("rx.http.tls_port is off");
    };
    let required = "belong together, and only its owner and its group read the key";
    match Certificates::load(certificate, key) {
        Err(error) => Verdict::fatal(required, error.to_string()),
        Ok(_) => judge_private(&guarded(key).map(|key| vec![key]), required, "they do".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Ok as Fine, Unknown, Warning};
    use super::super::finding::unreadable;
    use super::*;

    fn file(mode: u32) -> Guarded {
        Guarded { path: PathBuf::from("/nowhere/key"), mode }
    }

    #[test]
    fn a_secret_that_others_may_read_is_named_with_the_command_that_mends_it() {
        let judged = |all| judge_private(&Ok(all), "private", "sound".to_owned());
        assert_eq!(judged(vec![file(0o600), file(0o400)]).severity, Fine);
        assert_eq!(judged(vec![file(0o640), file(0o440)]).severity, Fine, "as the package sets it up");
        let open = judged(vec![file(0o600), file(0o664)]);
        assert_eq!((open.severity, open.current.as_str()), (Warning, "/nowhere/key has mode 664"));
        assert_eq!(open.fix, "Run `chmod 640 /nowhere/key`.");
        assert_eq!(judge_private(&unreadable(), "private", String::new()).severity, Unknown);
    }

    #[test]
    fn keys_of_the_journal_belong_elsewhere_and_to_the_node_alone() {
        let folder = |shares_device, is_memory, mode: Option<u32>| {
            judge_journal_keys(&Ok(KeysFolder { shares_device, is_memory, guarded: mode.map(file) })).severity
        };
        assert_eq!(folder(false, false, None), Fine);
        assert_eq!(folder(false, false, Some(0o700)), Fine);
        assert_eq!(folder(true, false, Some(0o700)), Warning);
        assert_eq!(folder(false, false, Some(0o750)), Fatal);
        assert_eq!(folder(false, true, None), Fatal);
        assert_eq!(judge_journal_keys(&unreadable()).severity, Unknown);
    }

    #[test]
    fn a_folder_without_salts_is_a_warning_unless_the_node_draws_them() {
        let judged = |mode, days, is_drawn| judge_salts("usable", Ok(file(mode)), days, is_drawn).severity;
        assert_eq!(judged(0o700, 2, false), Fine);
        assert_eq!(judged(0o700, 0, true), Fine);
        assert_eq!(judged(0o700, 0, false), Warning);
        assert_eq!(judged(0o750, 2, false), Fine, "an operator brings them");
        assert_eq!(judged(0o755, 2, false), Warning);
        assert_eq!(judged(0o750, 2, true), Fatal, "the node keeps them for itself");
        assert_eq!(judge_salts("usable", unreadable(), 2, false).severity, Unknown);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_fatal_where_a_start_needs_it() {
        let wrong = || Err("line 3".to_owned());
        assert_eq!(judge_used(1, wrong, "lists", true).severity, Fatal);
        assert_eq!(judge_used(1, wrong, "model", false).severity, Warning);
        assert_eq!(judge_used(1, || Ok(()), "lists", true).severity, Fine);
        assert_eq!(judge_used(0, wrong, "lists", true).severity, Fine);
    }
}

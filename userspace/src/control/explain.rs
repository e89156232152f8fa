//! `weir explain`: what a name means and what to do about it, each from the one table that has it: reasons
//! from [`Reason`], conditions of `weir doctor` from [`Condition`], keys of the config from its sample.

use std::fmt::Write;

use weir_common::reason::Reason;

use crate::config::{SampleKey, nearest, sample_keys};
use crate::doctor::Condition;
use crate::folding::folded;

/// The width text is folded at: the narrowest terminal in use.
const COLUMNS: usize = 80;

/// there is no reason, condition or config key called {name:?}{hint}; `weir explain all` lists the reasons, `weir doctor` the conditions, `weir print-config` the keys
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, displaydoc::Display)]
pub struct UnknownName {
    /// What was asked for.
    pub name: String,
    /// The nearest name, as a question; or nothing.
    pub hint: String,
}

/// The text for one reason by its name or number, for all of them by `all`, for a condition by its name, or for a
/// key or section of the config by its dotted path.
///
/// # Errors
/// When there is nothing of this name.
pub fn explain(name: &str) -> Result<String, UnknownName> {
    if name == "all" {
        return Ok(Reason::ALL.iter().map(|&reason| line(reason)).collect());
    }
    let by_number = name.parse().ok().and_then(Reason::from_number);
    let by_name = Reason::ALL.iter().copied().find(|reason| reason.name() == name);
    if let Some(reason) = by_name.or(by_number) {
        return Ok(reason_text(reason));
    }
    if let Some(condition) = Condition::from_name(name) {
        return Ok(condition_text(condition));
    }
    let keys = sample_keys();
    if let Some(key) = keys.iter().find(|key| key.path == name) {
        return Ok(key_text(key));
    }
    let prefix = format!("{name}.");
    let section: Vec<_> = keys.iter().filter(|key| key.path.starts_with(&prefix)).collect();
    if !section.is_empty() {
        return Ok(section_text(name, &section));
    }
    let hint = meant(name, &keys).map_or(String::new(), |nearest| format!(" (did you mean {nearest:?}?)"));
    Err(UnknownName { name: name.to_owned(), hint })
}

/// The name that was most likely meant: the nearest of all, or a key whose last part it is.
fn meant<'a>(name: &str, keys: &'a [SampleKey]) -> Option<&'a str> {
    let reasons = Reason::ALL.iter().map(|reason| reason.name());
    let conditions = Condition::ALL.iter().map(|condition| condition.name());
    let paths = keys.iter().map(|key| key.path.as_str());
    let last_part = |path: &&str| path.rsplit_once('.').is_some_and(|(_, last)| last == name);
    nearest(name, reasons.chain(conditions).chain(paths.clone())).or_else(|| paths.clone().find(last_part))
}

fn line(reason: Reason) -> String {
    format!("{:>3}  {:<9}  {:<21}  {}\n", reason as u8, reason.class().name(), reason.name(), reason.cause())
}

fn reason_text(reason: Reason) -> String {
    let mut text = format!("{} (number {}, {})\n", reason.name(), reason as u8, reason.class().name());
    paragraph(&mut text, "What", reason.cause());
    paragraph(&mut text, "Do", reason.remedy());
    text
}

fn condition_text(condition: Condition) -> String {
    let mut text = format!("{} (condition of `weir doctor`)\n", condition.name());
    paragraph(&mut text, "What", condition.what());
    paragraph(&mut text, "Why", condition.why());
    paragraph(&mut text, "Do", condition.fix());
    text
}

fn key_text(key: &SampleKey) -> String {
    let mut text = format!("{key}\n");
    if !key.comment.is_empty() {
        paragraph(&mut text, "What", &key.comment);
    }
    text
}

fn section_text(name: &str, keys: &[&SampleKey]) -> String {
    let mut text = format!("{name} (section of the config)\n");
    for key in keys {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {} = {}", key.path, key.value);
    }
    text
}

/// A titled sentence, folded.
fn paragraph(text: &mut String, title: &str, sentence: &str) {
    for line in folded(&format!("  {title:<5}"), "       ", sentence, COLUMNS) {
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_explained_by_name_and_by_number() {
        let by_name = explain("bad_tag").unwrap();
        assert_eq!(by_name, explain("99").unwrap());
        assert_eq!(
            by_name,
            "bad_tag (number 99, refused)\n  What The signature does not match the click.\n  Do   \
             The click was forged or altered, or the key differs: compare the keys.\n"
        );
    }

    #[test]
    fn a_slip_of_the_keyboard_is_answered_with_the_nearest_name() {
        let error = explain("bad_tga").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no reason, condition or config key called \"bad_tga\" (did you mean \"bad_tag\"?); \
             `weir explain all` lists the reasons, `weir doctor` the conditions, `weir print-config` the keys"
        );
        assert_eq!(explain("nothing like it").unwrap_err().hint, "");
    }

    #[test]
    fn a_slip_in_a_condition_or_a_key_is_answered_likewise() {
        for (wrong, right) in [
            ("fsnyc", "fsync"),
            ("journal.encrpyt", "journal.encrypt"),
            ("socket_bufer", "socket_buffer"),
            // Without its section.
            ("commit_window", "journal.commit_window"),
        ] {
            let hint = explain(wrong).unwrap_err().hint;
            assert_eq!(hint, format!(" (did you mean {right:?}?)"), "{wrong}");
        }
    }

    #[test]
    fn every_condition_is_explained_with_what_why_and_fix() {
        for &condition in Condition::ALL {
            let text = explain(condition.name()).unwrap();
            for title in ["What ", "Why  ", "Do   "] {
                assert!(text.contains(title), "{text}");
            }
            assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        }
    }

    #[test]
    fn a_key_is_explained_by_its_comment_and_default_and_a_section_by_its_keys() {
        let text = explain("journal.encrypt").unwrap();
        assert!(
            text.starts_with(
                "journal.encrypt (key of the config, default false)\n  What Encrypt new segments"
            ),
            "{text}"
        );
        let section = explain("privacy").unwrap();
        assert_eq!(
            section,
            "privacy (section of the config)\n  privacy.salts = \"drawn\"\n  privacy.salts_dir = \"\"\n"
        );
        for path in crate::config::Config::known_keys() {
            assert!(explain(&path).is_ok(), "{path}");
        }
    }

    #[test]
    fn all_lists_every_reason_once_and_fits_its_columns() {
        let all = explain("all").unwrap();
        assert_eq!(all.lines().count(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert!(reason.name().len() <= 21 && reason.class().name().len() <= 9, "{reason:?}");
            assert!(reason_text(reason).lines().all(|line| line.len() <= COLUMNS), "{reason:?}");
        }
    }
}

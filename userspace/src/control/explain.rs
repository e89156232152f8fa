//! `weir explain`: what a reason means and what to do about it, from the one table.

use std::fmt::Write;

use weir_common::reason::Reason;

use crate::config::nearest;

/// The width text is folded at: the narrowest terminal in use.
const COLUMNS: usize = 80;

/// there is no reason called {name:?}{hint}; `weir explain all` lists them
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, displaydoc::Display)]
pub struct UnknownReason {
    /// What was asked for.
    pub name: String,
    /// The nearest name, as a question; or nothing.
    pub hint: String,
}

/// The text for one reason by its name or number, or for `all`.
///
/// # Errors
/// When there is no such reason.
pub fn explain(name: &str) -> Result<String, UnknownReason> {
    if name == "all" {
        return Ok(Reason::ALL.iter().map(|&reason| line(reason)).collect());
    }
    let by_number = name.parse().ok().and_then(Reason::from_number);
    let by_name = Reason::ALL.iter().copied().find(|reason| reason.name() == name);
    by_name.or(by_number).map(text).ok_or_else(|| UnknownReason {
        name: name.to_owned(),
        hint: nearest(name, Reason::ALL.iter().map(|reason| reason.name()))
            .map_or(String::new(), |nearest| format!(" (did you mean {nearest:?}?)")),
    })
}

fn line(reason: Reason) -> String {
    format!("{:>3}  {:<9}  {:<21}  {}\n", reason as u8, reason.class().name(), reason.name(), reason.cause())
}

fn text(reason: Reason) -> String {
    let mut text = format!("{} (number {}, {})\n", reason.name(), reason as u8, reason.class().name());
    for (title, sentence) in [("What", reason.cause()), ("Do", reason.remedy())] {
        // Writing to a String cannot fail.
        let _ = write!(text, "  {title:<5}");
        let mut column = 7;
        for word in sentence.split(' ') {
            if column + word.len() >= COLUMNS {
                text.push_str("\n       ");
                column = 7;
            }
            text.push_str(word);
            text.push(' ');
            column += word.len() + 1;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
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
            "there is no reason called \"bad_tga\" (did you mean \"bad_tag\"?); `weir explain all` lists them"
        );
        assert_eq!(explain("nothing like it").unwrap_err().hint, "");
    }

    #[test]
    fn all_lists_every_reason_once_and_fits_its_columns() {
        let all = explain("all").unwrap();
        assert_eq!(all.lines().count(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert!(reason.name().len() <= 21 && reason.class().name().len() <= 9, "{reason:?}");
            assert!(text(reason).lines().all(|line| line.len() <= COLUMNS), "{reason:?}");
        }
    }
}

//! What was found of one condition, and how bad it is.

use serde::Serialize;

use super::Condition;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be, or not needed by this config.
    Ok,
    /// Worth knowing; nothing is lost by leaving it.
    Note,
    /// It could not be read here. Never taken for good.
    Unknown,
    /// The node starts, and is slower or less safe than it could be.
    Warning,
    /// The node does not start, does not do what the config says, or cannot keep its promise.
    Fatal,
}

impl Severity {
    /// All of them, rising.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Note, Self::Unknown, Self::Warning, Self::Fatal];

    /// The name, in the report and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        }
    }
}

/// What a config requires of a condition that it does not need.
pub(super) const NOTHING: &str = "nothing";

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unread(pub(super) String);

/// What was read, or why not.
pub(super) type Read<T> = Result<T, Unread>;

/// Why a file could not be read, with its name.
pub(super) fn unread(path: &str) -> impl FnOnce(std::io::Error) -> Unread {
    let path = path.to_owned();
    move |error| Unread(format!("{path} cannot be read: {error}"))
}

/// What tests have for what could not be read.
#[cfg(test)]
pub(super) fn unreadable<T>() -> Read<T> {
    Err(Unread("it is hidden".to_owned()))
}

/// The trimmed text of a small file of /proc or /sys.
pub(super) fn read_text(path: &str) -> Read<String> {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(unread(path))
}

/// A judgement: what is required, what was found, how bad that is and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) required: String,
    pub(super) current: String,
    pub(super) severity: Severity,
    /// Empty: what the table of conditions says.
    pub(super) fix: String,
}

impl Verdict {
    /// A judgement; what mends it is in the table.
    pub(super) fn new(severity: Severity, required: impl Into<String>, current: impl Into<String>) -> Self {
        Self { required: required.into(), current: current.into(), severity, fix: String::new() }
    }

    pub(super) fn ok(required: impl Into<String>, current: impl Into<String>) -> Self {
        Self::new(Severity::Ok, required, current)
    }

    pub(super) fn note(required: impl Into<String>, current: impl Into<String>) -> Self {
        Self::new(Severity::Note, required, current)
    }

    pub(super) fn warning(required: impl Into<String>, current: impl Into<String>) -> Self {
        Self::new(Severity::Warning, required, current)
    }

    pub(super) fn fatal(required: impl Into<String>, current: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, required, current)
    }

    /// What could not be read.
    pub(super) fn unknown(required: impl Into<String>, why: &Unread) -> Self {
        Self::new(Severity::Unknown, required, why.0.as_str())
    }

    /// The config does not need it.
    pub(super) fn not_needed(why: impl Into<String>) -> Self {
        Self::ok(NOTHING, why)
    }

    /// The same, and this mends it.
    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// What was found of this condition; of one of several things, that one's name.
    pub(super) fn of(self, condition: Condition, subject: Option<String>) -> Finding {
        let Self { required, current, severity, fix } = self;
        let fix = match severity {
            Severity::Ok => String::new(),
            _ if fix.is_empty() => condition.fix().to_owned(),
            _ => fix,
        };
        // Commands name the interface they are for, where it is known.
        let fix = fix.replace("INTERFACE", subject.as_deref().unwrap_or("INTERFACE"));
        Finding { condition: condition.name(), subject, required, current, severity, fix }
    }
}

/// One row of the report. The field names are those of the JSON, and stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// [`Condition::name`].
    pub condition: &'static str,
    /// Which one, where a condition is looked at for several things: a port, a cluster.
    pub subject: Option<String>,
    /// What the node needs.
    pub required: String,
    /// What is there, or why that could not be read.
    pub current: String,
    /// How bad it is.
    pub severity: Severity,
    /// What mends it; empty when it is ok.
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ok_always_says_what_mends_it() {
        for severity in Severity::ALL {
            let found = Verdict::new(severity, "a", "b").of(Condition::Kernel, None);
            assert_eq!(found.fix.is_empty(), severity == Severity::Ok, "{severity:?}");
        }
        let own = Verdict::fatal("a", "b").fix("this").of(Condition::Kernel, None);
        assert_eq!(own.fix, "this");
        let of_one = Verdict::warning("a", "b").of(Condition::Rings, Some("eth0".to_owned()));
        assert_eq!(of_one.fix, "Run `ethtool -G eth0 rx N`.");
    }

    #[test]
    fn severities_have_one_name_in_report_and_json() {
        for severity in Severity::ALL {
            let json = serde_json::to_value(severity).expect("json");
            assert_eq!(json, severity.name());
        }
    }
}

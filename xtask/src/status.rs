//! Asks a daemon's status socket, and reads numbers out of what it says.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// The daemon answers within milliseconds.
const WAIT: Duration = Duration::from_secs(2);

/// The daemon's status now.
pub(crate) fn fetch(socket: &Path) -> Result<Value> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("cannot reach {}", socket.display()))?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"status\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("the daemon does not answer")?;
    serde_json::from_str(&answer).context("the daemon's answer is no status")
}

/// The number at a JSON pointer; 0 where there is none.
pub(crate) fn number(document: &Value, pointer: &str) -> u64 {
    document.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// The names and numbers of the object at a JSON pointer.
pub(crate) fn numbers(document: &Value, pointer: &str) -> Vec<(String, u64)> {
    let object = document.pointer(pointer).and_then(Value::as_object);
    let entries = object.into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_u64().unwrap_or(0))).collect()
}

/// A number with its thousands marked off.
pub(crate) fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_marked_off_from_the_right() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (-1234567, "-1,234,567"), (100000, "100,000")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}

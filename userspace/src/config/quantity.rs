//! Durations and sizes as an operator writes them: a whole number and its unit, `"2ms"`, `"64MiB"`.

use std::time::Duration;

/// Units of a duration with their nanoseconds, longest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

/// Units of a size with their bytes, largest first. Binary ones only: `MB` is ambiguous in the field.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration such as `24h`, `10m`, `60s`, `2ms` or `500us`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATION_UNITS).map(Duration::from_nanos)
}

/// Writes a duration in the longest unit that needs no fraction.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    // Zero has every unit; it is written in the one that fits its neighbours in the config.
    if ns == 0 { "0ms".to_owned() } else { text(ns, &DURATION_UNITS, "ns") }
}

/// Reads a size such as `64MiB`, `4KiB` or `512B`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// Writes a size in the largest unit that needs no fraction.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { text(bytes, &SIZE_UNITS, "B") }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn text(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    match units.iter().find(|(_, scale)| value.is_multiple_of(*scale)) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        None => format!("{value}{smallest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_keeps_the_unit_it_was_written_in() {
        for written in ["24h", "90m", "10m", "61s", "2ms", "500us"] {
            assert_eq!(duration_text(parse_duration(written).unwrap()), written);
        }
        for written in ["1TiB", "16GiB", "64MiB", "3KiB", "513B"] {
            assert_eq!(size_text(parse_size(written).unwrap()), written);
        }
    }

    #[test]
    fn a_number_without_a_known_unit_is_no_quantity() {
        for written in ["", "2", "ms", "2 ms", "-2ms", "1.5s", "2MS", "99999999999999999h"] {
            assert_eq!(parse_duration(written), None, "{written}");
        }
        for written in ["64MB", "64", "64mib", "99999999TiB"] {
            assert_eq!(parse_size(written), None, "{written}");
        }
    }
}

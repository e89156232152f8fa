//! Numbers as they stand on a screen: of fixed width, with their unit.

/// A number in four digits or fewer and its power of a thousand.
pub(super) fn si(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G", "T"] {
        if scaled < 999.5 {
            return match unit {
                "" => format!("{scaled:.0}"),
                unit if scaled < 9.995 => format!("{scaled:.2}{unit}"),
                unit if scaled < 99.95 => format!("{scaled:.1}{unit}"),
                unit => format!("{scaled:.0}{unit}"),
            };
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.0}P")
}

/// A number with its thousands marked off.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn latency(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.0}us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}ms", ns as f64 / 1e6),
        _ => format!("{:.1}s", ns as f64 / 1e9),
    }
}

pub(super) fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_columns() {
        let cases = [
            (0.0, "0"),
            (999.4, "999"),
            (999.5, "1.00k"),
            (1_234.0, "1.23k"),
            (9_995.0, "10.0k"),
            (99_950.0, "100k"),
            (999_500.0, "1.00M"),
            (12_345_678.0, "12.3M"),
        ];
        for (number, text) in cases {
            assert_eq!(si(number), text, "{number}");
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(latency(12_345_678), "12.3ms");
        assert_eq!(
            (uptime(61.0), uptime(7_261.0), uptime(90_000.0)),
            ("1m01s".into(), "2h01m".into(), "1d01h".into())
        );
    }
}

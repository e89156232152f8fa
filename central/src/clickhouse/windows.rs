//! Windows of closed minutes: which are to be built, and the statements that build them.
//!
//! A window is never added to. It is built from the buckets of its minutes, at their highest revisions, and
//! replaces what was built of it before. A month is built from its days.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use weir_common::time::Minute;

/// What splits a bucket beside ad and minute, in the order of the table.
pub const DIMENSIONS: [&str; 7] = ["publisher", "placement", "creative", "country", "device", "os", "rules"];
/// What is summed up, in the order of the table.
pub const TOTALS: [&str; 16] = [
    "accepted",
    "repeat",
    "late",
    "clock_suspect",
    "cost_micros",
    "filtered_128",
    "filtered_129",
    "filtered_130",
    "filtered_131",
    "filtered_132",
    "filtered_133",
    "filtered_134",
    "filtered_135",
    "unsigned",
    "marked",
    "marked_cost_micros",
];

/// Spans that are built from buckets, and how many minutes each has. All divide a day.
const SPANS: [(&str, u32); 4] = [("1m", 1), ("5m", 5), ("1h", 60), ("1d", DAY)];
/// A month, which has no fixed length.
const MONTH: &str = "month";
pub(super) const DAY: u32 = 1440;

/// Minutes whose windows are to be built: of each day the first and the one after the last. So what one
/// statement reads has a bound, and its memory too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretches(BTreeMap<u32, (u32, u32)>);

impl Stretches {
    /// Adds a minute.
    pub fn touch(&mut self, minute: Minute) {
        self.close(minute.0, minute.0 + 1);
    }

    /// Adds these minutes of one day.
    fn close(&mut self, from: u32, until: u32) {
        let of = self.0.entry(from / DAY).or_insert((from, until));
        *of = (of.0.min(from), of.1.max(until));
    }

    /// Adds all minutes from this one to before that one, of the days that have any.
    pub fn close_all(&mut self, from: Minute, until: Minute, days: impl IntoIterator<Item = u32>) {
        for day in days {
            let first = day.saturating_mul(DAY);
            let (from, until) = (from.0.max(first), until.0.min(first.saturating_add(DAY)));
            if from < until {
                self.close(from, until);
            }
        }
    }

    /// How many days.
    #[must_use]
    pub fn days(&self) -> usize {
        self.0.len()
    }
}

/// Some windows of one span, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Their span, as the table names it.
    pub span: &'static str,
    /// The first minute of the first one.
    pub from: Minute,
    /// The minute after the last one.
    pub until: Minute,
}

/// What is to be built where these minutes have changed or were closed, and all before `closed` are: every
/// window that has one of them in it and has ended. Months come last, for they are built from days.
#[must_use]
pub fn builds(stretches: &Stretches, closed: Minute) -> Vec<Build> {
    let (mut found, mut months) = (Vec::new(), BTreeSet::new());
    for &(from, until) in stretches.0.values() {
        for (span, minutes) in SPANS {
            let from = from - from % minutes;
            let until = until.div_ceil(minutes).saturating_mul(minutes).min(closed.0 - closed.0 % minutes);
            if from < until {
                found.push(Build { span, from: Minute(from), until: Minute(until) });
            }
        }
        months.extend(month(from).filter(|(_, end)| *end <= closed.0));
    }
    let month = |(from, until)| Build { span: MONTH, from: Minute(from), until: Minute(until) };
    found.extend(months.into_iter().map(month));
    found
}

/// The first minute of the month that has this one in it, and that of the next month; none beyond the years that
/// have names.
fn month(minute: u32) -> Option<(u32, u32)> {
    let date = Timestamp::from_second(i64::from(minute) * 60).ok()?.to_zoned(TimeZone::UTC).date();
    let minutes = |date: Date| {
        let time = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
        u32::try_from(time.as_second() / 60).ok()
    };
    Some((minutes(date.first_of_month())?, minutes(date.last_of_month().tomorrow().ok()?)?))
}

impl Build {
    /// The statement. `built` rises with what the buckets have of the log, and decides which of two is the truth.
    #[must_use]
    pub fn statement(&self, database: &str, built: u64) -> String {
        let dimensions = DIMENSIONS.join(", ");
        let (from, until) = (self.from.0, self.until.0);
        let (table, since, among) = if self.span == MONTH {
            let time = |minute: u32| format!("toDateTime({}, 'UTC')", u64::from(minute) * 60);
            let among = format!("span = '1d' AND t.start >= {} AND t.start < {}", time(from), time(until));
            ("windows", "toDateTime(toStartOfMonth(t.start), 'UTC')".to_owned(), among)
        } else {
            let minutes =
                SPANS.iter().find(|(span, _)| *span == self.span).map_or(1, |(_, minutes)| *minutes);
            let since = format!("toDateTime(intDiv(minute, {minutes}) * {}, 'UTC')", minutes * 60);
            ("buckets", since, format!("minute >= {from} AND minute < {until}"))
        };
        let sums: Vec<_> = TOTALS.iter().map(|total| format!("sum(t.{total})")).collect();
        format!(
            "INSERT INTO {database}.windows (span, start, ad, {dimensions}, {}, built) \
             SELECT '{}', {since} AS since, ad, {dimensions}, {}, {built} \
             FROM {database}.{table} AS t FINAL WHERE {among} GROUP BY since, ad, {dimensions}",
            TOTALS.join(", "),
            self.span,
            sums.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T00:00:00Z; a Monday in the midst of a month.
    const MONDAY: u32 = 29_923_200;
    /// 2026-12-01T00:00:00Z.
    const DECEMBER: u32 = 29_934_720;

    fn touched(minutes: &[u32]) -> Stretches {
        let mut stretches = Stretches::default();
        minutes.iter().for_each(|minute| stretches.touch(Minute(*minute)));
        stretches
    }

    /// Windows within days that are to be built, by their distance from Monday.
    fn found(stretches: &Stretches, closed: u32) -> Vec<(&'static str, u32, u32)> {
        let all = builds(stretches, Minute(closed)).into_iter().filter(|build| build.span != MONTH);
        all.map(|build| (build.span, build.from.0 - MONDAY, build.until.0 - MONDAY)).collect()
    }

    fn closed(from: u32, until: u32) -> Stretches {
        let mut stretches = Stretches::default();
        stretches.close_all(Minute(from), Minute(until), from / DAY..=until / DAY);
        stretches
    }

    #[test]
    fn a_minute_that_closes_builds_itself_and_each_window_that_ends_with_it() {
        let close = |minute: u32| found(&closed(MONDAY + minute, MONDAY + minute + 1), MONDAY + minute + 1);
        assert_eq!(close(2), [("1m", 2, 3)]);
        assert_eq!(close(4), [("1m", 4, 5), ("5m", 0, 5)]);
        assert_eq!(close(59), [("1m", 59, 60), ("5m", 55, 60), ("1h", 0, 60)]);
        assert_eq!(
            close(1439),
            [("1m", 1439, 1440), ("5m", 1435, 1440), ("1h", 1380, 1440), ("1d", 0, 1440)]
        );
    }

    #[test]
    fn minute_by_minute_or_at_once_the_same_windows_are_built() {
        let range = MONDAY + 57..MONDAY + 1503;
        let windows = |builds: Vec<(&'static str, u32, u32)>| -> BTreeSet<(&'static str, u32)> {
            let minutes = |span| SPANS.iter().find(|(name, _)| *name == span).unwrap().1;
            let all = builds.into_iter();
            all.flat_map(|(span, from, until)| {
                (from..until).step_by(minutes(span) as usize).map(move |at| (span, at))
            })
            .collect()
        };
        let at_once = windows(found(&closed(range.start, range.end), range.end));
        let one_by_one = range.flat_map(|minute| found(&closed(minute, minute + 1), minute + 1)).collect();
        assert_eq!(at_once, windows(one_by_one));
    }

    #[test]
    fn a_late_rewrite_builds_again_every_window_that_has_it_and_has_ended() {
        let at = MONDAY + 61;
        assert_eq!(found(&touched(&[at]), MONDAY + 64), [("1m", 61, 62)]);
        assert_eq!(found(&touched(&[at]), MONDAY + 70), [("1m", 61, 62), ("5m", 60, 65)]);
        let ended = [("1m", 61, 62), ("5m", 60, 65), ("1h", 60, 120), ("1d", 0, 1440)];
        assert_eq!(found(&touched(&[at]), DECEMBER), ended);
        let last = |closed: u32| builds(&touched(&[at]), Minute(closed)).pop().unwrap();
        let november = Build { span: MONTH, from: Minute(DECEMBER - 30 * DAY), until: Minute(DECEMBER) };
        assert_eq!((last(DECEMBER), last(DECEMBER - 1).span), (november, "1d"));
        // What is not closed is not built.
        assert_eq!(found(&touched(&[MONDAY + 64]), MONDAY + 64), []);
    }

    #[test]
    fn two_minutes_of_one_day_are_built_by_one_statement_a_span_and_those_of_two_days_by_two() {
        assert_eq!(
            found(&touched(&[MONDAY + 1, MONDAY + 7]), MONDAY + 15)[..2],
            [("1m", 1, 8), ("5m", 0, 10)]
        );
        let two = found(&touched(&[MONDAY + 1, MONDAY + DAY + 1]), MONDAY + DAY + 5);
        assert_eq!(two.iter().filter(|(span, ..)| *span == "1m").count(), 2);
    }

    #[test]
    fn days_without_anything_are_passed_over() {
        let mut stretches = Stretches::default();
        stretches.close_all(Minute(0), Minute(MONDAY + 3), [MONDAY / DAY - 400, MONDAY / DAY]);
        assert_eq!(stretches.days(), 2);
    }

    #[test]
    fn minutes_beyond_all_years_build_nothing_of_a_month_and_overflow_nothing() {
        let all = builds(&touched(&[u32::MAX - 1]), Minute(u32::MAX));
        assert!(all.iter().all(|build| build.span != MONTH && build.from < build.until), "{all:?}");
        assert_eq!(builds(&touched(&[0]), Minute(DAY)).len(), 4);
    }

    #[test]
    fn a_statement_reads_the_highest_revisions_of_its_minutes_alone() {
        let build = Build { span: "5m", from: Minute(60), until: Minute(65) };
        let statement = build.statement("clicks", 9);
        assert!(
            statement.contains("FROM clicks.buckets AS t FINAL WHERE minute >= 60 AND minute < 65 GROUP BY")
        );
        assert!(
            statement.starts_with("INSERT INTO clicks.windows (span, start, ad, publisher,"),
            "{statement}"
        );
        assert!(statement.contains("SELECT '5m', toDateTime(intDiv(minute, 5) * 300, 'UTC') AS since"));
        assert!(statement.contains("sum(t.marked_cost_micros), 9 FROM"), "{statement}");
    }
}

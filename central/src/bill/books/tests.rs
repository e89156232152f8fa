use proptest::prelude::*;

use super::super::run::Campaign;
use super::*;
use crate::reconcile::difference::Cause;

const CAUSES: [Why; 3] = [Why::Recorded, Why::Reconciled(Cause::Late), Why::Reconciled(Cause::RuleChange)];

/// The books of a day, as tables hold them.
#[derive(Clone, Debug, Default)]
struct Books {
    is_closed: bool,
    runs: Vec<Run>,
    lines: BTreeMap<u32, Figures>,
    adjustments: Vec<(u32, Why, Figures)>,
}

impl Books {
    fn figures(&self) -> BTreeMap<u32, Figures> {
        let mut figures = self.lines.clone();
        for (campaign, _, change) in &self.adjustments {
            let entry = figures.entry(*campaign).or_default();
            *entry = entry.plus(*change).unwrap();
        }
        figures
    }

    fn held(&self) -> Held {
        let run = |run: &Run| HeldRun {
            name: run.name.clone(),
            checksum: run.checksum.clone(),
            batches: run.batches,
        };
        let runs = self.runs.iter().map(run).collect();
        Held { is_closed: self.is_closed, runs, figures: self.figures() }
    }

    fn bill(&mut self, run: &Run, knows_before: bool, closes: bool) -> Result<Step, BooksError> {
        let before = self.runs.last().filter(|_| knows_before);
        let step = step(&self.held(), run, before, closes)?;
        match &step.entries {
            Entries::Nothing => {}
            Entries::Lines(lines) => self.lines.clone_from(lines),
            Entries::Adjustments(found) => {
                self.adjustments.extend(found.iter().map(|((id, why), change)| (*id, *why, *change)));
            }
        }
        if step.entries != Entries::Nothing {
            self.runs.push(run.clone());
        }
        self.is_closed |= step.closes;
        Ok(step)
    }
}

/// A run of figures that are made up of these parts, each of one campaign and one cause.
fn run(rules: &str, batches: i64, parts: &[(u32, usize, i64)]) -> Run {
    let mut campaigns: BTreeMap<u32, Campaign> = BTreeMap::new();
    for (id, cause, clicks) in parts {
        let figures = Figures::of([*clicks, 2 * clicks, *clicks, 500 * clicks]);
        let campaign = campaigns.entry(*id).or_default();
        campaign.figures = campaign.figures.plus(figures).unwrap();
        let part = campaign.parts.entry(CAUSES[*cause]).or_default();
        *part = part.plus(figures).unwrap();
    }
    let total = sum(campaigns.values().map(|campaign| &campaign.figures)).unwrap();
    let (name, checksum) = (format!("2026-11-22/{rules}-{batches}"), format!("{parts:?}"));
    let (day, rules) = ("2026-11-22".to_owned(), rules.to_owned());
    Run { name, checksum, day, rules, batches, total, campaigns }
}

fn any_run() -> impl Strategy<Value = Run> {
    let part = (0_u32..4, 0_usize..3, 0_i64..5);
    (0_u8..2, 0_i64..6, proptest::collection::vec(part, 0..6))
        .prop_map(|(rules, batches, parts)| run(&format!("r{rules}"), batches, &parts))
}

proptest! {
    #[test]
    fn whatever_is_billed_and_closed_the_books_are_the_last_run_and_no_closed_line_changes(
        asked in proptest::collection::vec((any_run(), any::<bool>(), 0_u8..4), 1..20)
    ) {
        let mut books = Books::default();
        for (run, knows_before, closes) in asked {
            let before = books.clone();
            let outcome = books.bill(&run, knows_before, closes == 0);
            if before.is_closed {
                prop_assert_eq!(&books.lines, &before.lines);
                prop_assert_eq!(&books.adjustments[..before.adjustments.len()], &before.adjustments[..]);
            } else {
                prop_assert!(books.adjustments.is_empty());
            }
            if outcome.is_err() {
                prop_assert_eq!(books.held(), before.held());
            } else {
                let last = books.runs.last().unwrap();
                prop_assert_eq!((&last.name, &last.checksum), (&run.name, &run.checksum));
            }
            if let Some(last) = books.runs.last() {
                let mut figures = books.figures();
                figures.retain(|_, figures| !figures.is_zero());
                let mut expected = lines(last);
                expected.retain(|_, figures| !figures.is_zero());
                prop_assert_eq!(figures, expected);
            }
            // Once more: nothing changes.
            let held = books.held();
            if outcome.is_ok() {
                let again = books.bill(&run, knows_before, false).unwrap();
                prop_assert_eq!(again, Step { entries: Entries::Nothing, closes: false });
                prop_assert_eq!(books.held(), held);
            }
        }
    }
}

#[test]
fn an_adjustment_says_why_where_both_reports_are_known_and_that_it_is_unknown_elsewhere() {
    let mut books = Books::default();
    books.bill(&run("r", 1, &[(7, 0, 10), (7, 1, 2)]), true, true).unwrap();
    let later = run("r", 2, &[(7, 0, 9), (7, 1, 2), (7, 2, 4), (8, 1, 1)]);
    let figures = |clicks: i64| Figures::of([clicks, 2 * clicks, clicks, 500 * clicks]);
    let mut known = books.clone();
    let step = known.bill(&later, true, false).unwrap();
    let expected =
        [((7, CAUSES[0]), figures(-1)), ((7, CAUSES[2]), figures(4)), ((8, CAUSES[1]), figures(1))];
    assert_eq!(step.entries, Entries::Adjustments(BTreeMap::from(expected)));
    let step = books.bill(&later, false, false).unwrap();
    let expected = [((7, Why::Unknown), figures(3)), ((8, Why::Unknown), figures(1))];
    assert_eq!(step.entries, Entries::Adjustments(BTreeMap::from(expected)));
}

#[test]
fn a_report_that_is_not_the_whole_difference_is_no_cause() {
    let mut books = Books::default();
    books.bill(&run("r", 1, &[(7, 0, 10)]), true, true).unwrap();
    let wrong = run("r", 1, &[(7, 0, 8)]);
    let step = step(&books.held(), &run("r", 2, &[(7, 0, 12)]), Some(&wrong), false).unwrap();
    let expected = BTreeMap::from([((7, Why::Unknown), Figures::of([2, 4, 2, 1000]))]);
    assert_eq!(step.entries, Entries::Adjustments(expected));
}

#[test]
fn the_same_name_with_another_report_and_a_run_that_others_followed_are_refused() {
    let mut books = Books::default();
    let [one, two] = [run("r", 1, &[(7, 0, 10)]), run("s", 1, &[(7, 0, 9)])];
    books.bill(&one, true, false).unwrap();
    let other = Run { checksum: "another".to_owned(), ..one.clone() };
    assert_eq!(books.bill(&other, true, false), Err(BooksError::Changed { name: one.name.clone() }));
    books.bill(&two, true, true).unwrap();
    let superseded = BooksError::Superseded { name: one.name.clone(), last: two.name.clone() };
    assert_eq!(books.bill(&one, true, false), Err(superseded));
    assert_eq!(books.bill(&other, true, false), Err(BooksError::Changed { name: one.name }));
    let old = run("t", 0, &[]);
    let out_of_date = BooksError::OutOfDate { name: old.name.clone(), last: two.name };
    assert_eq!(books.bill(&old, true, false), Err(out_of_date));
}

#[test]
fn a_day_that_was_billed_is_closed_by_the_same_run() {
    let mut books = Books::default();
    let one = run("r", 1, &[(7, 0, 10)]);
    books.bill(&one, true, false).unwrap();
    let closed = Step { entries: Entries::Nothing, closes: true };
    assert_eq!(books.bill(&one, true, true), Ok(closed));
    assert_eq!(books.bill(&one, true, true), Ok(Step { entries: Entries::Nothing, closes: false }));
}

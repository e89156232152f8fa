use super::*;

/// The `row`th click that node `node` decided on.
fn click(node: i64, row: i64, received_at_ms: i64, ordinal: u8) -> Click {
    Click {
        impression: [7, 8],
        ordinal,
        place: (node, 1, 0, 1, row),
        received_at_ms,
        clicked_at_ms: 60_000,
        minute: 10,
        price_micros: 500,
        ..Click::default()
    }
}

fn with(click: Click, outcome: Outcome) -> Click {
    Click { outcome: outcome as u8, ..click }
}

fn run(clicks: &[Click], rules: &Rules) -> Vec<(i64, u8, Outcome, u32, Option<Cause>)> {
    let mut found = Vec::new();
    recount(&mut clicks.to_vec(), rules, |click, recounted| {
        let Recounted { outcome, minute, cause, .. } = recounted;
        found.push((click.place.0, click.ordinal, outcome, minute.0, cause));
    });
    found
}

#[test]
fn what_one_node_decided_is_what_a_recount_comes_to() {
    let clicks = [
        with(click(1, 0, 50, 0), Outcome::Accepted),
        // Read before the first and decided on after it: it came by way of another worker.
        with(click(1, 1, 40, 1), Outcome::Repeat),
        with(click(1, 2, 60, 2), Outcome::Repeat),
    ];
    assert!(run(&clicks, &Rules::recorded()).iter().all(|(.., cause)| cause.is_none()));
}

#[test]
fn the_same_click_at_two_nodes_counts_where_it_came_first() {
    let clicks = [with(click(2, 0, 50, 0), Outcome::Accepted), with(click(1, 0, 90, 0), Outcome::Accepted)];
    let found = run(&clicks, &Rules::recorded());
    assert_eq!(found[0], (2, 0, Outcome::Accepted, 10, None));
    assert_eq!(found[1], (1, 0, Outcome::Duplicate, 10, Some(Cause::CrossNodeDuplicate)));
}

#[test]
fn a_second_click_at_another_node_is_a_repeat() {
    let clicks = [with(click(1, 0, 50, 0), Outcome::Accepted), with(click(2, 0, 90, 1), Outcome::Accepted)];
    let found = run(&clicks, &Rules::recorded());
    assert_eq!(found[1], (2, 1, Outcome::Repeat, 10, Some(Cause::CrossNodeRepeat)));
}

#[test]
fn a_late_click_counts_in_the_minute_in_which_it_was_made() {
    let late = Click { clicked_at_ms: 3 * 60_000, ..click(1, 0, 50, 0) };
    let found = run(&[with(late, Outcome::Late)], &Rules::recorded());
    assert_eq!(found, [(1, 0, Outcome::Accepted, 3, Some(Cause::Late))]);
    let suspect = Click { row_flags: row_flags::CLOCK_SUSPECT, ..late };
    assert_eq!(run(&[with(suspect, Outcome::Late)], &Rules::recorded())[0].3, 10);
}

#[test]
fn other_rules_free_one_click_and_make_the_next_a_repeat() {
    let filtered = Click { traffic: 1, reason: FIRST_FILTERED, ..click(1, 0, 50, 0) };
    let clicks = [with(filtered, Outcome::Filtered), with(click(1, 1, 60, 1), Outcome::Accepted)];
    let free = Rules::of("2".to_owned(), &[]).unwrap();
    let found = run(&clicks, &free);
    assert_eq!(found[0], (1, 0, Outcome::Accepted, 10, Some(Cause::RuleChange)));
    assert_eq!(found[1], (1, 1, Outcome::Repeat, 10, Some(Cause::Consequence)));
}

#[test]
fn issued_and_foreign_ids_of_the_same_octets_are_two_impressions() {
    let foreign = Click { click_flags: click_flags::FOREIGN, ..click(2, 0, 50, 0) };
    let clicks = [with(click(1, 0, 50, 0), Outcome::Accepted), with(foreign, Outcome::Accepted)];
    let found = run(&clicks, &Rules::recorded());
    assert!(found.iter().all(|(_, _, outcome, ..)| *outcome == Outcome::Accepted));
}

//! Days that are billed into a real PostgreSQL: once, whole or not at all, whatever dies and whoever bills beside.

use std::process::Output;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_common::reason::{Outcome, Reason};
use weir_common::row::Row;
use weir_labs::archived::{ArchivedTier, DAY, MINUTES, accepted};
use weir_labs::postgres::Postgres;
use weir_labs::seed;

/// A tier and books that are made and empty; none where there is no PostgreSQL.
fn lab() -> Option<(Postgres, ArchivedTier)> {
    let postgres = Postgres::start().expect("PostgreSQL")?;
    let tier = ArchivedTier::start(&config(&postgres)).expect("a tier");
    let migrated = tier.run(&["bill", "--migrate"]).expect("migrated");
    assert!(migrated.status.success(), "{}", said(&migrated));
    postgres.ask("postgres", "CREATE ROLE clerk LOGIN IN ROLE billing_writer").expect("a role");
    Some((postgres, tier))
}

fn config(postgres: &Postgres) -> String {
    format!("[billing]\nurl = {:?}\nowner_url = {:?}\n", postgres.url("clerk"), postgres.url("postgres"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BILL: [&str; 4] = ["bill", "--json", "--day", DAY];

/// What was billed.
fn bill(tier: &ArchivedTier, more: &[&str]) -> Value {
    let output = tier.run(&[&BILL, more].concat()).expect("run");
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// With which status and words it is not billed.
fn refused(tier: &ArchivedTier, more: &[&str]) -> (Option<i32>, String) {
    let output = tier.run(&[&BILL, more].concat()).expect("run");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), said(&output))
}

/// Everything that the books have, to the last column.
fn all(postgres: &Postgres) -> String {
    let tables = ["runs", "lines", "days", "adjustments"];
    let ask = |table| postgres.ask("postgres", &format!("SELECT * FROM billing.{table} ORDER BY 1, 2, 3"));
    tables.map(|table| ask(table).expect("rows")).join("\n--\n")
}

fn lines(postgres: &Postgres) -> String {
    let ask = "SELECT campaign, click_count, gross, net, cost_micros FROM billing.lines ORDER BY campaign";
    postgres.ask("clerk", ask).expect("lines")
}

fn adjustments(postgres: &Postgres) -> String {
    let ask = "SELECT run, campaign, cause, click_count, gross, net, cost_micros FROM billing.adjustments \
               ORDER BY run, campaign, cause";
    postgres.ask("clerk", ask).expect("adjustments")
}

/// Lines and adjustments of each campaign together, added up by the lab itself.
fn sums(postgres: &Postgres) -> String {
    let ask = "SELECT campaign, sum(click_count), sum(gross), sum(net), sum(cost_micros) FROM \
               (SELECT campaign, click_count, gross, net, cost_micros FROM billing.lines UNION ALL \
                SELECT campaign, click_count, gross, net, cost_micros FROM billing.adjustments) AS entries \
               GROUP BY campaign HAVING sum(gross) <> 0 ORDER BY campaign";
    postgres.ask("clerk", ask).expect("sums")
}

/// What a reconciliation says of each campaign.
fn reconciled(tier: &ArchivedTier, more: &[&str]) -> String {
    let output = tier.run(&[&["reconcile", "--json", "--day", DAY], more].concat()).expect("run");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let campaigns = report["campaigns"].as_array().expect("campaigns").iter();
    let figures = ["click_count", "gross", "net", "cost_micros"];
    let line = |campaign: &Value| {
        let figures = figures.map(|name| campaign["reconciled"][name].to_string());
        format!("{}|{}", campaign["campaign_id"], figures.join("|"))
    };
    campaigns.filter(|found| found["reconciled"]["gross"] != 0).map(line).collect::<Vec<_>>().join("\n")
}

fn with(row: Row, outcome: Outcome) -> Row {
    Row { outcome: outcome as u8, ..row }
}

/// Came the next day, and was made in this one.
fn late(row: Row) -> Row {
    let (received, minute) = ((MINUTES.end + 60) as u64 * 60_000, (MINUTES.end + 60).into());
    with(Row { received_at_ms: received.into(), minute, ..row }, Outcome::Late)
}

/// A prefetch.
fn filtered(row: Row) -> Row {
    let reason = Reason::Prefetch as u8;
    Row { reason, traffic: 0b10, ..with(row, Outcome::Filtered) }
}

/// Three clicks of campaign 1, of which one came to both nodes, two of campaign 2, and a prefetch of campaign 3.
fn fill(tier: &mut ArchivedTier) {
    let first = [accepted(1, 1, 0), accepted(2, 1, 1), accepted(3, 2, 1), filtered(accepted(4, 3, 2))];
    tier.take(1, &first).expect("taken");
    let mut again = accepted(2, 1, 1);
    again.received_at_ms = (again.received_at_ms.get() + 100).into();
    tier.take(2, &[accepted(5, 1, 5), again, accepted(6, 2, 700)]).expect("taken");
}

const FILLED: &str = "1|3|3|3|1500\n2|2|2|2|1000\n3|0|1|0|0";

#[test]
fn a_day_is_billed_by_campaign_and_the_same_run_again_changes_nothing() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    let billed = bill(&tier, &[]);
    assert_eq!((&billed["outcome"], &billed["closed"]), (&"lines".into(), &false.into()), "{billed}");
    assert_eq!((lines(&postgres), sums(&postgres)), (FILLED.to_owned(), reconciled(&tier, &[])));
    let run =
        postgres.ask("clerk", "SELECT name, rules, batches, cost_micros FROM billing.runs").expect("run");
    assert_eq!(run, format!("{DAY}/recorded-000000000002|recorded|2|2500"));
    // The run says what it rests on.
    let report = std::fs::read(tier.archive().join(format!("_billed/{DAY}/recorded-000000000002.json")));
    let checksum = "SELECT encode(sha256(decode('@', 'hex')), 'hex') = report_sha256 FROM billing.runs";
    let digits: String = report.expect("a report").iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(postgres.ask("postgres", &checksum.replace('@', &digits)).expect("a checksum"), "t");

    let before = all(&postgres);
    assert_eq!(bill(&tier, &[])["outcome"], "unchanged");
    assert_eq!(all(&postgres), before);
    // While the day is open, what comes later replaces the lines.
    tier.take(1, &[accepted(7, 2, 9), late(accepted(8, 4, 9))]).expect("taken");
    assert_eq!(bill(&tier, &[])["outcome"], "lines");
    assert_eq!(lines(&postgres), "1|3|3|3|1500\n2|3|3|3|1500\n3|0|1|0|0\n4|1|1|1|500");
    assert_eq!((sums(&postgres), adjustments(&postgres)), (reconciled(&tier, &[]), String::new()));
}

#[test]
fn a_closed_day_only_gets_adjustments_which_say_why_and_add_up_to_the_last_run() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    bill(&tier, &[]);
    // The run that has the lines closes the day; no line changes by that.
    let closed = bill(&tier, &["--close"]);
    assert_eq!((&closed["outcome"], &closed["closed"]), (&"unchanged".into(), &true.into()));
    assert_eq!(lines(&postgres), FILLED);
    let whole = "SELECT * FROM billing.lines ORDER BY campaign";
    let as_closed = postgres.ask("clerk", whole).expect("lines");
    let before = all(&postgres);
    assert_eq!(bill(&tier, &["--close"])["outcome"], "unchanged");
    assert_eq!(all(&postgres), before);

    tier.take(2, &[late(accepted(8, 4, 9)), late(accepted(9, 1, 9)), accepted(10, 2, 9)]).expect("taken");
    let billed = bill(&tier, &[]);
    assert_eq!(billed["adjustments"].as_array().map(Vec::len), Some(3), "{billed}");
    let of_late = "2|1|late|1|1|1|500\n2|2|recorded|1|1|1|500\n2|4|late|1|1|1|500";
    assert_eq!((adjustments(&postgres), sums(&postgres)), (of_late.to_owned(), reconciled(&tier, &[])));

    // Other rules bill the prefetch; back by the recorded ones once there is another batch.
    let rules = tier.write("rules.toml", "version = \"open\"\nfilters = []\n").expect("rules");
    let rules = ["--rules", rules.to_str().expect("text")];
    bill(&tier, &rules);
    let of_rules = format!("{of_late}\n3|3|rule_change|1|0|1|500");
    assert_eq!((adjustments(&postgres), sums(&postgres)), (of_rules.clone(), reconciled(&tier, &rules)));
    let (status, why) = refused(&tier, &[]);
    assert!(status == Some(1) && why.contains("which holds"), "{why}");
    tier.take(1, &[filtered(accepted(11, 9, 9))]).expect("taken");
    bill(&tier, &[]);
    let back = format!("{of_rules}\n4|3|rule_change|-1|0|-1|-500\n4|9|recorded|0|1|0|0");
    assert_eq!((adjustments(&postgres), sums(&postgres)), (back.clone(), reconciled(&tier, &[])));

    // A report that is not what was billed explains nothing: the difference is billed all the same.
    std::fs::write(tier.archive().join(format!("_billed/{DAY}/recorded-000000000004.json")), "{}")
        .expect("written");
    tier.take(1, &[late(accepted(12, 9, 9))]).expect("taken");
    bill(&tier, &[]);
    assert_eq!(adjustments(&postgres), format!("{back}\n5|9|unknown|1|1|1|500"));
    assert_eq!(sums(&postgres), reconciled(&tier, &[]));
    assert_eq!(postgres.ask("clerk", whole).expect("lines"), as_closed);
}

#[test]
fn the_same_name_for_another_report_is_refused() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    let rules = tier.write("rules.toml", "version = \"mine\"\nfilters = []\n").expect("rules");
    let asked = ["--rules", rules.to_str().expect("text")];
    bill(&tier, &asked);
    let before = all(&postgres);
    tier.write("rules.toml", "version = \"mine\"\nfilters = [\"prefetch\"]\n").expect("rules");
    let (status, why) = refused(&tier, &asked);
    assert!(status == Some(1) && why.contains("from another report"), "{why}");
    assert_eq!(all(&postgres), before);
    let report =
        std::fs::read_to_string(tier.archive().join(format!("_billed/{DAY}/mine-000000000002.json")));
    assert!(report.expect("a report").contains("rule_change"), "the report that was billed stays");
}

#[test]
fn a_day_that_is_not_over_not_final_or_not_explained_is_not_billed() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    let empty = all(&postgres);
    let today = jiff::Timestamp::now().strftime("%F").to_string();
    let not_over = tier.run(&["bill", "--day", &today]).expect("run");
    assert_eq!(not_over.status.code(), Some(4));
    // At midnight the day is over meanwhile, and final nowhere.
    assert!(
        ["is not over", "is not final at"].iter().any(|why| said(&not_over).contains(why)),
        "{not_over:?}"
    );
    tier.is_final_before(&[(1, MINUTES.end), (2, MINUTES.end - 1)]);
    let (status, why) = refused(&tier, &["--close"]);
    assert!(
        status == Some(4) && why.contains("is not final at node 2, only what is before 2026-03-01T23:59:00Z"),
        "{why}"
    );
    tier.is_final_before(&[]);
    let (status, why) = refused(&tier, &[]);
    assert!(status == Some(4) && why.contains("no node has ever spoken"), "{why}");
    tier.is_final_before(&[(1, MINUTES.end), (2, MINUTES.end)]);
    tier.count(1, &[accepted(20, 1, 30)]).expect("counted");
    let (status, why) = refused(&tier, &["--close"]);
    assert!(status == Some(3) && why.contains("1 counts of 2026-03-01 are not explained"), "{why}");
    assert_eq!(all(&postgres), empty);
    let nothing = tier.run(&["bill-export", "--day", DAY]).expect("run");
    assert!(!nothing.status.success() && said(&nothing).contains("was never billed"), "{nothing:?}");
}

#[test]
fn several_at_the_same_moment_bill_once() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    bill(&tier, &["--close"]);
    for round in 0..3 {
        tier.take(1, &[late(accepted(100 + round, 1, 9))]).expect("taken");
        // All of them wait for the day, then go on at once.
        let mut session = postgres.session().expect("a session");
        session.run(&format!("BEGIN; SELECT billing.take('{DAY}')")).expect("taken");
        let started: Vec<_> = (0..4).map(|_| tier.start_command(&BILL).expect("started")).collect();
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        postgres.wait_until(waiting, "4").expect("all wait");
        session.run("COMMIT").expect("let go");
        assert!(started.into_iter().all(|running| running.finish().expect("an end")));
        assert_eq!(sums(&postgres), reconciled(&tier, &[]));
    }
    assert_eq!(adjustments(&postgres), "2|1|late|1|1|1|500\n3|1|late|1|1|1|500\n4|1|late|1|1|1|500");
}

#[test]
fn killed_or_cut_off_between_any_two_statements_nothing_is_half_billed() {
    let Some((postgres, mut tier)) = lab() else { return };
    let work = |tier: &ArchivedTier, closes: bool, tables: &[&str]| {
        for table in tables {
            for is_killed in [true, false] {
                let before = all(&postgres);
                let mut session = postgres.session().expect("a session");
                session
                    .run(&format!("BEGIN; LOCK billing.{table} IN SHARE ROW EXCLUSIVE MODE"))
                    .expect("locked");
                let asked = [&BILL[..], if closes { &["--close"] } else { &[] }].concat();
                let running = tier.start_command(&asked).expect("started");
                // What it wrote before this table is written, and it cannot go on.
                let waiting = format!(
                    "SELECT count(*) FROM pg_locks WHERE relation = 'billing.{table}'::regclass AND NOT granted"
                );
                postgres.wait_until(&waiting, "1").expect("it waits");
                if is_killed {
                    running.kill().expect("killed");
                } else {
                    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'clerk'";
                    assert_eq!(postgres.ask("postgres", cut).expect("cut off"), "1");
                    assert!(!running.finish().expect("an end"));
                }
                session.run("COMMIT").expect("let go");
                let clerks = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'clerk'";
                postgres.wait_until(clerks, "0").expect("gone");
                assert_eq!(all(&postgres), before, "{table}, killed: {is_killed}");
            }
        }
        bill(tier, if closes { &["--close"] } else { &[] });
        assert_eq!(sums(&postgres), reconciled(tier, &[]));
    };
    fill(&mut tier);
    work(&tier, true, &["runs", "lines", "days"]);
    tier.take(2, &[late(accepted(8, 4, 9)), accepted(10, 2, 9)]).expect("taken");
    work(&tier, false, &["runs", "adjustments"]);
    assert_eq!(lines(&postgres), FILLED);
}

#[test]
fn killed_at_random_instants_the_books_are_always_those_of_some_run() {
    let Some((postgres, mut tier)) = lab() else { return };
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed());
    fill(&mut tier);
    let began = Instant::now();
    bill(&tier, &["--close"]);
    let whole_us = began.elapsed().as_micros() as u64;
    let balance = "SELECT count(*) FROM billing.runs WHERE number = (SELECT max(number) FROM billing.runs) AND \
                   (click_count, cost_micros) = (SELECT sum(click_count), sum(cost_micros) FROM billing.bills)";
    for round in 0..40 {
        tier.take(1, &[late(accepted(1000 + round, 1 + round as u32 % 5, 9))]).expect("taken");
        let running = tier.start_command(&BILL).expect("started");
        std::thread::sleep(Duration::from_micros(random.random_range(0..whole_us)));
        running.kill().expect("killed");
        assert_eq!(postgres.ask("clerk", balance).expect("sums"), "1");
    }
    bill(&tier, &[]);
    assert_eq!(sums(&postgres), reconciled(&tier, &[]));
}

#[test]
fn an_export_has_what_holds_of_each_campaign_and_is_written_whole() {
    let Some((postgres, mut tier)) = lab() else { return };
    fill(&mut tier);
    bill(&tier, &["--close"]);
    tier.take(2, &[late(accepted(8, 4, 9)), accepted(10, 2, 9)]).expect("taken");
    bill(&tier, &[]);
    let to = tier.write("day.csv", "what was there").expect("a file");
    let export = ["bill-export", "--day", DAY, "--to", to.to_str().expect("text")];
    assert!(tier.run(&export).expect("run").status.success());
    let run = format!("true,{DAY}/recorded-000000000003");
    let expected = format!(
        "day,campaign_id,click_count,gross,net,cost_micros,cost,adjustments,adjusted_click_count,adjusted_gross,\
         adjusted_net,adjusted_cost_micros,adjusted_cost,closed,run\r\n\
         {DAY},1,3,3,3,1500,0.001500,0,0,0,0,0,0.000000,{run}\r\n\
         {DAY},2,3,3,3,1500,0.001500,1,1,1,1,500,0.000500,{run}\r\n\
         {DAY},3,0,1,0,0,0.000000,0,0,0,0,0,0.000000,{run}\r\n\
         {DAY},4,1,1,1,500,0.000500,1,1,1,1,500,0.000500,{run}\r\n"
    );
    assert_eq!(std::fs::read_to_string(&to).expect("CSV"), expected);
    let printed = tier.run(&["bill-export", "--day", DAY]).expect("run");
    assert_eq!(String::from_utf8_lossy(&printed.stdout), expected);
    postgres.ask("postgres", "REVOKE SELECT ON billing.bills FROM billing_writer").expect("revoked");
    assert!(!tier.run(&export).expect("run").status.success());
    assert_eq!(std::fs::read_to_string(&to).expect("CSV"), expected, "what was there is there still");
}

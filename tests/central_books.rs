//! What the database holds by itself of the books, against whoever writes by hand; and who makes its tables.

use std::process::Output;

use weir_labs::archived::{ArchivedTier, DAY, accepted};
use weir_labs::postgres::Postgres;

/// An open day and a closed one, billed into books of which `clerk` may write and `reader` may read.
fn books() -> Option<Postgres> {
    let postgres = Postgres::start().expect("PostgreSQL")?;
    let owner = postgres.url("postgres");
    let tier = ArchivedTier::start(&format!("[billing]\nurl = {owner:?}\n")).expect("a tier");
    done(&tier.run(&["bill", "--migrate"]).expect("run"));
    for (role, of) in [("clerk", "billing_writer"), ("reader", "billing_reader")] {
        postgres.ask("postgres", &format!("CREATE ROLE {role} LOGIN IN ROLE {of}")).expect("a role");
    }
    for (day, closes) in [(CLOSED, true), (OPEN, false)] {
        let script = [&run(day, 1, 100)[..], &line(day, 7, 100)].concat();
        let close = format!("INSERT INTO billing.days (day, run) VALUES ('{day}', 1);");
        write(&postgres, "clerk", &[&script[..], if closes { &close } else { "" }].concat())
            .expect("written");
    }
    Some(postgres)
}

const CLOSED: &str = "2026-03-01";
const OPEN: &str = "2026-03-02";

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A run of so many clicks.
fn run(day: &str, batches: u32, clicks: i64) -> String {
    format!(
        "INSERT INTO billing.runs (day, name, rules, batches, report_sha256, click_count, gross, net, cost_micros) \
         VALUES ('{day}', '{day}/r-{batches}-{clicks}', 'r', {batches}, repeat('0', 64), {clicks}, {clicks}, {clicks}, 0);"
    )
}

/// A line of the last run.
fn line(day: &str, campaign: u32, clicks: i64) -> String {
    format!(
        "INSERT INTO billing.lines (day, campaign, run, click_count, gross, net, cost_micros) \
         SELECT day, {campaign}, max(number), {clicks}, {clicks}, {clicks}, 0 FROM billing.runs WHERE day = '{day}' \
         GROUP BY day;"
    )
}

/// An adjustment of this run, or of the last.
fn adjustment(day: &str, run: Option<u32>, campaign: u32, clicks: i64) -> String {
    let run = run.map_or_else(|| "max(number)".to_owned(), |run| run.to_string());
    format!(
        "INSERT INTO billing.adjustments (day, run, campaign, cause, click_count, gross, net, cost_micros) \
         SELECT day, {run}, {campaign}, 'unknown', {clicks}, {clicks}, {clicks}, 0 FROM billing.runs \
         WHERE day = '{day}' GROUP BY day;"
    )
}

/// Writes in one transaction, or says why not.
fn write(postgres: &Postgres, user: &str, sql: &str) -> Result<(), String> {
    let answer = postgres.ask(user, &format!("BEGIN; {sql} COMMIT;"));
    answer.map(drop).map_err(|error| error.to_string())
}

fn all(postgres: &Postgres) -> String {
    let tables = ["runs", "lines", "days", "adjustments"];
    let ask = |table| postgres.ask("postgres", &format!("SELECT * FROM billing.{table} ORDER BY 1, 2, 3"));
    tables.map(|table| ask(table).expect("rows")).join("\n--\n")
}

#[test]
fn what_is_done_by_hand_is_held_to_the_same_rules() {
    let Some(postgres) = books() else { return };
    let before = all(&postgres);
    let refused = |user: &str, why: &str, statements: &[String]| {
        let sql = statements.concat();
        let said = write(&postgres, user, &sql).expect_err(&sql);
        assert!(said.contains(why), "{sql}\n{said}");
        assert_eq!(all(&postgres), before, "{sql}");
    };
    // An owner too: with all rights, and without taking the triggers away.
    for table in ["runs", "lines", "days", "adjustments"] {
        refused(
            "postgres",
            "corrected by adjustments",
            &[format!("UPDATE billing.{table} SET run = 1;")
                .replace("billing.runs SET run", "billing.runs SET number")],
        );
        refused("postgres", "corrected by adjustments", &[format!("TRUNCATE billing.{table} CASCADE;")]);
    }
    for table in ["runs", "days", "adjustments"] {
        refused("postgres", "corrected by adjustments", &[format!("DELETE FROM billing.{table};")]);
    }
    for user in ["postgres", "clerk"] {
        let refused = |why: &str, statements: &[String]| refused(user, why, statements);
        let delete = |day: &str| format!("DELETE FROM billing.lines WHERE day = '{day}';");
        refused("not such a day", &[delete(CLOSED)]);
        refused("not such a day", &[run(CLOSED, 2, 90), delete(CLOSED), line(CLOSED, 7, 90)]);
        refused("not such a day", &[run(CLOSED, 2, 101), line(CLOSED, 8, 1)]);
        refused("not such a day", &[run(OPEN, 2, 101), adjustment(OPEN, None, 8, 1)]);
        refused("change with a run", &[delete(OPEN)]);
        refused("change with a run", &[line(OPEN, 8, 1)]);
        refused("change with a run", &[adjustment(CLOSED, None, 7, 1)]);
        refused("of the run it comes with", &[run(CLOSED, 2, 101), adjustment(CLOSED, Some(1), 7, 1)]);
        refused("do not balance", &[run(CLOSED, 2, 101)]);
        refused("do not balance", &[run(CLOSED, 2, 101), adjustment(CLOSED, None, 7, 2)]);
        refused("do not balance", &[run(OPEN, 2, 1), delete(OPEN)]);
        let below_zero = [adjustment(CLOSED, None, 7, -101), adjustment(CLOSED, None, 8, 102)].concat();
        refused("do not balance", &[run(CLOSED, 2, 101), below_zero]);
        refused("out of date", &[run(CLOSED, 0, 100)]);
        refused(
            "closed with its last run",
            &[run(OPEN, 2, 100), format!("INSERT INTO billing.days (day, run) VALUES ('{OPEN}', 1);")],
        );
        refused("duplicate key", &[run(CLOSED, 1, 100)]);
        refused("violates check", &[run(CLOSED, 2, -1)]);
        refused("violates check", &[run(CLOSED, 2, 100).replace(&format!("'{CLOSED}/"), "'2026-03-05/")]);
        refused(
            "written in read committed",
            &["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;".to_owned(), run(CLOSED, 2, 100)],
        );
        let most = i64::MAX;
        refused("out of range", &[run(OPEN, 2, 100).replace("100, 100, 100", "9223372036854775808, 1, 1")]);
        refused("do not balance", &[run(CLOSED, 2, most), adjustment(CLOSED, None, 7, most)]);
    }
    refused("clerk", "permission denied", &["UPDATE billing.lines SET net = 0;".to_owned()]);
    refused("clerk", "must be owner", &["ALTER TABLE billing.lines DISABLE TRIGGER ALL;".to_owned()]);
    let backdated =
        run(CLOSED, 2, 100).replace("(day,", "(made_at, day,").replace("VALUES (", "VALUES (now(), ");
    refused("clerk", "permission denied", &[backdated]);
    refused("reader", "permission denied", &[run(OPEN, 2, 0)]);
    // What is right is taken, so that all this is refused for what is wrong with it.
    write(&postgres, "clerk", &[run(CLOSED, 2, 101), adjustment(CLOSED, None, 7, 1)].concat())
        .expect("balanced");
    let bills =
        "SELECT campaign, click_count, adjusted_click_count FROM billing.bills WHERE day = '2026-03-01'";
    assert_eq!(postgres.ask("reader", bills).expect("bills"), "7|101|1");
}

#[test]
fn a_line_taken_away_while_another_closes_its_day_waits_and_is_refused() {
    let Some(postgres) = books() else { return };
    let mut closing = postgres.session().expect("a session");
    closing.run(&format!("BEGIN; INSERT INTO billing.days (day, run) VALUES ('{OPEN}', 1)")).expect("closed");
    std::thread::scope(|scope| {
        let deletes = scope.spawn(|| {
            let script = [run(OPEN, 2, 0), format!("DELETE FROM billing.lines WHERE day = '{OPEN}';")];
            write(&postgres, "clerk", &script.concat())
        });
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        postgres.wait_until(waiting, "1").expect("it waits");
        closing.run("COMMIT").expect("committed");
        let said = deletes.join().expect("a thread").expect_err("refused");
        assert!(said.contains("not such a day"), "{said}");
    });
}

#[test]
fn tables_are_made_once_by_the_owner_and_nobody_bills_without_them() {
    let Some(postgres) = Postgres::start().expect("PostgreSQL") else { return };
    postgres.ask("postgres", "CREATE ROLE clerk LOGIN").expect("a role");
    let config = |owner: &str| {
        format!("[billing]\nurl = {:?}\nowner_url = {:?}\n", postgres.url("clerk"), postgres.url(owner))
    };
    let mut tier = ArchivedTier::start(&config("postgres")).expect("a tier");
    tier.take(1, &[accepted(1, 1, 0)]).expect("taken");
    let said = |arguments: &[&str]| {
        let output = tier.run(arguments).expect("run");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["bill", "--day", DAY]).contains("--migrate"));
    assert!(done(&tier.run(&["bill", "--migrate"]).expect("run")).contains("1 migrations applied"));
    assert!(done(&tier.run(&["bill", "--migrate"]).expect("run")).contains("up to date"));
    assert!(said(&["bill", "--day", DAY]).contains("permission denied"));
    postgres.ask("postgres", "GRANT billing_writer TO clerk").expect("granted");
    done(&tier.run(&["bill", "--day", DAY]).expect("run"));
    postgres.ask("postgres", "UPDATE billing.migrations SET sha256 = 'another'").expect("updated");
    assert!(said(&["bill", "--day", DAY]).contains("migration 1 of the tables is not the one"));
    assert!(said(&["bill", "--migrate"]).contains("migration 1 of the tables is not the one"));
    // Whoever may only write makes no tables.
    postgres.ask("postgres", "DROP SCHEMA billing CASCADE").expect("dropped");
    let clerks = ArchivedTier::start(&config("clerk")).expect("a tier");
    let refused = clerks.run(&["bill", "--migrate"]).expect("run");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied"), "{refused:?}");
}

#[test]
fn a_password_comes_from_its_file_and_a_wrong_one_opens_nothing() {
    let Some(postgres) = Postgres::start().expect("PostgreSQL") else { return };
    postgres.ask("postgres", "CREATE ROLE clerk LOGIN SUPERUSER PASSWORD 'a secret'").expect("a role");
    postgres.ask_for_passwords().expect("passwords");
    let config = format!(
        "[billing]\nurl = {:?}\npassword_file = \"billing.password\"\n",
        postgres.loopback_url("clerk")
    );
    let tier = ArchivedTier::start(&config).expect("a tier");
    let refused = || {
        let output = tier.run(&["bill", "--migrate"]).expect("run");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused().contains("billing.password cannot be read"));
    tier.write("billing.password", "another\n").expect("written");
    let said = refused();
    assert!(said.contains("password authentication failed") && !said.contains("another"), "{said}");
    tier.write("billing.password", "a secret\n").expect("written");
    done(&tier.run(&["bill", "--migrate"]).expect("run"));
}

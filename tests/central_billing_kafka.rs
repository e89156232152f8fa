//! A day of two real nodes, over a real Apache Kafka and an archive, into a real PostgreSQL: billed, closed and adjusted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use weir::day::Day;
use weir_central::archive::place::Place;
use weir_common::time::UnixMs;
use weir_common::wire::Click;
use weir_labs::central::{Central, CentralFolder};
use weir_labs::clicks::{numbered, send};
use weir_labs::clock::{Error, WrongClock};
use weir_labs::postgres::Postgres;
use weir_labs::topics::{self, Isolation};
use weir_labs::{NodeFolder, kafka};

const WITHIN: Duration = Duration::from_secs(60);
const HOUR_MS: u64 = 3_600_000;

fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A node that lives in the past, as its clock says.
struct PastNode {
    folder: NodeFolder,
    clock: WrongClock,
}

impl PastNode {
    fn new(bootstrap: &str, prefix: &str, id: u32) -> Self {
        let mut folder = NodeFolder::new(&kafka::config(bootstrap, prefix)).expect("folder");
        folder.reconfigure("id =", &format!("id = {id}")).expect("config");
        let clock = WrongClock::of(&mut folder);
        Self { folder, clock }
    }

    /// Lets its clock say this when it starts.
    fn is_at(&self, ms: u64) {
        let by_s = ms.cast_signed() / 1000 - system_ms().cast_signed() / 1000;
        self.clock.set(Error::Seconds(by_s)).expect("clock");
    }
}

/// Everything around the nodes.
struct Lab {
    bootstrap: &'static str,
    prefix: String,
    postgres: Postgres,
    archive: tempfile::TempDir,
    /// A day that was over hours ago.
    day: Day,
}

impl Lab {
    fn new() -> Option<Self> {
        if let Some(why) = WrongClock::unavailable() {
            println!("skipped: {why}");
            return None;
        }
        let (bootstrap, postgres) = (kafka::shared()?, Postgres::start().expect("PostgreSQL")?);
        let archive = tempfile::tempdir().expect("folder");
        // At whatever hour this runs, the whole of it and the time in which its minutes become final are over.
        let day = Day::of(UnixMs(system_ms() - 36 * HOUR_MS));
        Some(Self { bootstrap, prefix: kafka::fresh_prefix(), postgres, archive, day })
    }

    fn central(&self) -> CentralFolder {
        let url = self.postgres.url("postgres");
        let config = format!("{}[billing]\nurl = {url:?}\n", CentralFolder::archiving(self.archive.path()));
        CentralFolder::new(self.bootstrap, &self.prefix, &config).expect("folder")
    }

    /// Clicks that say they were made at this time of the day, of campaign 3.
    fn clicks(&self, first: u128, count: u128, at_ms: u64) -> Vec<Click> {
        let clicked_at_ms = (self.day.end().0 - 24 * HOUR_MS + at_ms).into();
        let of_campaign = |click| Click { clicked_at_ms, campaign: 3.into(), ..click };
        numbered(first, count).into_iter().map(of_campaign).collect()
    }

    /// Starts both nodes at a time of the day, or after it, and sends each its clicks; they are counted and archived then.
    fn live(&self, nodes: &[PastNode; 2], at_ms: u64, clicks: [&[Click]; 2], central: &mut Central<'_>) {
        let now = self.day.end().0 - 24 * HOUR_MS + at_ms;
        let running = nodes.each_ref().map(|node| {
            node.is_at(now);
            let mut started = node.folder.start_with(&["--clock-is-right"]).expect("start");
            started.wait_until_ready().expect("ready");
            started
        });
        for (node, clicks) in nodes.iter().zip(clicks) {
            assert_eq!(send(&node.folder, clicks).expect("answers").acked_created, clicks.len() as u64);
        }
        central.wait_until_counted(2, now).expect("counted");
        running.into_iter().for_each(|node| node.drain().expect("drain"));
        // As a node that ends has told: the last of it is counted too.
        let records =
            topics::read(self.bootstrap, &format!("{}clicks.v1", self.prefix), Isolation::Committed);
        let rows: u64 = records.expect("clicks").iter().map(|record| rows_of(&record.value)).sum();
        let deadline = Instant::now() + WITHIN;
        while archived(self.archive.path()) < rows {
            assert!(
                Instant::now() < deadline,
                "{} of {rows} rows are archived",
                archived(self.archive.path())
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, sql: &str) -> String {
        self.postgres.ask("postgres", sql).expect("an answer")
    }

    fn books(&self) -> String {
        ["runs", "lines", "days", "adjustments"]
            .map(|table| self.ask(&format!("SELECT * FROM billing.{table} ORDER BY 1, 2, 3")))
            .join("\n--\n")
    }

    /// The books hold what the report has to be billed, campaign by campaign.
    fn is_billed(&self, central: &CentralFolder, more: &[&str]) {
        let (report, explained) = central.reconcile(&self.day.to_string(), more).expect("a report");
        assert!(explained, "{}", report["unexplained"]);
        let figures = ["click_count", "gross", "net", "cost_micros"];
        let line = |campaign: &Value| {
            let of = figures.map(|name| campaign["reconciled"][name].to_string()).join("|");
            format!("{}|{of}", campaign["campaign_id"])
        };
        let expected: BTreeSet<_> =
            report["campaigns"].as_array().expect("campaigns").iter().map(line).collect();
        let bills = self.ask("SELECT campaign, click_count, gross, net, cost_micros FROM billing.bills");
        assert_eq!(bills.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    }
}

fn rows_of(body: &[u8]) -> u64 {
    weir_common::row::Rows::new(body).count() as u64
}

fn archived(folder: &Path) -> u64 {
    let place = Place::open(folder.to_str().expect("text"), &[].into()).expect("the archive");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(place.manifest()).expect("the manifest").iter().map(|entry| entry.rows).sum()
}

#[test]
fn a_day_of_two_nodes_is_billed_closed_and_adjusted_and_the_books_are_what_a_recount_comes_to() {
    let Some(lab) = Lab::new() else { return };
    let folder = lab.central();
    let day = lab.day.to_string();
    let billed = |more: &[&str]| folder.bill(&[&["--day", &day], more].concat()).expect("billed");
    let mut central = folder.start().expect("central");
    folder.bill(&["--migrate"]).expect("migrated");
    let nodes = [1, 2].map(|id| PastNode::new(lab.bootstrap, &lab.prefix, id));

    // At noon: forty clicks at one node, ten of which come to the other as well, and ten of its own.
    let noon = 12 * HOUR_MS;
    let clicks = lab.clicks(1000, 50, noon);
    lab.live(&nodes, noon, [&clicks[..40], &clicks[30..]], &mut central);
    let why = folder.bill(&["--day", &day]).expect_err("is not final").to_string();
    assert!(why.contains("is not final at node"), "{why}");

    // An hour after midnight all its minutes are final.
    lab.live(&nodes, 25 * HOUR_MS, [&[], &[]], &mut central);
    let first = billed(&["--json"]);
    assert_eq!((&first["outcome"], &first["click_count"]), (&"lines".into(), &50.into()), "{first}");
    lab.is_billed(&folder, &[]);
    let before = lab.books();
    assert_eq!(billed(&["--json"])["outcome"], "unchanged");
    assert_eq!(lab.books(), before);
    assert_eq!(billed(&["--json", "--close"])["closed"], true);
    let lines = lab.ask("SELECT * FROM billing.lines ORDER BY campaign");

    // Later the next morning, clicks of that noon come after all: to both nodes, and some were known.
    let late = lab.clicks(2000, 9, noon);
    lab.live(&nodes, 31 * HOUR_MS, [&late[..7], &late[4..]], &mut central);
    let adjusted = billed(&["--json"]);
    assert_eq!(
        (&adjusted["outcome"], &adjusted["click_count"]),
        (&"adjustments".into(), &59.into()),
        "{adjusted}"
    );
    let causes = "SELECT cause, sum(click_count) FROM billing.adjustments GROUP BY cause ORDER BY cause";
    assert_eq!(lab.ask(causes), "late|9");
    lab.is_billed(&folder, &[]);
    assert_eq!(lab.ask("SELECT * FROM billing.lines ORDER BY campaign"), lines);
    let before = lab.books();
    assert_eq!(billed(&["--json"])["outcome"], "unchanged");
    assert_eq!(lab.books(), before);
    central.stop().expect("stop");
}

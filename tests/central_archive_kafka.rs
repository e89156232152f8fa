//! From a real Apache Kafka into an archive, and what a day comes to when it is counted again from there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use weir_central::archive::place::Place;
use weir_central::archive::read::Object;
use weir_common::block::BlockHeader;
use weir_common::row::Rows;
use weir_labs::central::{Central, CentralFolder, Truth, are_campaigns_answered};
use weir_labs::clicks::{Known, send};
use weir_labs::topics::{self, Isolation};
use weir_labs::{Generator, Load, Node, NodeFolder, kafka, now_ms, seed};
use zerocopy::FromBytes;

/// The archive has what it waits for within this.
const WITHIN: Duration = Duration::from_secs(60);

fn day_of(ms: u64) -> String {
    let time = Timestamp::from_millisecond(ms as i64).expect("a time");
    time.strftime("%F").to_string()
}

/// Where a row stands: incarnation, epoch, worker, sequence, row.
type RowPlace = (u64, u64, i32, u64, u64);
/// A row's place, its ad and when it was received.
type Row = (RowPlace, (u64, u64));

/// The rows in Kafka.
fn rows_in_log(bootstrap: &str, prefix: &str) -> BTreeMap<RowPlace, (u64, u64)> {
    let records =
        topics::read(bootstrap, &format!("{prefix}clicks.v1"), Isolation::Committed).expect("clicks");
    let mut rows = BTreeMap::new();
    for record in records {
        let header = BlockHeader::read_from_bytes(&record.headers["block"]).expect("a header");
        for (index, (row, _)) in Rows::new(&record.value).enumerate() {
            let place = (
                header.incarnation.get(),
                header.epoch.get().into(),
                header.worker.get().into(),
                header.sequence.get(),
                index as u64,
            );
            rows.insert(place, (row.click.ad.get(), row.received_at_ms.get()));
        }
    }
    rows
}

/// Every row of every object that the manifest names, as often as it is there.
fn rows_in_archive(folder: &Path) -> Vec<Row> {
    let place = Place::open(folder.to_str().expect("text"), &BTreeMap::new()).expect("the archive");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let names = ["incarnation", "epoch", "worker", "sequence", "row", "ad", "received_at_ms"];
    let mut rows = Vec::new();
    for entry in runtime.block_on(place.manifest()).expect("the manifest") {
        for named in entry.objects {
            let octets = runtime.block_on(place.get(&named.path)).expect("an object");
            assert_eq!(octets.len() as u64, named.bytes, "{}", named.path);
            let object = Object::of(octets).expect("Parquet");
            for group in 0..object.groups() {
                let columns = object.columns(group, names).expect("columns");
                let long = |column: usize, row: usize| columns[column].longs()[row].cast_unsigned();
                rows.extend((0..columns[0].longs().len()).map(|row| {
                    let place =
                        (long(0, row), long(1, row), columns[2].ints()[row], long(3, row), long(4, row));
                    (place, (long(5, row), long(6, row)))
                }));
            }
        }
    }
    rows
}

/// The files of clicks in a folder.
fn files_in(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| if path.is_dir() { files_in(&path) } else { usize::from(is_object(&path)) }).sum()
}

fn is_object(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "parquet")
}

/// Waits until the archive has as many rows as the log.
fn wait_until_archived(folder: &Path, rows: usize) -> Vec<Row> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let archived = rows_in_archive(folder);
        if archived.len() >= rows || Instant::now() >= deadline {
            return archived;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Nodes and a central tier that archives, none of them started.
struct Lab {
    bootstrap: &'static str,
    prefix: String,
    folders: Vec<NodeFolder>,
    archive: tempfile::TempDir,
    central: CentralFolder,
}

impl Lab {
    /// One with so many nodes; none where there is no Kafka.
    fn new(nodes: u32) -> Option<Self> {
        let (bootstrap, prefix) = (kafka::shared()?, kafka::fresh_prefix());
        let folder = |id| NodeFolder::forwarding(bootstrap, &prefix, id).expect("folder");
        let folders = (1..=nodes).map(folder).collect();
        let archive = tempfile::tempdir().expect("folder");
        let config = CentralFolder::archiving(archive.path());
        let central = CentralFolder::new(bootstrap, &prefix, &config).expect("folder");
        Some(Self { bootstrap, prefix, folders, archive, central })
    }

    fn start_nodes(&self) -> Vec<Node<'_>> {
        self.folders.iter().map(|folder| folder.start_ready().expect("ready")).collect()
    }

    fn rows_in_log(&self) -> BTreeMap<RowPlace, (u64, u64)> {
        rows_in_log(self.bootstrap, &self.prefix)
    }

    /// Waits until all that was acknowledged is counted, and as many rows are archived as are in the log.
    fn settle(&self, central: &mut Central<'_>) -> BTreeMap<RowPlace, (u64, u64)> {
        central.wait_until_counted(self.folders.len(), now_ms()).expect("counted");
        let expected = self.rows_in_log();
        assert_eq!(wait_until_archived(self.archive.path(), expected.len()).len(), expected.len());
        expected
    }
}

#[test]
fn killed_at_random_instants_it_archives_every_row_once() {
    let Some(lab) = Lab::new(1) else { return };
    let seed = seed();
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let nodes = lab.start_nodes();
    let load = Load { profile: "demo", rate: 6000, duration: Duration::from_secs(8), seed };
    let mut generator = Generator::start(&lab.folders[0], load).expect("generator");
    while generator.is_running().expect("generator") {
        let central = lab.central.start().expect("central");
        std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        central.kill().expect("kill");
    }
    generator.finish(Duration::from_secs(90)).expect("generator");
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
    let expected = lab.rows_in_log();
    let mut central = lab.central.start().expect("central");
    let archived = wait_until_archived(lab.archive.path(), expected.len());
    assert_eq!(archived.len(), expected.len(), "{}", lab.central.log_text());
    assert_eq!(archived.into_iter().collect::<BTreeMap<_, _>>(), expected);
    central.wait_until("/v1/nodes", |_| true).expect("an answer");
    central.stop().expect("stop");
    // Nothing lies beside what the manifest names.
    let place = Place::open(lab.archive.path().to_str().expect("text"), &BTreeMap::new()).expect("archive");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let manifest = runtime.block_on(place.manifest()).expect("manifest");
    let named: BTreeSet<_> =
        manifest.iter().flat_map(|entry| &entry.objects).map(|object| &object.path).collect();
    assert_eq!(files_in(lab.archive.path()), named.len());
}

/// What an engine finds in an archive that knows nothing of ours, if `cargo xtask setup` made it.
fn read_by_pyarrow(archive: &Path) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("read_archive.py");
    run_python("pyarrow", Command::new("python3").arg(script).arg(archive))
}

/// The JSON that a script prints in an environment of its own, if `cargo xtask setup` made that.
fn run_python(environment: &str, script: &mut Command) -> Option<Value> {
    let target = weir_labs::binary("weir").ancestors().nth(2).map(Path::to_path_buf)?;
    let folder = target.join(environment);
    if !folder.join("made-of").exists() {
        println!("skipped: {environment} is not here; `cargo xtask setup` installs it");
        return None;
    }
    let mut command = Command::new(folder.join("bin/python3"));
    command.args(script.get_args()).env("PYSPARK_PYTHON", folder.join("bin/python3"));
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// What Spark comes to of a day, by the same rules.
fn reconciled_by_spark(archive: &Path, day: &str, filters: Option<&str>) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spark/reconcile.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(archive).arg(day);
    command.args(filters.map(|filters| format!("--filters={filters}")));
    run_python("pyspark", &mut command)
}

const FIGURES: [&str; 4] = ["click_count", "gross", "net", "cost_micros"];

/// The figures of each campaign before and after, and each adjustment, whoever found them.
fn figures(report: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let of = |value: &Value| FIGURES.map(|name| value[name].as_i64().unwrap_or(0));
    let all = |name: &str| report[name].as_array().expect("a list").clone();
    let campaign = |found: Value| {
        format!("{}: {:?} {:?}", found["campaign_id"], of(&found["recorded"]), of(&found["reconciled"]))
    };
    let adjustment = |found: Value| {
        let [ad, campaign, minute, cause] =
            ["ad_id", "campaign_id", "minute", "cause"].map(|name| &found[name]);
        format!("{ad} {campaign} {minute} {cause}: {:?}", of(&found))
    };
    (
        all("campaigns").into_iter().map(campaign).collect(),
        all("adjustments").into_iter().map(adjustment).collect(),
    )
}

#[test]
fn an_engine_that_knows_nothing_of_ours_reads_every_row_where_it_belongs() {
    let Some(lab) = Lab::new(1) else { return };
    let nodes = lab.start_nodes();
    let mut central = lab.central.start().expect("central");
    let load = Load { profile: "demo", rate: 4000, duration: Duration::from_secs(3), seed: 17 };
    Generator::start(&lab.folders[0], load).expect("generator").finish(WITHIN).expect("generator");
    let rows = lab.settle(&mut central).len();
    are_campaigns_answered(&central, lab.bootstrap, &lab.prefix).expect("the campaigns of the rows");
    let truth = Truth::of(lab.bootstrap, &lab.prefix).expect("rows");
    if let Some(found) = read_by_pyarrow(lab.archive.path()) {
        let accepted: u64 = truth.0.values().map(|totals| totals.accepted.get()).sum();
        assert_eq!(
            (found["rows"].as_u64(), found["distinct"].as_u64()),
            (Some(rows as u64), Some(rows as u64))
        );
        assert_eq!(found["accepted"].as_u64(), Some(accepted));
        assert_eq!((found["misplaced"].as_u64(), found["nulls"].as_u64()), (Some(0), Some(0)), "{found}");
        assert!(found["price_micros"].as_u64() > Some(0));
        // Nothing unsigned and no decimals: what Spark would read at half the speed.
        let columns: Vec<_> =
            found["columns"].as_array().expect("columns").iter().filter_map(Value::as_str).collect();
        assert_eq!(columns.len(), 35);
        let is_plain =
            |column: &&str| ["int32", "int64", "string", "binary"].iter().any(|kind| column.ends_with(kind));
        assert!(columns.iter().all(is_plain), "{columns:?}");
    }
    has_all_of_the_log(lab.archive.path());
    central.stop().expect("stop");
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
}

/// Reprocesses these days by rules and holds the table against the reconciliations by the standing rules and by
/// the same: it comes to both, and leaves what stands as it was.
fn hold_table(lab: &Lab, days: &BTreeSet<String>, rules: &Path, (standing, other): (&[Value], &[Value])) {
    let end = day_of(now_ms() + 86_400_000);
    let range = (days.first().expect("a day").as_str(), end.as_str());
    let comparison = lab.central.reprocess("trial", range, rules).expect("a comparison");
    let object_of = |path: &str| std::fs::read(lab.archive.path().join(path)).expect("an object");
    let mut found = BTreeMap::new();
    for object in comparison["objects"].as_array().expect("objects") {
        let path = lab.archive.path().join(object["path"].as_str().expect("a path"));
        let table = Object::of(std::fs::File::open(path).expect("an object")).expect("Parquet");
        for (name, column) in FIGURES
            .map(|name| (name, name.to_owned()))
            .into_iter()
            .chain(FIGURES.map(|name| (name, format!("standing_{name}"))))
        {
            let [values] = table.columns(0, [column.as_str()]).expect("a column");
            let of = if column == name { "shadow" } else { "standing" };
            *found.entry((of, name)).or_insert(0) += values.longs().iter().sum::<i64>();
        }
    }
    for (of, reports) in [("standing", standing), ("shadow", other)] {
        for name in FIGURES {
            let expected = sum(reports, &format!("/reconciled/{name}"));
            assert_eq!(comparison[of][name].as_u64(), Some(expected), "{of} {name}");
            assert_eq!(found[&(of, name)], expected as i64, "{of} {name} of the table");
        }
    }
    let before = object_of("_shadow/trial/comparison.json");
    lab.central.reprocess("trial", range, rules).expect("a comparison");
    assert!(object_of("_shadow/trial/comparison.json") == before, "a second run says the same");
}

/// The last batch says as of when it has all that was in Kafka: at some time before now, and after the log began.
fn has_all_of_the_log(archive: &Path) {
    let place = Place::open(archive.to_str().expect("text"), &BTreeMap::new()).expect("the archive");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let manifest = runtime.block_on(place.manifest()).expect("the manifest");
    let until = manifest.iter().rev().find_map(|entry| entry.read_until_ms).expect("some batch says so");
    assert!((now_ms() - 120_000..now_ms()).contains(&until), "{until}");
}

fn sum(reports: &[Value], pointer: &str) -> u64 {
    reports.iter().map(|report| report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)).sum()
}

#[test]
fn a_day_counted_again_has_each_click_once_over_all_nodes_and_says_what_changed_and_why() {
    let Some(lab) = Lab::new(2) else { return };
    let nodes = lab.start_nodes();
    let mut central = lab.central.start().expect("central");
    // Ten accepted, ten second clicks, ten prefetches and ten late ones; then the same at the other node.
    let known = Known::new(1);
    for folder in &lab.folders {
        send(folder, &known.with_rows).expect("answers");
    }
    let load = Load { profile: "demo", rate: 2000, duration: Duration::from_secs(2), seed: 5 };
    Generator::start(&lab.folders[0], load).expect("generator").finish(WITHIN).expect("generator");
    lab.settle(&mut central);

    // Late clicks may be of the day before, and so may be the load's.
    let days: BTreeSet<_> = [now_ms() - 25 * 3_600_000, now_ms() - 20 * 60_000, now_ms()].map(day_of).into();
    let reconcile = |more: &[&str]| -> Vec<Value> {
        let report = |day: &String| lab.central.reconcile(day, more).expect("a report");
        let reports = days.iter().map(report);
        reports
            .map(|(report, explained)| {
                assert!(explained, "{}", report["unexplained"]);
                report
            })
            .collect()
    };
    let reports = reconcile(&[]);
    assert_eq!(sum(&reports, "/clicks_by_cause/cross_node_duplicate"), 40);
    let late = sum(&reports, "/clicks_by_cause/late");
    assert!(late >= 10, "{late} late clicks");
    // Of the twenty that two nodes accepted ten are left, and the late ones have come to them.
    let (today, last) = days.last().zip(reports.last()).expect("a day");
    if let Some(found) = reconciled_by_spark(lab.archive.path(), today, None) {
        assert_eq!(figures(&found), figures(last));
    }
    let (before, after) = (sum(&reports, "/recorded/click_count"), sum(&reports, "/reconciled/click_count"));
    assert_eq!(sum(&reports, "/recorded/late"), late + 10);
    assert_eq!(after, before - 10 + late, "{before} and {after}, {late} late");
    assert_eq!(reconcile(&[]), reports, "a second run says the same");

    // By rules without filters, prefetches are clicks.
    let rules = lab.central.path().join("rules.toml");
    std::fs::write(&rules, "version = \"open\"\nfilters = []\n").expect("rules");
    let open = reconcile(&["--rules", rules.to_str().expect("text")]);
    if let Some(found) = reconciled_by_spark(lab.archive.path(), today, Some("")) {
        assert_eq!(figures(&found), figures(open.last().expect("a report")));
    }
    assert!(sum(&open, "/clicks_by_cause/rule_change") >= 10);
    hold_table(&lab, &days, &rules, (&reports, &open));
    assert_eq!(sum(&open, "/reconciled/filtered"), 0);
    assert!(sum(&open, "/reconciled/click_count") > after);
    central.stop().expect("stop");
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
}

#[test]
fn a_count_that_no_row_explains_is_told() {
    let Some(lab) = Lab::new(1) else { return };
    let nodes = lab.start_nodes();
    let mut central = lab.central.start().expect("central");
    send(&lab.folders[0], &Known::new(1).with_rows).expect("answers");
    lab.settle(&mut central);
    // The manifest forgets a batch: its rows are counted and not archived.
    let manifest = lab.archive.path().join("_manifest");
    let last =
        std::fs::read_dir(&manifest).expect("entries").map(|entry| entry.expect("an entry").path()).max();
    std::fs::remove_file(last.expect("an entry")).expect("removed");
    let days: BTreeSet<_> = [now_ms() - 20 * 60_000, now_ms()].map(day_of).into();
    let reports: Vec<_> = days.iter().map(|day| lab.central.reconcile(day, &[]).expect("a report")).collect();
    assert!(reports.iter().any(|(_, explained)| !explained));
    let unexplained: u64 =
        reports.iter().filter_map(|(report, _)| report["unexplained_total"].as_u64()).sum();
    assert!(unexplained > 0);
    central.stop().expect("stop");
    nodes.into_iter().for_each(|node| node.drain().expect("drain"));
}

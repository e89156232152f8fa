//! The central tier as a process, and what it has to answer: a recount of the rows in Kafka.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use weir_common::bucket::BucketTotals;
use weir_common::row::Rows;

use crate::port::{free_ports, get};
use crate::process::{Process, binary};
use crate::topics::{self, Isolation};

/// It has what a lab waits for within this.
const WITHIN: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// What outlives its crashes: config and store.
#[derive(Debug)]
pub struct CentralFolder {
    folder: tempfile::TempDir,
    port: u16,
}

/// A running central tier; killed when dropped.
#[derive(Debug)]
pub struct Central<'a> {
    folder: &'a CentralFolder,
    process: Process,
}

impl CentralFolder {
    /// A fresh folder of one that reads these topics. `config` is appended to the config.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn new(bootstrap: &str, prefix: &str, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let made = Self { folder, port };
        let brokers: Vec<_> = bootstrap.split(',').collect();
        let data = made.path().join("data");
        let text = format!(
            "[central]\ndata_dir = {data:?}\n[kafka]\nbrokers = {brokers:?}\ntopic_prefix = {prefix:?}\n\
             [serve]\nlisten = \"127.0.0.1:{port}\"\n{config}"
        );
        fs::write(made.config(), text)?;
        Ok(made)
    }

    /// Names a node in the config that will not come back.
    ///
    /// # Errors
    /// When the config cannot be written.
    pub fn retire(&self, node: u32) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        let retired = format!("[central]\nretired_nodes = [{node}]\n");
        Ok(fs::write(self.config(), text.replacen("[central]\n", &retired, 1))?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its config file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("central.toml")
    }

    /// The port that answers.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// All that was logged here.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.path().join("central.log")).unwrap_or_default()
    }

    /// The part of a config that archives into this folder, at once.
    #[must_use]
    pub fn archiving(into: &Path) -> String {
        format!("[archive]\nurl = {into:?}\nclose_after_ms = 300\n")
    }

    /// What a command prints that ends well.
    ///
    /// # Errors
    /// When it does not, with what it said.
    fn obeyed(&self, command: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let (status, printed, said) = self.ended(command, arguments)?;
        ensure!(status == Some(0), "{command} ends with {status:?}: {said}");
        Ok(printed)
    }

    /// How a command ends: its exit status, what it prints, and what it says.
    fn ended(&self, command: &str, arguments: &[&str]) -> Result<(Option<i32>, Vec<u8>, String)> {
        let mut program = Command::new(binary("weir-central"));
        program.arg(command).arg("--config").arg(self.config()).args(arguments);
        let output = program.output().context("cannot run weir-central")?;
        Ok((output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The statements that make the tables in ClickHouse, as its config wants them.
    ///
    /// # Errors
    /// When they are not printed.
    pub fn clickhouse_schema(&self) -> Result<String> {
        Ok(String::from_utf8(self.obeyed("clickhouse-schema", &[])?)?)
    }

    /// What a reconciliation of a day says, and whether every count is explained.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn reconcile(&self, day: &str, more: &[&str]) -> Result<(Value, bool)> {
        let (status, printed, said) = self.ended("reconcile", &[&["--json", "--day", day], more].concat())?;
        let explained = match status {
            Some(0) => true,
            Some(3) => false,
            _ => bail!("{status:?}: {said}"),
        };
        Ok((serde_json::from_slice(&printed).context(said)?, explained))
    }

    /// What a range comes to by the rules in this file, in a table of this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn reprocess(&self, name: &str, (start, end): (&str, &str), rules: &Path) -> Result<Value> {
        let rules = rules.to_str().context("a path that is no text")?;
        let arguments = ["--json", "--name", name, "--start", start, "--end", end, "--rules", rules];
        Ok(serde_json::from_slice(&self.obeyed("reprocess", &arguments)?)?)
    }

    /// What is billed; nothing where nothing is printed as JSON.
    ///
    /// # Errors
    /// When it is not, with what was said.
    pub fn bill(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_slice(&self.obeyed("bill", arguments)?).unwrap_or(Value::Null))
    }

    /// Starts one; it may not answer yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Central<'_>> {
        let log = OpenOptions::new().create(true).append(true).open(self.path().join("central.log"))?;
        let mut command = Command::new(binary("weir-central"));
        command.arg("run").arg("--config").arg(self.config()).stdout(log.try_clone()?).stderr(log);
        Ok(Central { folder: self, process: Process::start("the central tier", &mut command)? })
    }
}

impl Central<'_> {
    /// The answer to a question.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let (status, body) = get(self.folder.port, path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        serde_json::from_str(&body).context(body)
    }

    /// Waits until it says that this is so of what it answers to a question.
    ///
    /// # Errors
    /// When it ends, or never says so; with what it said last and the end of its log.
    pub fn wait_until(&mut self, path: &str, mut is_so: impl FnMut(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + WITHIN;
        let mut last = Value::Null;
        loop {
            if let Some(status) = self.process.ended()? {
                bail!("the central tier ended ({status}):\n{}", self.folder.log_text());
            }
            if let Ok(answer) = self.ask(path) {
                if is_so(&answer) {
                    return Ok(answer);
                }
                last = answer;
            }
            if Instant::now() >= deadline {
                bail!("{path} said {last} to the end:\n{}", self.folder.log_text());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Waits until these nodes are counted up to this time, ms since 1970.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub fn wait_until_counted(&mut self, nodes: usize, until_ms: u64) -> Result<()> {
        let is_so = |answer: &Value| {
            let all = answer["nodes"].as_array().into_iter().flatten();
            let counted = all.filter(|node| node["counted_until_ms"].as_u64() >= Some(until_ms));
            counted.count() == nodes
        };
        self.wait_until("/v1/nodes", is_so).map(drop)
    }

    /// Ends it as a crash does.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(WITHIN).map(drop)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(WITHIN)?;
        ensure!(status.success(), "{status}:\n{}", self.folder.log_text());
        Ok(())
    }
}

/// What is to be answered: totals by ad and minute, from the rows in Kafka.
#[derive(Debug, Default)]
pub struct Truth(pub BTreeMap<(u64, u32), BucketTotals>);

impl Truth {
    /// Reads the raw batches to their end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(bootstrap: &str, prefix: &str) -> Result<Self> {
        let mut truth = Self::default();
        for record in topics::read(bootstrap, &format!("{prefix}clicks.v1"), Isolation::Committed)? {
            for (row, _) in Rows::new(&record.value) {
                truth.0.entry((row.click.ad.get(), row.minute.get())).or_default().count(row);
            }
        }
        Ok(truth)
    }

    /// The ad with the most minutes.
    #[must_use]
    pub fn ad(&self) -> u64 {
        let mut minutes: BTreeMap<u64, usize> = BTreeMap::new();
        self.0.keys().for_each(|(ad, _)| *minutes.entry(*ad).or_default() += 1);
        minutes.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(ad, _)| ad)
    }

    /// Whether the answers are these totals: of all ads together and of each, by day, and of one ad by
    /// minute and hour.
    ///
    /// # Errors
    /// When they are not, with the first difference.
    pub fn is_answered_by(&self, central: &Central<'_>) -> Result<()> {
        ensure!(!self.0.is_empty(), "there is nothing to be answered");
        let first = self.0.keys().map(|(_, minute)| *minute).min().unwrap_or(0);
        let last = self.0.keys().map(|(_, minute)| *minute).max().unwrap_or(0);
        let range = format!("start={}&end={}", u64::from(first) * 60, u64::from(last + 1) * 60);
        for window in ["1m", "1h", "1d"] {
            let answer = central.ask(&format!("/v1/stats/top?window={window}&limit=1000&{range}"))?;
            let total = self.sum(|_, _| true);
            ensure!(is_of(&answer["total"], &total), "{window}: {} and not {total:?}", answer["total"]);
            for found in answer["data"].as_array().context("no ads")? {
                let ad: u64 = found["ad_id"].as_str().context("no ad")?.parse()?;
                let total = self.sum(|of, _| of == ad);
                ensure!(is_of(found, &total), "{window}: {found} and not {total:?}");
            }
        }
        let ad = self.ad();
        for (window, minutes) in [("1m", 1), ("5m", 5), ("1h", 60)] {
            let answer = central.ask(&format!("/v1/stats?ad_id={ad}&window={window}&limit=10000&{range}"))?;
            let first = first - first % minutes;
            for (index, point) in answer["data"].as_array().context("no windows")?.iter().enumerate() {
                let start = first + index as u32 * minutes;
                let total = self.sum(|of, minute| of == ad && (start..start + minutes).contains(&minute));
                ensure!(is_of(point, &total), "{window}: {point} and not {total:?}");
            }
        }
        Ok(())
    }

    /// The totals of some ads and minutes together.
    pub fn sum(&self, mut is_in: impl FnMut(u64, u32) -> bool) -> BucketTotals {
        let mut total = BucketTotals::default();
        let found = self.0.iter().filter(|((ad, minute), _)| is_in(*ad, *minute));
        found.for_each(|(_, totals)| total.merge(totals));
        total
    }
}

/// Whether the list of campaigns is what the rows in Kafka add up to, each by its own click's campaign.
///
/// # Errors
/// When it is not, or the rows cannot be read.
pub fn are_campaigns_answered(central: &Central<'_>, bootstrap: &str, prefix: &str) -> Result<()> {
    let mut campaigns: BTreeMap<u32, BucketTotals> = BTreeMap::new();
    for record in topics::read(bootstrap, &format!("{prefix}clicks.v1"), Isolation::Committed)? {
        for (row, _) in Rows::new(&record.value) {
            campaigns.entry(row.click.campaign.get()).or_default().count(row);
        }
    }
    // Two days before tomorrow: late clicks are of yesterday perhaps.
    let end = crate::now_ms() / 86_400_000 * 86_400 + 86_400;
    let range = format!("window=1d&start={}&end={end}", end - 2 * 86_400);
    let top = central.ask(&format!("/v1/stats/top?of=campaigns&limit=1000&{range}"))?;
    let found = top["data"].as_array().context("no campaigns")?;
    ensure!(found.len() == campaigns.len(), "{} and not {} campaigns", found.len(), campaigns.len());
    for (campaign, totals) in &campaigns {
        let entry = found.iter().find(|entry| entry["campaign_id"].as_u64() == Some((*campaign).into()));
        let entry = entry.with_context(|| format!("campaign {campaign} is not there"))?;
        ensure!(is_of(entry, totals), "{entry} and not {totals:?}");
    }
    Ok(())
}

/// Whether an answer has these totals.
#[must_use]
pub fn is_of(answer: &Value, totals: &BucketTotals) -> bool {
    let said = |name: &str| answer[name].as_u64();
    said("click_count") == Some(totals.accepted.get())
        && said("gross") == Some(totals.gross())
        && said("net") == Some(totals.billable())
        && said("late") == Some(totals.late.get())
        && said("cost_micros") == Some(totals.cost_micros.get())
}

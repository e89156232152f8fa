//! `cargo xtask demo --central`: two POPs, a real Apache Kafka and the central tier on one machine. What
//! the central tier answers is held against what the nodes counted, and against the rows in its archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_kafka_lab::{Broker, Cluster};

use super::{
    Args, DRAINED_WITHIN, Folder, GENERATOR_GRACE, READY_WITHIN, drain, generator, https, read_json,
    start_kafka,
};
use crate::command::{self, Interrupt, Running};
use crate::lab::{Lab, POPS};
use crate::status::{grouped, number};

/// The first day of the answers, in seconds: clicks may be from before midnight.
const DAY_S: u64 = 86_400;
/// The central tier has everything within this: a flush of the nodes, and its own reading.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The central tier's folder, and the program.
struct Central<'a> {
    path: PathBuf,
    binaries: &'a Path,
    lab: &'a Lab,
}

pub(super) fn run(args: &Args, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    println!(
        "[3/6] lab: two POPs, each with a veth of its own to the senders, and Apache Kafka between them"
    );
    let folders = [&POPS[0], &POPS[1]].map(|pop| Folder::make(binaries.to_owned(), pop));
    let [one, other] = folders;
    let folders = [one?, other?];
    let lab = Lab::build(&POPS)?;
    let kafka = start_kafka(&lab)?;
    println!("[4/6] two nodes and the central tier");
    let central = Central { path: folders[0].path.join("central"), binaries, lab: &lab };
    let mut tier = central.start(&kafka)?;
    let mut nodes = Vec::new();
    for folder in &folders {
        folder.write_config(Some(&kafka))?;
        let mut node = folder.start_daemon(&lab)?;
        folder.wait_until_ready(&mut node, interrupt)?;
        nodes.push(node);
    }
    println!(
        "[5/6] load: {} clicks/s at each POP for {} s",
        grouped(args.rate.into()),
        args.duration.as_secs()
    );
    let mut generators = Vec::new();
    for folder in &folders {
        generators.push(start_generators(args, folder, &lab)?);
    }
    let until = Instant::now() + args.duration + GENERATOR_GRACE;
    for (generator, beside) in generators.iter_mut().flatten() {
        let ended = generator.wait(until.saturating_duration_since(Instant::now()), || interrupt.check())?;
        ensure!(ended.success(), "a generator failed ({ended}); see {beside}");
    }
    println!("[6/6] ask, drain, count the day again, close the books");
    central.wait_until_counted(now_ms(), &mut tier, interrupt)?;
    for (folder, node) in folders.iter().zip(&mut nodes) {
        drain(folder, node, interrupt)?;
    }
    let verdict = central.verdict(&folders, interrupt);
    tier.terminate()?;
    tier.wait(DRAINED_WITHIN, || interrupt.check())?;
    println!("\nleft to look at, in {}:", central.path.display());
    println!("  central.toml, central.log, archive/ with the day's report under _reconciled/");
    folders.iter().for_each(|folder| folder.tell(args.keep));
    verdict
}

/// The generators of a POP: datagrams, and HTTPS beside them.
fn start_generators(args: &Args, folder: &Folder, lab: &Lab) -> Result<[(Running, String); 2]> {
    let https = https::start(folder, lab, args.rate, args.duration)?;
    // The ids of each begin with the ms of its start, so they must not start in the same one.
    std::thread::sleep(super::APART);
    let log = folder.path.join("generator.log");
    let file = fs::File::create(&log).context("cannot write the generator's log")?;
    let mut command = generator(args, folder, lab);
    command.stdout(file.try_clone()?).stderr(file);
    let udp = Running::start("the generator", &mut command)?;
    let beside = folder.path.join("generator-https.log").display().to_string();
    Ok([(udp, log.display().to_string()), (https, beside)])
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Central<'_> {
    fn config(&self) -> PathBuf {
        self.path.join("central.toml")
    }

    fn start(&self, kafka: &Cluster) -> Result<Running> {
        fs::create_dir_all(&self.path)?;
        let brokers: Vec<_> = kafka.brokers.iter().map(Broker::address).collect();
        let (data, archive) = (self.path.join("data"), self.path.join("archive"));
        let text = format!(
            "# Made by `cargo xtask demo --central`. What is not here has its default: see deploy/central.toml.\n\
             [central]\ndata_dir = {data:?}\n\n[kafka]\nbrokers = {brokers:?}\n\n\
             [archive]\nurl = {archive:?}\nclose_after_ms = 1000\n"
        );
        fs::write(self.config(), text).context("cannot write the central tier's config")?;
        let log = fs::File::create(self.path.join("central.log"))?;
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone()?).stderr(log);
        Running::start("the central tier", &mut command)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.lab.pop.command(&self.binaries.join("weir-central"));
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = command::output(&mut self.command(&["ask", path]))?;
        serde_json::from_str(&answer).with_context(|| format!("{path} has no JSON for an answer: {answer}"))
    }

    /// Waits until it says that everything acknowledged before this moment is counted.
    fn wait_until_counted(&self, at_ms: u64, tier: &mut Running, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN + COUNTED_WITHIN;
        loop {
            interrupt.check()?;
            if let Some(status) = tier.ended()? {
                bail!("the central tier ended ({status}); see {}", self.path.join("central.log").display());
            }
            let nodes = self.ask("/v1/nodes").unwrap_or_default();
            let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
            let is_counted = |node: &Value| node["counted_until_ms"].as_u64() >= Some(at_ms);
            if nodes.len() == POPS.len() && nodes.iter().all(is_counted) {
                let lag_ms = now_ms() - at_ms;
                println!(
                    "      everything acknowledged is counted {lag_ms} ms after the last generator ended"
                );
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the central tier does not catch up: {nodes:?}");
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Holds its answers against what the nodes counted, and against the archive.
    fn verdict(&self, folders: &[Folder], interrupt: &Interrupt) -> Result<()> {
        let start = now_ms() / 1000 / DAY_S * DAY_S - DAY_S;
        let range = format!("window=1d&start={start}&end={}", start + 3 * DAY_S);
        let top = self.ask(&format!("/v1/stats/top?limit=5&{range}"))?;
        println!("\nGET /v1/stats/top?limit=5&{range}");
        println!("{:>22} {:>12} {:>12} {:>12} {:>16}", "ad", "clicks", "gross", "net", "cost in micros");
        for ad in top["data"].as_array().into_iter().flatten() {
            let cell = |name: &str| grouped(number(ad, name).into());
            let id = ad["ad_id"].as_str().unwrap_or("?");
            let (clicks, gross) = (cell("/click_count"), cell("/gross"));
            println!("{id:>22} {clicks:>12} {gross:>12} {:>12} {:>16}", cell("/net"), cell("/cost_micros"));
        }
        let statuses: Vec<_> =
            folders.iter().map(|folder| read_json(&folder.final_status())).collect::<Result<_>>()?;
        let counted = |outcome: &str| -> u64 {
            statuses.iter().map(|status| number(status, &format!("/clicks/outcomes/{outcome}"))).sum()
        };
        println!("\n{:>12} {:>16} {:>16}", "", "both nodes", "central");
        let mut is_equal = true;
        let gross = counted("accepted") + counted("repeat") + counted("filtered");
        for (name, nodes, central) in [
            ("accepted", counted("accepted"), number(&top, "/total/click_count")),
            ("repeat", counted("repeat"), number(&top, "/total/repeat")),
            ("late", counted("late"), number(&top, "/total/late")),
            ("filtered", counted("filtered"), number(&top, "/total/filtered")),
            ("gross", gross, number(&top, "/total/gross")),
        ] {
            println!("{name:>12} {:>16} {:>16}", grouped(nodes.into()), grouped(central.into()));
            is_equal &= nodes == central;
        }
        self.reconcile(start, interrupt)?;
        ensure!(is_equal, "the central tier has other counts than the nodes");
        println!(
            "Click for click, the central tier has what the nodes counted, and its archive has every row of it."
        );
        Ok(())
    }

    /// Counts the days again, once the archive has what was counted last.
    fn reconcile(&self, start: u64, interrupt: &Interrupt) -> Result<()> {
        for day in 0..2 {
            let name = jiff::Timestamp::from_second((start + day * DAY_S) as i64)?.strftime("%F").to_string();
            let deadline = Instant::now() + COUNTED_WITHIN;
            loop {
                interrupt.check()?;
                let output = self.command(&["reconcile", "--day", &name]).output()?;
                if output.status.success() {
                    println!("\n$ weir-central reconcile --day {name}");
                    print!("{}", String::from_utf8_lossy(&output.stdout));
                    break;
                }
                let said = String::from_utf8_lossy(&output.stdout).into_owned()
                    + &String::from_utf8_lossy(&output.stderr);
                ensure!(Instant::now() < deadline, "{name} is not reconciled:\n{said}");
                std::thread::sleep(ASK_EVERY);
            }
        }
        Ok(())
    }
}

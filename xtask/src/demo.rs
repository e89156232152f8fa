//! `cargo xtask demo`: a node under load between two network namespaces, and its books closed.
//!
//! Everything it makes is removed again on every way out, Ctrl-C and panic included, but for one
//! folder under `target/demo` with the config, the journal and the reports.

mod central;
mod https;

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weir_kafka_lab::{Broker, Cluster, VERSION};

use crate::books::Books;
use crate::command::{self, Interrupt, Running};
use crate::lab::{self, Lab, POPS, Pop};
use crate::status::{fetch, grouped, number, numbers};
use crate::{kafka, setup, target};

/// The click port.
const PORT: u16 = 4500;
/// Before the port of metrics of the first node: both are in one namespace.
const METRICS_PORT: u32 = 9463;
/// Sources the demo config denies: TEST-NET-2, which nobody owns (RFC 5737).
const DENIED: &str = "198.51.100.0/24";
/// A fresh node loads its program and opens an empty journal: seconds, even on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A drain commits what it has and flushes once.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// What the generator may take beyond its duration: resends of what was not acknowledged.
const GENERATOR_GRACE: Duration = Duration::from_secs(60);
/// Far enough between two generators: each has more than a million ids for a ms.
const APART: Duration = Duration::from_secs(1);
/// What the names of the topics begin with, as the default config has it.
const TOPIC_PREFIX: &str = "weir.";
/// How far a generator may fall behind its plan where others share its cores: another, or a broker.
const LATE_BOUND_BESIDE_OTHERS: &str = "250ms";
/// How many ads the audit shows.
const BUSIEST_ADS: &str = "5";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the generator sends, in seconds
    #[arg(long, default_value = "20s", value_parser = seconds)]
    duration: Duration,
    /// Clicks a second that it sends
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    rate: u32,
    /// Forward to a real Apache Kafka, started for the demo, instead of the embedded store
    #[arg(long)]
    kafka: bool,
    /// Two POPs, a real Apache Kafka and the central tier: asks it, and counts the day again from its archive
    #[arg(long, conflicts_with = "kafka")]
    central: bool,
    #[command(flatten)]
    setup: setup::Args,
    /// Keep the node's data too, not only the reports
    #[arg(long)]
    keep: bool,
    /// Run the weir and weir-bench of this folder instead of building them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse();
    match number {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected seconds from 1s to 3600s, such as 20s".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    lab::require_root()?;
    let interrupt = Interrupt::watch()?;
    println!("[1/6] set-up");
    setup::ensure(&args.setup)?;
    if args.kafka || args.central {
        setup::ensure_kafka(&args.setup)?;
    }
    let binaries = binaries(args)?;
    interrupt.check()?;
    if args.central {
        return central::run(args, &binaries, &interrupt);
    }
    let [pop, _] = &POPS;
    println!("[3/6] lab: namespaces pop ({}, {}) and sdk, a veth between them", pop.v4, pop.v6);
    let folder = Folder::make(binaries, pop)?;
    let lab = Lab::build(std::slice::from_ref(pop))?;
    let kafka = args.kafka.then(|| start_kafka(&lab)).transpose()?;
    folder.write_config(kafka.as_ref())?;
    println!("[4/6] node: weir run --config {}", folder.config().display());
    let mut daemon = folder.start_daemon(&lab)?;
    folder.wait_until_ready(&mut daemon, &interrupt)?;
    println!("[5/6] load: {} clicks/s for {} s", grouped(args.rate.into()), args.duration.as_secs());
    generate(args, &folder, &lab, &mut daemon, &interrupt)?;
    println!("[6/6] drain, audit, close the books");
    drain(&folder, &mut daemon, &interrupt)?;
    let audited = match &kafka {
        None => audit(&folder),
        Some(kafka) => recount(&folder, &lab, kafka),
    };
    drop((kafka, lab));
    let verdict = judge(&folder, audited);
    folder.tell(args.keep);
    verdict
}

/// The folder of weir and weir-bench, built if need be.
fn binaries(args: &Args) -> Result<PathBuf> {
    if let Some(folder) = &args.binaries {
        println!("[2/6] weir and weir-bench of {}", folder.display());
        return fs::canonicalize(folder).with_context(|| format!("cannot find {}", folder.display()));
    }
    println!("[2/6] build weir and weir-bench (release)");
    let mut build = command::cargo();
    build.args(["build", "--release", "--package", "weir", "--package", "weir-bench"]);
    if args.central {
        build.args(["--package", "weir-central"]);
    }
    if args.kafka {
        build.args(["--package", "weir-labs", "--bins"]);
    }
    command::run(&mut build)?;
    Ok(target().join("release"))
}

/// What one run leaves behind, and the programs it runs.
struct Folder {
    path: PathBuf,
    binaries: PathBuf,
    pop: &'static Pop,
}

impl Folder {
    fn make(binaries: PathBuf, pop: &'static Pop) -> Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = format!("{}-{}-{}", since_epoch.as_secs(), std::process::id(), pop.node.1);
        let folder = Self { path: target().join("demo").join(stamp), binaries, pop };
        for part in ["data", "run"] {
            let path = folder.path.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        folder.write_key()?;
        https::make_certificate(&folder.path)?;
        Ok(folder)
    }

    fn config(&self) -> PathBuf {
        self.path.join("weir.toml")
    }

    fn key(&self) -> PathBuf {
        self.path.join("1-1.hex")
    }

    fn socket(&self) -> PathBuf {
        self.path.join("run/weir.sock")
    }

    fn report(&self) -> PathBuf {
        self.path.join("generator.json")
    }

    fn acked(&self) -> PathBuf {
        self.path.join("acked.log")
    }

    fn final_status(&self) -> PathBuf {
        self.path.join("run/final-status.json")
    }

    /// A key nobody has seen before, for its owner's eyes alone.
    fn write_key(&self) -> Result<()> {
        let mut bytes = [0_u8; 16];
        fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.key());
        writeln!(file.context("cannot write the demo key")?, "{digits}").context("cannot write the demo key")
    }

    fn write_config(&self, kafka: Option<&Cluster>) -> Result<()> {
        let mut text = self.config_text();
        if let Some(kafka) = kafka {
            let brokers: Vec<_> = kafka.brokers.iter().map(Broker::address).collect();
            text += &format!("\n[forward]\nsink = \"kafka\"\n\n[kafka]\nbrokers = {brokers:?}\n");
        }
        fs::write(self.config(), text).context("cannot write the demo config")
    }

    fn config_text(&self) -> String {
        let (data, run, https) = (self.path.join("data"), self.path.join("run"), https::config(self.pop));
        let Pop { node: (id, name), v4, v6, interface, .. } = self.pop;
        let metrics_port = METRICS_PORT + id;
        format!(
            "# Made by `cargo xtask demo`. What is not here has its default: see deploy/weir.toml.\n\
             [node]\nid = {id}\nregion = \"demo\"\npop = {name:?}\ndata_dir = {data:?}\nrun_dir = {run:?}\n\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n\n[rx.udp]\nport = {PORT}\naddresses = [\"{v4}\", \"{v6}\"]\n\n\
             {https}[steer]\nmode = \"native\"\ninterface = {interface:?}\n\
             addresses = [\"{v4}\", \"{v6}\"]\ndeny = [\"{DENIED}\"]\n\n\
             [[keys]]\nissuer = 1\nkey = 1\nfile = \"1-1.hex\"\n"
        )
    }

    fn start_daemon(&self, lab: &Lab) -> Result<Running> {
        let log = fs::File::create(self.path.join("weir.log")).context("cannot write the node's log")?;
        let mut daemon = lab.pop.command(&self.binaries.join("weir"));
        daemon.arg("run").arg("--config").arg(self.config());
        daemon.stdout(log.try_clone()?).stderr(log);
        Running::start("the node", &mut daemon)
    }

    fn wait_until_ready(&self, daemon: &mut Running, interrupt: &Interrupt) -> Result<()> {
        let started = Instant::now();
        loop {
            interrupt.check()?;
            if let Some(status) = daemon.ended()? {
                bail!("the node ended at its start ({status}):\n{}", self.log_tail());
            }
            if let Ok(status) = fetch(&self.socket())
                && status["state"] == "running"
            {
                return require_native(&status);
            }
            if started.elapsed() > READY_WITHIN {
                bail!("the node was not ready within {} s:\n{}", READY_WITHIN.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.path.join("weir.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Says what is left to look at; the data is large and goes unless it is to be kept.
    fn tell(&self, keep: bool) {
        println!("\nleft to look at, in {}:", self.path.display());
        println!("  weir.toml, weir.log     the node's config and log");
        println!("  generator.json          what was sent, and what should come of it; -https: over HTTPS");
        println!("  acked.log               every click the node acknowledged");
        println!("  run/final-status.json   what the node counted");
        let data = self.path.join("data");
        if keep {
            println!("  data                    journal and store; `weir audit` recounts them");
        } else if let Err(error) = fs::remove_dir_all(&data) {
            eprintln!("xtask: cannot remove {}: {error}", data.display());
        }
    }
}

/// The demo is about XDP: without it there is nothing to show.
fn require_native(status: &Value) -> Result<()> {
    if status["steering"]["rung"] == "native" {
        return Ok(());
    }
    bail!("XDP is not attached in native mode; the node says: {}", status["steering"])
}

/// The generator of a POP.
fn generator(args: &Args, folder: &Folder, lab: &Lab) -> Command {
    let Pop { v4, v6, sdk_interface, .. } = folder.pop;
    let mut command = lab.sdk.command(&folder.binaries.join("weir-bench"));
    command.args(["udp", "--profile", "demo", "--interface", sdk_interface, "--issuer", "1", "--key", "1"]);
    command.args(["--target", &format!("{v4}:{PORT}"), "--target6", &format!("[{v6}]:{PORT}")]);
    command.args(["--rate", &args.rate.to_string(), "--duration", &format!("{}s", args.duration.as_secs())]);
    let seed = std::process::id() + folder.pop.node.0;
    command.args(["--group-bits", "3", "--seed", &seed.to_string()]);
    command.args(["--late-bound", LATE_BOUND_BESIDE_OTHERS]);
    command.arg("--key-file").arg(folder.key());
    command.arg("--json").arg(folder.report()).arg("--acked-log").arg(folder.acked());
    command
}

/// Runs the generator and shows the node's rates meanwhile.
fn generate(
    args: &Args,
    folder: &Folder,
    lab: &Lab,
    daemon: &mut Running,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut command = generator(args, folder, lab);
    let log = folder.path.join("generator.log");
    let log_file = fs::File::create(&log).context("cannot write the generator's log")?;
    command.stdout(log_file.try_clone()?).stderr(log_file);
    // The ids of each begin with the ms of its start, so they must not start in the same one.
    let mut beside = https::start(folder, lab, args.rate, args.duration)?;
    std::thread::sleep(APART);
    let mut generator = Running::start("the generator", &mut command)?;
    let mut rates = Rates::default();
    let ended = generator.wait(args.duration + GENERATOR_GRACE, || {
        interrupt.check()?;
        if let Some(status) = daemon.ended()? {
            bail!("the node ended under load ({status}):\n{}", folder.log_tail());
        }
        rates.show(&folder.socket())
    })?;
    if !ended.success() {
        bail!("the generator failed ({ended}):\n{}", fs::read_to_string(&log).unwrap_or_default());
    }
    let ended = beside.wait(GENERATOR_GRACE, || interrupt.check())?;
    if !ended.success() {
        let log = fs::read_to_string(folder.path.join("generator-https.log")).unwrap_or_default();
        bail!("the generator over HTTPS failed ({ended}):\n{log}");
    }
    https::join_acked(&folder.path, &folder.acked())
}

/// One line a second while the load runs.
#[derive(Default)]
struct Rates {
    started: Option<Instant>,
    last: Option<(Instant, Value)>,
}

impl Rates {
    fn show(&mut self, socket: &Path) -> Result<()> {
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        if self.last.as_ref().is_some_and(|(at, _)| now - *at < Duration::from_secs(1)) {
            return Ok(());
        }
        let status = fetch(socket)?;
        if let Some((at, before)) = &self.last {
            println!("  {:>3} s  {}", (now - started).as_secs(), rates_line(before, &status, now - *at));
        }
        self.last = Some((now, status));
        Ok(())
    }
}

fn rates_line(before: &Value, now: &Value, elapsed: Duration) -> String {
    let rate = |from: u64, to: u64| grouped((to.saturating_sub(from) as f64 / elapsed.as_secs_f64()) as i128);
    let clicks = |pointer| rate(number(before, pointer), number(now, pointer));
    let dropped = |status: &Value| -> u64 {
        let frames = status["frames"].as_array().into_iter().flatten();
        let dropped = frames.filter(|frame| frame["class"] == "malformed" || frame["class"] == "refused");
        dropped.map(|frame| number(frame, "/packets")).sum()
    };
    format!(
        "clicks/s: {:>9} received {:>9} accepted   frames/s dropped in XDP: {:>8}   ack p99 {:>6.1} ms",
        clicks("/clicks/received"),
        clicks("/clicks/outcomes/accepted"),
        rate(dropped(before), dropped(now)),
        number(now, "/ack_latency_ns/p99") as f64 / 1e6,
    )
}

fn drain(folder: &Folder, daemon: &mut Running, interrupt: &Interrupt) -> Result<()> {
    daemon.terminate()?;
    let status = daemon.wait(DRAINED_WITHIN, || interrupt.check())?;
    if !status.success() {
        bail!("the node did not drain in order ({status}):\n{}", folder.log_tail());
    }
    Ok(())
}

/// A broker that the node reaches on its own loopback.
fn start_kafka(lab: &Lab) -> Result<Cluster> {
    let kafka = kafka::start(1, lab.pop.within())?;
    println!("      Apache Kafka {VERSION} beside the node, at {}", kafka.bootstrap());
    Ok(kafka)
}

/// Recounts the store.
fn audit(folder: &Folder) -> Result<()> {
    let mut audit = Command::new(folder.binaries.join("weir"));
    audit.arg("audit").arg("--config").arg(folder.config()).args(["--busiest", BUSIEST_ADS]);
    shown(audit.arg("--acked").arg(folder.acked()))
}

/// Recounts the topics, with a consumer that is no part of the node.
fn recount(folder: &Folder, lab: &Lab, kafka: &Cluster) -> Result<()> {
    let mut recount = lab.pop.command(&folder.binaries.join("recount-topics"));
    shown(recount.args([&kafka.bootstrap(), TOPIC_PREFIX]).arg(folder.acked()))
}

/// Runs a command whose own words are part of what is shown.
fn shown(command: &mut Command) -> Result<()> {
    println!();
    std::io::stdout().flush()?;
    command::run(command)
}

/// Closes the books and says so; they are closed before the audit is judged.
fn judge(folder: &Folder, audited: Result<()>) -> Result<()> {
    let udp = read_json(&folder.report())?;
    let https = read_json(&https::report(&folder.path))?;
    let report = https::joined(udp, &https);
    let status = read_json(&folder.final_status())?;
    let books = Books::close(&report, &status)?;
    println!("\n{books}");
    println!("{}", acks_line(&report, &status));
    audited?;
    for report in [&report, &https] {
        if report["valid"] != true {
            bail!("a generator calls its own run invalid: {}", report["invalid_reason"]);
        }
    }
    if !books.closed() {
        bail!(
            "the books do not close: a residual of {}; if datagrams were lost unseen, lower --rate",
            books.residual()
        );
    }
    let bold = if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    println!("{}Every click was counted once, and every count has its click.{}", bold.0, bold.1);
    Ok(())
}

fn acks_line(report: &Value, status: &Value) -> String {
    let acks: Vec<_> =
        numbers(report, "/acks").iter().map(|(name, n)| format!("{name} {}", grouped((*n).into()))).collect();
    let ms = |pointer| number(status, pointer) as f64 / 1e6;
    format!(
        "acks seen by the sender: {}; node's ack latency p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
        acks.join(", "),
        ms("/ack_latency_ns/p50"),
        ms("/ack_latency_ns/p99"),
        ms("/ack_latency_ns/p999"),
    )
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

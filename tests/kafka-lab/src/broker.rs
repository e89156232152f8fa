//! One broker as a process that cannot outlive its owner.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::Settings;

/// A JVM that compiles no more than it must: brokers of a lab live for seconds.
const JVM: [&str; 3] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];
/// Only warnings, and the one line that says that the broker is up.
const LOG: [&str; 2] = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
];
/// That line, and how long it may take: a JVM starts in seconds, on a busy machine in many.
const STARTED: &str = "Kafka Server started";
const START_MAX: Duration = Duration::from_secs(120);
/// A broker that was asked to stop hands its partitions over first.
const STOP_MAX: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// Runs the broker and ends it when the owner closes the pipe, which the kernel does for an owner
/// that was killed. Unless the owner said to keep it, the cluster's folder goes too: nothing is left
/// behind, on any way out.
const KEEPER: &str = r#"folder=$1; shift; exec 3<&0
"$@" </dev/null & echo $!
read -r word <&3; kill -KILL $! 2>/dev/null; wait
[ "$word" = keep ] || rm -rf "$folder""#;
/// Keeps the folder.
const KEEP: &[u8] = b"keep\n";

/// One broker: running, frozen or stopped.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    port: u16,
    java: Vec<OsString>,
    running: Option<(Child, u32)>,
    /// Bytes of the log before this run.
    log_start: u64,
}

impl Broker {
    /// A broker with its config and a formatted log folder in `folder`.
    pub(crate) fn new(folder: PathBuf, port: u16, class_path: &OsStr, settings: &Settings) -> Self {
        let mut java: Vec<OsString> = settings.within.iter().map(Into::into).collect();
        java.extend(["java".into(), format!("-Xmx{}m", settings.heap_mib).into()]);
        java.extend(JVM.iter().chain(&LOG).map(Into::into));
        java.extend(["-cp".into(), class_path.to_owned(), "kafka.Kafka".into()]);
        java.push(config_of(&folder).into());
        Self { folder, port, java, running: None, log_start: 0 }
    }

    /// Where it listens, on loopback.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts its process; it is not up yet: [`Broker::wait_until_up`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(log_of(&self.folder))?;
        self.log_start = log.metadata()?.len();
        let mut command = Command::new("sh");
        let cluster = self.folder.parent().context("a broker's folder stands in its cluster's")?;
        command.args(["-c", KEEPER, "kafka-lab"]).arg(cluster).args(&self.java);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut keeper = command.spawn().context("cannot start sh")?;
        let mut line = String::new();
        let said = keeper.stdout.take().context("sh has no output")?;
        BufReader::new(said).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("the broker has no pid: {line:?}"))?;
        self.running = Some((keeper, pid));
        Ok(())
    }

    /// Waits until it takes requests.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !self.log()?.contains(STARTED) {
            if !self.is_alive() {
                bail!("the broker ended at its start:\n{}", self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("the broker was not up within {START_MAX:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Asks it to stop in order and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let deadline = Instant::now() + STOP_MAX;
        while self.is_alive() {
            if Instant::now() >= deadline {
                bail!("the broker did not stop within {STOP_MAX:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(TICK);
        }
        self.kill();
        Ok(())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some((mut keeper, _)) = self.running.take() {
            if let Some(mut pipe) = keeper.stdin.take() {
                let _ = pipe.write_all(KEEP);
            }
            // The keeper kills and waits for the broker before it ends.
            let _ = keeper.wait();
        }
    }

    /// Adds lines to its config, which hold from its next start and over earlier ones of the same name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let mut config = File::options().append(true).open(config_of(&self.folder))?;
        Ok(config.write_all(lines.as_bytes())?)
    }

    /// Stops its clock: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let Some((_, pid)) = &self.running else { bail!("the broker does not run") };
        let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status()?;
        if !sent.success() {
            bail!("the broker took no {name}: {sent}");
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        let Some((_, pid)) = &self.running else { return false };
        // A process that ended and waits for its keeper has state Z, after its name in brackets.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
    }

    fn log(&self) -> Result<String> {
        let mut file = File::open(log_of(&self.folder))?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The end of its log, without the places in its code.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.starts_with("\tat ")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn config_of(folder: &Path) -> PathBuf {
    folder.join("server.properties")
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("broker.log")
}

/// Writes the identity of a broker's log folder, as Kafka's `StorageTool format` does, with the
/// users that may log in.
///
/// # Errors
/// When the tool fails; with what it said.
pub(crate) fn format(folder: &Path, class_path: &OsStr, cluster_id: &str, users: &[String]) -> Result<()> {
    let mut tool = Command::new("java");
    tool.args(JVM).args(LOG).arg("-cp").arg(class_path).arg("kafka.tools.StorageTool");
    tool.args(["format", "--cluster-id", cluster_id, "--config"]).arg(config_of(folder));
    for user in users {
        tool.args(["--add-scram", user]);
    }
    let said = tool.output().context("cannot start java; install a JRE of 17 or later")?;
    if !said.status.success() {
        bail!("Kafka's format tool failed:\n{}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(())
}

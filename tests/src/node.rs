//! A node on loopback: `weir run` with a config and a key of its own.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::kafka;
use crate::process::{Process, binary};

/// A node is ready within this, and whatever a lab waits for is so.
const READY_MAX: Duration = Duration::from_secs(60);
/// A drain ends within this.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// In what a lab's node differs from the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// Where the data folder is made; beside the config, if nowhere else.
    pub data: Option<&'a Path>,
    /// Lines of the config's journal section, in place of the labs' own.
    pub journal: Option<&'a str>,
    /// Sections appended to the config.
    pub config: &'a str,
}

/// What outlives a node's crashes: config, key, journal and store.
#[derive(Debug)]
pub struct NodeFolder {
    folder: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    /// The program a node runs.
    program: &'static str,
    /// Its environment beside that of the lab.
    environment: Vec<(&'static str, PathBuf)>,
}

impl NodeFolder {
    /// A fresh folder, with a key drawn now and a free port. `config` is appended to the config.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn new(config: &str) -> Result<Self> {
        Self::with(Setup { config, ..Setup::default() })
    }

    /// A fresh folder as [`NodeFolder::new`] makes it, but for what is set up otherwise.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn with(setup: Setup<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Free now, and nobody else in a lab asks for this one.
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = setup.data.unwrap_or(folder.path()).join("data");
        let made = Self { folder, data, port, program: "weir", environment: Vec::new() };
        let key = rand::random::<u128>();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(made.key())?;
        writeln!(file, "{key:032x}")?;
        let (data, run) = (&made.data, made.path().join("run"));
        let journal = setup.journal.unwrap_or("segment_size = \"20MiB\"");
        let config = setup.config;
        let text = format!(
            "[node]\nid = 1\ndata_dir = {data:?}\nrun_dir = {run:?}\n\
             [rx.udp]\nport = {port}\naddresses = [\"127.0.0.1\"]\n\
             [metrics]\nlisten = \"\"\n[journal]\n{journal}\n[[keys]]\nissuer = 1\nkey = 1\nfile = \"key\"\n{config}"
        );
        fs::write(made.config(), text)?;
        Ok(made)
    }

    /// A fresh folder of the node with this number, which sends to this cluster.
    ///
    /// # Errors
    /// As [`NodeFolder::new`].
    pub fn forwarding(bootstrap: &str, prefix: &str, id: u32) -> Result<Self> {
        let made = Self::new(&kafka::config(bootstrap, prefix))?;
        made.reconfigure("id =", &format!("id = {id}"))?;
        Ok(made)
    }

    /// Copies another node's data here, as one who restores a backup does.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy_data(&self, of: &Self) -> Result<()> {
        let copied = Command::new("cp").arg("-a").arg(of.path().join("data")).arg(self.path()).status()?;
        anyhow::ensure!(copied.success(), "cp failed: {copied}");
        Ok(())
    }

    /// Writes a file beside the config that only its owner may read.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write_private(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The segments of its journal, in order.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn segments(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.data.join("journal"))?.collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "wseg"));
        paths.sort();
        Ok(paths)
    }

    /// How often these octets stand in all the files here.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn times_written(&self, octets: &[u8]) -> Result<usize> {
        times_in(self.path(), octets)
    }

    /// Lets later starts run another build of the node, with a variable in its environment.
    pub fn run_with(&mut self, program: &'static str, variable: &'static str, value: PathBuf) {
        self.program = program;
        self.environment.push((variable, value));
    }

    /// Puts another text for the first line of the config that begins with `key`.
    ///
    /// # Errors
    /// When there is no such line, or the disk fails.
    pub fn reconfigure(&self, key: &str, line: &str) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        let old = text.lines().find(|line| line.starts_with(key)).context("no such line in the config")?;
        fs::write(self.config(), text.replacen(old, line, 1))?;
        Ok(())
    }

    /// The click port on loopback.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The signing key's file.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.path().join("key")
    }

    /// Its config file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("weir.toml")
    }

    fn log(&self) -> PathBuf {
        self.path().join("weir.log")
    }

    /// Starts a node; it may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Node<'_>> {
        self.start_with(&[])
    }

    /// Starts a node with more arguments to `weir run`; it may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(&self, arguments: &[&str]) -> Result<Node<'_>> {
        self.spawn(Command::new(binary(self.program)), arguments)
    }

    /// Starts a node under a program that sets its limits and becomes it; it may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_under(&self, wrapper: &[&str]) -> Result<Node<'_>> {
        let (program, arguments) = wrapper.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(binary(self.program));
        self.spawn(command, &[])
    }

    fn spawn(&self, mut command: Command, arguments: &[&str]) -> Result<Node<'_>> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("run").arg("--config").arg(self.config()).args(arguments);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Node { folder: self, process: Process::start("the node", &mut command)? })
    }

    /// Starts a node and waits until it takes clicks.
    ///
    /// # Errors
    /// When it cannot be started, ends or takes too long; with the end of its log.
    pub fn start_ready(&self) -> Result<Node<'_>> {
        let mut node = self.start()?;
        node.wait_until_ready()?;
        Ok(node)
    }

    /// Starts a node whose system calls `strace` writes to a file; it may not be ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_traced(&self, calls: &str, trace: &Path) -> Result<Node<'_>> {
        let (calls, trace) = (format!("trace={calls}"), trace.to_str().context("a path that is no text")?);
        // With -D the process started here is the node itself, and strace ends with it.
        self.start_under(&["strace", "-D", "-f", "-y", "-s", "256", "-e", &calls, "-o", trace])
    }

    /// Runs `weir audit` on the stopped node and gives its JSON.
    ///
    /// # Errors
    /// When it cannot be run or prints no JSON.
    pub fn audit(&self, acked: Option<&Path>) -> Result<Value> {
        let mut command = Command::new(binary("weir"));
        command.arg("audit").arg("--json").arg("--config").arg(self.config());
        if let Some(acked) = acked {
            command.arg("--acked").arg(acked);
        }
        let Output { stdout, stderr, .. } = command.output().context("cannot run weir audit")?;
        serde_json::from_slice(&stdout)
            .with_context(|| format!("weir audit said {}", String::from_utf8_lossy(&stderr)))
    }

    /// What `weir read-topic rejects` prints of the stopped node: one record a line.
    ///
    /// # Errors
    /// When it cannot be run, fails, or prints what is no JSON.
    pub fn rejects(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(binary("weir"));
        command.args(["read-topic", "rejects", "--config"]).arg(self.config()).args(arguments);
        let Output { status, stdout, stderr } = command.output().context("cannot run weir read-topic")?;
        if !status.success() {
            bail!("weir read-topic failed ({status}): {}", String::from_utf8_lossy(&stderr));
        }
        let lines = std::str::from_utf8(&stdout)?.lines();
        lines.map(|line| serde_json::from_str(line).with_context(|| format!("no record: {line}"))).collect()
    }

    /// The counters of the last drain.
    ///
    /// # Errors
    /// When there was none.
    pub fn final_status(&self) -> Result<Value> {
        let path = self.path().join("run/final-status.json");
        Ok(serde_json::from_reader(File::open(path)?)?)
    }

    /// All that the nodes in this folder have logged.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The end of the node's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node<'a> {
    folder: &'a NodeFolder,
    process: Process,
}

impl Node<'_> {
    /// Waits until the node takes clicks.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until("ready", |status| status["state"] == "running")
    }

    /// Waits until the node has counted a click.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub fn wait_until_counting(&mut self) -> Result<()> {
        self.wait_until("counting", |status| status["clicks"]["received"].as_u64() > Some(0))
    }

    /// Waits until the node's status says so.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            if let Some(status) = self.process.ended()? {
                bail!("the node ended before it was {what} ({status}):\n{}", self.folder.log_tail());
            }
            if self.status().is_ok_and(|status| is_so(&status)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the node was not {what} within {READY_MAX:?}:\n{}", self.folder.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its status.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        let socket = self.folder.path().join("run/weir.sock");
        let output =
            Command::new(binary("weir")).args(["status", "--json", "--socket"]).arg(socket).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Whether it ended by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Lets it read again what can be replaced while it runs.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Lets it read again what can be replaced, and waits until its log says `told` once more.
    ///
    /// # Errors
    /// When it ends or takes too long; with the end of its log.
    pub fn reload_until_told(&mut self, told: &str) -> Result<()> {
        let folder = self.folder;
        let times = || folder.log_text().matches(told).count();
        let before = times();
        self.reload()?;
        self.wait_until(told, |_| times() > before)
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(DRAIN_MAX).map(drop)
    }

    /// Lets it hand over to the next process, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in order; with the end of its log.
    pub fn hand_over(self) -> Result<()> {
        self.end_by(Signal::USR2)
    }

    /// Drains it and waits for its end.
    ///
    /// # Errors
    /// When it does not end in order; with the end of its log.
    pub fn drain(self) -> Result<()> {
        self.end_by(Signal::TERM)
    }

    fn end_by(mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        let status = self.process.wait(DRAIN_MAX)?;
        if !status.success() {
            bail!("the node did not end in order ({status}):\n{}", self.folder.log_tail());
        }
        Ok(())
    }
}

fn times_in(folder: &Path, octets: &[u8]) -> Result<usize> {
    let mut times = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            times += times_in(&entry.path(), octets)?;
        } else if kind.is_file() {
            let bytes = match fs::read(entry.path()) {
                // A running node moves and removes files.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read?,
            };
            times += bytes.windows(octets.len()).filter(|window| *window == octets).count();
        }
    }
    Ok(times)
}

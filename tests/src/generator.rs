//! The bundled generator as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::node::NodeFolder;
use crate::process::{Process, binary};

/// What a generator leaves behind: the JSON of its `--json`.
pub type Report = Value;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// As `weir-bench udp --profile` takes it.
    pub profile: &'static str,
    /// Clicks a second.
    pub rate: u32,
    /// How long.
    pub duration: Duration,
    /// Seeds what is sent.
    pub seed: u64,
}

/// Where to send, and with which key.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// Address and click port.
    pub target: &'a str,
    /// The file of the signing key.
    pub key: &'a Path,
    /// Sockets, each with a thread: more of them meet more nodes of a group.
    pub threads: u32,
}

/// A running generator; killed when dropped.
#[derive(Debug)]
pub struct Generator {
    process: Process,
    report: PathBuf,
    acked: PathBuf,
    log: PathBuf,
}

impl Generator {
    /// Starts sending to a node's folder, whether a node runs there or not.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(node: &NodeFolder, load: Load) -> Result<Self> {
        let target = format!("127.0.0.1:{}", node.port());
        Self::aimed(Aim { target: &target, key: &node.key(), threads: 1 }, node.path(), load)
    }

    /// Starts sending, and leaves report and logs in this folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn aimed(aim: Aim<'_>, folder: &Path, load: Load) -> Result<Self> {
        let at = |name: &str| folder.join(name);
        let (report, acked, log) = (at("generator.json"), at("acked.log"), at("generator.log"));
        let file = File::create(&log)?;
        let mut command = Command::new(binary("weir-bench"));
        command.args(["udp", "--quiet", "--profile", load.profile]);
        command.args(["--target", aim.target, "--threads", &aim.threads.to_string()]);
        command.args(["--rate", &load.rate.to_string(), "--seed", &load.seed.to_string()]);
        command.args(["--duration", &format!("{}ms", load.duration.as_millis()), "--drain", "60s"]);
        // A node that is away is no fault of the generator here; it must hold on to its clicks.
        command.args(["--late-bound", "600s", "--batches", "32768", "--group-bits", "1"]);
        command.arg("--key-file").arg(aim.key).arg("--json").arg(&report).arg("--acked-log").arg(&acked);
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Self { process: Process::start("the generator", &mut command)?, report, acked, log })
    }

    /// Whether it still sends or waits for acks.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Waits until every click has its answer; gives the report and the log of acked clicks.
    ///
    /// # Errors
    /// When it takes longer, or calls its own run invalid.
    pub fn finish(mut self, at_most: Duration) -> Result<(Report, PathBuf)> {
        let status = self.process.wait(at_most)?;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if !status.success() {
            bail!("the generator failed ({status}):\n{log}");
        }
        let report = serde_json::from_reader(File::open(&self.report)?).context("the generator's report")?;
        Ok((report, self.acked.clone()))
    }
}

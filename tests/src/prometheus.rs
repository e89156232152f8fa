//! A real Prometheus that scrapes one node, each second, from a folder of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::port::{self, free_ports};
use crate::process::Process;

/// It answers within this, and has scraped what a lab waits for.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often a wait looks.
const TICK: Duration = Duration::from_millis(100);

/// A running Prometheus; killed when dropped, and its folder gone.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Whether the program is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        let mut asked = Command::new("prometheus");
        asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }

    /// Starts it on a free port, with these rules and a node's port of metrics as the job `weir`.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn start(metrics_port: u16, rules: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let config = folder.path().join("prometheus.yml");
        let rules = rules.canonicalize().with_context(|| format!("no {}", rules.display()))?;
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{ job_name: weir, static_configs: [{{ targets: [\"127.0.0.1:{metrics_port}\"] }}] }}]\n"
        );
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&config).arg("--storage.tsdb.path").arg(folder.path().join("data"));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(folder.path());
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Self { process: Process::start("prometheus", &mut command)?, port, _folder: folder })
    }

    /// What a query gives now: the samples.
    ///
    /// # Errors
    /// When it does not answer, or says that the query is wrong.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={encoded}")).with_context(|| query.to_owned())?;
        data["result"].as_array().cloned().context("no result")
    }

    /// The rules as it read them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.get("/api/v1/rules")?;
        let groups = data["groups"].as_array().context("no groups")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    /// Waits until a query has a sample.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub fn wait_for(&mut self, query: &str) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        while !self.query(query).is_ok_and(|samples| !samples.is_empty()) {
            if let Some(status) = self.process.ended()? {
                bail!("prometheus ended: {status}");
            }
            ensure!(Instant::now() < deadline, "prometheus had no {query} within {READY_MAX:?}");
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (_, body) = port::get(self.port, path)?;
        let answer: Value = serde_json::from_str(&body).context(body.clone())?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }
}

//! The engine of ClickHouse behind HTTP (`tests/clickhouse_shim.py`), in a folder that outlives it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::port::{free_ports, post};
use crate::process::{Process, binary};

/// It answers within this, and says within this what a lab waits for.
const WITHIN: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(100);

const QUESTIONS: &str = include_str!("../../deploy/clickhouse/questions.sql");

/// One that is started and killed, on the same port and the same data.
#[derive(Debug)]
pub struct Clickhouse {
    python: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Process>,
}

impl Clickhouse {
    /// Starts one; none where `cargo xtask setup` did not install it, which is said.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Option<Self>> {
        let target = binary("weir").ancestors().nth(2).map(Path::to_path_buf).context("no target")?;
        let environment = target.join("chdb");
        if !environment.join("made-of").exists() {
            println!("skipped: chdb is not here; `cargo xtask setup` installs it");
            return Ok(None);
        }
        let [port] = free_ports()?;
        let python = environment.join("bin/python3");
        let mut made = Self { python, folder: tempfile::tempdir()?, port, process: None };
        made.restart()?;
        Ok(Some(made))
    }

    /// Kills it, as a crash does, and starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL)?;
            process.wait(WITHIN)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = Command::new(&self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clickhouse_shim.py"));
        command.arg(self.port.to_string()).arg(self.folder.path().join("data"));
        command.stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::start("ClickHouse", &mut command)?);
        let deadline = Instant::now() + WITHIN;
        while self.run("SELECT 1").is_err() {
            ensure!(Instant::now() < deadline, "ClickHouse does not answer:\n{}", self.log_text());
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The part of a config that inserts here.
    #[must_use]
    pub fn config(&self) -> String {
        format!("[clickhouse]\nurl = \"http://127.0.0.1:{}\"\n", self.port)
    }

    /// From now on this part of all requests fails, drawn by this seed.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn fail(&self, rate: f64, seed: u64) -> Result<()> {
        self.fail_as(&format!("rate={rate}&seed={seed}"))
    }

    /// From now on every statement with this text is done and then not acknowledged.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn fail_after(&self, text: &str) -> Result<()> {
        self.fail_as(&format!("rate=1&after=1&of={text}"))
    }

    fn fail_as(&self, how: &str) -> Result<()> {
        let (status, body) = post(self.port, &format!("/faults?{how}"), b"")?;
        ensure!(status == 200, "{body}");
        Ok(())
    }

    /// Runs statements, one after another.
    ///
    /// # Errors
    /// When one fails.
    pub fn run_all(&self, statements: &str) -> Result<()> {
        let text: Vec<_> = statements.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let text = text.join("\n");
        let each = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
        each.into_iter().try_for_each(|statement| self.run(statement).map(drop))
    }

    /// What it answers to a statement.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, statement: &str) -> Result<String> {
        self.posted("/", statement.as_bytes())
    }

    /// Inserts rows with these settings.
    ///
    /// # Errors
    /// When it fails.
    pub fn insert(&self, statement: &str, settings: &[(&str, &str)], rows: &[u8]) -> Result<()> {
        let all = [("query", statement)].iter().chain(settings).copied().collect::<Vec<_>>();
        self.posted(&path(&all), rows).map(drop)
    }

    fn posted(&self, path: &str, body: &[u8]) -> Result<String> {
        let (status, answer) = post(self.port, path, body)?;
        ensure!(status == 200, "{}: {status} {answer}", String::from_utf8_lossy(body));
        Ok(answer)
    }

    /// The answer to a question of `deploy/clickhouse/questions.sql`, row by row.
    ///
    /// # Errors
    /// When there is no such question, or no answer.
    pub fn ask(&self, question: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
        let (_, text) = QUESTIONS.split_once(&format!("-- question: {question}\n")).context("no question")?;
        let (text, _) = text.split_once(";\n").context("no end")?;
        let names: Vec<_> =
            parameters.iter().map(|(name, value)| (format!("param_{name}"), *value)).collect();
        let settings: Vec<_> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let answer = self.posted(&path(&settings), text.as_bytes())?;
        answer.lines().map(|line| serde_json::from_str(line).context(answer.clone())).collect()
    }

    /// Waits until this is so of the answer to a question without parameters.
    ///
    /// # Errors
    /// When it never is; with what it answered last.
    pub fn wait_until(&self, question: &str, is_so: impl Fn(&[Value]) -> bool) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        let mut last = Vec::new();
        while Instant::now() < deadline {
            if let Ok(answer) = self.ask(question, &[]) {
                if is_so(&answer) {
                    return Ok(());
                }
                last = answer;
            }
            std::thread::sleep(TICK);
        }
        bail!("{question}: {last:?} to the end")
    }
}

/// The path with these parameters.
fn path(parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let octets = text.bytes().map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(octet).to_string(),
            _ => format!("%{octet:02X}"),
        });
        octets.collect()
    };
    let each = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("/?{}", each.collect::<Vec<_>>().join("&"))
}

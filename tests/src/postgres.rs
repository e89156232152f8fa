//! A real PostgreSQL of a lab's own: a fresh cluster in a folder that is gone afterwards, on a socket there and on a
//! port of loopback.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::port::free_ports;
use crate::process::Process;

/// It is up within this, and what a lab waits for is so.
const WITHIN: Duration = Duration::from_secs(60);
/// It ends within this; then it is killed.
const END_MAX: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(20);
/// Where Debian has the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user that the package makes: PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// What a session says when it has done what it was told.
const DONE: &str = "-- done --";

/// A running cluster with an empty database `billing`; stopped when dropped, and its folder gone.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

/// The programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).ok()?.filter_map(Result::ok);
    let folders = versions.map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

/// A number of the user that the server runs as, by `id`.
fn number(of: &str) -> Result<u32> {
    let output = Command::new("id").args([of, USER]).output()?;
    ensure!(output.status.success(), "there is no user {USER}");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

impl Postgres {
    /// Starts one; none where PostgreSQL is not installed, which is said.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn start() -> Result<Option<Self>> {
        let Some(programs) = programs() else {
            println!("skipped: PostgreSQL is not here; `cargo xtask setup` installs it");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let unprivileged = |program: &str| -> Result<Command> {
            let mut command = Command::new(programs.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if rustix::process::geteuid().is_root() {
                command.uid(number("-u")?).gid(number("-g")?);
            }
            Ok(command)
        };
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(number("-u")?), Some(number("-g")?))?;
        }
        let data = folder.path().join("data");
        let mut make = unprivileged("initdb")?;
        make.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let made = make.arg("--pgdata").arg(&data).output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = std::fs::File::create(folder.path().join("postgres.log"))?;
        let mut serve = unprivileged("postgres")?;
        // Clients die here, and no machine: so nothing has to reach the disk.
        serve.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=32MB"]);
        serve
            .args(["-p", &port.to_string()])
            .arg("-k")
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::start("PostgreSQL", &mut serve)?;
        let mut made = Self { process, programs, folder, port };
        made.wait_until_up()?;
        made.psql("postgres", "postgres", "CREATE DATABASE billing")?;
        Ok(Some(made))
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        while self.psql("postgres", "postgres", "SELECT 1").is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("postgres.log")).unwrap_or_default();
            if let Some(status) = self.process.ended()? {
                bail!("PostgreSQL ended ({status}):\n{}", log());
            }
            ensure!(Instant::now() < deadline, "PostgreSQL is not up:\n{}", log());
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// The address of the database for a user.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@/billing?host={}&port={}", self.folder.path().display(), self.port)
    }

    /// Its address over loopback.
    #[must_use]
    pub fn loopback_url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/billing", self.port)
    }

    /// Lets everybody who comes over loopback bring a password.
    ///
    /// # Errors
    /// When the disk does not take it, or the server does not.
    pub fn ask_for_passwords(&self) -> Result<()> {
        let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.folder.path().join("data/pg_hba.conf"), rules)?;
        let written_at = self.ask("postgres", "SELECT clock_timestamp()")?;
        self.ask("postgres", "SELECT pg_reload_conf()").map(drop)?;
        // A new session has what the server has read.
        self.wait_until(&format!("SELECT pg_conf_load_time() >= '{written_at}'"), "t")
    }

    fn client(&self, user: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]);
        command.args(["--username", user, "--dbname", database, "--port", &self.port.to_string()]);
        command.arg("--host").arg(self.folder.path());
        command
    }

    fn psql(&self, user: &str, database: &str, sql: &str) -> Result<String> {
        let output = self.client(user, database).args(["--command", sql]).output().context("psql")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// What a statement of a user answers: a line a row, columns between `|`.
    ///
    /// # Errors
    /// What the database says.
    pub fn ask(&self, user: &str, sql: &str) -> Result<String> {
        self.psql(user, "billing", sql)
    }

    /// Waits until the owner is answered this.
    ///
    /// # Errors
    /// When he never is, with the last answer.
    pub fn wait_until(&self, sql: &str, answer: &str) -> Result<()> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let found = self.ask("postgres", sql)?;
            if found == answer {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{sql}: {found}, and not {answer}");
            std::thread::sleep(TICK);
        }
    }

    /// A session of the owner that stays open.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn session(&self) -> Result<Session> {
        let mut command = self.client("postgres", "billing");
        let mut process = Process::start("psql", command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (to, from) = process.take_pipes().context("no pipes")?;
        Ok(Session { _process: process, to, from: BufReader::new(from) })
    }
}

impl Drop for Postgres {
    /// By its own shutdown, which cuts clients off: killed, it would leave its piece of shared memory behind.
    fn drop(&mut self) {
        if self.process.signal(Signal::INT).is_ok() {
            let _ = self.process.wait(END_MAX);
        }
    }
}

/// An open session: what it has taken it holds.
#[derive(Debug)]
pub struct Session {
    _process: Process,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    /// Runs statements, and comes back when they have run.
    ///
    /// # Errors
    /// When one fails.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        writeln!(self.to, "{sql};\n\\echo {DONE}")?;
        let mut line = String::new();
        while line.trim_end() != DONE {
            line.clear();
            ensure!(self.from.read_line(&mut line)? > 0, "{sql} failed");
        }
        Ok(())
    }
}

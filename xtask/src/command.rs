//! Runs programs: shows what it runs, streams what they say, and never leaves one behind.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// `cargo`, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::root());
    cargo
}

/// The command as one would type it.
pub(crate) fn typed(command: &Command) -> String {
    let name = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '"', '\'']) {
            format!("{word:?}")
        } else {
            word.into_owned()
        }
    };
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(name).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end, its output shown as it comes; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", typed(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", typed(command));
    }
    Ok(())
}

/// Runs a command that has little to say; gives back what it printed. It must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", typed(command)))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", typed(command), output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes another program. Returns only when that fails.
pub(crate) fn replace_self_with(command: &mut Command) -> anyhow::Error {
    anyhow::Error::new(command.exec()).context(format!("cannot start `{}`", typed(command)))
}

/// Whether a program of this name is on the search path.
pub(crate) fn has(program: &str) -> bool {
    // Root's tools stand in sbin, which a plain user's path lacks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
}

/// Set by Ctrl-C and SIGTERM: whoever waits gives up, so that what was started is cleaned up.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for the signals from now on.
    pub(crate) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot watch for Ctrl-C")?;
        }
        Ok(Self(flag))
    }

    /// Fails once a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// A running child in a process group of its own: Ctrl-C reaches us alone, and we end the child
/// in order. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {name}: `{}`", typed(command)))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot watch {}", self.name))
    }

    /// Asks it to end in order.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        output(Command::new("kill").args(["-TERM", &pid])).map(drop)
    }

    /// Waits for its end, for so long at the most; `tick` is called meanwhile and may give up.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        mut tick: impl FnMut() -> Result<()>,
    ) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if started.elapsed() > at_most {
                bail!("{} did not end within {} s", self.name, at_most.as_secs());
            }
            tick()?;
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! `cargo xtask test`: every test there is, level by level, and one line that sums up.
//!
//! All tests are ordinary cargo tests. Those that need root, BPF or namespaces say why they are
//! skipped where they cannot run; here they can, so a skip is worth a look and is counted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{self, typed};
use crate::{root, setup, sim, tidy, toolchain};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run tests that have a long form in it: 500 kills, every bit of a segment
    #[arg(long)]
    soak: bool,
    #[command(flatten)]
    setup: setup::Args,
}

/// What a test prints on a line of its own when it cannot run here, in any case of letters, with
/// the reason after it.
const SKIP_MARK: &str = "skipped:";

/// Seeds of the simulation that a test runs, and the seconds after which it begins no further one.
const SIMULATION_SEEDS: u64 = 4000;
const SIMULATION_SECONDS: u64 = 120;
/// Set for tests that have a long form and are to run it.
const SOAK: &str = "WEIR_SOAK";

/// Levels, and the words in a test binary's name that put it there; what has none is pure. The
/// last level that fits decides: a veth needs more than a program that is loaded.
const LEVELS: [(&str, &[&str]); 9] = [
    ("pure", &[]),
    ("PROG_TEST_RUN", &["xdp", "prog"]),
    ("namespaces and veth", &["veth", "lab", "netns", "namespace", "anycast"]),
    ("kill -9", &["kill", "crash"]),
    ("bad disks", &["disk", "damaged"]),
    ("Apache Kafka", &["kafka"]),
    ("HTTP clients", &["door"]),
    ("Debian package", &["package"]),
    ("POPs in containers", &["pop"]),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&args.setup)?;
    setup::ensure_kafka(&args.setup)?;
    setup::ensure_test_tools(&args.setup)?;
    setup::ensure_package_tools(&args.setup)?;
    setup::ensure_pop(&args.setup)?;
    let mut tally = Tally::default();
    checks(&mut tally)?;
    tests(&mut tally, args.soak)?;
    simulation(&mut tally);
    print!("{}", tally.summary());
    if tally.total().failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// Format, lints and tidiness: a check counts as one test.
fn checks(tally: &mut Tally) -> Result<()> {
    let fmt = ["fmt", "--all", "--check"];
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    check(tally, "rustfmt", command::cargo().args(["fmt", "--version"]), command::cargo().args(fmt))?;
    check(tally, "clippy", command::cargo().args(["clippy", "--version"]), command::cargo().args(clippy))?;
    if let Some(ebpf) = setup::ebpf_crate()
        && let Some(toolchain) = toolchain::ladder().into_iter().find_map(Result::ok)
    {
        // The formatter is the workspace's own: it needs no compiler that knows BPF.
        let mut format = command::cargo();
        format.current_dir(&ebpf).args(["fmt", "--check"]);
        check(tally, "rustfmt (eBPF)", command::cargo().args(["fmt", "--version"]), &mut format)?;
        let mut installed = toolchain.cargo(&ebpf, "clippy");
        let mut lint = toolchain.cargo(&ebpf, "clippy");
        check(
            tally,
            "clippy (eBPF)",
            installed.arg("--version"),
            lint.args(["--quiet", "--", "-D", "warnings"]),
        )?;
    }
    tally.check("tidy", tidy::run(&root()).map_err(|error| println!("{error:#}")).is_ok());
    Ok(())
}

/// Runs a check when its component is installed.
fn check(tally: &mut Tally, name: &str, installed: &mut Command, check: &mut Command) -> Result<()> {
    if command::output(installed).is_err() {
        println!("{SKIP_MARK} {name}: its compiler has none (rustup component add, or apt install)");
        tally.checks.skipped += 1;
        return Ok(());
    }
    println!("$ {}", typed(check));
    tally.check(name, check.status().context("cannot start cargo")?.success());
    Ok(())
}

/// Builds everything once, then runs it binary by binary; a failure does not hide the rest.
fn tests(tally: &mut Tally, soak: bool) -> Result<()> {
    let mut build = command::cargo();
    command::run(build.args(["test", "--workspace", "--no-run"]))?;
    // The daemon whose disk fails when told to: a program of its own, for the labs alone.
    let faulty = ["build", "--package", "weir", "--features", "disk-faults", "--bin", "weir-faulty"];
    command::run(command::cargo().args(faulty))?;
    let mut test = command::cargo();
    if soak {
        test.env(SOAK, "1");
    }
    // Captured output hides why a test was skipped.
    test.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    println!("$ {}", typed(&test));
    // cargo says on stderr which binary runs; both streams into one keeps them in order.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    test.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null());
    let mut child = test.spawn().context("cannot start cargo test")?;
    drop(test);
    for line in BufReader::new(reader).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.total().failed == 0 {
        // A binary that crashed prints no result of its own.
        tally.check("cargo test", false);
    }
    Ok(())
}

/// Seeds of the simulation, as many as fit the time: counts as one test. A seed that fails prints
/// the command that replays it.
fn simulation(tally: &mut Tally) {
    println!("$ cargo xtask sim --seeds {SIMULATION_SEEDS} --budget {SIMULATION_SECONDS}");
    let passed = sim::seeds(SIMULATION_SEEDS, SIMULATION_SECONDS).map_err(|error| println!("{error:#}"));
    tally.check("simulation", passed.is_ok());
}

/// Numbers of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Numbers of all levels, read from what cargo prints.
#[derive(Debug, Default)]
struct Tally {
    checks: Count,
    levels: [Count; LEVELS.len()],
    level: usize,
    /// The test whose output is being read has said that it was skipped.
    skip_seen: bool,
    /// Tests of the running binary that have.
    skips_pending: usize,
}

impl Tally {
    fn check(&mut self, name: &str, passed: bool) {
        println!("{name}: {}", if passed { "ok" } else { "FAILED" });
        if passed { self.checks.passed += 1 } else { self.checks.failed += 1 }
    }

    /// Takes one line of cargo's output.
    fn read(&mut self, line: &str) {
        if let Some(running) = line.trim_start().strip_prefix("Running ") {
            self.level = level_of(running);
        } else if line.trim_start().starts_with("Doc-tests ") {
            self.level = 0;
        } else if line.starts_with("---- ") {
            // What the next test printed follows.
            self.skip_seen = false;
        } else if is_skip(line) && !self.skip_seen {
            // The test itself passes: it did nothing wrong, but it showed nothing either.
            self.skip_seen = true;
            self.skips_pending += 1;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count = &mut self.levels[self.level];
            // A test that was skipped is among those that passed.
            count.passed += figure(result, " passed").saturating_sub(self.skips_pending);
            count.failed += figure(result, " failed");
            count.skipped += figure(result, " ignored") + self.skips_pending;
            (self.skips_pending, self.skip_seen) = (0, false);
        }
    }

    /// All levels.
    fn total(&self) -> Count {
        let mut total = self.checks;
        for level in self.levels {
            total.passed += level.passed;
            total.failed += level.failed;
            total.skipped += level.skipped;
        }
        total
    }

    fn summary(&self) -> String {
        let line = |name: &str, count: Count| {
            format!(
                "  {name:<20} {:>5} passed {:>4} failed {:>4} skipped\n",
                count.passed, count.failed, count.skipped
            )
        };
        let mut text = format!("\n{}", line("checks", self.checks));
        for ((name, _), count) in LEVELS.iter().zip(self.levels) {
            text += &line(name, count);
        }
        let total = self.total();
        text + &format!("{} passed, {} failed, {} skipped\n", total.passed, total.failed, total.skipped)
    }
}

fn is_skip(line: &str) -> bool {
    line.get(..SKIP_MARK.len()).is_some_and(|start| start.eq_ignore_ascii_case(SKIP_MARK))
}

/// The level of the binary in cargo's "Running tests/NAME.rs (path)".
fn level_of(running: &str) -> usize {
    let source = running.split(" (").next().unwrap_or(running);
    let name =
        Path::new(source).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let fits = |(_, words): &(&str, &[&str])| name.split('_').any(|word| words.contains(&word));
    LEVELS.iter().rposition(fits).unwrap_or(0)
}

/// The number before `word` in a result line such as "ok. 3 passed; 0 failed; ...".
fn figure(result: &str, word: &str) -> usize {
    let before = result.split(word).next().unwrap_or("");
    before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_up_by_level() {
        let mut tally = Tally::default();
        let output = "\
     Running unittests src/lib.rs (target/debug/deps/weir-1)
test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
     Running tests/crash_kill.rs (target/debug/deps/crash_kill-1)
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.10s
     Running tests/xdp_veth.rs (target/debug/deps/xdp_veth-1)
---- a_packet_is_steered stdout ----
SKIPPED: no CAP_NET_ADMIN
SKIPPED: no CAP_BPF
---- a_packet_is_dropped stdout ----
skipped: no CAP_NET_ADMIN
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.10s
   Doc-tests weir
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.levels[0], Count { passed: 34, failed: 0, skipped: 0 });
        assert_eq!(tally.levels[2], Count { passed: 1, failed: 0, skipped: 3 });
        assert_eq!(tally.levels[3], Count { passed: 2, failed: 1, skipped: 0 });
        assert!(tally.summary().ends_with("\n37 passed, 1 failed, 3 skipped\n"), "{}", tally.summary());
    }

    #[test]
    fn a_check_counts_as_one_test() {
        let mut tally = Tally::default();
        tally.check("rustfmt", true);
        tally.check("clippy", false);
        assert_eq!(tally.total(), Count { passed: 1, failed: 1, skipped: 0 });
    }
}

//! What a user types: `cargo xtask demo`, `cargo xtask test`, and the small tasks beside them.
//!
//! One file a task. Each does its own set-up, says what it installs and why, and cleans up what
//! it started. Nothing here knows how Weir works inside: it runs programs and compares what they
//! say. Start reading at [`demo`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod books;
mod command;
mod dashboards;
mod demo;
mod kafka;
mod lab;
mod levels;
mod package;
mod promises;
mod setup;
mod sim;
mod status;
mod tidy;
// Shared with the daemon's build script: one answer to the question what can build the program.
#[path = "../../xdp-ebpf/toolchain.rs"]
mod toolchain;

/// Weir's tasks. `demo` shows it work, `test` proves it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a node under load between two network namespaces, and close its books
    Demo(demo::Args),
    /// Run every test there is, and sum up
    Test(levels::Args),
    /// Install what building and testing need, if it is not there
    Setup(setup::Args),
    /// Make the Debian package of the node: target/package/weir_VERSION_ARCH.deb
    Package(package::Args),
    /// Make the Grafana dashboard anew: deploy/grafana/weir.json
    Dashboards,
    /// Check what no compiler checks: sizes, names, paths in documents
    Tidy,
    /// Run a real Apache Kafka on loopback until Ctrl-C
    Kafka(kafka::Args),
    /// Watch a running daemon (`weir top`)
    Top {
        /// Passed to `weir top`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a whole node in one thread, with time, network, disk and sink decided by a seed
    Sim {
        /// Passed to the simulation: `--seed N --steps N --seeds K --trace`, see `--help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the load generator and benches (`weir-bench`)
    Bench {
        /// Passed to `weir-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => levels::run(&args),
        Task::Setup(args) => setup::run(&args),
        Task::Kafka(args) => kafka::run(&args),
        Task::Package(args) => package::run(&args),
        Task::Dashboards => dashboards::run(),
        Task::Tidy => tidy::run(&root()),
        Task::Top { arguments } => run_binary("weir", "top", &arguments),
        Task::Sim { arguments } => sim::run(&arguments),
        Task::Bench { arguments } => run_binary("weir-bench", "", &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Becomes a release binary of the workspace.
fn run_binary(name: &str, subcommand: &str, arguments: &[String]) -> Result<()> {
    command::run(command::cargo().args(["build", "--quiet", "--release", "--package", name]))?;
    let mut binary = std::process::Command::new(target().join("release").join(name));
    binary.args(Some(subcommand).filter(|word| !word.is_empty())).args(arguments);
    Err(command::replace_self_with(&mut binary))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}

//! The `weir` binary: the command line, and the daemon when it is asked for.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use weir::audit;
use weir::cli::{AnnounceArgs, AuditArgs, Cli, Command, RunArgs, answer, fail, with_config};
use weir::config::Sink;
use weir::daemon;

pub(crate) fn main() -> ExitCode {
    match answer(Cli::parse().command) {
        Ok(code) => code,
        Err(Command::Run(args)) => run(&args),
        Err(Command::Audit(args)) => recount(&args),
        Err(Command::Announce(args)) => announce(&args),
        // `answer` gives back no other command.
        Err(_) => ExitCode::FAILURE,
    }
}

fn recount(args: &AuditArgs) -> ExitCode {
    with_config(&args.config.config, |config, _| {
        if config.forward.sink == Sink::Kafka {
            let why = "the sink is Kafka, and this recounts the embedded store; `weir read-topic` shows what Kafka holds";
            return fail(&why, 2);
        }
        match audit::command::run(config, args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => fail(&"the store is not sound; the findings are above", 1),
            Err(error) => fail(&error, 1),
        }
    })
}

fn announce(args: &AnnounceArgs) -> ExitCode {
    log_to_stderr(tracing::Level::INFO);
    match weir::announce::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 2),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let file = &args.config.config;
    with_config(file, |config, _| {
        log_to_stderr(config.log.level);
        match daemon::run(file, config, daemon::Told { clock_is_right: args.clock_is_right }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "the daemon ended");
                fail(&error, 1)
            }
        }
    })
}

/// Lines of our own at the level the config names; of the libraries only what is wrong.
fn log_to_stderr(level: tracing::Level) {
    let ours = Targets::new().with_default(tracing::Level::WARN).with_target("weir", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(lines).with(ours).init();
}

//! The `weir` binary: the command line, and the daemon when it is asked for.

use std::process::ExitCode;

use clap::Parser;
use weir::audit;
use weir::cli::{AuditArgs, Cli, Command, ConfigArgs, answer, fail};
use weir::config::{self, Host};
use weir::daemon;

fn main() -> ExitCode {
    match answer(Cli::parse().command) {
        Ok(code) => code,
        Err(Command::Run(args)) => run(&args),
        Err(Command::Audit(args)) => recount(&args),
        // `answer` gives back no other command.
        Err(_) => ExitCode::FAILURE,
    }
}

fn recount(args: &AuditArgs) -> ExitCode {
    let found = match config::load(&args.config.config, &Host::this()) {
        Ok(config) => audit::command::run(&config, args),
        Err(error) => return fail(&error, 2),
    };
    match found {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fail(&"the store is not sound; the findings are above", 1),
        Err(error) => fail(&error, 1),
    }
}

fn run(args: &ConfigArgs) -> ExitCode {
    let config = match config::load(&args.config, &Host::this()) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    tracing_subscriber::fmt()
        .with_max_level(config.log.level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the daemon ended");
            fail(&error, 1)
        }
    }
}

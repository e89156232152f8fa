//! The `weir` binary: the command line, and the daemon when it is asked for.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, ConfigArgs, answer, fail};
use weir::config::{self, Host};
use weir::daemon;

fn main() -> ExitCode {
    match answer(Cli::parse().command) {
        Ok(code) => code,
        Err(Command::Run(args)) => run(&args),
        Err(_) => fail(&"audit is not built yet", 1),
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

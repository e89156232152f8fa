//! The `weir` binary: the command line, and the daemon when it is asked for.

use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, answer, fail};

fn main() -> ExitCode {
    match answer(Cli::parse().command) {
        Ok(code) => code,
        Err(Command::Audit(_)) => fail(&"audit is not built yet", 1),
        Err(_) => fail(&"run is not built yet", 1),
    }
}

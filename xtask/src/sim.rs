//! `cargo xtask sim`: seeds of the deterministic simulation.

use std::process::Command;

use anyhow::Result;

use crate::{command, target};

/// Builds the simulation, in the profile of the tests, so that nothing is built twice.
fn binary() -> Result<Command> {
    command::run(command::cargo().args(["build", "--quiet", "--package", "weir-labs", "--bin", "weir-sim"]))?;
    Ok(Command::new(target().join("debug").join("weir-sim")))
}

/// Becomes the simulation.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    Err(command::replace_self_with(binary()?.args(arguments)))
}

/// Runs as many of these seeds as fit the time; they must pass.
pub(crate) fn seeds(count: u64, seconds: u64) -> Result<()> {
    let (count, seconds) = (count.to_string(), seconds.to_string());
    command::run(binary()?.args(["--seeds", &count, "--budget", &seconds]))
}

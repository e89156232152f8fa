//! The program `weir-central`: see [`weir_central::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_central::cli::main()
}

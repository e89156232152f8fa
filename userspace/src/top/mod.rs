//! The terminal view of a running daemon. It looks at the status socket once an interval and
//! asks nothing else: a node that nobody watches does nothing for it.

use std::process::ExitCode;

use crate::cli::TopArgs;
use crate::control::{ClientError, Status, fetch};

/// The status as text.
#[must_use]
pub fn text(status: &Status) -> String {
    format!("{status:#?}\n")
}

/// Runs `weir top`.
///
/// # Errors
/// When no daemon answers.
pub fn run(args: &TopArgs) -> Result<ExitCode, ClientError> {
    print!("{}", text(&fetch(&args.socket)?));
    Ok(ExitCode::SUCCESS)
}

//! The daemon with the switch that makes its disk fail (feature `disk-faults`), under a name of its
//! own, so that no build can be mistaken for the other. For labs: see `worker/disk_faults.rs`.

#[path = "../main.rs"]
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main()
}

//! The central tier against its own OpenAPI document, asked by Schemathesis: requests that nobody here thought of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_labs::central::CentralFolder;
use weir_labs::{Generator, Load, NodeFolder, kafka, now_ms, seed};

/// Requests of each kind and route that are made up, beside those at every bound: some seconds.
const EXAMPLES: u32 = 100;

/// The program, if `cargo xtask setup` made it.
fn schemathesis() -> Option<PathBuf> {
    let target = weir_labs::binary("weir").ancestors().nth(2).map(Path::to_path_buf)?;
    let folder = target.join("schemathesis");
    let is_made = folder.join("made-of").exists();
    if !is_made {
        println!("skipped: Schemathesis is not here; `cargo xtask setup` installs it");
    }
    is_made.then(|| folder.join("bin/schemathesis"))
}

#[test]
fn what_the_document_allows_is_answered_and_what_it_does_not_is_refused() {
    let (Some(program), Some(bootstrap)) = (schemathesis(), kafka::shared()) else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::forwarding(bootstrap, &prefix, 1).expect("folder");
    let central_folder = CentralFolder::new(bootstrap, &prefix, "").expect("folder");
    let mut central = central_folder.start().expect("central");
    let node = folder.start_ready().expect("ready");
    let load = Load { profile: "demo", rate: 2000, duration: Duration::from_secs(2), seed: 111 };
    Generator::start(&folder, load).expect("generator").finish(Duration::from_secs(90)).expect("generator");
    central.wait_until_counted(1, now_ms()).expect("counted");

    let mut command = Command::new(program);
    command.current_dir(central_folder.path());
    command.args(["run", "--no-color", "--continue-on-failure", "--generation-database", "none"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", &EXAMPLES.to_string()]);
    command.args(["--seed", &(seed() % 1_000_000_000).to_string(), "--request-timeout", "30"]);
    // A stream has no end to wait for. And no schema can say that `start` is before `end`, so a request that is as the
    // schema has it may be refused; that each bound by itself is taken is a test of the crate's.
    command.args(["--exclude-path", "/v1/stats/stream", "--exclude-checks", "positive_data_acceptance"]);
    command.arg(format!("http://127.0.0.1:{}/openapi.json", central_folder.port()));
    let output = command.output().expect("Schemathesis starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let stats = central.ask("/v1/stats/top").expect("it still answers");
    assert!(stats["ads"].as_u64() > Some(0), "{stats}");
    println!("{said}");
    central.stop().expect("stop");
    node.drain().expect("drain");
}

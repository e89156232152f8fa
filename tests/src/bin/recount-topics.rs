//! `recount-topics BOOTSTRAP PREFIX ACKED`: reads a node's topics with `read_committed`, recounts
//! them, and holds a sender's log of acknowledged clicks against them. Fails when anything in
//! Kafka is missing, twice, or not a recount.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use weir_labs::topics::Recount;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [bootstrap, prefix, acked] => run(bootstrap, prefix, Path::new(acked)),
        _ => Err(anyhow::anyhow!("usage: recount-topics BOOTSTRAP PREFIX ACKED")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recount-topics: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bootstrap: &str, prefix: &str, acked: &Path) -> Result<()> {
    let recount = Recount::of(bootstrap, prefix)?;
    let (missing, acknowledged) = recount.missing(acked)?;
    println!("in Kafka, read with read_committed:");
    for (name, number) in [
        ("blocks", recount.blocks),
        ("rows", recount.rows),
        ("buckets", recount.buckets),
        ("bucket revisions", recount.revisions),
        ("octets of rows", recount.raw_bytes),
        ("octets of bucket revisions", recount.bucket_bytes),
        ("clicks acknowledged to the sender", acknowledged),
        ("of those not in Kafka", missing),
        ("blocks missing", recount.gaps),
        ("blocks twice", recount.blocks_twice),
        ("clicks twice", recount.clicks_twice),
        ("buckets that are no recount of the rows", recount.mismatches),
        ("sketches of unique users", recount.sketches.sketches),
        ("octets of sketches", recount.sketches.bytes),
        ("minutes not sketched in full", recount.sketches.unsketched_minutes),
        ("sketches that are not those of the rows", recount.sketches.mismatches),
    ] {
        println!("  {name:<40} {number:>13}");
    }
    recount.check()?;
    if missing > 0 {
        bail!("{missing} of {acknowledged} acknowledged clicks are not in Kafka");
    }
    Ok(())
}

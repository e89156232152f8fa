//! `cargo xtask kafka`: a real Apache Kafka on loopback until Ctrl-C, to try things against.

use std::time::Duration;

use anyhow::Result;
use weir_kafka_lab::{Cluster, Distribution, Settings};

use crate::command::Interrupt;
use crate::{setup, target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many brokers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3))]
    brokers: u16,
    #[command(flatten)]
    setup: setup::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    setup::ensure_kafka(&args.setup)?;
    let cluster = start(args.brokers, Vec::new())?;
    println!("bootstrap.servers: {}", cluster.bootstrap());
    println!("Ctrl-C ends it and removes all it holds");
    while interrupt.check().is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A fresh cluster under the target folder, each broker run by `within`.
pub(crate) fn start(brokers: u16, within: Vec<String>) -> Result<Cluster> {
    let distribution = Distribution::fetch(&target())?;
    let settings = Settings { brokers, within, ..Settings::default() };
    Cluster::start(&distribution, &target().join("kafka"), &settings)
}

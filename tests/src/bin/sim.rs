//! `weir-sim`: runs seeds of the simulation until one fails or the time is up.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use weir_labs::sim::{Canary, Run, run, scratch};

/// Runs a whole node in one thread, with time, network, disk and sink decided by a seed.
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", max_term_width = 100)]
struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of each seed, before all faults end and everything has to come to rest
    #[arg(long, default_value_t = 3000)]
    steps: u64,
    /// How many seeds, counting up from the first
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Begin no further seed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u64>,
    /// Print what happens; for one seed
    #[arg(long)]
    trace: bool,
    /// Whether the journal is encrypted; without this every third seed's is
    #[arg(long, value_name = "BOOL")]
    encrypted: Option<bool>,
    /// Do a wrong on purpose
    #[arg(long, hide = true)]
    canary: Option<Canary>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scratch = scratch();
    let started = Instant::now();
    let budget = args.budget.map_or(Duration::MAX, Duration::from_secs);
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let encrypted = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(args.seeds.max(1) as usize);
    let worker = || {
        while !failed.load(Ordering::Relaxed) && started.elapsed() < budget {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= args.seeds {
                return;
            }
            let seed = args.seed + number;
            let (steps, trace) = (args.steps, args.trace);
            let told = Run {
                seed,
                steps,
                trace,
                segments_max: None,
                encrypted: args.encrypted,
                canary: args.canary,
            };
            let is_encrypted = told.is_encrypted();
            match run(told, &scratch) {
                Ok(tally) => {
                    encrypted.fetch_add(u64::from(is_encrypted), Ordering::Relaxed);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if args.seeds == 1 {
                        println!("{tally:?}");
                    } else if done.is_multiple_of(500) {
                        println!("{done} seeds in {:.1} s", started.elapsed().as_secs_f64());
                    }
                }
                Err(wrong) => {
                    failed.store(true, Ordering::Relaxed);
                    let journal = if is_encrypted { "encrypted" } else { "plain" };
                    println!(
                        "seed {seed}, its journal {journal}, FAILED: {wrong}\nreplay it: cargo xtask sim --seed {seed} --steps {steps}{} --trace",
                        args.encrypted.map_or_else(String::new, |told| format!(" --encrypted {told}")),
                    );
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    let (done, seconds) = (done.into_inner(), started.elapsed().as_secs_f64());
    println!(
        "simulation: {done} seeds of {} steps passed in {seconds:.1} s, {} of them with an encrypted journal",
        args.steps,
        encrypted.into_inner(),
    );
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

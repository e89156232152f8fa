//! `weir announce`: announces a node's addresses by BIRD while the node is ready, and withdraws them at the first sign
//! that it is not.
//!
//! A process of its own, for a node that died cannot say so: what tells is that its heartbeat ends. It hears
//! ([`pulse`]), decides ([`judge`]) and tells BIRD ([`speaker`]); it never touches a click, and asks the node for
//! nothing.
//!
//! SIGTERM ends it and leaves everything as it was told: an upgrade of the announcer withdraws nothing. While it is
//! away nobody withdraws a node that dies, so its service manager starts it again at once.
//!
//! Start reading at [`run`].

mod bird;
pub mod judge;
mod pulse;
mod speaker;

use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Interval, interval, sleep};

use crate::cli::AnnounceArgs;
use crate::control::{BEAT, service_manager};
use bird::Switch;
use judge::{Event, Judge, SILENCE_MAX, Step};
use pulse::Pulse;
use speaker::Speaker;

const _: () = assert!(SILENCE_MAX.as_millis() >= 3 * BEAT.as_millis(), "one late beat is no silence");

/// Protocols that one announcer switches: each is a command that a withdrawal waits for.
const PROTOCOLS_MAX: usize = 16;

const _: () = assert!(PROTOCOLS_MAX == 16, "as help and error say");

/// Why nothing can be announced.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum AnnounceError {
    /// --protocol was given {0} times, and may be given 16 times at the most
    Protocols(usize),
    /// cannot start: {0}
    Start(#[from] io::Error),
}

/// Announces and withdraws until the process is ended.
///
/// # Errors
/// When it cannot begin.
pub fn run(args: &AnnounceArgs) -> Result<(), AnnounceError> {
    if args.protocols.len() > PROTOCOLS_MAX {
        return Err(AnnounceError::Protocols(args.protocols.len()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(announce(args));
    Ok(())
}

async fn announce(args: &AnnounceArgs) {
    let started = Instant::now();
    let mut judge = Judge::new(Duration::ZERO, args.rise);
    let mut pulse = Pulse::new(args.heartbeat.clone());
    let (decide, wanted) = watch::channel(None);
    let (tell, mut is_told) = watch::channel(args.dry_run);
    let speaker = Speaker { bird: args.bird.clone(), protocols: args.protocols.clone() };
    if !args.dry_run {
        tokio::spawn(speaker::keep(speaker, wanted, tell.clone()));
    }
    let mut status = String::new();
    let mut watchdog = service_manager::answer_interval().map(interval);
    service_manager::tell(&[NotifyState::Ready]);
    loop {
        let now_status = status_text(&judge, *is_told.borrow_and_update());
        if now_status != status {
            status = now_status;
            service_manager::tell(&[NotifyState::Status(&status)]);
        }
        let until_deadline = judge.deadline().map(|deadline| deadline.saturating_sub(started.elapsed()));
        // In this order: beats that are here are heard before anybody asks whether there were any.
        let event = tokio::select! {
            biased;
            event = pulse.next() => event,
            _ = is_told.changed() => continue,
            () = sleep(until_deadline.unwrap_or_default()), if until_deadline.is_some() => Event::Nothing,
            () = asked(&mut watchdog) => {
                service_manager::tell(&[NotifyState::Watchdog]);
                continue;
            }
        };
        let switch = match judge.take(started.elapsed(), event) {
            Step::Nothing => continue,
            Step::Announce => {
                tracing::info!("announced: the node has been ready without a break");
                Switch::Enable
            }
            Step::Withdraw(reason) => {
                tracing::warn!("withdrawn: {reason}");
                Switch::Disable
            }
        };
        if args.dry_run {
            args.protocols.iter().for_each(|protocol| println!("{}", switch.command(protocol)));
        }
        decide.send_replace(Some(switch));
    }
}

/// What an operator sees of it in `systemctl status`.
fn status_text(judge: &Judge, is_told: bool) -> String {
    let standing = match (judge.is_announced(), judge.why()) {
        (Some(true), _) => "announced".to_owned(),
        (Some(false), Some(why)) => format!("withdrawn: {why}"),
        (_, Some(why)) => format!("as it was: {why}"),
        (_, None) => "as it was: nothing was heard yet".to_owned(),
    };
    let doubt = if is_told || judge.is_announced().is_none() { "" } else { "; BIRD does not know it" };
    format!("{standing}{doubt}")
}

/// Ends when the watchdog wants an answer; never, where there is none.
async fn asked(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(times) => drop(times.tick().await),
        None => std::future::pending().await,
    }
}

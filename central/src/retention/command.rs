//! The commands of retention: `retain`, `forget`, `hold`, `release`, `holds`, `audit`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::plan::{Kept, Policy, Step, What};
use super::{Actor, Keeper, RetentionError};
use crate::archive::audit::{Act, Change, Line};
use crate::archive::day::Day;
use crate::cli::{ConfigFile, Failed, alone, open_archive, usage};
use crate::clock;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do what `[archive.retention]` wants done today, and end what was left in the middle; a timer runs it once a day
    Retain(RetainArgs),
    /// Delete days from the archive by hand
    Forget(ForgetArgs),
    /// Let nothing touch these days until they are released
    Hold(HoldArgs),
    /// End a hold
    Release(ReleaseArgs),
    /// List the holds
    Holds(ListArgs),
    /// List what was done to the archive, when, by whom and why
    Audit(ListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct By {
    #[command(flatten)]
    config: ConfigFile,
    /// Who does it, for the audit; without it, who is logged in
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Days {
    /// The first day, in UTC, such as 2026-01-31
    #[arg(long, value_name = "DAY")]
    start: String,
    /// The first day behind the last one
    #[arg(long, value_name = "DAY")]
    end: String,
}

#[derive(Debug, Args)]
pub(crate) struct RetainArgs {
    #[command(flatten)]
    by: By,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    days: Days,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    by: By,
    /// What the hold is called
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    days: Days,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    by: By,
    /// What the hold is called
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

fn now_ms() -> u64 {
    clock::now().0
}

impl By {
    fn name(&self) -> String {
        let logged_in = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        self.by.clone().or_else(logged_in).unwrap_or_else(|| "unknown".to_owned())
    }
}

impl Days {
    fn read(&self) -> Result<std::ops::Range<Day>, Failed> {
        let day = |name: &String| {
            Day::read(name).ok_or_else(|| usage(format!("{name:?} is no day; expected one as 2026-01-31")))
        };
        let range = day(&self.start)?..day(&self.end)?;
        if range.is_empty() {
            return Err(usage("there is no day from --start to before --end"));
        }
        Ok(range)
    }
}

/// Obeys a command.
pub(crate) fn main(command: &Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Retain(args) => retain(args)?,
        Command::Forget(args) => {
            let days = args.days.read()?;
            keep(&args.by, async |keeper| keeper.forget(days, &args.reason).await)?;
        }
        Command::Hold(args) => {
            let days = args.days.read()?;
            let count = days.end.0 - days.start.0;
            keep(&args.by, async |keeper| keeper.hold(&args.name, days, &args.reason).await)?;
            println!("held: {count} days from {} to before {}", args.days.start, args.days.end);
        }
        Command::Release(args) => {
            keep(&args.by, async |keeper| keeper.release(&args.name, &args.reason).await)?;
        }
        Command::Holds(args) => {
            let holds = list(args, async |keeper| keeper.holds().await)?;
            tell(args.json, &holds, |hold| {
                let (start, end, reason, by) = (hold.start, hold.end, &hold.reason, &hold.by);
                format!("{:?}: {start} to before {end}, by {by}, line {}: {reason}", hold.name, hold.line)
            });
        }
        Command::Audit(args) => {
            let lines = list(args, async |keeper| keeper.audit().await)?;
            tell(args.json, &lines, shown);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn retain(args: &RetainArgs) -> Result<(), Failed> {
    let config = args.by.config.load()?;
    let policy: Policy = config.archive.as_ref().and_then(|archive| archive.retention).unwrap_or_default();
    if args.dry_run {
        let plan = keep(&args.by, async |keeper| keeper.plan(&policy).await)?;
        if args.json {
            println!("{}", json(&plan));
        } else {
            plan.steps.iter().for_each(|step| println!("would {}", would(step)));
            plan.kept.iter().for_each(|kept| println!("{}", stays(kept)));
        }
        return Ok(());
    }
    let (before, result) = keep(&args.by, async |keeper| {
        let before = keeper.audit().await?.len();
        Ok((before, keeper.retain(&policy).await?))
    })?;
    let lines = keep(&args.by, async |keeper| keeper.audit().await)?;
    let lines = lines.get(before..).unwrap_or_default();
    if args.json {
        println!("{}", serde_json::json!({ "lines": lines, "kept": result.kept }));
    } else {
        lines.iter().for_each(|line| println!("{}", shown(line)));
        result.kept.iter().for_each(|kept| println!("{}", stays(kept)));
    }
    Ok(())
}

fn keep<T>(by: &By, act: impl AsyncFnOnce(&Keeper<'_>) -> Result<T, RetentionError>) -> Result<T, Failed> {
    let place = open_archive(&by.config.load()?)?;
    let name = by.name();
    let keeper = Keeper::of(place, Actor { by: &name, now_ms: &now_ms });
    alone(act(&keeper))
}

fn list<T>(
    args: &ListArgs,
    act: impl AsyncFnOnce(&Keeper<'_>) -> Result<T, RetentionError>,
) -> Result<T, Failed> {
    let place = open_archive(&args.config.load()?)?;
    alone(act(&Keeper::of(place, Actor { by: "", now_ms: &now_ms })))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // numbers and names: JSON has them
}

fn tell<T: serde::Serialize>(as_json: bool, all: &[T], shown: impl Fn(&T) -> String) {
    if as_json {
        println!("{}", json(&all));
    } else {
        all.iter().for_each(|one| println!("{}", shown(one)));
    }
}

const fn verb(what: What) -> &'static str {
    match what {
        What::Thin => "thin",
        What::Delete => "delete",
    }
}

fn would(step: &Step) -> String {
    match step {
        Step::Finish { line } => format!("end what line {line} of the audit began"),
        Step::Begin { what, day, objects } => format!("{} {} objects of {day}", verb(*what), objects.len()),
    }
}

fn stays(kept: &Kept) -> String {
    format!("due to {} and kept: {}: {}", verb(kept.what), kept.day, kept.why)
}

/// A line for people.
fn shown(line: &Line) -> String {
    let of = |objects: &[Change]| {
        let rows: u64 = objects.iter().map(|change| change.before.rows).sum();
        let before: u64 = objects.iter().map(|change| change.before.bytes).sum();
        let after: u64 = objects.iter().filter_map(|change| change.after).map(|after| after.bytes).sum();
        format!("{} objects, {rows} rows, from {before} octets to {after}", objects.len())
    };
    let what = match &line.act {
        Act::Held { name, start, end } => format!("held {start} to before {end} as {name:?}"),
        Act::Released { name } => format!("released {name:?}"),
        Act::Refused { start, end } => format!("refused to delete {start} to before {end}"),
        Act::Thinning { day, objects } => format!("about to thin {day}: {}", of(objects)),
        Act::Deleting { day, objects } => format!("about to delete {day}: {}", of(objects)),
        Act::Thinned(ended) => {
            format!("thinned {}, as line {} said: {}", ended.day, ended.of, of(&ended.objects))
        }
        Act::Deleted(ended) => {
            format!("deleted {}, as line {} said: {}", ended.day, ended.of, of(&ended.objects))
        }
        Act::Stopped(ended) => {
            format!("did not go on with line {} on {}, after {}", ended.of, ended.day, of(&ended.objects))
        }
    };
    let at = i64::try_from(line.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{} {} {}: {what} ({})", line.number, at.unwrap_or(Timestamp::MAX), line.by, line.reason)
}

//! `weir-central bill` and `bill-export`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::database::{self, DatabaseError, Login};
use super::export::{self, ExportError};
use super::ready::{self, NotYet};
use super::run::{Run, RunError};
use super::settings::Billing;
use super::{BillError, Billed, bill};
use crate::archive::place::{Place, PlaceError};
use crate::cli::{ConfigFile, Failed, UNEXPLAINED, WORK, alone, ended, open_archive, read_key, usage, work};
use crate::clock::now;
use crate::config::Config;
use crate::reconcile::counted::{self, CountedError};
use crate::reconcile::rules::Rules;
use crate::reconcile::{self, Day, ReconcileError};

/// The exit status of a day that cannot be billed yet.
const NOT_YET: u8 = 4;

/// What is to be billed.
#[derive(Debug, Args)]
pub struct BillArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// The day, in UTC, such as 2026-01-31
    #[arg(long, value_name = "DAY", required_unless_present = "migrate")]
    day: Option<String>,
    /// Rules in place of what the nodes decided, as of `reconcile`
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Close the day: from then on it gets adjustments only
    #[arg(long)]
    close: bool,
    /// Print what was billed as JSON
    #[arg(long)]
    json: bool,
    /// Make the tables, or bring them up to date, as the owner of the database, and bill nothing
    #[arg(long, conflicts_with_all = ["day", "rules", "close", "json"])]
    migrate: bool,
}

/// What is to be exported.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// The day, in UTC, such as 2026-01-31
    #[arg(long, value_name = "DAY")]
    day: String,
    /// The file, which is replaced whole or not at all; standard output without it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Why a day is not billed.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
enum Unbilled {
    /// {0}
    NotYet(#[from] NotYet),
    /// {0}
    Counted(#[from] CountedError),
    /// {0}
    Reconcile(#[from] ReconcileError),
    /// {0}
    Run(#[from] RunError),
    /// {0}
    Place(#[from] PlaceError),
    /// {0}
    Bill(#[from] BillError),
    /// {0}
    Database(#[from] DatabaseError),
}

/// All that a day is billed by.
struct Asked {
    login: Login,
    place: Place,
    key: Option<String>,
    day: Day,
    rules: Rules,
}

fn asked(config: &Config, args: &BillArgs) -> Result<Asked, Failed> {
    let rules = args.rules.as_deref().map_or_else(|| Ok(Rules::recorded()), Rules::read);
    Ok(Asked {
        login: billing(config).and_then(Billing::login).map_err(usage)?,
        place: open_archive(config)?,
        key: read_key(config).map_err(usage)?,
        day: Day::read(args.day.as_deref().unwrap_or_default()).map_err(usage)?,
        rules: rules.map_err(usage)?,
    })
}

fn billing(config: &Config) -> Result<&Billing, String> {
    config.billing.as_ref().ok_or_else(|| "there is no [billing] in the config".to_owned())
}

/// `weir-central bill`
pub(crate) fn main(config: &Config, args: &BillArgs) -> Result<ExitCode, Failed> {
    if args.migrate {
        return migrate(config);
    }
    let billed = ended(one(config, &asked(config, args)?, args.close))?.map_err(|error| Failed {
        status: match error {
            Unbilled::Run(RunError::Unexplained { .. }) => UNEXPLAINED,
            Unbilled::NotYet(_) => NOT_YET,
            _ => WORK,
        },
        why: error.to_string(),
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&billed).map_err(work)?);
    } else {
        print!("{billed}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn one(config: &Config, asked: &Asked, closes: bool) -> Result<Billed, Unbilled> {
    let Asked { login, place, key, day, rules } = asked;
    ready::is_over(day, now())?;
    // Before the work, so that a database that is away costs nothing; and not kept open during it.
    database::check(&login.connect().await?).await?;
    let tier = (config.serve.listen, key.as_deref());
    // First whether it is final, then what was counted: what is asked later is not earlier.
    ready::is_final(day, &counted::ask(tier.0, tier.1, "/v1/nodes").await?)?;
    let report = reconcile::report(place, tier, day, rules).await?;
    let octets = report.to_json();
    let run = Run::read(&report.name(), &octets)?;
    Ok(bill(&mut login.connect().await?, place, (&run, &octets), closes).await?)
}

fn migrate(config: &Config) -> Result<ExitCode, Failed> {
    let login = billing(config).and_then(Billing::owner).map_err(usage)?;
    match alone(async { database::migrate(&mut login.connect().await?).await })? {
        0 => println!("the tables are up to date"),
        count => println!("{count} migrations applied"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir-central bill-export`
pub(crate) fn export(config: &Config, args: &ExportArgs) -> Result<ExitCode, Failed> {
    let login = billing(config).and_then(Billing::login).map_err(usage)?;
    let day = Day::read(&args.day).map_err(usage)?;
    let lines = alone(async {
        let client = login.connect().await?;
        database::check(&client).await?;
        export::export(&client, &day.name()).await
    })?;
    put(args.to.as_deref(), &lines).map_err(work)?;
    Ok(ExitCode::SUCCESS)
}

fn put(to: Option<&Path>, lines: &[u8]) -> Result<(), ExportError> {
    match to {
        Some(path) => export::write(path, lines),
        None => std::io::stdout().write_all(lines).map_err(|source| {
            let path = PathBuf::from("standard output");
            ExportError::Write { path, source }
        }),
    }
}

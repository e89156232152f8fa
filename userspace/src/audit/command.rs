//! `weir audit`: recounts a stopped node's store and says whether it is sound.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, IsTerminal};

use serde::Serialize;
use weir_common::id::Incarnation;
use weir_common::time::MS_PER_MINUTE;

use super::acked::{AckedError, AckedReport, compare};
use super::{AuditConfig, AuditReport, audit};
use crate::cli::AuditArgs;
use crate::config::Config;
use crate::daemon::store_path;
use crate::forward::embedded::{Store, StoreError};

/// Buckets shown of one ad: the newest.
const BUCKETS_SHOWN: usize = 4;

/// Everything `weir audit` found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The recount.
    pub audit: AuditReport,
    /// The comparison with a sender's log, when one was given.
    pub acked: Option<AckedReport>,
}

impl Findings {
    /// Whether everything is as it must be.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.audit.sound && self.acked.as_ref().is_none_or(|acked| acked.missing == 0)
    }
}

/// Audits the store of `config`, prints what it found, and says whether it is sound.
///
/// # Errors
/// When the store or the log cannot be read; the daemon must not be running.
pub fn run(config: &Config, args: &AuditArgs) -> Result<bool, AckedError> {
    let store = Store::open(&store_path(config), Incarnation(0))?;
    let settings = AuditConfig { dimensions: config.buckets.dimensions, ..AuditConfig::default() };
    if std::io::stderr().is_terminal() {
        eprintln!("recounting {}", store_path(config).display());
    }
    let mut findings = Findings { audit: audit(&store, &settings)?, acked: None };
    if let Some(path) = &args.acked {
        findings.acked = Some(compare(&store, BufReader::new(File::open(path)?))?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings).map_err(std::io::Error::from)?);
    } else {
        print!("{}", findings.audit);
        if let Some(AckedReport { acknowledged, missing, examples }) = &findings.acked {
            println!("acknowledged clicks in the log: {acknowledged}, missing in the store: {missing}");
            examples.iter().for_each(|example| println!("  missing: {example}"));
        }
        print!("{}", busiest(&store, &findings.audit, args.busiest)?);
    }
    Ok(findings.sound())
}

/// The newest buckets of the ads with the most clicks.
fn busiest(store: &Store, report: &AuditReport, ads: usize) -> Result<String, StoreError> {
    let wanted: Vec<u64> = report.busiest.iter().take(ads).map(|&(ad, _)| ad).collect();
    let mut found = vec![Vec::new(); wanted.len()];
    for entry in store.buckets() {
        let (_, revision, bucket) = entry?;
        if let Some(place) = wanted.iter().position(|&ad| ad == bucket.key.ad.get()) {
            found[place].push((revision, bucket));
        }
    }
    let mut text = String::new();
    if !wanted.is_empty() {
        text.push_str("\n           ad  minute (UTC)  country  device  accepted  repeat  filtered  late  cost (micros)  revision\n");
    }
    for mut buckets in found {
        buckets
            .sort_by_key(|(_, bucket)| std::cmp::Reverse((bucket.key.minute.get(), bucket.totals.gross())));
        for (revision, bucket) in buckets.iter().take(BUCKETS_SHOWN) {
            let (key, totals) = (&bucket.key, &bucket.totals);
            let country = std::str::from_utf8(&key.country).unwrap_or("??").trim_end_matches('\0');
            let filtered: u64 = totals.filtered.iter().map(|count| count.get()).sum();
            let _ = writeln!(
                text,
                "{:>13}  {:<12}  {:<7}  {:>6}  {:>8}  {:>6}  {:>8}  {:>4}  {:>13}  {:>8}",
                key.ad.get(),
                time_of_day(key.minute.get()),
                if country.is_empty() { "-" } else { country },
                key.device,
                totals.accepted.get(),
                totals.repeat.get(),
                filtered,
                totals.late.get(),
                totals.cost_micros.get(),
                revision.0,
            );
        }
        if buckets.len() > BUCKETS_SHOWN {
            let _ = writeln!(text, "{:>13}  and {} more buckets", "", buckets.len() - BUCKETS_SHOWN);
        }
    }
    Ok(text)
}

/// Hours and minutes of a minute since the epoch.
fn time_of_day(minute: u32) -> String {
    let minutes_per_day = 86_400_000 / MS_PER_MINUTE as u32;
    let of_day = minute % minutes_per_day;
    format!("{:02}:{:02}", of_day / 60, of_day % 60)
}

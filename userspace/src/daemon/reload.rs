//! What is replaced under a running node at SIGHUP: keys, salts, lists of invalid traffic, model, certificate
//! and catalog.
//!
//! Each for itself: what cannot be read stays as it was, and the log says so. Everything else of the config
//! is what it was at the start.

use std::path::PathBuf;
use std::sync::Arc;

use weir_common::time::{Minute, UnixMs};

use super::doors::Doors;
use super::frames::SharedSteering;
use super::settings;
use crate::admission::Admission;
use crate::clock::{NodeClock, system_clock};
use crate::config::{self, Config, Host, Salting};
use crate::pseudonym::{Pseudonyms, SaltsError};
use crate::published::Published;
use crate::score::{self, Scorer};
use crate::traffic::{Lists, LoadErrors};

/// From one look after the salts to the next: tomorrow's is there a day before it is needed.
const SALTS_EVERY_MS: u64 = 60_000;
/// How long a salt is kept after the last click of its day may come: clocks of workers differ by less.
const SALTS_SLACK_MS: u64 = 3_600_000;

/// The parts of a run that can be replaced.
pub(super) struct Replaceable {
    /// Where the config was read.
    pub(super) file: PathBuf,
    /// What it said.
    pub(super) config: Config,
    /// Minutes before this one are final: [`crate::admission::Settings::closed_before`].
    pub(super) closed_before: Minute,
    /// The rules of admission, with the keys.
    pub(super) admission: Arc<Published<Admission>>,
    /// The XDP program, which may check tags too.
    pub(super) steering: Arc<SharedSteering>,
    /// The lists of invalid traffic.
    pub(super) lists: Arc<Published<Lists>>,
    /// How users' keys are written.
    pub(super) pseudonyms: Arc<Published<Pseudonyms>>,
    /// When salts are to be looked after again.
    pub(super) salts_due: UnixMs,
    /// Certificate and catalog.
    pub(super) doors: Doors,
}

impl Replaceable {
    /// Reads all of it again.
    pub(super) fn reload(&mut self) {
        match config::load(&self.file, &Host::this()) {
            Ok(new) => self.replace_keys(new),
            Err(error) => tracing::error!(%error, "the keys are not replaced"),
        }
        self.reload_lists();
        self.reload_salts();
        self.doors.reload();
    }

    fn reload_salts(&self) {
        match read_salts(&self.config) {
            Ok(pseudonyms) => self.pseudonyms.publish(pseudonyms),
            Err(error) => tracing::error!(%error, "the salts are not replaced"),
        }
    }

    /// Draws and destroys salts, now and then, where the node does that.
    pub(super) fn tend_salts_now_and_then(&mut self, clock: &NodeClock) {
        let now = clock.read();
        let draws = matches!(self.config.privacy.salting, Salting::Drawn(_));
        if draws && now.doubt.is_none() && now.time >= self.salts_due {
            self.salts_due = UnixMs(now.time.0 + SALTS_EVERY_MS);
            match tend_salts(&self.config, now.time) {
                Ok(true) => self.reload_salts(),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the salts of users' keys could not be tended; it is tried again")
                }
            }
        }
    }

    fn replace_keys(&mut self, new: Config) {
        let with_old_keys = Config { keys: self.config.keys.clone(), ..new };
        if with_old_keys != self.config {
            tracing::warn!(
                file = %self.file.display(),
                "the config has changed in more than its keys; for the rest of it restart the node"
            );
        }
        let renewed = Config { keys: new.keys, ..self.config.clone() };
        match settings::admission(&renewed, self.closed_before) {
            Ok(admission) => {
                let keys: Vec<_> = renewed.keys.iter().map(|key| (key.issuer, key.key)).collect();
                tracing::info!(issuers_and_keys = ?keys, "the keys are read again");
                self.admission.publish(admission);
                if let Err(error) = self.steering.replace_keys(&renewed) {
                    tracing::error!(%error, "the XDP program goes on with the old keys; restart the node");
                }
                self.config = renewed;
            }
            Err(error) => tracing::error!(%error, "the keys are not replaced"),
        }
    }

    fn reload_lists(&self) {
        let before = self.lists.value();
        match read_lists(&self.config, before.scorer.as_ref()) {
            Ok(lists) if lists.is_plain() => {}
            Ok(lists) => self.lists.publish(lists),
            Err(error) => tracing::error!(%error, "the lists of invalid traffic are not replaced"),
        }
    }

    /// Frees what was replaced and no worker uses any more.
    pub(super) fn free_replaced(&self) {
        self.admission.free_retired();
        self.lists.free_retired();
        self.pseudonyms.free_retired();
        self.doors.free_replaced();
    }
}

/// Reads the lists of invalid traffic and the model, and says which they are. A model that cannot be used leaves
/// the one that was there before.
///
/// # Errors
/// With every list that cannot be used.
pub(super) fn read_lists(config: &Config, before: Option<&Scorer>) -> Result<Lists, LoadErrors> {
    // For people to read; nothing is decided by it.
    let lists = Lists::load(&config.traffic.rules, system_clock())?;
    let lists = lists.with_scorer(config.score.as_ref().map(|settings| read_scorer(settings, before)));
    for version in lists.versions() {
        tracing::info!(%version, activated_at_ms = version.activated_at.0, "a list of invalid traffic is read");
    }
    if !lists.is_plain() {
        tracing::info!(rules = lists.rules_version(), "clicks are judged by these lists and limits");
    }
    Ok(lists)
}

/// Draws the salts of today and tomorrow, and destroys those of days that no click can come of any more, where the
/// node does that; whether it did anything.
///
/// # Errors
/// When the disk or the system's random source does not give what it takes.
fn tend_salts(config: &Config, now: UnixMs) -> Result<bool, SaltsError> {
    let Salting::Drawn(folder) = &config.privacy.salting else { return Ok(false) };
    let keep_ms = config.admission.lateness.as_millis() as u64 + SALTS_SLACK_MS;
    Pseudonyms::tend(folder, now, keep_ms)
}

/// The salts that a start begins with. While the time is in doubt none is drawn; those that are there are used.
///
/// # Errors
/// When one of them cannot be used, or not be drawn.
pub(super) fn first_salts(config: &Config, clock: &NodeClock) -> Result<Pseudonyms, SaltsError> {
    let now = clock.read();
    if now.doubt.is_none() {
        tend_salts(config, now.time)?;
    }
    read_salts(config)
}

/// Reads the salts of users' keys.
///
/// # Errors
/// When one of them cannot be used.
fn read_salts(config: &Config) -> Result<Pseudonyms, SaltsError> {
    let pseudonyms = Pseudonyms::load(&config.privacy.salting)?;
    if pseudonyms.are_salted() {
        tracing::info!(days = pseudonyms.days(), "users' keys are written under the salts of their days");
    }
    Ok(pseudonyms)
}

fn read_scorer(settings: &score::Settings, before: Option<&Scorer>) -> Scorer {
    let (scorer, read) = Scorer::load(settings, before);
    match (read, &scorer.model) {
        (Ok(()), Some(model)) => tracing::info!(
            file = %settings.model.display(),
            crc32c = format_args!("{:08x}", model.checksum()),
            trees = model.trees(),
            "clicks are scored by this model"
        ),
        (Ok(()), None) => {}
        (Err(error), Some(_)) => tracing::error!(%error, "the model is not replaced; the old one goes on"),
        (Err(error), None) => tracing::error!(%error, "clicks are marked as unscored"),
    }
    scorer
}

//! The folder of the keys of a run's journals: real files, which crashes spare as they spare what
//! was synced. What a node draws at random, a key's bytes and the salt of a writer, is drawn from
//! the seed, so that a seed repeats its run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use weir::day::Day;
use weir::journal::seal::{DayKey, DayKeyId, SALT_LEN, SealingKey};
use weir::journal::{DayKeys, KeyError};
use weir_common::time::UnixMs;
use zeroize::Zeroizing;

use super::chance::Chance;
use super::disk::Trouble;
use super::opener::Opener;
use super::plan::{Encryption, START_MS};

/// Keeps what a seed decides of encryption apart from all it decided before there was any.
const STREAM: u64 = 0x5ea1_ed00;

impl Encryption {
    /// What a seed makes of encryption: every third has it. `told`: whatever the seed says.
    #[must_use]
    pub fn draw(seed: u64, told: Option<bool>) -> Option<Self> {
        let mut chance = Chance::new(seed ^ STREAM);
        let is_on = chance.one_in(3);
        let midnight_ms = Day::of(UnixMs(START_MS)).end().0;
        // A run without pauses is over in a second or two.
        let before_ms = chance.pick(&[1100, 1300, 2000, 60_000, 600_000]);
        let starts_at_ms = if chance.one_in(2) { midnight_ms - before_ms } else { START_MS };
        let has_faults = chance.one_in(2);
        let fails = if has_faults { chance.between(1, 200) } else { 0 };
        let goes_away = if has_faults { chance.between(1, 300) } else { 0 };
        told.unwrap_or(is_on).then_some(Self { starts_at_ms, fails, goes_away })
    }
}

/// The keys of one run.
#[derive(Debug)]
pub struct Vault {
    /// Where nodes have their keys.
    pub keys_dir: PathBuf,
    /// What opens what is sealed with them.
    pub opener: Opener,
    chance: Chance,
    /// The keys that are there: their files, and what stands in them.
    files: BTreeMap<DayKeyId, (PathBuf, String)>,
    /// None can be taken before then.
    away_until_ms: u64,
}

impl Vault {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64, keys_dir: PathBuf) -> Self {
        let chance = Chance::new(seed ^ !STREAM);
        Self { keys_dir, opener: Opener::default(), chance, files: BTreeMap::new(), away_until_ms: 0 }
    }

    /// Takes the key of a day as the helper of a worker does, or fails.
    ///
    /// # Errors
    /// As the plan has it.
    pub fn take(
        &mut self,
        keys: &DayKeys,
        day: Day,
        (plan, now_ms): (&Encryption, u64),
    ) -> Result<SealingKey, KeyError> {
        let failed = |source| KeyError::Io { doing: "create", path: keys.folder().to_owned(), source };
        if now_ms < self.away_until_ms || self.chance.per_mille(plan.fails) {
            return Err(failed(Trouble::Broken.error()));
        }
        if !self.files.keys().any(|key| key.day() == day) {
            self.make(keys, day).map_err(failed)?;
        }
        let taken = keys.take(day)?;
        Ok(SealingKey { salt: self.bytes::<SALT_LEN>(), ..taken })
    }

    /// The folder may go away for a while.
    pub fn disturb(&mut self, plan: &Encryption, now_ms: u64) {
        if self.chance.below(100_000) < plan.goes_away {
            let far = self.chance.pick(&[10, 100, 3000]);
            self.away_until_ms = now_ms + self.chance.below(far);
        }
    }

    /// All faults are over.
    pub const fn heal(&mut self) {
        self.away_until_ms = 0;
    }

    /// Makes a key as an earlier start made it that died before it used it.
    fn make(&mut self, keys: &DayKeys, day: Day) -> io::Result<()> {
        let secret = self.bytes();
        let key = DayKey::new(day, Zeroizing::new(secret)).ok_or(io::ErrorKind::Other)?;
        let number = key.id().0;
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("weir journal key 1 id {number:016x} secret {hex}\n");
        let path = keys.path(key.id());
        fs::write(&path, &text)?;
        self.opener.learn(number, secret);
        self.files.insert(key.id(), (path, text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.chance.any() as u8)
    }

    /// The keys that the node destroyed since the last call.
    pub fn note_destroyed(&mut self) -> Vec<(DayKeyId, (PathBuf, String))> {
        self.files.extract_if(.., |_, (path, _)| !path.exists()).collect()
    }

    /// A crash came before these were destroyed.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn bring_back(&mut self, keys: Vec<(DayKeyId, (PathBuf, String))>) -> io::Result<()> {
        for (key, (path, text)) in keys {
            fs::write(&path, &text)?;
            self.files.insert(key, (path, text));
        }
        Ok(())
    }

    /// Loses the newest key, which no node may.
    ///
    /// # Errors
    /// When the simulation's own file fails.
    pub fn lose_newest(&mut self) -> io::Result<bool> {
        let Some((_, (path, _))) = self.files.pop_last() else { return Ok(false) };
        fs::remove_file(path).map(|()| true)
    }
}

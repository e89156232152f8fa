//! Who may ask, and how often.

use std::path::PathBuf;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Serve;

/// The least octets of a key: 128 bits as hexadecimal digits.
const KEY_LEN_MIN: usize = 32;
/// The most.
const KEY_LEN_MAX: usize = 256;

/// Streams that one key may have open, or everybody without keys: each is a connection, and asks a question a second.
const STREAMS_MAX: usize = 1000;
/// After how long another stream may be tried: the time in which browsers that are gone are noticed.
const STREAMS_RETRY_S: u64 = 15;

/// Why the keys cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum AccessError {
    /// the key file {path} cannot be read: {source}
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// the key in {path} has {len} characters and must have 32 to 256; `openssl rand -hex 32` makes one
    Length {
        /// The file.
        path: PathBuf,
        /// How many it has.
        len: usize,
    },
}

/// Why somebody is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No key, or none that is known.
    Unknown,
    /// The key may not look at single clicks.
    NoAudit,
    /// Too many questions; the next one in so many seconds.
    TooMany {
        /// Whole seconds, at least one.
        retry_after_s: u64,
    },
}

/// What one who may ask has left.
struct Allowance {
    limit: DefaultDirectRateLimiter,
    streams: Arc<Semaphore>,
}

/// The name of a key that may look at single clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auditor(pub Arc<str>);

struct Holder {
    key: Vec<u8>,
    name: Arc<str>,
    may_audit: bool,
    allowance: Allowance,
}

/// Who may ask.
pub struct Access {
    holders: Vec<Holder>,
    /// Of everybody, where there are no keys.
    open: Option<Allowance>,
    clock: DefaultClock,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({} keys)", self.holders.len())
    }
}

impl Allowance {
    fn new(requests_per_s: u32) -> Self {
        // A second's worth may come at once.
        let quota = Quota::per_second(NonZeroU32::new(requests_per_s).unwrap_or(NonZeroU32::MIN));
        Self { limit: RateLimiter::direct(quota), streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

impl Access {
    /// Reads the keys of a config.
    ///
    /// # Errors
    /// When one cannot be read, or is too short to be a secret.
    pub fn of(config: &Serve) -> Result<Self, AccessError> {
        let mut holders = Vec::new();
        for key in &config.keys {
            let read = |source| AccessError::Read { path: key.file.clone(), source };
            let text = std::fs::read_to_string(&key.file).map_err(read)?;
            let secret = text.trim().as_bytes().to_vec();
            if !(KEY_LEN_MIN..=KEY_LEN_MAX).contains(&secret.len()) {
                return Err(AccessError::Length { path: key.file.clone(), len: secret.len() });
            }
            let allowance = Allowance::new(key.requests_per_s.unwrap_or(config.requests_per_s));
            let (name, may_audit) = (key.name.as_str().into(), key.audit);
            holders.push(Holder { key: secret, name, may_audit, allowance });
        }
        let open = holders.is_empty().then(|| Allowance::new(config.requests_per_s));
        Ok(Self { holders, open, clock: DefaultClock::default() })
    }

    /// Whether whoever comes with this `Authorization` may ask now; his question is counted then.
    ///
    /// # Errors
    /// When he may not.
    pub fn admit(&self, authorization: Option<&[u8]>) -> Result<(), Denied> {
        self.count(self.allowance(authorization)?)
    }

    /// Whether whoever comes with this `Authorization` may look at single clicks, and who that is. Nobody may
    /// without a key, and so nobody where there are none.
    ///
    /// # Errors
    /// When he may not.
    pub fn admit_auditor(&self, authorization: Option<&[u8]>) -> Result<Auditor, Denied> {
        let holder = self.holder(authorization).ok_or(Denied::Unknown)?;
        // Counted first: a key that may not is not to be tried for free.
        self.count(&holder.allowance)?;
        holder.may_audit.then(|| Auditor(Arc::clone(&holder.name))).ok_or(Denied::NoAudit)
    }

    fn count(&self, allowance: &Allowance) -> Result<(), Denied> {
        allowance.limit.check().map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            Denied::TooMany { retry_after_s: wait.as_secs() + 1 }
        })
    }

    /// Lets whoever comes with this `Authorization` have one stream more, for as long as the permit is kept.
    ///
    /// # Errors
    /// When he may not, or has as many as he may.
    pub fn admit_stream(&self, authorization: Option<&[u8]>) -> Result<OwnedSemaphorePermit, Denied> {
        let streams = Arc::clone(&self.allowance(authorization)?.streams);
        streams.try_acquire_owned().map_err(|_| Denied::TooMany { retry_after_s: STREAMS_RETRY_S })
    }

    fn allowance(&self, authorization: Option<&[u8]>) -> Result<&Allowance, Denied> {
        match &self.open {
            Some(open) => Ok(open),
            None => Ok(&self.holder(authorization).ok_or(Denied::Unknown)?.allowance),
        }
    }

    /// All keys are looked at, in constant time each: how long it takes tells nothing of any.
    fn holder(&self, authorization: Option<&[u8]>) -> Option<&Holder> {
        let given = authorization?.strip_prefix(b"Bearer ")?;
        let found = self.holders.iter().filter(|holder| holder.key.ct_eq(given).into());
        found.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    fn access(keys: &[(&str, &str, u32)]) -> Result<Access, AccessError> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Serve { requests_per_s: 2, ..Serve::default() };
        for (name, secret, rate) in keys {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("{secret}\n")).unwrap();
            config.keys.push(Key {
                name: (*name).to_owned(),
                file,
                requests_per_s: Some(*rate),
                audit: *name == "audit",
            });
        }
        Access::of(&config)
    }

    #[test]
    fn each_key_has_a_rate_of_its_own_and_no_other_key_is_known() {
        let (one, two) = ("1".repeat(32), "2".repeat(64));
        let access = access(&[("one", &one, 1), ("two", &two, 3)]).unwrap();
        let admit = |key: &str| access.admit(Some(format!("Bearer {key}").as_bytes()));
        assert_eq!(admit(&one), Ok(()));
        assert!(matches!(admit(&one), Err(Denied::TooMany { retry_after_s: 1.. })));
        assert_eq!([admit(&two), admit(&two), admit(&two)], [Ok(()); 3]);
        assert_eq!(admit(&"3".repeat(32)), Err(Denied::Unknown));
        assert_eq!(admit(&one[..31]), Err(Denied::Unknown));
        assert_eq!(access.admit(Some(one.as_bytes())), Err(Denied::Unknown));
        assert_eq!(access.admit(None), Err(Denied::Unknown));
    }

    #[test]
    fn a_key_has_so_many_streams_and_one_that_ends_makes_room_for_another() {
        let keys = ["1".repeat(32), "2".repeat(32)];
        let access = access(&[("one", &keys[0], 1), ("two", &keys[1], 1)]).unwrap();
        let open = |key: &str| access.admit_stream(Some(format!("Bearer {key}").as_bytes()));
        let mut streams: Vec<_> = (0..STREAMS_MAX).map(|_| open(&keys[0]).unwrap()).collect();
        assert_eq!(open(&keys[0]).unwrap_err(), Denied::TooMany { retry_after_s: STREAMS_RETRY_S });
        assert!(open(&keys[1]).is_ok());
        streams.pop();
        assert!(open(&keys[0]).is_ok());
    }

    #[test]
    fn a_key_that_could_be_guessed_is_refused() {
        assert!(matches!(access(&[("short", "secret", 1)]), Err(AccessError::Length { len: 6, .. })));
    }

    #[test]
    fn without_keys_all_share_one_rate() {
        let access = access(&[]).unwrap();
        assert_eq!([access.admit(None), access.admit(Some(b"x"))], [Ok(()); 2]);
        assert!(matches!(access.admit(None), Err(Denied::TooMany { .. })));
    }
}

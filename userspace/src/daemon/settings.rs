//! From the config's values to what each room is told.

use std::sync::Arc;

use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::time::{MS_PER_MINUTE, Minute};

use crate::admission::{self, Admission, KeyRing, KeyRingError, SigningKey};
use crate::clock;
use crate::config::{self, Config, Sink};
use crate::forward::{ForwarderConfig, kafka};
use crate::ledger;
use crate::limits::{Limits, Refractory};
use crate::traffic::Crowd;
use crate::uring;

/// Datagrams of acks that may be on their way out at once: a commit's worth at full rate.
const SEND_SLOTS: u16 = 1024;
/// Datagrams of one worker that may wait for their acks: a slow commit (50 ms) of 1 M
/// datagrams/s, at about 100 bytes each.
pub(super) const WAITING_MAX: u32 = 65_536;
/// Room an even split by shard does not need but chance asks for: a worker's share of the ids
/// varies by far less.
const SHARE_SLACK_PERCENT: usize = 10;

/// The keys ad servers sign with.
pub(super) fn keys(config: &Config) -> Vec<SigningKey> {
    let key = |key: &config::Key| SigningKey {
        issuer: Issuer(key.issuer),
        id: KeyId(key.key),
        secret: SipKey::from_bytes(key.secret.0),
    };
    config.keys.iter().map(key).collect()
}

pub(super) fn admission(config: &Config, closed_before: Minute) -> Result<Admission, KeyRingError> {
    let settings = admission::Settings {
        lifetime_ms: config.admission.lifetime.as_millis() as u64,
        max_ahead_ms: config.admission.max_ahead.as_millis() as u64,
        lateness_ms: config.admission.lateness.as_millis() as u64,
        closed_before,
        allow_unsigned: config.admission.allow_unsigned,
    };
    Ok(Admission::new(settings, KeyRing::new(&keys(config))?))
}

/// The budgets of the node, if there are any.
pub(super) fn limits(config: &Config) -> Option<Arc<Limits>> {
    config.limits.is_on().then(|| Limits::new(&config.limits, drawn_key()))
}

/// Who clicked which ad moments ago, where that matters.
pub(super) fn refractory(config: &Config) -> Option<Arc<Refractory>> {
    let window_ms = config.traffic.rules.refractory.0;
    (config.admission.allow_unsigned && window_ms > 0)
        .then(|| Refractory::new(window_ms, config.traffic.refractory_keys, drawn_key()))
}

/// What all workers know of who clicks how often, where that is counted.
pub(super) fn crowd(config: &Config) -> Option<Arc<Crowd>> {
    let keys = config.traffic.activity_keys;
    (keys > 0).then(|| Crowd::new(keys, drawn_key()))
}

/// A key drawn anew, so that nobody can choose names that collide; nothing of it outlives the process.
fn drawn_key() -> SipKey {
    let drawn = std::collections::hash_map::RandomState::new();
    let word = |of: u64| std::hash::BuildHasher::hash_one(&drawn, of);
    SipKey { k0: word(0), k1: word(1) }
}

pub(super) fn ledger(config: &Config, workers: usize) -> ledger::Settings {
    let share = |capacity: usize| capacity.div_ceil(workers) * (100 + SHARE_SLACK_PERCENT) / 100;
    ledger::Settings {
        dimensions: config.buckets.dimensions,
        lifetime_ms: config.admission.lifetime.as_millis() as u64,
        lateness_ms: config.admission.lateness.as_millis() as u64,
        max_ahead_ms: config.admission.max_ahead.as_millis() as u64,
        capacity_impressions: share(config.dedupe.capacity),
        capacity_buckets: share(config.buckets.capacity),
        ..ledger::Settings::new(drawn_key())
    }
}

/// How often a node without clicks says that it has none: several times within the half minute in
/// which whoever watches it begins to wonder, and rarely enough to cost a cluster nothing.
const IDLE_MS: u64 = 10_000;

pub(super) fn forwarder(config: &Config) -> ForwarderConfig {
    let ms = |duration: std::time::Duration| duration.as_millis() as u64;
    let admission = &config.admission;
    ForwarderConfig {
        interval_ms: ms(config.forward.interval),
        // A minute is over, the last late click may come, clocks may be ahead; five minutes more
        // cost nothing and cover a stalled worker.
        close_after_ms: ms(admission.lateness) + ms(admission.max_ahead) + 5 * 60_000,
        minutes_ahead: ms(admission.max_ahead).div_ceil(MS_PER_MINUTE) as u32,
        horizon_ms: ledger::remembered_ms(ms(admission.lifetime)),
        part_bytes_max: match config.forward.sink {
            Sink::Embedded => ForwarderConfig::default().part_bytes_max,
            Sink::Kafka => kafka::PART_BYTES_MAX,
        },
        // Nobody but the node itself reads the embedded store.
        idle_ms: (config.forward.sink == Sink::Kafka).then_some(IDLE_MS),
        uniques_bytes_max: config.forward.uniques_bytes_max,
        uniques_users_min: config.forward.uniques_users_min,
        ..ForwarderConfig::default()
    }
}

/// What the clocks are judged by.
pub(crate) const fn clock(config: &Config) -> clock::Settings {
    let admission = &config.admission;
    clock::Settings::new(admission.lifetime.as_millis() as u64, admission.max_ahead.as_millis() as u64)
}

/// The ring of a worker.
pub(crate) fn ring(config: &Config) -> uring::Settings {
    let datagrams = uring::Settings::datagrams(config.udp.buffers_per_worker, SEND_SLOTS);
    if !config.http.is_on() {
        return datagrams;
    }
    let (streams, stream_buffers) = (config.http.connections_per_worker, config.http.buffers_per_worker);
    uring::Settings { streams, stream_buffers, ..datagrams }
}

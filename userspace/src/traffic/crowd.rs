//! The activity of everybody at a node, counted by all its workers together.
//!
//! A user's clicks come to all workers, for it is the impression that says who owns a click; so what is too
//! much can be told only by all of them. The table is cut into stripes, and a worker has a stripe to itself
//! for the time of one count. It waits for one no longer than some counts take: should the worker that has it
//! be stopped just then, the click is no activity, and whoever asked is told so.

use std::hint::spin_loop;
use std::sync::{Arc, Mutex, TryLockError};

use weir_common::siphash::SipKey;
use weir_common::time::UnixMs;

use super::activity::{Activity, Counted, Limits};
use super::actors::ActorKey;

/// Stripes: so many that two of a hundred workers rarely want the same.
const STRIPES: usize = 1 << STRIPE_BITS;
/// The upper bits of a name say which; the lower ones say where in it.
const STRIPE_BITS: u32 = 8;
/// Looks at a stripe that another worker has: some times as long as a count takes.
const SPINS_MAX: u32 = 200;

/// Two lines of memory, which processors fetch together: neighbours do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(Mutex<Activity>);

/// What all workers of a node know of the last minute. Of fixed size.
#[derive(Debug)]
pub struct Crowd {
    key: SipKey,
    stripes: Box<[Stripe]>,
}

impl Crowd {
    /// Room for at least so many users and addresses; the key should be another at every start: who knows it
    /// can push others out.
    ///
    /// # Panics
    /// When the kernel refuses the address space.
    #[must_use]
    pub fn new(keys: usize, key: SipKey) -> Arc<Self> {
        let each = keys.div_ceil(STRIPES);
        let stripes = (0..STRIPES).map(|_| Stripe(Mutex::new(Activity::new(each)))).collect();
        Arc::new(Self { key, stripes })
    }

    /// The name of an actor here.
    #[inline]
    #[must_use]
    pub const fn name(&self, actor: &ActorKey) -> u64 {
        actor.hash(&self.key)
    }

    /// Counts a click of this name at this time; none when its stripe is not to be had.
    #[inline]
    pub fn count(&self, name: u64, at: UnixMs, limits: Limits) -> Option<Counted> {
        let stripe = &self.stripes[(name >> (u64::BITS - STRIPE_BITS)) as usize];
        for _ in 0..SPINS_MAX {
            match stripe.0.try_lock() {
                Ok(mut activity) => return Some(activity.count(name, at, limits)),
                // Whatever ended a worker in here left numbers, and any numbers are an activity.
                Err(TryLockError::Poisoned(broken)) => {
                    return Some(broken.into_inner().count(name, at, limits));
                }
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const KEY: SipKey = SipKey { k0: 7, k1: 8 };
    const AT: UnixMs = UnixMs(1_800_000_000_000);

    #[test]
    fn what_several_workers_count_of_one_user_is_counted_together() {
        let (crowd, limits) = (Crowd::new(1 << 16, KEY), Limits::default());
        let (flagged, missed) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (crowd, flagged, missed) = (&crowd, &flagged, &missed);
                scope.spawn(move || {
                    for number in 0..1000 {
                        // Each fourth is of the one user, the others are of as many.
                        let user = if number % 4 == 0 { 1 } else { 1_000 + worker * 10_000 + number };
                        let name = crowd.name(&ActorKey::user(user).expect("a user"));
                        let counted = crowd.count(name, AT, limits);
                        missed.fetch_add(u64::from(counted.is_none()), Ordering::Relaxed);
                        let is_flagged = counted.is_some_and(|counted| counted.is_too_much);
                        flagged.fetch_add(u64::from(is_flagged), Ordering::Relaxed);
                    }
                });
            }
        });
        // More threads than cores: one that is stopped in a stripe makes the others miss some.
        let (flagged, missed) = (flagged.into_inner(), missed.into_inner());
        let too_many = 4 * 250 - u64::from(limits.per_second);
        assert!(flagged <= too_many && flagged + missed >= too_many, "{flagged} of {too_many}");
    }

    #[test]
    fn a_stripe_that_is_not_to_be_had_holds_nobody_up() {
        let crowd = Crowd::new(1000, KEY);
        let name = crowd.name(&ActorKey::user(1).expect("a user"));
        let held = crowd.stripes[(name >> 56) as usize].0.lock();
        assert_eq!(crowd.count(name, AT, Limits::default()), None);
        drop(held);
        let first = Counted { is_too_much: false, in_minute: 0, has_pushed_out: false };
        assert_eq!(crowd.count(name, AT, Limits::default()), Some(first));
    }

    #[test]
    fn its_memory_is_that_of_its_keys() {
        let crowd = Crowd::new(100_000, KEY);
        let octets = crowd.stripes.iter().map(|stripe| stripe.0.lock().expect("free").len_octets());
        let a_key = octets.sum::<usize>() / 100_000;
        assert!((200..=256).contains(&a_key), "{a_key} octets");
    }
}

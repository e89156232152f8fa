//! Which campaign an ad is of. A bucket names its ad alone, for an ad is of one campaign; which one its
//! clicks say, and they are read by the archiving thread as they come.
//!
//! What bills is never asked here: a reconciliation takes the campaign from each click.

use std::collections::HashMap;

use weir_common::row::Row;

use crate::store::{Store, StoreError};

/// Ads that are known without asking the store: some 100 MB.
const ADS_MAX: usize = 2_000_000;

/// What is known of an ad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its campaign.
    pub campaign: u32,
    /// Whether a click with a signature said so: what anybody may send does not change it.
    pub is_signed: bool,
    /// When the first click that said so came, ms since 1970.
    pub since_ms: u64,
}

impl Known {
    /// What a row says of its ad.
    #[must_use]
    pub const fn of(row: &Row) -> Self {
        Self {
            campaign: row.click.campaign.get(),
            is_signed: !row.click.is_foreign(),
            since_ms: row.received_at_ms.get(),
        }
    }

    /// What is known after this was seen as well: a signature outweighs none, and of equal words the later
    /// one, for ads are moved.
    #[must_use]
    pub fn or(self, seen: Self) -> Self {
        let (mine, theirs) = ((self.is_signed, self.since_ms), (seen.is_signed, seen.since_ms));
        let says_more = seen.campaign != self.campaign || (seen.is_signed && !self.is_signed);
        if says_more && theirs > mine { seen } else { self }
    }
}

/// Learns from rows, and writes down what is new.
#[derive(Debug)]
pub struct Campaigns {
    store: Store,
    known: HashMap<u64, Known>,
}

impl Campaigns {
    /// One that goes on from what the store has.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, known: HashMap::new() }
    }

    /// Learns from rows.
    ///
    /// # Errors
    /// When the store fails.
    pub fn learn<'a>(&mut self, rows: impl Iterator<Item = &'a Row>) -> Result<(), StoreError> {
        for row in rows {
            let (ad, seen) = (row.click.ad.get(), Known::of(row));
            let held = match self.known.get(&ad) {
                Some(held) => Some(*held),
                None => self.store.campaign(ad)?,
            };
            let now = held.map_or(seen, |held| held.or(seen));
            if held != Some(now) {
                self.store.assign(ad, held, now)?;
            }
            if self.known.len() >= ADS_MAX {
                self.known.clear();
            }
            self.known.insert(ad, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn known(campaign: u32, is_signed: bool, since_ms: u64) -> Known {
        Known { campaign, is_signed, since_ms }
    }

    #[test]
    fn an_ad_that_is_moved_is_of_its_last_campaign_in_whatever_order_its_clicks_are_read() {
        let (before, after) = (known(1, true, 10), known(2, true, 20));
        assert_eq!(before.or(after), after);
        assert_eq!(after.or(before), after);
        assert_eq!(before.or(known(1, true, 30)), before, "nothing new");
    }

    #[test]
    fn what_nobody_signed_moves_no_ad_that_a_signature_has_placed() {
        let (signed, forged) = (known(1, true, 10), known(666, false, 99));
        assert_eq!(signed.or(forged), signed);
        assert_eq!(forged.or(signed), signed);
        assert_eq!(known(1, false, 5).or(signed), signed, "the same word weighs more with a signature");
    }
}

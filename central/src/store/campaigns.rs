//! Which campaign an ad is of, as it is kept. The archiving thread writes it, and nobody else: so it needs
//! no place in the batches of the merging thread. Which ads are of none yet the merging thread notes
//! before it is learned, perhaps a moment too late; a view looks at both.

use fjall::Readable;

use super::view::View;
use super::{Store, StoreError, keys};
use crate::campaigns::Known;

/// Ads without a campaign that an answer counts: it says how many wait, and more are no more telling.
const UNASSIGNED_MAX: usize = 10_000;

impl Store {
    /// What is known of an ad.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn campaign(&self, ad: u64) -> Result<Option<Known>, StoreError> {
        let Some(value) = self.spaces.campaigns.get(keys::ad(ad))? else { return Ok(None) };
        keys::read_known(&value).map(Some).ok_or(StoreError::Damaged("campaigns"))
    }

    /// Sets what is known of an ad.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn assign(&self, ad: u64, before: Option<Known>, now: Known) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        batch.insert(&self.spaces.campaigns, keys::ad(ad), keys::known(now));
        if let Some(before) = before {
            batch.remove(&self.spaces.campaign_ads, keys::campaign_ad(before.campaign, ad));
        }
        batch.insert(&self.spaces.campaign_ads, keys::campaign_ad(now.campaign, ad), []);
        batch.remove(&self.spaces.unassigned, keys::ad(ad));
        Ok(batch.commit()?)
    }
}

impl View {
    /// The ads of a campaign, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ads_of(&self, campaign: u32) -> Result<Vec<u64>, StoreError> {
        let (first, last) = (keys::campaign_ad(campaign, 0), keys::campaign_ad(campaign, u64::MAX));
        let mut ads = Vec::new();
        for entry in self.snapshot.range(&self.spaces.campaign_ads, first..=last) {
            ads.push(keys::read_campaign_ad(&entry.key()?).ok_or(StoreError::Damaged("campaign_ads"))?);
        }
        Ok(ads)
    }

    /// The campaign of an ad, if it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn campaign_of(&self, ad: u64) -> Result<Option<u32>, StoreError> {
        let Some(value) = self.snapshot.get(&self.spaces.campaigns, keys::ad(ad))? else { return Ok(None) };
        let known = keys::read_known(&value).ok_or(StoreError::Damaged("campaigns"))?;
        Ok(Some(known.campaign))
    }

    /// How many ads that were counted are of no known campaign; at most 10,000.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unassigned_ads(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for entry in self.snapshot.iter(&self.spaces.unassigned).take(UNASSIGNED_MAX) {
            let is_known = self.snapshot.contains_key(&self.spaces.campaigns, entry.key()?)?;
            count += usize::from(!is_known);
        }
        Ok(count)
    }
}

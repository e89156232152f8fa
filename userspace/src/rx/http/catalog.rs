//! The catalog: names to ids, and what belongs to an ad.

//! Tags of several clicks at once, in the widest registers the processor has.

use weir_common::siphash::{SipKey, siphash24_lanes};
use weir_common::wire::{Click, SIGNED_WORDS};

/// Clicks whose tags are computed together: eight 64-bit words fill the widest register there is
/// today, and while one register waits for its last step another can take its next.
pub(super) const LANES: usize = 16;

/// The signed words of up to [`LANES`] clicks and their keys, word by word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    keys: [[u64; LANES]; 2],
    words: [[u64; LANES]; SIGNED_WORDS],
}

impl Messages {
    /// Messages and keys of zeros.
    pub(super) const EMPTY: Self = Self { keys: [[0; LANES]; 2], words: [[0; LANES]; SIGNED_WORDS] };

    /// Puts a click and its key into a lane.
    #[inline(always)]
    pub(super) fn set(&mut self, lane: usize, key: &SipKey, click: &Click) {
        (self.keys[0][lane], self.keys[1][lane]) = (key.k0, key.k1);
        for (row, word) in self.words.iter_mut().zip(click.signed_words()) {
            row[lane] = word;
        }
    }

    /// The tag each lane must carry; of a lane that was not set it means nothing.
    #[inline]
    pub(super) fn tags(&self) -> [u64; LANES] {
        tags(&self.keys, &self.words)
    }
}

/// Compiled once for processors with AVX-512 and once for any other; which it is, is looked up at
/// run time. AVX2 cannot rotate a word in one step, and the compiler makes scalar code of it.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw"))]
fn tags(keys: &[[u64; LANES]; 2], words: &[[u64; LANES]; SIGNED_WORDS]) -> [u64; LANES] {
    siphash24_lanes(keys, words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;

    proptest! {
        #[test]
        fn every_lane_has_the_tag_its_click_must_carry(
            keys: [(u64, u64); LANES],
            bytes: [[[u8; 24]; 4]; LANES],
        ) {
            let clicks = bytes.map(|click| Click::read_from_bytes(click.as_flattened()).unwrap());
            let keys = keys.map(|(k0, k1)| SipKey { k0, k1 });
            let mut messages = Messages::EMPTY;
            for lane in 0..LANES {
                messages.set(lane, &keys[lane], &clicks[lane]);
            }
            let tags = messages.tags();
            for lane in 0..LANES {
                prop_assert_eq!(tags[lane], clicks[lane].expected_tag(&keys[lane]));
            }
        }
    }
}

//! The check of the first click's tag: forged floods end here, before they cost a worker.
//!
//! Only the first click, because a datagram is one sender's; the worker checks them all. A
//! foreign id has no tag, and one behind the linear part is left to the worker.

use core::mem::offset_of;

use weir_common::maps::Policy;
use weir_common::packet::{Clicks, Source};
use weir_common::reason::Reason;
use weir_common::siphash::siphash24;
use weir_common::wire::{self, Click, SIGNED_WORDS, click_flags};

use crate::frame::Frame;
use crate::maps;

/// # Errors
/// [`Reason::UnknownKey`] or [`Reason::BadTag`].
#[inline(always)]
pub(crate) fn check(frame: &Frame, policy: &Policy, clicks: &Clicks) -> Result<(), Reason> {
    if !maps::verifies_first() {
        return Ok(());
    }
    // One read for all: two would be two packet pointers, and the verifier would not see that the
    // check of one covers the other.
    let click = clicks.payload_offset + wire::HEADER_LEN;
    let Some(click) = frame.read::<{ wire::CLICK_LEN }>(click) else { return Ok(()) };
    if click[offset_of!(Click, flags)] & click_flags::FOREIGN != 0 {
        return Ok(());
    }
    let mut words = [0; SIGNED_WORDS];
    let mut i = 0;
    while i < SIGNED_WORDS {
        words[i] = word(&click, i * 8);
        i += 1;
    }
    let key = policy.keys.find(words[0]).ok_or(Reason::UnknownKey)?;
    let tag = word(&click, offset_of!(Click, tag));
    if siphash24(&key, &words) == tag { Ok(()) } else { Err(Reason::BadTag) }
}

#[inline(always)]
const fn word(click: &[u8; wire::CLICK_LEN], at: usize) -> u64 {
    let c = click;
    u64::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3], c[at + 4], c[at + 5], c[at + 6], c[at + 7]])
}

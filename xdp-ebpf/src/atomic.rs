//! Compare and exchange of a map value that CPUs share.
//!
//! `core` has none for this target, which it takes for a machine without; the instruction itself
//! is there since kernel 5.12 (`BPF_ATOMIC | BPF_CMPXCHG`).

use core::arch::asm;
use core::ptr::read_volatile;

/// A 64-bit number in a map's value, for as long as the program that looked it up runs.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut u64);

impl Shared {
    /// # Safety
    /// `place` comes from a look-up in a map whose values are aligned to 8 bytes, and nothing reads
    /// or writes these values otherwise.
    #[inline(always)]
    pub(crate) const unsafe fn new(place: *mut u64) -> Self {
        Self(place)
    }

    #[inline(always)]
    pub(crate) fn load(self) -> u64 {
        // SAFETY: who made this answers for the place. One load instruction of eight aligned bytes,
        // which is whole on every machine; volatile, because other CPUs write there.
        unsafe { read_volatile(self.0) }
    }

    /// Stores `next` if the number is still `found`; says whether it was.
    #[inline(always)]
    pub(crate) fn replace(self, found: u64, next: u64) -> bool {
        let was: u64;
        // SAFETY: there is no other way to this instruction. Who made this answers for the place,
        // and the verifier checks its bounds; the instruction touches nothing but it and r0.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({place} + 0, r0, {next})",
                place = in(reg) self.0,
                next = in(reg) next,
                inout("r0") found => was,
                options(nostack),
            );
        }
        was == found
    }
}

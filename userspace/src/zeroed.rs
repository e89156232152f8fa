//! Memory of one size that is zero until it is used: what the large tables of the click path stand in.
//!
//! Address space is reserved at once, memory comes as it is touched, on huge pages where the kernel has them: a
//! click touches places that nothing before it was near to, and small pages would cost it as many address
//! look-ups. It never grows. Start reading at [`Zeroed::new`].

use core::marker::PhantomData;
use std::io;

use memmap2::MmapMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Why the octets are always whole items.
const WHOLE: &str = "the kernel aligns to pages, and the length is whole items";

/// So many items, all zero at first.
#[derive(Debug)]
pub struct Zeroed<T> {
    octets: MmapMut,
    items: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Zeroed<T> {
    /// Room for `len` items.
    ///
    /// # Errors
    /// When the kernel refuses the address space.
    pub fn new(len: usize) -> io::Result<Self> {
        let octets = MmapMut::map_anon(len * size_of::<T>())?;
        #[cfg(target_os = "linux")]
        // A kernel without huge pages says so; small ones are slower, not wrong.
        let _ = octets.advise(memmap2::Advice::HugePage);
        Ok(Self { octets, items: PhantomData })
    }

    /// All items.
    #[inline(always)]
    #[must_use]
    pub fn items(&self) -> &[T] {
        <[T]>::ref_from_bytes(&self.octets).expect(WHOLE)
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn items_mut(&mut self) -> &mut [T] {
        <[T]>::mut_from_bytes(&mut self.octets).expect(WHOLE)
    }

    /// Octets of address space, and the most memory it takes.
    #[must_use]
    pub fn len_octets(&self) -> usize {
        self.octets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_zero_until_they_are_written_and_as_many_as_asked_for() {
        let mut table = Zeroed::<u64>::new(1000).expect("memory");
        assert!(table.items().iter().all(|&item| item == 0));
        table.items_mut()[999] = 7;
        assert_eq!((table.items()[999], table.items().len(), table.len_octets()), (7, 1000, 8000));
    }
}

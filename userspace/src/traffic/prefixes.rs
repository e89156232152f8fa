//! Lists of prefixes, and what the longest of them that an address is in says.
//!
//! A list is one prefix a line in CIDR form, a plain address being the prefix of itself alone. What a
//! line says of its prefix is a [`Meaning`]: that it is listed ([`PrefixList`]), or its country
//! ([`super::geography`]). Of all prefixes an address is in the longest decides.
//!
//! Nested prefixes are flattened once, when a list is read, into ranges that do not overlap: one
//! array of where each begins, one of what holds from there. Looking an address up is a look at a
//! small index by its leading bits and a binary search in the few ranges between. There is no
//! tree to walk, and no pointer to follow; [`Ranges`] is all of it.
//!
//! Own code, because what is there is slower or larger: tries walk a node for each few bits, a
//! DIR-24-8 table takes 32 MiB for each list whatever its size and knows no IPv6.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weir_common::time::UnixMs;

use super::source::{ListError, ListProblems, ListVersion, Source, shown};

/// The most prefixes of one list: several times what any routing table has of IPv4 and IPv6
/// together, for a country table that splits them. Flattened they take at most 36 MB.
pub const PREFIXES_MAX: usize = 1_000_000;

/// What stands between the fields of an entry.
pub(super) const BETWEEN_FIELDS: [char; 4] = [' ', '\t', ',', ';'];

/// What a list says of an address.
pub trait Meaning: Copy + PartialEq {
    /// What holds where no prefix does.
    const NONE: Self;

    /// Reads an entry: its prefix, and what it says.
    ///
    /// # Errors
    /// With what is wrong with the entry, and what would be right. The prefix is not checked.
    fn read(entry: &str) -> Result<(&str, Self), String>;
}

/// Whether an address is listed. What follows the prefix is a label; `!` before it makes an exception,
/// so a part of a listed network can be taken out.
impl Meaning for bool {
    const NONE: Self = false;

    fn read(entry: &str) -> Result<(&str, Self), String> {
        let prefix = entry.split(BETWEEN_FIELDS).next().unwrap_or(entry);
        Ok(prefix.strip_prefix('!').map_or((prefix, true), |exception| (exception, false)))
    }
}

/// An address as a number.
trait Address: Copy + Ord {
    /// Bits of the index by leading bits.
    const INDEX_BITS: u32;
    const ZERO: Self;
    /// The address after this one.
    fn next(self) -> Option<Self>;
    /// Its place in the index. Never falls as addresses rise.
    fn slot(self) -> usize;
}

impl Address for u32 {
    /// 65,536 places, 256 KiB: the size of a core's nearer cache, and at a million prefixes some
    /// fifteen ranges a place.
    const INDEX_BITS: u32 = 16;
    const ZERO: Self = 0;

    #[inline(always)]
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline(always)]
    fn slot(self) -> usize {
        (self >> (Self::BITS - Self::INDEX_BITS)) as usize
    }
}

/// All addresses that are given out are in 2000::/3 (RFC 4291, section 2.4).
const UNICAST: u128 = 0x2000 << 112;
const UNICAST_BITS: u32 = u128::BITS - 3;

impl Address for u128 {
    /// 262,144 places, 1 MiB, over 2000::/3: a place is a /21, and registries give out /12s in
    /// which a /32 is a provider.
    const INDEX_BITS: u32 = 18;
    const ZERO: Self = 0;

    #[inline(always)]
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline(always)]
    fn slot(self) -> usize {
        let place = self.saturating_sub(UNICAST) >> (UNICAST_BITS - Self::INDEX_BITS);
        place.min((1 << Self::INDEX_BITS) - 1) as usize
    }
}

/// A prefix as its first and last address, and what it says.
#[derive(Clone, Copy, Debug)]
struct Span<A, M> {
    first: A,
    /// So that among prefixes with one first address the shorter comes first.
    last: Reverse<A>,
    says: M,
    line: usize,
}

/// Flattened prefixes of one family of addresses.
#[derive(Debug)]
struct Ranges<A, M> {
    /// Where each range begins, rising; the first at 0. Empty without any prefix.
    starts: Box<[A]>,
    /// What holds from there.
    says: Box<[M]>,
    /// For each place the range that its first address is in, and one place more.
    index: Box<[u32]>,
}

impl<A: Address, M: Meaning> Ranges<A, M> {
    /// Flattens spans, of which any two are nested or apart; of two that contradict each other the later
    /// line is a problem.
    fn new(mut spans: Vec<Span<A, M>>, problems: &mut ListProblems) -> Self {
        settle(&mut spans, problems);
        if spans.is_empty() {
            return Self { starts: Box::default(), says: Box::default(), index: Box::default() };
        }
        let mut flat = Flat { starts: vec![A::ZERO], says: vec![M::NONE] };
        let mut open: Vec<Span<A, M>> = Vec::new();
        for span in spans {
            while let Some(done) = open.pop_if(|outer| outer.last.0 < span.first) {
                flat.end(done.last.0, &open);
            }
            flat.begin(span.first, span.says);
            open.push(span);
        }
        while let Some(done) = open.pop() {
            flat.end(done.last.0, &open);
        }
        let index = index(&flat.starts);
        Self { starts: flat.starts.into(), says: flat.says.into(), index }
    }

    #[inline]
    fn find(&self, address: A) -> M {
        let slot = address.slot();
        let (Some(&low), Some(&high)) = (self.index.get(slot), self.index.get(slot + 1)) else {
            return M::NONE;
        };
        let (low, high) = (low as usize, high as usize);
        let Some(between) = self.starts.get(low + 1..=high) else { return M::NONE };
        let after = between.partition_point(|&start| start <= address);
        self.says.get(low + after).copied().unwrap_or(M::NONE)
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.says) + size_of_val(&*self.index)
    }
}

struct Flat<A, M> {
    starts: Vec<A>,
    says: Vec<M>,
}

impl<A: Address, M: Meaning> Flat<A, M> {
    /// From `start` on something else holds.
    fn begin(&mut self, start: A, says: M) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.says.pop();
        }
        if self.says.last() != Some(&says) {
            self.starts.push(start);
            self.says.push(says);
        }
    }

    /// After `last` what is around it holds again.
    fn end(&mut self, last: A, around: &[Span<A, M>]) {
        if let Some(next) = last.next() {
            self.begin(next, around.last().map_or(M::NONE, |span| span.says));
        }
    }
}

fn index<A: Address>(starts: &[A]) -> Box<[u32]> {
    let places = 1_usize << A::INDEX_BITS;
    let mut index = Vec::with_capacity(places + 1);
    let mut range = 0;
    for place in 0..places {
        // The last range that begins in a place before this one, or with this one's first address.
        while starts.get(range + 1).is_some_and(|start| start.slot() < place) {
            range += 1;
        }
        index.push(range as u32);
    }
    index.push((starts.len() - 1) as u32);
    index.into()
}

/// Sorts, removes what stands twice, and notes what stands twice with two meanings.
fn settle<A: Address, M: Meaning>(spans: &mut Vec<Span<A, M>>, problems: &mut ListProblems) {
    spans.sort_unstable_by_key(|span| (span.first, span.last, span.line));
    spans.dedup_by(|later, earlier| {
        let same = (later.first, later.last) == (earlier.first, earlier.last);
        if same && later.says != earlier.says {
            let text =
                format!("contradicts line {}, which has the same prefix; keep one of them", earlier.line);
            problems.note(later.line, text);
        }
        same
    });
}

fn read_prefix(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
            format!("{} is no prefix; write it like 203.0.113.0/24 or 2001:db8::/32", shown(text))
        })?,
    };
    if net.addr() != net.network() {
        let right = net.trunc();
        return Err(format!(
            "{} has bits set after its length; if the network is meant, write {right}",
            shown(text)
        ));
    }
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let len = v6.prefix_len().checked_sub(96).and_then(|len| ipnet::Ipv4Net::new(v4, len).ok());
        return len.map(IpNet::V4).ok_or_else(|| {
            format!("{} covers more than all of IPv4; write IPv4 prefixes as such", shown(text))
        });
    }
    Ok(net)
}

/// The prefixes of a list, and what each says.
#[derive(Debug)]
pub struct PrefixTable<M> {
    v4: Ranges<u32, M>,
    v6: Ranges<u128, M>,
    version: ListVersion,
}

/// A list of prefixes: an address is in it or not.
pub type PrefixList = PrefixTable<bool>;

impl<M: Meaning> PrefixTable<M> {
    /// Reads a list. Never on a worker: it allocates and waits for the disk.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(name: &'static str, path: &Path, activated_at: UnixMs) -> Result<Self, ListError> {
        Self::read(name, &Source::read(path)?, activated_at)
    }

    pub(super) fn read(name: &'static str, source: &Source, activated_at: UnixMs) -> Result<Self, ListError> {
        let (mut v4, mut v6, mut problems) = (Vec::new(), Vec::new(), ListProblems::default());
        // One more than there may be is enough to say that there are too many.
        for (line, entry) in source.entries().take(PREFIXES_MAX + 1) {
            let read = M::read(entry).and_then(|(prefix, says)| Ok((read_prefix(prefix)?, says)));
            match read {
                Ok((IpNet::V4(net), says)) => {
                    let (first, last) = (net.network().to_bits(), Reverse(net.broadcast().to_bits()));
                    v4.push(Span { first, last, says, line });
                }
                Ok((IpNet::V6(net), says)) => {
                    let (first, last) = (net.network().to_bits(), Reverse(net.broadcast().to_bits()));
                    v6.push(Span { first, last, says, line });
                }
                Err(wrong) => problems.note(line, wrong),
            }
        }
        let entries = v4.len() + v6.len();
        source.bound(entries, PREFIXES_MAX)?;
        let (v4, v6) = (Ranges::new(v4, &mut problems), Ranges::new(v6, &mut problems));
        problems.first.sort_by_key(|problem| problem.line);
        Ok(Self { v4, v6, version: source.checked(name, entries, problems, activated_at)? })
    }

    /// What the longest prefix with this address says, or [`Meaning::NONE`]. An IPv4 address in an IPv6
    /// one is looked up as IPv4.
    #[inline]
    #[must_use]
    pub fn find(&self, address: IpAddr) -> M {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }

    /// Which list this is.
    #[must_use]
    pub const fn version(&self) -> &ListVersion {
        &self.version
    }

    /// Octets of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }
}

impl PrefixList {
    /// Whether the longest prefix with this address is listed.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address)
    }
}

#[cfg(test)]
mod tests;

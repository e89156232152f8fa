//! Lists of prefixes, and the longest of them that an address is in.
//!
//! A list is one prefix a line in CIDR form, a plain address being the prefix of itself alone;
//! what follows the prefix is a label. `!` before a prefix makes an exception: of all prefixes
//! an address is in the longest decides, so a part of a listed network can be taken out.
//!
//! Nested prefixes are flattened once, when a list is read, into ranges that do not overlap: one
//! array of where each begins, one of what holds from there. Looking an address up is a look at a
//! small index by its leading bits and a binary search in the few ranges between. There is no
//! tree to walk, and no pointer to follow; [`Ranges`] is all of it.
//!
//! Own code, because what is there is slower or larger: tries walk a node for each few bits, a
//! DIR-24-8 table takes 32 MiB for each list whatever its size and knows no IPv6.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weir_common::time::UnixMs;

use super::source::{ListError, ListProblems, ListVersion, Source, shown};

/// The most prefixes of one list: several times what any routing table has of IPv4 and IPv6
/// together, for a country table that splits them. Flattened they take at most 36 MB.
pub const PREFIXES_MAX: usize = 1_000_000;

/// What a range says when no prefix covers it.
pub(super) const NONE: u16 = 0;
/// What it says when the list has no labels.
const LISTED: u16 = 1;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span<A> {
    first: A,
    /// So that among prefixes with one first address the shorter comes first.
    last: core::cmp::Reverse<A>,
    says: u16,
    line: usize,
}

/// Flattened prefixes of one family of addresses.
#[derive(Debug, Default)]
struct Ranges<A> {
    /// Where each range begins, rising; the first at 0. Empty without any prefix.
    starts: Box<[A]>,
    /// What holds from there.
    says: Box<[u16]>,
    /// For each place the range that its first address is in, and one place more.
    index: Box<[u32]>,
}

impl<A: Address> Ranges<A> {
    /// Flattens sorted spans, of which any two are nested or apart.
    fn new(spans: &[Span<A>]) -> Self {
        if spans.is_empty() {
            return Self { starts: Box::default(), says: Box::default(), index: Box::default() };
        }
        let mut flat = Flat { starts: vec![A::ZERO], says: vec![NONE] };
        let mut open: Vec<Span<A>> = Vec::new();
        for span in spans {
            while let Some(done) = open.pop_if(|outer| outer.last.0 < span.first) {
                flat.end(done.last.0, &open);
            }
            flat.begin(span.first, span.says);
            open.push(*span);
        }
        while let Some(done) = open.pop() {
            flat.end(done.last.0, &open);
        }
        let index = index(&flat.starts);
        Self { starts: flat.starts.into(), says: flat.says.into(), index }
    }

    #[inline]
    fn find(&self, address: A) -> u16 {
        let slot = address.slot();
        let (Some(&low), Some(&high)) = (self.index.get(slot), self.index.get(slot + 1)) else { return NONE };
        let (low, high) = (low as usize, high as usize);
        let Some(between) = self.starts.get(low + 1..=high) else { return NONE };
        let after = between.partition_point(|&start| start <= address);
        self.says.get(low + after).copied().unwrap_or(NONE)
    }
}

struct Flat<A> {
    starts: Vec<A>,
    says: Vec<u16>,
}

impl<A: Address> Flat<A> {
    /// From `start` on something else holds.
    fn begin(&mut self, start: A, says: u16) {
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
    fn end(&mut self, last: A, around: &[Span<A>]) {
        if let Some(next) = last.next() {
            self.begin(next, around.last().map_or(NONE, |span| span.says));
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

/// The prefixes of a list, for both families.
#[derive(Debug)]
pub(super) struct PrefixTable {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl PrefixTable {
    /// What the longest prefix with this address says, or [`NONE`]. An IPv4 address in an IPv6 one
    /// is looked up as IPv4.
    #[inline]
    pub(super) fn find(&self, address: IpAddr) -> u16 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }

    /// Octets of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.v4.starts)
            + size_of_val(&*self.v6.starts)
            + size_of_val(&*self.v4.says)
            + size_of_val(&*self.v6.says)
            + size_of_val(&*self.v4.index)
            + size_of_val(&*self.v6.index)
    }
}

/// Gathers the prefixes of a list.
#[derive(Default)]
pub(super) struct Prefixes {
    v4: Vec<Span<u32>>,
    v6: Vec<Span<u128>>,
    pub(super) problems: ListProblems,
}

impl Prefixes {
    /// Adds what one line has, or notes what is wrong with it.
    pub(super) fn add(&mut self, line: usize, prefix: &str, says: u16) {
        match read_prefix(prefix) {
            Ok(IpNet::V4(net)) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                self.v4.push(Span { first, last: core::cmp::Reverse(last), says, line });
            }
            Ok(IpNet::V6(net)) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                self.v6.push(Span { first, last: core::cmp::Reverse(last), says, line });
            }
            Err(wrong) => self.problems.note(line, wrong),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Flattens them; of two that contradict each other the later line is a problem.
    pub(super) fn into_table(mut self) -> (PrefixTable, ListProblems) {
        settle(&mut self.v4, &mut self.problems);
        settle(&mut self.v6, &mut self.problems);
        self.problems.first.sort_by_key(|problem| problem.line);
        (PrefixTable { v4: Ranges::new(&self.v4), v6: Ranges::new(&self.v6) }, self.problems)
    }
}

/// Sorts, removes what stands twice, and notes what stands twice with two meanings.
fn settle<A: Address>(spans: &mut Vec<Span<A>>, problems: &mut ListProblems) {
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

/// A list of prefixes: an address is in it or not.
#[derive(Debug)]
pub struct PrefixList {
    table: PrefixTable,
    version: ListVersion,
}

impl PrefixList {
    /// Reads a list. Never on a worker: it allocates and waits for the disk.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(name: &'static str, path: &Path, activated_at: UnixMs) -> Result<Self, ListError> {
        Self::read(name, &Source::read(path)?, activated_at)
    }

    pub(super) fn read(name: &'static str, source: &Source, activated_at: UnixMs) -> Result<Self, ListError> {
        let mut prefixes = Prefixes::default();
        // One more than there may be is enough to say that there are too many.
        for (line, entry) in source.entries().take(PREFIXES_MAX + 1) {
            let first = entry.split([' ', '\t', ',', ';']).next().unwrap_or(entry);
            match first.strip_prefix('!') {
                Some(exception) => prefixes.add(line, exception, NONE),
                None => prefixes.add(line, first, LISTED),
            }
        }
        let entries = prefixes.len();
        source.bound(entries, PREFIXES_MAX)?;
        let (table, problems) = prefixes.into_table();
        Ok(Self { table, version: source.checked(name, entries, problems, activated_at)? })
    }

    /// Whether the longest prefix with this address is listed.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.table.find(address) != NONE
    }

    /// Which list this is.
    #[must_use]
    pub const fn version(&self) -> &ListVersion {
        &self.version
    }

    /// Octets of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

#[cfg(test)]
mod tests;

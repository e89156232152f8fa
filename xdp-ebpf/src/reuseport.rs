//! Chooses the owning worker's socket among those that share the click port.

use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::programs::SkReuseportContext;
use weir_common::id::{SHARDS, Shard};
use weir_common::maps::socket_place;
use weir_common::wire;

use crate::maps::{SHARD_WORKER, SOCKETS};

const UDP_LEN: usize = 8;
/// The Ethernet type of IPv6, as the context gives it: in network byte order (RFC 2464).
const ETH_P_IPV6: u16 = 0x86dd;

/// Selects the socket of the worker that owns the datagram's shard. Without one the kernel
/// spreads by the hash of addresses and ports, as it does without this program.
#[inline(always)]
pub(crate) fn select(ctx: &SkReuseportContext) -> u32 {
    if let Some(shard) = shard(ctx)
        && let Some(worker) = SHARD_WORKER.get(0).map(|workers| workers[shard.0 as usize & (SHARDS - 1)])
    {
        // An empty slot is not an error: the kernel then chooses.
        let is_ipv6 = ctx.eth_protocol() == u32::from(ETH_P_IPV6.to_be());
        let _ = SOCKETS.select_reuseport(ctx, socket_place(is_ipv6, worker));
    }
    SK_PASS
}

/// The shard that the click header names, if it is sound and names one. The data starts at the
/// UDP header.
#[inline(always)]
fn shard(ctx: &SkReuseportContext) -> Option<Shard> {
    let start = ctx.data();
    if start + UDP_LEN + wire::HEADER_LEN > ctx.data_end() {
        return None;
    }
    let header = (start + UDP_LEN) as *const [u8; wire::HEADER_LEN];
    // SAFETY: the datagram can only be read through its pointer. The header lies before
    // `data_end`, as the lines above check and the verifier proves; byte arrays have no
    // alignment and every bit pattern is one.
    let header = unsafe { header.read() };
    let facts = wire::check_header(&header, ctx.len() - UDP_LEN).ok()?;
    if facts.shared_bits == 0 { None } else { Some(facts.shard) }
}

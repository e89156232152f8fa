//! Samples of malformed input in the store: a keyspace with a bound, of which the oldest go first.

use std::net::IpAddr;

use fjall::{Keyspace, UserKey};
use ipnet::IpNet;
use weir_common::id::{Epoch, Incarnation, WorkerId};
use weir_common::reason::Reason;
use weir_common::time::UnixMs;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::raw::RawId;
use crate::rejects::{Input, Reject};

/// Samples kept: weeks of what honest senders get wrong, or a quarter of an hour of a flood at the
/// default rate; 20 MiB at the most, beside raw batches of many gigabytes.
pub(super) const KEPT_MAX: usize = 10_000;

const CLICK: u8 = 1;
const CUT: u8 = 2;
const IPV4: u8 = 4;
const BODY: u8 = 8;

/// What stands before a sample's bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    incarnation: U64,
    number: U64,
    received_at_ms: U64,
    epoch: U32,
    worker: U16,
    reason: u8,
    flags: u8,
    network: [u8; 16],
    network_bits: u8,
}

/// The key of a batch's sample: in the order of flushes, and the same when the batch comes again.
pub(super) fn key(batch: RawId, index: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&batch.flush.0.to_be_bytes());
    key[8..12].copy_from_slice(&batch.part.to_be_bytes());
    key[12..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The oldest keys, which have to go before so many more can come.
pub(super) fn surplus(rejects: &Keyspace, more: usize) -> fjall::Result<Vec<UserKey>> {
    if more == 0 {
        return Ok(Vec::new());
    }
    // All of them are counted, for there are few: a flush of a flood adds one in a hundred.
    let surplus = (rejects.len()? + more).saturating_sub(KEPT_MAX);
    rejects.iter().take(surplus).map(|entry| entry.key()).collect()
}

pub(super) fn value(incarnation: Incarnation, reject: &Reject) -> Vec<u8> {
    let mut network = [0; 16];
    let ipv4 = match reject.source.addr() {
        IpAddr::V4(address) => {
            network[..4].copy_from_slice(&address.octets());
            IPV4
        }
        IpAddr::V6(address) => {
            network.copy_from_slice(&address.octets());
            0
        }
    };
    let input = match reject.input {
        Input::Datagram => 0,
        Input::Click => CLICK,
        Input::Body => BODY,
    };
    let head = Head {
        incarnation: incarnation.0.into(),
        number: reject.number.into(),
        received_at_ms: reject.received_at.0.into(),
        epoch: reject.epoch.0.into(),
        worker: reject.worker.0.into(),
        reason: reject.reason as u8,
        flags: input | (u8::from(reject.is_cut) * CUT) | ipv4,
        network,
        network_bits: reject.source.prefix_len(),
    };
    [head.as_bytes(), &reject.bytes].concat()
}

pub(super) fn read(value: &[u8]) -> Option<(Incarnation, Reject)> {
    let (head, bytes) = Head::ref_from_prefix(value).ok()?;
    let address = if head.flags & IPV4 == 0 {
        IpAddr::from(head.network)
    } else {
        IpAddr::from(*head.network.first_chunk::<4>()?)
    };
    let reject = Reject {
        epoch: Epoch(head.epoch.get()),
        worker: WorkerId(head.worker.get()),
        number: head.number.get(),
        received_at: UnixMs(head.received_at_ms.get()),
        reason: Reason::from_number(head.reason)?,
        input: match head.flags & (CLICK | BODY) {
            0 => Input::Datagram,
            CLICK => Input::Click,
            _ => Input::Body,
        },
        source: IpNet::new(address, head.network_bits).ok()?,
        is_cut: head.flags & CUT != 0,
        bytes: bytes.to_vec(),
    };
    Some((Incarnation(head.incarnation.get()), reject))
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::FlushNo;
    use super::*;

    #[test]
    fn a_sample_comes_back_from_its_value_and_later_ones_sort_behind() {
        for (source, input, is_cut) in [
            ("203.0.113.0/24", Input::Datagram, true),
            ("2001:db8:1::/48", Input::Click, false),
            ("203.0.113.0/24", Input::Body, true),
        ] {
            let reject = Reject {
                epoch: Epoch(3),
                worker: WorkerId(2),
                number: 1 << 40,
                received_at: UnixMs(1_800_000_000_000),
                reason: Reason::BadMagic,
                input,
                source: source.parse().unwrap(),
                is_cut,
                bytes: b"bytes".to_vec(),
            };
            assert_eq!(read(&value(Incarnation(9), &reject)), Some((Incarnation(9), reject)));
        }
        let of = |flush, part| RawId { flush: FlushNo(flush), part };
        assert!(key(of(1, 9), 9) < key(of(2, 0), 0) && key(of(2, 0), 0) < key(of(2, 0), 1));
        assert_eq!(read(b"too short"), None);
    }
}

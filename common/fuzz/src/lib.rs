//! What each fuzz target does with its bytes. The stable test `common/tests/corpus.rs` includes
//! this file and replays the stored corpus through the same functions, so a crash that fuzzing
//! once found is part of every test run.
//!
//! Every function panics when a promise of `weir-common` does not hold for its bytes, and returns
//! otherwise. [`reference`] is the second reader they are held against; [`frame`] has the promises
//! of the packet parser.
#![forbid(unsafe_code)]

pub mod frame;
pub mod reference;

use weir_common::row::{MAX_LENGTH_PREFIX, ROW_LEN, Row, Rows, length_prefix};
use weir_common::wire::{ACK_HEADER_LEN, AckHeader, Acks, CLICK_LEN, Datagram, HEADER_LEN};
use zerocopy::{FromBytes, IntoBytes};

pub use self::frame::packet;
use self::reference::Verdict;

/// What `weir-common` says of a payload, in the reference's terms.
#[must_use]
pub fn verdict(bytes: &[u8]) -> Verdict {
    match Datagram::parse(bytes) {
        Err(bad) => {
            Verdict::Malformed { reason: bad.reason.name(), clicks: bad.clicks, batch_id: bad.batch_id }
        }
        Ok(datagram) => {
            let (header, facts) = (datagram.header(), datagram.facts());
            let mut offset = HEADER_LEN;
            let judge = |(click, extension): (&weir_common::wire::Click, &[u8])| {
                let at = offset;
                offset += CLICK_LEN + extension.len();
                (at, extension.len(), click.check(extension).err().map(|reason| reason.name()))
            };
            Verdict::Accepted {
                batch_id: header.batch_id.get(),
                source_id: header.source_id.get(),
                shard: (facts.shard.0, facts.shared_bits),
                clicks: datagram.clicks().map(judge).collect(),
            }
        }
    }
}

/// Any payload, as it is and once more with the header's first checks made to pass: otherwise
/// every change of length would end at the length check.
pub fn datagram(bytes: &[u8]) {
    payload(bytes);
    let (Some(header), Ok(total_len)) = (bytes.first_chunk::<HEADER_LEN>(), u16::try_from(bytes.len()))
    else {
        return;
    };
    let mut repaired = bytes.to_vec();
    repaired[..6].copy_from_slice(b"WEIR\x01\0");
    // At least one click, so that a count of zero does not end it either.
    repaired[6] = header[6].max(1);
    repaired[10..12].copy_from_slice(&total_len.to_le_bytes());
    payload(&repaired);
}

/// Accepted or refused exactly as the reference does, and never with an ack larger than itself.
/// What was accepted, written again, is the same bytes.
fn payload(bytes: &[u8]) {
    assert_eq!(verdict(bytes), reference::datagram(bytes));
    let (count, batch_id) = match Datagram::parse(bytes) {
        Ok(datagram) => {
            let mut written = datagram.header().as_bytes().to_vec();
            let mut clicks = datagram.clicks();
            assert_eq!(clicks.len(), usize::from(datagram.facts().count));
            for (click, extension) in clicks.by_ref() {
                assert!(click.shard().0 < 1024);
                written.extend_from_slice(click.as_bytes());
                written.extend_from_slice(extension);
            }
            assert_eq!(written, bytes);
            assert!(clicks.next().is_none());
            (datagram.facts().count, Some(datagram.header().batch_id.get()))
        }
        Err(bad) => (bad.clicks, bad.batch_id),
    };
    // Without a batch id there is no ack.
    if let Some(batch_id) = batch_id {
        let ack = [AckHeader::new(batch_id, count).as_bytes(), &vec![3; usize::from(count)]].concat();
        assert!(ack.len() < bytes.len());
        let mut acks = Acks::new(&ack);
        let read = acks.next().expect("an ack we wrote is an ack");
        assert_eq!((read.batch_id, read.statuses.len()), (batch_id, usize::from(count)));
        assert!(acks.next().is_none() && acks.rest().is_empty());
    }
}

/// Any payload as acks: read as the reference does; what was read, written again, is the bytes read.
pub fn acks(bytes: &[u8]) {
    let mut acks = Acks::new(bytes);
    let mut read = Vec::new();
    let mut written = Vec::new();
    for ack in acks.by_ref() {
        let count = u8::try_from(ack.statuses.len()).expect("a count is a u8");
        let header = AckHeader::new(ack.batch_id, count).with_retry_after(ack.retry_after_ms);
        written.extend_from_slice(header.as_bytes());
        written.extend_from_slice(ack.statuses);
        read.push((ack.batch_id, ack.retry_after_ms, ack.statuses.to_vec()));
        assert!(read.len() <= bytes.len() / ACK_HEADER_LEN);
    }
    assert_eq!(written, bytes[..bytes.len() - acks.rest().len()]);
    assert_eq!((read, acks.rest().len()), reference::acks(bytes));
}

/// Any body as rows: read as the reference does; what was read, written again, is the bytes read.
pub fn rows(bytes: &[u8]) {
    let mut rows = Rows::new(bytes);
    let mut read = Vec::new();
    let mut written = Vec::new();
    for (row, extension) in rows.by_ref() {
        read.push((written.len(), extension.len()));
        let (prefix, prefix_len) = length_prefix(row.click.extension_len.get());
        assert!(prefix_len <= MAX_LENGTH_PREFIX);
        written.extend_from_slice(row.as_bytes());
        written.extend_from_slice(&prefix[..prefix_len]);
        written.extend_from_slice(extension);
        assert!(read.len() <= bytes.len() / (ROW_LEN + 1));
    }
    assert_eq!(written, bytes[..bytes.len() - rows.rest().len()]);
    assert_eq!((read, rows.rest().len()), reference::rows(bytes));
    // A bucket takes whatever stands in a row without complaint.
    if let Ok((row, _)) = Row::ref_from_prefix(bytes) {
        let mut totals = weir_common::bucket::BucketTotals::default();
        totals.count(row);
        assert!(totals.gross() <= 1);
    }
}

//! Checks raw batches block by block: CRCs, sequences, counts.

use std::collections::{BTreeMap, HashMap};

use weir_common::block::BlockHeader;
use weir_common::id::{Epoch, Incarnation, WorkerId};
use weir_common::reason::{OUTCOMES, Outcome};
use weir_common::row::Rows;

use super::report::{AuditFinding, AuditReport};
use crate::forward::embedded::keys::ManifestValue;
use crate::forward::embedded::raw::RawId;
use crate::forward::embedded::{Store, StoreError};
use crate::journal::BlockIdentity;
use crate::journal::block::has_rows;

type Stream = (Incarnation, Epoch, WorkerId);

/// Blocks known to be lost: by stream and first block, the last.
type Gaps = BTreeMap<(Stream, u64), u64>;

/// Reads every block once.
pub(super) fn check(store: &Store, report: &mut AuditReport) -> Result<(), StoreError> {
    let mut gaps = Gaps::new();
    for gap in store.gaps() {
        let (incarnation, gap) = gap?;
        gaps.insert(((incarnation, gap.epoch, gap.worker), gap.first.0), gap.last.0);
        report.known_lost_blocks += gap.last.0 - gap.first.0 + 1;
    }
    report.orphans = store.orphans()?.len() as u64;
    let mut expected: HashMap<Stream, u64> = HashMap::new();
    for batch in store.batches() {
        let (id, entry) = batch?;
        report.batches += 1;
        if entry.blocks.get() > 0 {
            check_batch(store, (id, &entry), (&gaps, &mut expected), report);
        }
    }
    Ok(())
}

fn check_batch(
    store: &Store,
    (id, entry): (RawId, &ManifestValue),
    (gaps, expected): (&Gaps, &mut HashMap<Stream, u64>),
    report: &mut AuditReport,
) {
    let fault = |fault: String| AuditFinding::Raw { batch: id.file_name(), fault };
    let mut blocks = match store.blocks(id) {
        Ok(blocks) => blocks,
        Err(error) => return report.find(fault(error.to_string())),
    };
    let before = (report.blocks, report.rows);
    loop {
        match blocks.next_block() {
            Ok(Some((header, body))) => {
                report.blocks += 1;
                report.rows += u64::from(header.rows.get());
                check_sequence(id, header, gaps, expected, report);
                check_counts(id, header, body, report);
            }
            Ok(None) => break,
            Err(error) => return report.find(fault(error.to_string())),
        }
    }
    let (bytes, crc) = blocks.read_so_far();
    report.bytes += bytes;
    let found = (report.blocks - before.0, report.rows - before.1, bytes, crc);
    let stated = (entry.blocks.get(), entry.rows.get(), entry.bytes.get(), entry.crc.get());
    if found != stated {
        report.find(fault(format!(
            "blocks, rows, bytes and CRC are {found:?}, but the manifest says {stated:?}"
        )));
    }
}

fn check_sequence(
    id: RawId,
    header: &BlockHeader,
    gaps: &Gaps,
    expected: &mut HashMap<Stream, u64>,
    report: &mut AuditReport,
) {
    let of = BlockIdentity::of(header);
    let stream = (of.incarnation, of.epoch, of.worker);
    let next = expected.entry(stream).or_insert(1);
    if let Some(last) = gaps.get(&(stream, *next)) {
        *next = last + 1;
    }
    if of.sequence.0 != *next {
        report.sequence_faults += 1;
        report.find(AuditFinding::Sequence {
            batch: id.file_name(),
            epoch: of.epoch.0,
            worker: of.worker.0,
            sequence: of.sequence.0,
            expected: *next,
        });
    }
    *next = (*next).max(of.sequence.0 + 1);
}

fn check_counts(id: RawId, header: &BlockHeader, body: &[u8], report: &mut AuditReport) {
    let mut counted = [0_u32; OUTCOMES];
    let mut rows = Rows::new(body);
    let mut all_known = true;
    for (row, _) in rows.by_ref() {
        match Outcome::from_number(row.outcome).filter(|&outcome| has_rows(outcome)) {
            Some(outcome) => counted[outcome as usize] += 1,
            None => all_known = false,
        }
    }
    let agree = |outcome: Outcome| {
        !has_rows(outcome) || header.outcomes[outcome as usize].get() == counted[outcome as usize]
    };
    let total: u32 = counted.iter().sum();
    let sound = all_known
        && rows.rest().is_empty()
        && total == header.rows.get()
        && Outcome::ALL.into_iter().all(agree);
    for (sum, count) in report.outcomes.iter_mut().zip(&header.outcomes) {
        *sum += u64::from(count.get());
    }
    if !sound {
        let of = BlockIdentity::of(header);
        report.find(AuditFinding::Counts {
            batch: id.file_name(),
            epoch: of.epoch.0,
            worker: of.worker.0,
            sequence: of.sequence.0,
        });
    }
}

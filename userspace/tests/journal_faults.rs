//! Failing writes, failing syncs, full disks and crashes, injected where the journal meets its
//! shell. Whatever happens: what was acknowledged is there, once, and a descriptor that failed is
//! never used again.

mod journal_fixture;
mod simulated_disk;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use journal_fixture::{START, admitted, click, config, decision, open, open_sealed, recovered};
use proptest::prelude::*;
use simulated_disk::{SimulatedDisk, broken, no_space};
use weir::journal::operation::{Completion, Operation};
use weir::journal::{BlockBuilder, DiskBudget, Journal, JournalState};
use weir_common::time::UnixMs;

struct Bench {
    journal: Journal,
    builder: BlockBuilder,
    disk: SimulatedDisk,
    now_ms: u64,
    next_click: u64,
    /// The click after the last one of each block.
    ends: Vec<u64>,
    budget: Arc<DiskBudget>,
    /// From one click to the next.
    ms_per_click: u64,
}

impl Bench {
    fn new(folder: &weir::journal::Folder, bytes_max: u64) -> Self {
        let budget = Arc::new(DiskBudget::new(bytes_max, 0));
        let config = config(folder, 0);
        Self {
            builder: BlockBuilder::new(config.block_bytes_max),
            journal: Journal::new(config, Arc::clone(&budget)),
            disk: SimulatedDisk::default(),
            now_ms: 0,
            next_click: 0,
            ends: vec![],
            budget,
            ms_per_click: 1,
        }
    }

    /// Submits a block of some clicks, if there is room for it.
    fn submit(&mut self, clicks: u64) -> bool {
        if !self.journal.has_room() {
            return false;
        }
        self.builder.begin(self.journal.next_identity(), START);
        for n in self.next_click..self.next_click + clicks {
            let at = UnixMs(START.0 + n * self.ms_per_click);
            self.builder.push(at, &admitted(at), &decision(n), &click(n, &[]), &[]).unwrap();
        }
        self.next_click += clicks;
        self.ends.push(self.next_click);
        let block = self.builder.seal(self.journal.previous_crc()).unwrap();
        self.journal.submit(block).unwrap();
        true
    }

    /// Runs everything; `fault` says which operations fail.
    fn run(&mut self, mut fault: impl FnMut(&Operation) -> Option<io::Error>) {
        for _ in 0..10_000 {
            let Some(operation) = self.journal.next_operation(self.now_ms) else { return };
            let error = fault(&operation);
            if let Some(completion) = self.disk.run(operation, error) {
                self.journal.complete(completion);
            }
        }
        panic!("the journal does not come to rest");
    }

    fn acknowledged(&self) -> u64 {
        self.journal.durable().0.checked_sub(1).map_or(0, |block| self.ends[block as usize])
    }

    /// What a start after a crash now would find; at least what is acknowledged.
    fn check_crash(&self, folder: &weir::journal::Folder, survives: impl FnMut() -> u8) {
        self.disk.crash(survives);
        let (numbers, recovery) = recovered(folder);
        let acknowledged: Vec<_> = (0..self.acknowledged()).collect();
        let found = numbers.get(..acknowledged.len());
        assert_eq!(found, Some(&acknowledged[..]), "acknowledged clicks are gone\n{}", recovery.report);
        let unique: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(unique.len(), numbers.len(), "a click came back twice");
    }
}

fn once(mut wanted: impl FnMut(&Operation) -> bool) -> impl FnMut(&Operation) -> Option<io::Error> {
    let mut done = false;
    move |operation| {
        let now = !done && wanted(operation);
        done |= now;
        now.then(broken)
    }
}

const fn is_sync(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync { .. })
}

#[test]
fn a_failed_sync_seals_the_segment_and_its_group_is_written_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    assert!(bench.submit(5));
    bench.run(|_| None);
    assert_eq!(bench.acknowledged(), 5);
    assert!(bench.submit(5) && bench.submit(5));
    bench.run(once(is_sync));
    bench.now_ms += 10_000;
    bench.run(|_| None);
    assert_eq!(bench.acknowledged(), 15);
    assert_eq!(bench.disk.failed.len(), 1);
    assert_eq!(bench.journal.state(), &JournalState::Running);
    bench.check_crash(&folder, || 0);
}

#[test]
fn a_page_torn_by_the_next_group_holds_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    for _ in 0..3 {
        assert!(bench.submit(3));
        bench.run(|_| None);
    }
    assert!(bench.submit(3));
    while let Some(operation) = bench.journal.next_operation(0).filter(|operation| !is_sync(operation)) {
        bench.disk.run(operation, None).into_iter().for_each(|completion| bench.journal.complete(completion));
    }
    assert_eq!(bench.acknowledged(), 9);
    bench.check_crash(&folder, || 0);
}

#[test]
fn nothing_is_acknowledged_by_a_group_whose_sync_failed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    assert!(bench.submit(5));
    // The next segment cannot be had either, so the group has nowhere to go.
    bench.run(|operation| {
        let fails = matches!(operation, Operation::Sync { .. } | Operation::CreateSegment { .. });
        fails.then(broken)
    });
    assert_eq!(bench.acknowledged(), 0);
    assert!(!bench.journal.is_idle());
}

#[test]
fn one_failed_write_of_a_group_moves_the_whole_group() {
    for failing in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path());
        let mut bench = Bench::new(&folder, u64::MAX);
        bench.run(|_| None);
        assert!(bench.submit(1) && bench.submit(2) && bench.submit(3));
        let mut writes = 0;
        bench.run(once(|operation| {
            writes += usize::from(matches!(operation, Operation::Write { .. }));
            writes == failing + 1
        }));
        bench.now_ms += 10_000;
        bench.run(|_| None);
        assert_eq!(bench.acknowledged(), 6);
        bench.check_crash(&folder, || 4);
    }
}

#[test]
fn failures_in_a_row_halt_the_journal_with_a_reason_and_keep_what_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    assert!(bench.submit(5));
    bench.run(|_| None);
    assert!(bench.submit(5));
    for _ in 0..10 {
        bench.now_ms += 10_000;
        bench.run(|operation| is_sync(operation).then(broken));
    }
    let JournalState::Halted(reason) = bench.journal.state() else { panic!("not halted") };
    assert!(reason.contains(".wseg") && reason.contains("Check the disk"), "{reason}");
    assert!(!bench.journal.has_room());
    assert!(bench.disk.failed.len() <= 3, "attempts are bounded");
    assert_eq!(bench.acknowledged(), 5);
    bench.check_crash(&folder, || 0);
}

#[test]
fn single_failures_with_success_between_them_never_halt() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    for _ in 0..20 {
        assert!(bench.submit(1));
        bench.run(once(is_sync));
        bench.now_ms += 10_000;
        bench.run(|_| None);
    }
    assert_eq!(bench.acknowledged(), 20);
    bench.check_crash(&folder, || 0);
}

#[test]
fn a_full_disk_refuses_before_it_counts_keeps_what_it_has_and_resumes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    let full = |operation: &Operation| matches!(operation, Operation::CreateSegment { .. }).then(no_space);
    let mut blocks = 0;
    while bench.submit(10) {
        bench.run(full);
        assert!(bench.journal.is_idle(), "what was taken has its place");
        blocks += 1;
        assert!(blocks < 1000, "the disk is full, and blocks are still taken");
    }
    assert!(blocks > 10);
    assert_eq!(bench.journal.state(), &JournalState::NoSpace);
    for _ in 0..20 {
        bench.now_ms += 2000;
        bench.run(full);
        assert!(!bench.submit(1));
        assert_eq!(bench.journal.state(), &JournalState::NoSpace, "no space never halts");
    }
    bench.check_crash(&folder, || 0);
    bench.now_ms += 2000;
    bench.run(|_| None);
    assert_eq!(bench.journal.state(), &JournalState::Running);
    assert!(bench.submit(10));
    bench.run(|_| None);
    assert!(bench.journal.is_idle());
    bench.check_crash(&folder, || 0);
}

#[test]
fn the_journals_bound_works_like_a_full_disk_and_trimming_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let segment_bytes = 64 << 10;
    let mut bench = Bench::new(&folder, 2 * segment_bytes);
    bench.run(|_| None);
    while bench.submit(10) {
        bench.run(|_| None);
    }
    assert_eq!((bench.disk.files.len(), bench.budget.used()), (2, 2 * segment_bytes));
    bench.budget.release(segment_bytes);
    bench.now_ms += 2000;
    bench.run(|_| None);
    assert!(bench.submit(10));
    assert_eq!(bench.budget.used(), 2 * segment_bytes);
}

#[test]
fn no_space_in_a_write_leaves_no_pile_of_empty_segments() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, 3 * (64 << 10));
    bench.run(|_| None);
    assert!(bench.submit(10));
    for _ in 0..50 {
        bench.now_ms += 2000;
        bench.run(|operation| matches!(operation, Operation::Write { .. }).then(no_space));
        assert!(bench.disk.files.len() <= 2, "{} files", bench.disk.files.len());
    }
    bench.now_ms += 2000;
    bench.run(|_| None);
    assert_eq!(bench.acknowledged(), 10);
    bench.check_crash(&folder, || 0);
}

#[test]
fn a_segment_that_can_be_made_does_not_show_that_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    assert!(bench.submit(10));
    // An overcommitted device takes the metadata of a segment and not what is written to it.
    bench.run(|operation| matches!(operation, Operation::Sync { .. }).then(no_space));
    for _ in 0..10 {
        bench.now_ms += 2000;
        while let Some(operation) = bench.journal.next_operation(bench.now_ms) {
            let error = matches!(operation, Operation::Sync { .. }).then(no_space);
            if let Some(completion) = bench.disk.run(operation, error) {
                bench.journal.complete(completion);
            }
            assert_eq!(bench.journal.state(), &JournalState::NoSpace);
        }
    }
    bench.now_ms += 2000;
    bench.run(|_| None);
    assert_eq!((bench.journal.state(), bench.acknowledged()), (&JournalState::Running, 10));
    bench.check_crash(&folder, || 0);
}

#[test]
fn short_writes_are_carried_on_and_an_empty_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    assert!(bench.submit(8));
    let mut writes = 0;
    while let Some(operation) = bench.journal.next_operation(0) {
        let completion = match operation {
            Operation::Write { segment, offset, buffer, from } => {
                writes += 1;
                let count = (buffer.len() - from).min(100);
                let part = (offset as usize, buffer[from..from + count].to_vec());
                bench.disk.sound(segment).written.push(part);
                Some(Completion::Written { segment, offset, buffer, result: Ok(count) })
            }
            other => bench.disk.run(other, None),
        };
        completion.into_iter().for_each(|completion| bench.journal.complete(completion));
    }
    assert!(writes > 5);
    assert_eq!(bench.acknowledged(), 8);
    bench.check_crash(&folder, || 0);

    assert!(bench.submit(1));
    let Some(Operation::Write { segment, offset, buffer, .. }) = bench.journal.next_operation(0) else {
        panic!("a write is due")
    };
    bench.journal.complete(Completion::Written { segment, offset, buffer, result: Ok(0) });
    bench.disk.failed.insert(segment);
    bench.run(|_| None);
    bench.now_ms += 10_000;
    bench.run(|_| None);
    assert_eq!(bench.acknowledged(), 9);
}

#[test]
fn the_next_segment_is_asked_for_at_half_so_that_no_block_waits_for_it() {
    for open in [open, open_sealed] {
        no_block_waits_for_a_segment(open);
    }
}

fn no_block_waits_for_a_segment(open: fn(&std::path::Path) -> weir::journal::Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, u64::MAX);
    bench.run(|_| None);
    let mut creation = None;
    let mut blocks_since = 0;
    while bench.submit(10) && bench.ends.len() < 500 {
        while let Some(operation) = bench.journal.next_operation(0) {
            if matches!(operation, Operation::CreateSegment { .. }) {
                creation = Some(operation);
                blocks_since = 0;
            } else if let Some(completion) = bench.disk.run(operation, None) {
                bench.journal.complete(completion);
            }
        }
        assert!(bench.journal.is_idle());
        blocks_since += 1;
        // The helper thread takes its time: a quarter of a segment.
        if blocks_since == 4 {
            let completion = creation.take().and_then(|operation| bench.disk.run(operation, None));
            completion.into_iter().for_each(|completion| bench.journal.complete(completion));
        }
    }
    assert_eq!(bench.ends.len(), 500, "a block had to wait for a segment");
    assert!(bench.disk.files.len() > 10);
}

#[derive(Clone, Debug)]
enum Step {
    Submit(u64),
    /// Start the next operation.
    Issue,
    /// End one of the running operations.
    End {
        which: usize,
        fails: bool,
        no_space: bool,
    },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20_u64).prop_map(Step::Submit),
        6 => Just(Step::Issue),
        6 => (any::<usize>(), prop::bool::weighted(0.08), any::<bool>())
            .prop_map(|(which, fails, no_space)| Step::End { which, fails, no_space }),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_in_whatever_order_acknowledged_clicks_survive_the_crash(
        steps in prop::collection::vec(step(), 1..400),
        survival in any::<u64>(),
    ) {
        run_steps(open, (20, 1), steps, survival)?;
    }

    #[test]
    fn whatever_fails_over_days_of_encryption_acknowledged_clicks_survive_the_crash(
        steps in prop::collection::vec(step(), 1..400),
        survival in any::<u64>(),
    ) {
        run_steps(open_sealed, (100, MS_PER_CLICK_OVER_DAYS), steps, survival)?;
    }
}

/// Some days for each run of steps.
const MS_PER_CLICK_OVER_DAYS: u64 = 20 * 60_000;

fn run_steps(
    open: fn(&std::path::Path) -> weir::journal::Folder,
    (segments_max, ms_per_click): (u64, u64),
    steps: Vec<Step>,
    survival: u64,
) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path());
    let mut bench = Bench::new(&folder, segments_max * (64 << 10));
    bench.ms_per_click = ms_per_click;
    let mut running: Vec<Operation> = Vec::new();
    let mut durable = 0;
    for step in steps {
        match step {
            Step::Submit(clicks) => drop(bench.submit(clicks)),
            Step::Issue => running.extend(bench.journal.next_operation(bench.now_ms)),
            Step::End { which, fails, no_space: full } if !running.is_empty() => {
                let operation = running.swap_remove(which % running.len());
                let error = fails.then(|| if full { no_space() } else { broken() });
                // A write that fails while others on its segment run is no use after failure.
                let failed = bench.disk.failed.clone();
                if let Operation::Write { segment, .. } = &operation {
                    bench.disk.failed.remove(segment);
                }
                let completion = bench.disk.run(operation, error);
                bench.disk.failed.extend(failed);
                completion.into_iter().for_each(|completion| bench.journal.complete(completion));
            }
            Step::End { .. } => {}
            Step::Wait => bench.now_ms += 2000,
        }
        prop_assert!(bench.acknowledged() >= durable, "durable went back");
        durable = bench.acknowledged();
    }
    let mut bits = survival;
    bench.check_crash(&folder, || {
        bits = bits.rotate_left(3).wrapping_mul(5).wrapping_add(1);
        bits as u8
    });
    Ok(())
}

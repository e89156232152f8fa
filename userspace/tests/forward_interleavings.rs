//! Whatever happens in whatever order, with failing commits and restarts: every click once, every
//! bucket a recount.

mod forward_fixture;
mod journal_fixture;

use forward_fixture::{Fault, MemorySink, Node, store, store_path};
use journal_fixture::number;
use proptest::prelude::*;
use weir::audit::{AuditConfig, AuditReport, RowIter, audit};
use weir::forward::embedded::Store;
use weir_common::id::Incarnation;

fn clicks(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

fn audited(dir: &std::path::Path) -> (AuditReport, Vec<u64>) {
    let store = Store::open(&store_path(dir), Incarnation(0)).unwrap();
    let report = audit(&store, &AuditConfig::default()).unwrap();
    let mut found: Vec<_> = RowIter::new(&store).unwrap().map(|(_, row)| number(&row.click)).collect();
    found.sort_unstable();
    (report, found)
}

#[derive(Clone, Debug)]
enum Step {
    Write { worker: usize, clicks: u64, durable: bool },
    Turn(usize),
    Poll,
    Pass(u64),
    Fail(bool),
    Restart(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<usize>(), 1..12_u64, any::<bool>())
            .prop_map(|(worker, clicks, durable)| Step::Write { worker, clicks, durable }),
        8 => any::<usize>().prop_map(Step::Turn),
        10 => Just(Step::Poll),
        4 => prop_oneof![4 => 1..3000_u64, 1 => 1..90_000_u64].prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::Fail),
        1 => (1..5_u16).prop_map(Step::Restart),
    ]
}

/// Runs the steps, at the end one whole flush. The clicks written.
fn run<S: weir::forward::Sink>(
    node: &mut Option<Node<S>>,
    steps: Vec<Step>,
    mut fail: impl FnMut(&mut Node<S>, bool),
    mut restart: impl FnMut(Node<S>, u16) -> Node<S>,
) -> u64 {
    let mut next = 0;
    for step in steps {
        let running = node.as_mut().unwrap();
        let workers = running.workers.len();
        match step {
            Step::Write { worker, clicks: count, durable } => {
                let worker = &mut running.workers[worker % workers];
                if worker.writer.journal.has_room() {
                    worker.submit(running.now.wall, &clicks(next..next + count));
                    next += count;
                }
                if durable {
                    worker.writer.commit();
                }
            }
            Step::Turn(worker) => running.workers[worker % workers].turn(),
            Step::Poll => drop(running.forwarder.poll(running.now)),
            Step::Pass(ms) => running.pass_ms(ms),
            Step::Fail(answer_lost) => fail(running, answer_lost),
            Step::Restart(workers) => {
                running.workers.iter_mut().for_each(|worker| worker.writer.commit());
                let wall = running.now.wall;
                let mut started = restart(node.take().unwrap(), workers);
                started.now.wall = wall;
                *node = Some(started);
            }
        }
    }
    let running = node.as_mut().unwrap();
    running.flush();
    running.flush();
    next
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn buckets_are_a_recount_after_any_interleaving(steps in prop::collection::vec(step(), 1..150)) {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(Node::start(dir.path(), 2, |_| MemorySink::default()));
        let fail = |node: &mut Node<MemorySink>, answer_lost| {
            let fault = if answer_lost { Fault::LoseAnswer } else { Fault::Refuse };
            node.forwarder.sink().faults.borrow_mut().push(fault);
        };
        let written = run(&mut node, steps, fail, |node, workers| {
            let Node { forwarder, folder, workers: old, .. } = node;
            drop((folder, old));
            let sink = forwarder.into_sink();
            Node::start(dir.path(), workers, |_| sink)
        });
        node.unwrap().forwarder.sink().check(clicks(0..written));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_store_passes_its_audit_after_any_interleaving(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(Node::start(dir.path(), 2, store(dir.path())));
        let written = run(&mut node, steps, |_, _| {}, |node, workers| {
            drop(node);
            Node::start(dir.path(), workers, store(dir.path()))
        });
        drop(node);
        let (report, found) = audited(dir.path());
        prop_assert!(report.sound, "{}", report);
        prop_assert_eq!(found, clicks(0..written));
    }
}

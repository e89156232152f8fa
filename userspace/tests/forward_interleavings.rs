//! Whatever happens in whatever order, with failing commits and restarts: every click once, every
//! bucket a recount.

mod forward_fixture;
mod journal_fixture;

use forward_fixture::steps::{run, step};
use forward_fixture::{Fault, MemorySink, Node, audited, flush_config, sketches_of, store};
use proptest::prelude::*;
use weir::forward::{ForwarderConfig, Split};

fn clicks(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

/// So soon that some minutes are final in most cases. The clicks count in the minute they come in.
fn config() -> ForwarderConfig {
    ForwarderConfig { close_after_ms: 70_000, ..flush_config() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn buckets_are_a_recount_after_any_interleaving(steps in prop::collection::vec(step(), 1..150)) {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(Node::try_start(dir.path(), 2, config(), |_| MemorySink::default()).unwrap());
        let fail = |node: &mut Node<MemorySink>, answer_lost| {
            let fault = if answer_lost { Fault::LoseAnswer } else { Fault::Refuse };
            node.forwarder.sink().faults.borrow_mut().push(fault);
        };
        let written = run(&mut node, steps, fail, |node, workers| {
            let Node { forwarder, folder, workers: old, .. } = node;
            drop((folder, old));
            let sink = forwarder.into_sink();
            Node::try_start(dir.path(), workers, config(), |_| sink).unwrap()
        });
        node.unwrap().forwarder.sink().check(clicks(0..written));
    }
}

type Two = Split<MemorySink, MemorySink>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn of_two_sinks_one_has_each_click_once_and_the_other_its_recount(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let two = Split::new(MemorySink::default(), MemorySink::default());
        let mut node = Some(Node::try_start(dir.path(), 2, config(), |_| two).unwrap());
        let mut fails_raw = false;
        let fail = |node: &mut Node<Two>, answer_lost| {
            let fault = if answer_lost { Fault::LoseAnswer } else { Fault::Refuse };
            fails_raw = !fails_raw;
            let (raw, buckets) = node.forwarder.sink().sinks();
            let sink = if fails_raw { raw } else { buckets };
            sink.faults.borrow_mut().push(fault);
        };
        let written = run(&mut node, steps, fail, |node, workers| {
            let Node { forwarder, folder, workers: old, .. } = node;
            drop((folder, old));
            let (raw, buckets) = forwarder.into_sink().into_sinks();
            // Nothing is known any more but what the two say.
            Node::try_start(dir.path(), workers, config(), |_| Split::new(raw, buckets)).unwrap()
        });
        let node = node.unwrap();
        let (raw, buckets) = node.forwarder.sink().sinks();
        raw.check_rows(clicks(0..written));
        prop_assert_eq!(buckets.buckets(), raw.recount());
        let recounted = sketches_of(raw.rows().iter(), buckets.checkpoint.final_before);
        prop_assert_eq!(buckets.sketches(), recounted);
        prop_assert!(raw.buckets().is_empty() && raw.sketches().is_empty() && buckets.rows().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_store_passes_its_audit_after_any_interleaving(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Some(Node::try_start(dir.path(), 2, config(), store(dir.path())).unwrap());
        let written = run(&mut node, steps, |_, _| {}, |node, workers| {
            drop(node);
            Node::try_start(dir.path(), workers, config(), store(dir.path())).unwrap()
        });
        drop(node);
        let (report, found) = audited(dir.path());
        prop_assert!(report.sound, "{}", report);
        prop_assert_eq!(found, clicks(0..written));
    }
}

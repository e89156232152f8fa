//! A sink that is away when the node starts: clicks wait in the journal, and what is final at the
//! sink stays final when it answers.

mod forward_fixture;
mod journal_fixture;

use std::sync::mpsc::sync_channel;

use forward_fixture::{MemorySink, Node};
use journal_fixture::START;
use weir::forward::{Batch, BatchBlocks, Checkpoint, Counted, Past, Sink, SinkError};
use weir_common::bucket::{BucketKey, BucketTotals};
use weir_common::time::Minute;

/// Does not answer the first questions for its checkpoint.
#[derive(Debug)]
struct AwaySink {
    refusals: u32,
    inner: MemorySink,
}

impl Sink for AwaySink {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        if self.refusals == 0 {
            return self.inner.checkpoint();
        }
        self.refusals -= 1;
        Err(SinkError::Retry("no broker".to_owned()))
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        self.inner.commit(batch, blocks)
    }
}

/// Polls until the sink has answered.
fn open(node: &mut Node<AwaySink>) {
    for _ in 0..100 {
        if node.forwarder.is_idle() {
            return;
        }
        let wait_ms = node.forwarder.poll(node.now);
        node.pass_ms(wait_ms);
    }
    panic!("the sink is not open: {:?}", node.forwarder.last_error());
}

/// A node that has forwarded clicks 1 and 2 and has its first minute final, started again while
/// its sink is away.
fn restarted(dir: &std::path::Path, first: &mut Vec<BucketKey>) -> Node<AwaySink> {
    let mut node = Node::start(dir, 1, |_| MemorySink::default());
    node.write(0, &[1, 2]);
    node.flush();
    // The rest of the node goes, and with it the lock of its folder.
    let mut inner = { node }.forwarder.into_sink();
    inner.checkpoint.final_before = Minute(START.minute().0 + 1);
    first.extend(inner.buckets().into_keys());
    let mut node = Node::start(dir, 1, |_| AwaySink { refusals: 4, inner });
    node.pass_ms(60_000);
    node
}

/// The minutes of buckets that were sent after the first flush.
fn minutes_sent_again(node: &Node<AwaySink>) -> Vec<u32> {
    let batches = node.forwarder.sink().inner.committed.values().skip(1);
    batches.flat_map(|(batch, _)| batch.buckets.iter().map(|bucket| bucket.key.minute.get())).collect()
}

#[test]
fn a_sink_that_is_away_at_the_start_is_asked_again_and_gets_every_click_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 2, |_| AwaySink { refusals: 4, inner: MemorySink::default() });
    node.write(0, &[1, 2]);
    node.write(1, &[51]);
    node.forwarder.poll(node.now);
    let told = node.stats.last_error.get().unwrap();
    assert!(told.contains("no broker") && !node.forwarder.is_finished(), "{told}");
    open(&mut node);
    assert_eq!((node.stats.last_error.get(), node.forwarder.last_error()), (None, None));
    node.flush();
    node.forwarder.sink().inner.check(vec![1, 2, 51]);
}

#[test]
fn a_sink_that_was_away_has_no_final_minute_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = restarted(dir.path(), &mut Vec::new());
    node.write(0, &[3]);
    open(&mut node);
    node.flush();
    assert_eq!(minutes_sent_again(&node), [START.minute().0 + 1]);
    let sink = &node.forwarder.sink().inner;
    sink.check_buckets(vec![1, 2, 3]);
    assert!(sink.sketches().is_empty(), "what is final had its sketches before, as far as is known");
}

#[test]
fn the_past_of_a_start_without_its_sink_is_sent_as_far_as_it_is_not_final() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Vec::new();
    let mut node = restarted(dir.path(), &mut first);
    let open_minute = BucketKey { minute: (START.minute().0 + 1).into(), ..first[0] };
    let (sender, counted) = sync_channel(1);
    node.forwarder.await_past(Past { counted });
    // Less than the sink has of the final minute: the journal has dropped rows of it.
    let totals = BucketTotals { accepted: 1.into(), ..BucketTotals::default() };
    let totals_of = vec![(first[0], totals), (open_minute, totals)];
    sender.send(Counted { totals: totals_of, ..Counted::default() }).unwrap();
    // A flush that is asked for while the sink is away must not take the past and lose it.
    node.forwarder.begin_flush(node.now);
    open(&mut node);
    node.flush();
    assert_eq!(minutes_sent_again(&node), [START.minute().0 + 1]);
    assert_eq!(node.forwarder.sink().inner.buckets()[&open_minute], totals);
}

#[test]
fn nothing_is_sent_when_the_past_could_not_be_counted_and_the_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, |_| MemorySink::default());
    let (sender, counted) = sync_channel(1);
    node.forwarder.await_past(Past { counted });
    drop(sender);
    node.write(0, &[1]);
    for _ in 0..20 {
        let wait_ms = node.forwarder.poll(node.now);
        node.workers[0].turn();
        node.pass_ms(wait_ms);
    }
    assert!(node.forwarder.sink().offered.is_empty() && !node.forwarder.is_finished());
    let told = node.stats.last_error.get().unwrap();
    assert!(told.contains("restart the node"), "{told}");
}

//! Samples of malformed input on their way to a sink, and segments that stay until they are
//! forwarded.

mod forward_fixture;
mod journal_fixture;

use std::fs;
use std::net::SocketAddr;

use forward_fixture::{Fault, MemorySink, Node, flush_config, store, store_path};
use weir::forward::embedded::Store;
use weir::forward::{Checkpoint, ForwarderConfig, Sink};
use weir::rejects::{Gate, Input, Sampler, samplers};
use weir_common::id::{Epoch, Incarnation};
use weir_common::reason::Reason;
use weir_common::time::{Minute, UnixMs};

/// Samples the store keeps.
const KEPT_MAX: u64 = 10_000;
/// Samples one worker can have waiting.
const WAITING_MAX: u64 = 64;

fn sampling<S: Sink>(node: &mut Node<S>) -> Sampler {
    let (mut samplers, samples) = samplers(1, 1000, Epoch(1), &Gate::default());
    node.forwarder.take_samples(samples);
    samplers.remove(0)
}

fn offer(sampler: &mut Sampler, bytes: &[u8]) -> bool {
    offer_at(sampler, 0, bytes)
}

fn offer_at(sampler: &mut Sampler, second: u64, bytes: &[u8]) -> bool {
    let from = SocketAddr::from(([198, 51, 100, 7], 9));
    let at = (UnixMs(5), second * 1_000_000_000);
    sampler.offer(at, Reason::BadMagic, Input::Datagram, from, [bytes, &[]], false)
}

#[test]
fn samples_go_with_the_flush_and_a_batch_that_is_sent_again_has_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, |_| MemorySink::default());
    let mut sampler = sampling(&mut node);
    assert!(offer(&mut sampler, b"one") && offer(&mut sampler, b"two"));
    node.write(0, &[1]);
    node.forwarder.sink().faults.borrow_mut().extend([Fault::LoseAnswer, Fault::Refuse]);
    node.flush();
    assert!(offer(&mut sampler, b"three"));
    node.write(0, &[2]);
    node.flush();
    let sink = node.forwarder.sink();
    let offered: Vec<Vec<&[u8]>> = sink
        .offered
        .iter()
        .map(|(batch, _)| batch.rejects.iter().map(|reject| &reject.bytes[..]).collect())
        .collect();
    let first: Vec<&[u8]> = vec![b"one", b"two"];
    assert_eq!(offered, [first.clone(), first.clone(), first, vec![b"three"]]);
    sink.check(vec![1, 2]);
}

#[test]
fn the_store_has_the_exact_bytes_and_the_oldest_samples_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), 1, store(dir.path()));
    let mut sampler = sampling(&mut node);
    let mut next = 0_u64;
    while next <= KEPT_MAX {
        for _ in 0..WAITING_MAX {
            assert!(offer_at(&mut sampler, next, &next.to_be_bytes()));
            next += 1;
        }
        node.write(0, &[next]);
        node.flush();
    }
    drop(node);
    let store = Store::open(&store_path(dir.path()), Incarnation(0)).unwrap();
    let kept: Vec<_> = store.rejects().map(|found| found.unwrap().1).collect();
    let numbers: Vec<_> = kept.iter().map(|reject| reject.number).collect();
    assert_eq!(numbers, (next - KEPT_MAX..next).collect::<Vec<_>>());
    assert!(kept.iter().all(|reject| reject.bytes == reject.number.to_be_bytes()));
    assert_eq!(
        (kept[0].reason, kept[0].source.to_string()),
        (Reason::BadMagic, "198.51.100.0/24".to_owned())
    );
}

#[test]
fn no_segment_goes_before_the_sink_has_committed_it() {
    // That its minutes are final there, and its clicks too old for dedupe, is not enough.
    let final_before = Minute(u32::MAX);
    let checkpoint = Checkpoint { final_before, ..Checkpoint::default() };
    let dir = tempfile::tempdir().unwrap();
    let config = ForwarderConfig { horizon_ms: 30 * 60_000, ..flush_config() };
    let mut node =
        Node::try_start(dir.path(), 1, config, |_| MemorySink { checkpoint, ..MemorySink::default() })
            .unwrap();
    let segments = || fs::read_dir(dir.path().join("journal")).unwrap().count();
    let mut before = segments();
    for round in 1..60 {
        // The sink is away: whatever is offered is refused, for two hours.
        for write in 0..4 {
            let first = 36 * round + 9 * write;
            node.write(0, &(first..first + 9).collect::<Vec<_>>());
        }
        node.pass_ms(120_000);
        node.forwarder.sink().faults.borrow_mut().resize(10, Fault::Refuse);
        node.forwarder.begin_flush(node.now);
        for _ in 0..5 {
            node.workers[0].turn();
            let wait_ms = node.forwarder.poll(node.now);
            node.pass_ms(wait_ms);
        }
        assert!(segments() >= before, "round {round}: a segment is gone that was not forwarded");
        before = segments();
    }
    assert!(before >= 6, "the test wants many segments, and has {before}");
    node.forwarder.sink().faults.borrow_mut().clear();
    node.flush();
    node.pass_ms(2 * 3_600_000);
    node.write(0, &[100_000]);
    node.flush();
    node.pass_ms(60_000);
    node.forwarder.poll(node.now);
    assert!(segments() <= before / 2, "{} of {before} segments are left", segments());
    assert_eq!(node.forwarder.sink().rows().len(), 2160 - 36 + 1, "all of it is at the sink");
}

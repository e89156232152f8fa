//! Whatever may happen to a node, in whatever order.

use proptest::prelude::*;

use super::Node;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write { worker: usize, clicks: u64, durable: bool },
    Turn(usize),
    Poll,
    Pass(u64),
    Fail(bool),
    Restart(u16),
}

/// Any of them.
pub(crate) fn step() -> impl Strategy<Value = Step> {
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
pub(crate) fn run<S: weir::forward::Sink>(
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
                    worker.submit(running.now.wall, &(next..next + count).collect::<Vec<_>>());
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

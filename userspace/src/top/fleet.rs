//! What is known of each node after each look. Pure.

use std::time::Duration;

use super::look::Seen;
use super::model::{Model, Node};

/// The nodes, in the order they were seen first.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    /// What is to be shown of each.
    pub(super) nodes: Vec<Node>,
    /// When each answered last.
    answered_ms: Vec<u64>,
}

impl Fleet {
    /// Takes note of a look. Of a node that did not answer the last picture stays, beside its trouble.
    pub(super) fn see(&mut self, look: Vec<Seen>) {
        for seen in look {
            let index = self.index_of(&seen.node);
            let node = &mut self.nodes[index];
            node.trouble = seen.trouble;
            let Some(status) = seen.status else { continue };
            let apart = Duration::from_millis(seen.at_ms.saturating_sub(self.answered_ms[index]));
            node.model = Some(match node.model.take() {
                Some(before) => Model::new(&before.status, status, apart),
                None => Model::new(&status.clone(), status, Duration::ZERO),
            });
            self.answered_ms[index] = seen.at_ms;
        }
    }

    fn index_of(&mut self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| {
            self.nodes.push(Node { name: name.to_owned(), model: None, trouble: None });
            self.answered_ms.push(0);
            self.nodes.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Status;

    fn seen(at_ms: u64, received: Option<u64>) -> Seen {
        let status = received.map(|received| {
            let mut status = Status::default();
            status.clicks.received = received;
            status
        });
        let trouble = received.is_none().then(|| "gone".to_owned());
        Seen { at_ms, node: "a".to_owned(), status, trouble }
    }

    #[test]
    fn rates_are_over_the_time_since_a_node_answered_last() {
        let mut fleet = Fleet::default();
        for (at_ms, received) in [(0, Some(100)), (1_000, None), (2_000, Some(300))] {
            fleet.see(vec![seen(at_ms, received)]);
        }
        let [node] = &fleet.nodes[..] else { panic!("one node") };
        let rate = node.model.as_ref().unwrap().received_per_s;
        assert!((rate - 100.0).abs() < 1e-9 && node.trouble.is_none(), "{rate}");
    }

    #[test]
    fn of_a_node_that_is_gone_the_last_picture_stays() {
        let mut fleet = Fleet::default();
        fleet.see(vec![seen(0, Some(100))]);
        fleet.see(vec![seen(1_000, None)]);
        let node = &fleet.nodes[0];
        assert_eq!(
            (node.model.as_ref().unwrap().status.clicks.received, node.trouble.as_deref()),
            (100, Some("gone"))
        );
    }
}

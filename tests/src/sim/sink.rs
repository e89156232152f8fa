//! A sink in memory: what is committed is there for good, and only the answer may be lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use weir::forward::{Batch, BatchBlocks, Checkpoint, Sink, SinkError};

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    #[default]
    Commit,
    /// Nothing is committed.
    Refuse,
    /// It is committed, and nobody hears of it.
    LoseAnswer,
    /// The node dies before it.
    DieBefore,
    /// The node dies after it.
    DieAfter,
}

/// A batch as the sink has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The batch.
    pub batch: Batch,
    /// Its blocks.
    pub blocks: Vec<Vec<u8>>,
}

/// What the sink holds; it outlives the node.
#[derive(Debug, Default)]
pub struct Store {
    checkpoint: Checkpoint,
    batches: BTreeMap<(u64, u32), Committed>,
    /// Batches that the oracle has not seen.
    pub fresh: Vec<Committed>,
    /// What becomes of the next commits.
    pub fate: Fate,
    /// The node died in a commit.
    pub has_died: bool,
    /// Something no forwarder may do.
    pub offence: Option<String>,
}

/// The node's end of it.
#[derive(Clone, Debug)]
pub struct SimulatedSink(pub Rc<RefCell<Store>>);

impl Sink for SimulatedSink {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        Ok(self.0.borrow().checkpoint.clone())
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        let mut read = Vec::new();
        while let Some(block) = blocks.next_block()? {
            read.push(block.to_vec());
        }
        let store = &mut *self.0.borrow_mut();
        match std::mem::take(&mut store.fate) {
            Fate::Commit => store.take(batch, read),
            Fate::Refuse => return Err(SinkError::Retry("refused".to_owned())),
            Fate::LoseAnswer => {
                store.take(batch, read);
                return Err(SinkError::Retry("no answer".to_owned()));
            }
            Fate::DieBefore => store.has_died = true,
            Fate::DieAfter => {
                store.take(batch, read);
                store.has_died = true;
            }
        }
        if store.has_died {
            return Err(SinkError::Fatal("the node died".to_owned()));
        }
        Ok(())
    }
}

impl Store {
    /// Blocks the sink has of a stream.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn take(&mut self, batch: &Batch, blocks: Vec<Vec<u8>>) {
        let committed = Committed { batch: batch.clone(), blocks };
        let key = (batch.flush.0, batch.part);
        if let Some(earlier) = self.batches.get(&key) {
            if *earlier != committed {
                self.offence = Some(format!("batch {key:?} came again with other content"));
            }
            return;
        }
        if self.batches.last_key_value().is_some_and(|(&last, _)| last > key) {
            self.offence = Some(format!("batch {key:?} came after a later one"));
        }
        self.checkpoint = batch.checkpoint.clone();
        self.fresh.push(committed.clone());
        self.batches.insert(key, committed);
    }
}

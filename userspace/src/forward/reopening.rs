//! A sink that is opened again after it failed for good, so that a full or failing disk needs no
//! restart of the node once it is mended.
//!
//! A database that met an error while it wrote cannot know what of it is on the disk and takes
//! nothing more. The batch it was given is not lost: the forwarder offers it again, byte for byte,
//! and the journal has its blocks.

use super::batch::{Batch, BatchBlocks, Checkpoint};
use super::sink::{Sink, SinkError};

/// Opens the sink anew. Called with nothing of the old one left.
type Open<S> = Box<dyn FnMut() -> Result<S, SinkError> + Send>;

/// A sink, and how to open it.
pub struct Reopening<S> {
    sink: Option<S>,
    open: Open<S>,
}

impl<S: Sink> Reopening<S> {
    /// A sink that is open, and how to open it again.
    #[must_use]
    pub fn new(sink: S, open: Open<S>) -> Self {
        Self { sink: Some(sink), open }
    }

    fn sink(&mut self) -> Result<&mut S, SinkError> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => {
                let sink = (self.open)().map_err(|error| SinkError::Retry(error.to_string()))?;
                tracing::info!("the sink is open again");
                sink
            }
        };
        Ok(self.sink.insert(sink))
    }

    /// Closes the sink after an error that it cannot go on from; the next call opens it.
    fn close_if_fatal<T>(&mut self, result: Result<T, SinkError>) -> Result<T, SinkError> {
        let Err(SinkError::Fatal(why)) = result else { return result };
        tracing::warn!(%why, "the sink is closed, to be opened again");
        self.sink = None;
        Err(SinkError::Retry(why))
    }
}

impl<S: Sink> Sink for Reopening<S> {
    fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
        let result = self.sink()?.checkpoint();
        self.close_if_fatal(result)
    }

    fn commit(&mut self, batch: &Batch, blocks: &mut BatchBlocks) -> Result<(), SinkError> {
        let result = self.sink()?.commit(batch, blocks);
        self.close_if_fatal(result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Fails for good at its first question, if it is told to.
    struct Fragile {
        is_broken: bool,
        alive: Arc<AtomicU32>,
    }

    impl Fragile {
        fn new(is_broken: bool, alive: &Arc<AtomicU32>) -> Self {
            alive.fetch_add(1, Ordering::Relaxed);
            Self { is_broken, alive: Arc::clone(alive) }
        }
    }

    impl Drop for Fragile {
        fn drop(&mut self) {
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Sink for Fragile {
        fn checkpoint(&mut self) -> Result<Checkpoint, SinkError> {
            if self.is_broken {
                Err(SinkError::Fatal("broken".to_owned()))
            } else {
                Ok(Checkpoint::default())
            }
        }

        fn commit(&mut self, _: &Batch, _: &mut BatchBlocks) -> Result<(), SinkError> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_failed_for_good_is_closed_and_opened_again_until_it_works() {
        let alive = Arc::new(AtomicU32::new(0));
        let mut attempts = 0;
        let opened = Arc::clone(&alive);
        let open = move || {
            assert_eq!(opened.load(Ordering::Relaxed), 0, "the old one is gone before");
            attempts += 1;
            match attempts {
                1 => Err(SinkError::Fatal("the disk is full".to_owned())),
                _ => Ok(Fragile::new(attempts == 2, &opened)),
            }
        };
        let mut sink = Reopening::new(Fragile::new(true, &alive), Box::new(open));
        // Broken, not to be opened, broken again, sound: all but the last are to be tried again.
        for expected in ["broken", "the disk is full", "broken"] {
            let error = sink.checkpoint().unwrap_err();
            assert!(matches!(&error, SinkError::Retry(why) if why.contains(expected)), "{error}");
        }
        assert_eq!(sink.checkpoint().unwrap(), Checkpoint::default());
        assert_eq!(alive.load(Ordering::Relaxed), 1);
    }
}

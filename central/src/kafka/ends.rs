//! Where the partitions end, open transactions included: asked on a thread of its own, for an answer
//! takes a request a partition.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::position::Heard;
use super::{ClusterSettings, KafkaError, REQUEST_TIMEOUT};
use crate::watermark::{Offsets, Partition};

/// Asks where partitions end.
#[derive(Debug)]
pub struct Ends {
    ask: SyncSender<Vec<Partition>>,
    answers: Receiver<Option<Offsets>>,
}

impl Ends {
    /// Of these topics.
    ///
    /// # Errors
    /// When the settings make no client.
    pub fn of(settings: &ClusterSettings, topics: &[String]) -> Result<Self, KafkaError> {
        let consumer = settings.consumer("read_uncommitted", Heard::default())?;
        let topics = topics.to_vec();
        // One question at a time.
        let (ask, asked) = sync_channel::<Vec<Partition>>(1);
        let (answer, answers) = sync_channel(1);
        let body = move || {
            for partitions in asked {
                if answer.send(ends(&consumer, &topics, &partitions)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("ends".to_owned()).spawn(body);
        thread.map_err(|error| KafkaError::Settings(error.to_string()))?;
        Ok(Self { ask, answers })
    }

    /// Asks for the ends of these partitions. One question at a time: the next after its answer.
    pub fn ask(&self, partitions: impl Iterator<Item = Partition>) {
        let _ = self.ask.try_send(partitions.collect()); // room for one, so it is taken
    }

    /// The answer, once it is there: ends that were asked for after [`Self::ask`], or none when a
    /// partition does not say where it ends.
    #[must_use]
    pub fn answer(&self) -> Option<Option<Offsets>> {
        self.answers.try_recv().ok()
    }
}

fn ends(consumer: &BaseConsumer<Heard>, topics: &[String], partitions: &[Partition]) -> Option<Offsets> {
    let mut ends = Offsets::new();
    for &(topic, partition) in partitions {
        match consumer.fetch_watermarks(&topics[topic], partition, REQUEST_TIMEOUT) {
            Ok((_, high)) => _ = ends.insert((topic, partition), high),
            Err(error) => {
                tracing::debug!(%error, topic = topics[topic], partition, "no end");
                return None;
            }
        }
    }
    Some(ends)
}

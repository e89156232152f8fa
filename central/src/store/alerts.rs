//! Alerts, and what a webhook has to be told of them, as they are kept. The watching thread writes
//! both in one durable write; so what was found is told, whatever dies.

use fjall::{PersistMode, Readable};
use weir_common::time::Minute;

use super::view::View;
use super::{Store, StoreError};
use crate::alert::outbox::Message;
use crate::alert::series::{Alert, Happened};

/// Messages that wait, at the most: a webhook that is away in a storm. What is beyond stays an alert.
const MESSAGES_MAX: usize = 10_000;
/// Where it stands until which minute windows were judged.
const SETTLED: &[u8] = b"settled";

fn damaged(_: serde_json::Error) -> StoreError {
    StoreError::Damaged("alerts")
}

/// First minute, then campaign: the order in which they happened.
fn key(alert: &Alert) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&alert.first_minute.to_be_bytes());
    bytes[4..].copy_from_slice(&alert.campaign_id.to_be_bytes());
    bytes
}

impl Store {
    /// Keeps what happened to alerts, the messages about it, and until where windows are judged; durably, all
    /// or nothing. How many messages found no room.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn note_alerts(
        &self,
        happened: &[(Happened, Alert)],
        messages: &[Message],
        settled: Minute,
    ) -> Result<usize, StoreError> {
        let mut batch = self.db.batch();
        for (_, alert) in happened {
            batch.insert(&self.spaces.alerts, key(alert), serde_json::to_vec(alert).map_err(damaged)?);
        }
        let waiting = self.spaces.messages.iter().take(MESSAGES_MAX).count();
        let room = MESSAGES_MAX - waiting;
        for message in messages.iter().take(room) {
            let value = serde_json::to_vec(message).map_err(damaged)?;
            batch.insert(&self.spaces.messages, message.id.as_bytes(), value);
        }
        batch.insert(&self.spaces.alert_marks, SETTLED, settled.0.to_be_bytes());
        batch.commit()?;
        if !happened.is_empty() {
            self.db.persist(PersistMode::SyncAll)?;
        }
        Ok(messages.len().saturating_sub(room))
    }

    /// Until which minute windows were judged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn alerts_settled(&self) -> Result<Option<Minute>, StoreError> {
        let Some(value) = self.spaces.alert_marks.get(SETTLED)? else { return Ok(None) };
        let octets = value.as_ref().try_into().map_err(|_| StoreError::Damaged("alert_marks"))?;
        Ok(Some(Minute(u32::from_be_bytes(octets))))
    }

    /// Removes alerts that began before this minute.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn prune_alerts(&self, before: Minute) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        for entry in self.spaces.alerts.range(..before.0.to_be_bytes().to_vec()) {
            batch.remove(&self.spaces.alerts, entry.key()?);
        }
        Ok(batch.commit()?)
    }

    /// The messages that wait, in no order that means anything.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn messages(&self) -> Result<Vec<Message>, StoreError> {
        let read = |entry: fjall::Guard| serde_json::from_slice(&entry.value()?).map_err(damaged);
        self.spaces.messages.iter().map(read).collect()
    }

    /// Keeps how often a message was tried.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_message(&self, message: &Message) -> Result<(), StoreError> {
        let value = serde_json::to_vec(message).map_err(damaged)?;
        Ok(self.spaces.messages.insert(message.id.as_bytes(), value)?)
    }

    /// Forgets a message that has arrived, or is given up.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove_message(&self, message: &Message) -> Result<(), StoreError> {
        Ok(self.spaces.messages.remove(message.id.as_bytes())?)
    }
}

impl View {
    /// Alerts, the last that was opened first.
    pub fn alerts(&self) -> impl Iterator<Item = Result<Alert, StoreError>> + '_ {
        let entries = self.snapshot.iter(&self.spaces.alerts).rev();
        entries.map(|entry| serde_json::from_slice(&entry.value()?).map_err(damaged))
    }
}

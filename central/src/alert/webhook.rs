//! Sends messages to a webhook, as Standard Webhooks (<https://www.standardwebhooks.com>, v1) has it: each with an
//! id that stays the same, a time, and a signature over both and the body.

use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use ring::hmac;
use weir_common::time::UnixMs;

use super::outbox::Message;

/// How long the receiver may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The octets of a secret.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a webhook cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum WebhookError {
    /// the secret {path} cannot be read: {source}
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// {0} has no secret: `whsec_` and 24 to 64 octets in base64; `echo whsec_$(openssl rand -base64 32)` makes one
    Secret(PathBuf),
    /// no client for the webhook can be made: {0}
    Client(reqwest::Error),
}

/// Where messages go.
pub struct Webhook {
    url: String,
    secret: hmac::Key,
    client: reqwest::Client,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    /// One with the secret in this file.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(url: &str, file: &Path) -> Result<Self, WebhookError> {
        let read = |source| WebhookError::Read { path: file.to_owned(), source };
        let text = std::fs::read_to_string(file).map_err(read)?;
        let secret = text.trim().strip_prefix("whsec_").and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let secret = secret.filter(|secret| SECRET_LEN.contains(&secret.len()));
        let secret = secret.ok_or_else(|| WebhookError::Secret(file.to_owned()))?;
        // Whoever answers with another address is not who was named.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(ANSWERED_WITHIN).build().map_err(WebhookError::Client)?;
        Ok(Self { url: url.to_owned(), secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), client })
    }

    /// The signature of a message that is sent now.
    fn signature(&self, message: &Message, now_s: u64) -> String {
        let signed = format!("{}.{now_s}.{}", message.id, message.body);
        format!("v1,{}", BASE64.encode(hmac::sign(&self.secret, signed.as_bytes()).as_ref()))
    }

    /// Sends a message; it has arrived when the receiver says so with a status of success.
    ///
    /// # Errors
    /// When it does not; in words.
    pub async fn send(&self, message: &Message, now: UnixMs) -> Result<(), String> {
        let now_s = now.0 / 1000;
        let request = self.client.post(&self.url).body(message.body.clone());
        let request = request
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now_s)
            .header("webhook-signature", self.signature(message, now_s));
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Webhook, WebhookError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Webhook::open("http://127.0.0.1/", file.path())
    }

    #[test]
    fn a_signature_is_that_of_the_standards_own_example() {
        let webhook = open("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: r#"{"test": 2432232314}"#.to_owned(),
            made_at_ms: 0,
            tries: 0,
            due_at_ms: 0,
        };
        assert_eq!(
            webhook.signature(&message, 1_614_265_330),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_%"] {
            assert!(matches!(open(text), Err(WebhookError::Secret(_))), "{text}");
        }
    }
}

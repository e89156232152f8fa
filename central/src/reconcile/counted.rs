//! What the running central tier says was counted: asked over its own port, for one process at a time
//! can have the store open.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weir_common::bucket::BucketTotals;
use weir_common::time::Minute;

use crate::serve::minutes::{MINUTES_MAX, read};

/// Why it does not say.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum CountedError {
    /// weir-central at {address} does not answer: {why}; it has to run, for it has the store
    Away {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// weir-central at {address} answers {status}: {body}
    Refused {
        /// Where.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
        /// What it says.
        body: String,
    },
}

/// The totals of every ad in these minutes.
///
/// # Errors
/// When they are not told.
pub async fn counted(
    address: SocketAddr,
    key: Option<&str>,
    minutes: std::ops::Range<Minute>,
) -> Result<BTreeMap<(u64, Minute), BucketTotals>, CountedError> {
    let mut found = BTreeMap::new();
    let mut start = minutes.start;
    while start < minutes.end {
        let end = Minute((start.0 + MINUTES_MAX).min(minutes.end.0));
        let seconds = |minute: Minute| u64::from(minute.0) * 60;
        let path = format!("/v1/minutes?start={}&end={}", seconds(start), seconds(end));
        let octets = ask(address, key, &path).await?;
        let entries = read(&octets).ok_or_else(|| away(address, &"half an entry"))?;
        found.extend(entries);
        start = end;
    }
    Ok(found)
}

fn away(address: SocketAddr, why: &dyn std::fmt::Display) -> CountedError {
    CountedError::Away { address, why: why.to_string() }
}

/// The answer to one question, as octets.
///
/// # Errors
/// When there is none.
pub async fn ask(address: SocketAddr, key: Option<&str>, path: &str) -> Result<Vec<u8>, CountedError> {
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| away(address, &error))?;
    let mut request = client.get(format!("http://{address}{path}"));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let answer = request.send().await.map_err(|error| away(address, &error))?;
    let status = answer.status();
    let octets = answer.bytes().await.map_err(|error| away(address, &error))?;
    if !status.is_success() {
        let body = String::from_utf8_lossy(&octets).into_owned();
        return Err(CountedError::Refused { address, status: status.as_u16(), body });
    }
    Ok(octets.to_vec())
}

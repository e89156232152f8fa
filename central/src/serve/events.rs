//! What changed, as it changes: an answer that is sent again whenever the store was written to, at most
//! once a second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::cache::Question;
use super::query::{Format, Stats, StatsParameters};
use super::{Refused, Served, Shared, now};
use crate::merger::Seen;

/// How often an answer is sent at the most: as often as a kept one changes.
const EVERY: Duration = Duration::from_secs(1);

/// One who listens.
struct Listener {
    served: Arc<Served>,
    seen: watch::Receiver<Seen>,
    parameters: StatsParameters,
    is_first: bool,
    /// Given back when nobody listens any more.
    _permit: OwnedSemaphorePermit,
}

/// `GET /v1/stats/stream`: an event `stats` with the answer to the same question, again and again.
pub(super) async fn stream(
    State(served): Shared,
    headers: HeaderMap,
    parameters: Result<Query<StatsParameters>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let Query(parameters) = parameters?;
    // What is no question is said now, and not by a stream that ends.
    Format::read_of_stream(parameters.format.as_deref())?;
    let asked = Stats::read(&parameters, now().minute())?;
    served.can_answer(&Question::Stats(asked))?;
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let permit = served.access.admit_stream(authorization).map_err(Refused::Denied)?;
    let seen = served.seen.clone();
    let listener = Listener { served, seen, parameters, is_first: true, _permit: permit };
    let events = stream::unfold(listener, |mut listener| async {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Listener {
    /// The next event; none when there is nothing more to come.
    async fn next(&mut self) -> Option<Event> {
        if !self.is_first {
            tokio::time::sleep(EVERY).await;
            // The merging thread is gone when this fails.
            self.seen.changed().await.ok()?;
        }
        self.is_first = false;
        // Asked anew each time: without an end, the last window is the open one.
        let asked = Stats::read(&self.parameters, now().minute()).ok()?;
        let body = self.served.answer(Question::Stats(asked), Format::Json).await.ok()?;
        Some(Event::default().event("stats").data(String::from_utf8_lossy(&body)))
    }
}

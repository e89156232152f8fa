//! `GET /v1/alerts`: campaigns that are or were out of the ordinary.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::query::{Format, QueryError, number, wrong};
use super::{Refused, Shared, respond, write};
use crate::alert::outbox::Written;
use crate::alert::series::Alert;
use crate::store::{StoreError, View};

/// Alerts of an answer without a `limit`, and the most.
const LIMITS: (u32, u32) = (100, 1000);
/// Alerts that are looked at for those that are open: some months of a busy installation.
const LOOKED_AT_MAX: usize = 100_000;

/// The parameters as they came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    state: Option<String>,
    limit: Option<String>,
}

fn is_open_only(state: Option<&str>) -> Result<bool, QueryError> {
    match state {
        None | Some("all") => Ok(false),
        Some("open") => Ok(true),
        Some(value) => Err(wrong("state", value, "open or all")),
    }
}

/// The alerts, the last that was opened first.
pub(super) async fn alerts(
    State(served): Shared,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(parameters) = parameters?;
    let limit = number("limit", parameters.limit.as_deref(), LIMITS, "a number from 1 to 1000")?;
    let is_open_only = is_open_only(parameters.state.as_deref())?;
    let work = move || {
        let found = list(&served.store.view(), is_open_only, limit as usize)?;
        let written: Vec<_> = found.iter().map(Written::of).collect();
        let answer = serde_json::json!({ "watching": served.has_alerts, "alerts": written });
        Ok::<_, StoreError>(write::json(&answer))
    };
    let listed = tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Lost)?;
    Ok(respond(&listed.map_err(Refused::store)?, Format::Json))
}

fn list(view: &View, is_open_only: bool, limit: usize) -> Result<Vec<Alert>, StoreError> {
    let mut found = Vec::new();
    for alert in view.alerts().take(LOOKED_AT_MAX) {
        let alert = alert?;
        if !is_open_only || alert.closed_minute.is_none() {
            found.push(alert);
        }
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

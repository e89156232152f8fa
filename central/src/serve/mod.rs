//! Questions and answers over HTTP. `docs/central.md` lays the interface down, `openapi.json` for programs.
//!
//! An answer is worked out on a thread that may wait for the disk, from a view of the store that no
//! write changes; kept answers are given without either.

pub mod access;
mod alerts;
pub mod answer;
pub mod cache;
mod clicks;
mod events;
mod metrics;
pub mod minutes;
pub mod query;
pub mod windows;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::archive::contents::Catalog;
use crate::clock::now;
use crate::merger::{self, Seen};
use crate::store::{Store, StoreError};
use crate::{alert, archive, clickhouse};
use access::{Access, Denied};
use answer::AnswerError;
use cache::{Answers, Body, Holds, Key, Question};
use clicks::ClicksError;
use query::{Format, MinutesParameters, QueryError, Stats, StatsParameters, Top, TopParameters};

/// What every question is answered from.
#[derive(Debug)]
pub struct Served {
    /// What is merged.
    pub store: Store,
    /// How far the merging thread is.
    pub seen: watch::Receiver<Seen>,
    /// What every thread has counted.
    pub counted: Counted,
    /// The archive, if there is one: it teaches campaigns, and has the single clicks.
    pub archive: Option<Catalog>,
    /// Whether campaigns are watched.
    pub has_alerts: bool,
    /// Kept answers.
    pub answers: Answers,
    /// Who may ask.
    pub access: Access,
}

/// What the threads of the tier count, each its own. A copy is of the same counters.
#[derive(Debug, Default, Clone)]
pub struct Counted {
    /// What merges.
    pub merged: Arc<merger::Counters>,
    /// What archives.
    pub archived: Arc<archive::Counters>,
    /// What watches campaigns.
    pub alerted: Arc<alert::Counters>,
    /// What inserts into ClickHouse.
    pub inserted: Arc<clickhouse::Counters>,
}

type Shared = State<Arc<Served>>;

/// Why a request has no answer.
#[derive(Debug)]
enum Refused {
    Query(QueryError),
    Parameters(String),
    Answer(Arc<AnswerError>),
    Denied(Denied),
    Clicks(ClicksError),
    /// The thread that worked at the answer is gone.
    Lost,
    /// Nobody learns which ads a campaign has.
    NoCampaigns,
    /// There are no archived clicks.
    NoArchive,
    NoRoute,
    NoMethod,
}

impl Refused {
    fn store(error: StoreError) -> Self {
        Self::Answer(Arc::new(error.into()))
    }
}

impl From<QueryError> for Refused {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::Parameters(rejection.body_text())
    }
}

impl IntoResponse for Refused {
    /// Problem details, as RFC 9457 has them.
    fn into_response(self) -> Response {
        let (status, detail) = match &self {
            Self::Query(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Parameters(why) => (StatusCode::BAD_REQUEST, why.clone()),
            Self::Answer(error) => match **error {
                AnswerError::TooWide => (StatusCode::BAD_REQUEST, error.to_string()),
                AnswerError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            Self::Clicks(error) => match error {
                ClicksError::Query(_) | ClicksError::TooWide { .. } => {
                    (StatusCode::BAD_REQUEST, error.to_string())
                }
                ClicksError::Deleted { .. } => (StatusCode::GONE, error.to_string()),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            Self::Denied(Denied::Unknown) => {
                (StatusCode::UNAUTHORIZED, "a key is needed: Authorization: Bearer KEY".to_owned())
            }
            Self::Denied(Denied::NoAudit) => {
                let why = "single clicks are told only to a key that has `audit = true` in the config";
                (StatusCode::FORBIDDEN, why.to_owned())
            }
            Self::Denied(Denied::TooMany { retry_after_s }) => {
                let why = format!("too many requests or streams with this key; again in {retry_after_s} s");
                (StatusCode::TOO_MANY_REQUESTS, why)
            }
            Self::Lost => {
                let why = "the answer was not worked out; this is a defect";
                (StatusCode::INTERNAL_SERVER_ERROR, why.to_owned())
            }
            Self::NoCampaigns => {
                let why =
                    "campaigns are learned from raw batches, and this tier has no [archive] that reads them";
                (StatusCode::NOT_FOUND, why.to_owned())
            }
            Self::NoArchive => {
                let why = "single clicks are in the archive, and this tier has no [archive]";
                (StatusCode::NOT_FOUND, why.to_owned())
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, "see /openapi.json for what there is".to_owned()),
            Self::NoMethod => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered".to_owned()),
        };
        let title = status.canonical_reason().unwrap_or_default();
        let problem = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (status, [kind], problem.to_string()).into_response();
        let extra = match self {
            Self::Denied(Denied::Unknown) => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            Self::Denied(Denied::TooMany { retry_after_s }) => {
                Some((header::RETRY_AFTER, HeaderValue::from(retry_after_s)))
            }
            _ => None,
        };
        response.headers_mut().extend(extra);
        response
    }
}

impl Served {
    const fn can_answer(&self, question: &Question) -> Result<(), Refused> {
        if question.is_of_campaigns() && self.archive.is_none() { Err(Refused::NoCampaigns) } else { Ok(()) }
    }

    /// The answer to a question, kept or new.
    async fn answer(self: &Arc<Self>, question: Question, format: Format) -> Result<Body, Refused> {
        self.can_answer(&question)?;
        let seen = self.seen.borrow().clone();
        let is_final = seen.progress.final_before().is_some_and(|minute| question.end() <= minute);
        let is_final = is_final && !question.is_of_campaigns();
        let holds = if is_final { Holds::Rewrites(seen.rewrites) } else { Holds::Second(now().0 / 1000) };
        let key = Key { question: question.clone(), format, holds };
        let work = async {
            let served = Arc::clone(self);
            let work = move || served.work_out(&question, format, &seen);
            tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Lost)?
        };
        self.answers.get(&key, work).await
    }

    fn work_out(&self, question: &Question, format: Format, seen: &Seen) -> Result<Body, Refused> {
        let view = self.store.view();
        let failed = |error| Refused::Answer(Arc::new(error));
        match question {
            Question::Stats(asked) => {
                let answer = answer::stats(&view, &seen.progress, asked).map_err(failed)?;
                Ok(write::stats(&answer, format))
            }
            Question::Top(asked) => {
                let answer = answer::top(&view, &seen.progress, asked).map_err(failed)?;
                Ok(write::top(&answer, format))
            }
        }
    }
}

fn respond(body: &Body, format: Format) -> Response {
    let kind = match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    (headers, HttpBody::from(body.to_vec())).into_response()
}

async fn stats(
    State(served): Shared,
    parameters: Result<Query<StatsParameters>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(parameters) = parameters?;
    let format = Format::read(parameters.format.as_deref())?;
    let asked = Stats::read(&parameters, now().minute())?;
    Ok(respond(&served.answer(Question::Stats(asked), format).await?, format))
}

async fn top(
    State(served): Shared,
    parameters: Result<Query<TopParameters>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(parameters) = parameters?;
    let format = Format::read(parameters.format.as_deref())?;
    let asked = Top::read(&parameters, now().minute())?;
    Ok(respond(&served.answer(Question::Top(asked), format).await?, format))
}

/// Every ad's totals in these minutes, for a reconciliation.
async fn minutes(
    State(served): Shared,
    parameters: Result<Query<MinutesParameters>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(parameters) = parameters?;
    let minutes = parameters.read(minutes::MINUTES_MAX)?;
    let work = move || minutes::write(&served.store.view(), minutes);
    let written = tokio::task::spawn_blocking(work).await.map_err(|_| Refused::Lost)?;
    let octets = written.map_err(Refused::store)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], octets).into_response())
}

async fn nodes(State(served): Shared) -> Response {
    let seen = served.seen.borrow().clone();
    respond(&write::nodes(&seen.progress), Format::Json)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // All of it stands in the page itself.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("page.html")).into_response()
}

/// Ready once it is known how far the nodes are.
async fn readyz(State(served): Shared) -> Response {
    if served.seen.borrow().progress.nodes.is_empty() {
        let why = "no node's checkpoint has been read yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(served): Shared) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics::text(&served)).into_response()
}

async fn admit(State(served): Shared, request: Request, next: Next) -> Result<Response, Refused> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    served.access.admit(authorization.map(HeaderValue::as_bytes)).map_err(Refused::Denied)?;
    Ok(next.run(request).await)
}

async fn admit_auditor(State(served): Shared, mut request: Request, next: Next) -> Result<Response, Refused> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let auditor = served.access.admit_auditor(authorization.map(HeaderValue::as_bytes));
    let auditor = auditor.inspect_err(|denied| {
        tracing::warn!(target: "audit", path = request.uri().path(), ?denied, "a click is not looked up");
    });
    request.extensions_mut().insert(auditor.map_err(Refused::Denied)?);
    Ok(next.run(request).await)
}

/// What a route tells, and so who may ask it.
#[derive(Clone, Copy)]
enum Tells {
    /// What advertisers' clicks are: only to who has a key, if there are any.
    Figures,
    /// What single clicks are: only to who has a key for that, whether others need one or not.
    Clicks,
    /// How to ask and whether the program is well, to everybody.
    NoFigures,
}

/// A route: its path, what it tells, and who answers.
type Route = (&'static str, Tells, fn() -> MethodRouter<Arc<Served>>);

/// All routes.
const ROUTES: [Route; 12] = [
    ("/v1/stats", Tells::Figures, || get(stats)),
    ("/v1/stats/top", Tells::Figures, || get(top)),
    ("/v1/stats/stream", Tells::Figures, || get(events::stream)),
    ("/v1/alerts", Tells::Figures, || get(alerts::alerts)),
    ("/v1/minutes", Tells::Figures, || get(minutes)),
    ("/v1/clicks/{id}", Tells::Clicks, || get(clicks::clicks)),
    ("/v1/nodes", Tells::Figures, || get(nodes)),
    ("/", Tells::NoFigures, || get(page)),
    ("/openapi.json", Tells::NoFigures, || get(openapi)),
    ("/livez", Tells::NoFigures, || get(async || "live\n")),
    ("/readyz", Tells::NoFigures, || get(readyz)),
    ("/metrics", Tells::NoFigures, || get(metrics)),
];

/// The path of each route.
pub fn paths() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(path, _, _)| *path)
}

/// All routes, and an answer in the same form to whoever takes another.
pub fn router(served: Arc<Served>) -> Router {
    let mut router = Router::new();
    for (path, tells, route) in ROUTES {
        let route = match tells {
            Tells::Figures => route().route_layer(middleware::from_fn_with_state(Arc::clone(&served), admit)),
            Tells::Clicks => {
                route().route_layer(middleware::from_fn_with_state(Arc::clone(&served), admit_auditor))
            }
            Tells::NoFigures => route(),
        };
        router = router.route(path, route);
    }
    router
        .fallback(async || Refused::NoRoute)
        .method_not_allowed_fallback(async || Refused::NoMethod)
        .with_state(served)
}

/// Answers on `listener` until `stop` is done; what is being answered then is answered to its end, but
/// for streams, which have none.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(served)).with_graceful_shutdown(stop).await
}

/// Opens the port.
///
/// # Errors
/// When it is in use.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

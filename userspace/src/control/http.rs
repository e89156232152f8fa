//! `/metrics`, `/livez`, `/readyz`, `/status`, `/config` and `/version` over HTTP/1.1.
//!
//! hyper without a framework: six paths need no router, and a router would bring more code
//! than this room has.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics::{self, Format};
use super::readiness::Readiness;
use super::status::{Sources, State, gather};

/// Scrapers at once.
const CONNECTIONS_MAX: usize = 16;
/// A connection serves one request, and a scrape takes milliseconds.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const TOML: &str = "application/toml";
const PATHS: &str = "paths: /metrics /livez /readyz /readyz?verbose /status /config /version\n";

pub(super) async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to be closed rather than spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = respond(&request, &sources);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // An error means that the scraper went away or sent no HTTP.
            let _ = timeout(CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

fn respond(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let (status, latencies) = gather(sources);
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let format = Format::accepted(accept.unwrap_or(""));
            response(StatusCode::OK, format.content_type(), metrics::render(&status, &latencies, format))
        }
        "/livez" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => {
            let readiness = Readiness::read(sources);
            let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = match readiness.fault() {
                _ if request.uri().query() == Some("verbose") => readiness.lines(),
                None => format!("ok: {}\n", State::Running.name()),
                Some(fault) => format!("not ready: {fault}\n"),
            };
            response(code, TEXT, body)
        }
        "/status" => match serde_json::to_string(&gather(sources).0) {
            Ok(status) => response(StatusCode::OK, JSON, status),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/config" => response(StatusCode::OK, TOML, sources.config.clone()),
        "/version" => response(StatusCode::OK, TEXT, concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned()),
        _ => response(StatusCode::NOT_FOUND, TEXT, PATHS.to_owned()),
    }
}

fn response(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

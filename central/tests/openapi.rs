//! The OpenAPI document against the program: its routes, its bounds, its examples, and every answer.

mod served;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, Response};
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use served::{Central, DAY, Said, faults, life, sketch};
use tower::ServiceExt;
use weir_central::archive::place::Place;
use weir_central::config::{Key, Serve};
use weir_central::record::Word;
use weir_central::serve::{minutes, paths};
use weir_common::time::Minute;

/// The document, as it is served.
async fn document() -> Value {
    Central::new(&Serve::default()).json("/openapi.json").await
}

/// What a reference of the document stands for, or the value itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(&path[1..]).unwrap_or_else(|| panic!("{path} is not there")),
        None => value,
    }
}

/// A minute with clicks and users, one that lacks sketches, and one that is open.
fn filled(config: &Serve) -> Central {
    let central = Central::new(config);
    let unsketched = Word::Unsketched { life: life(1), minute: Minute(DAY + 1), clicks: 3 };
    central.take([Said::new(7, DAY, 10).word(), Said { node: 2, ..Said::new(8, DAY + 5, 4) }.word()]);
    central.take([sketch(1, 7, DAY, 0..9), unsketched]);
    central.is_final_before(&[(1, DAY + 9), (2, DAY + 3)]);
    central.assign(3, &[7]);
    central.had_an_alert(3);
    central
}

const BEARER: &str = "Bearer kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

/// A tier with that key, which may ask so often, and for single clicks or not.
fn keyed(requests_per_s: u32, audit: bool, make: impl Fn(&Serve) -> Central) -> Central {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.key");
    std::fs::write(&file, &BEARER["Bearer ".len()..]).unwrap();
    let key = Key { name: "one".to_owned(), file, requests_per_s: Some(requests_per_s), audit };
    make(&Serve { keys: vec![key], ..Serve::default() })
}

async fn answered(central: &Central, method: Method, url: &str, key: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(url).header("authorization", key);
    central.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn status(central: &Central, url: &str) -> u16 {
    answered(central, Method::GET, url, "").await.status().as_u16()
}

/// Looks up what the document says of an answer and compares: status, headers, content type, body.
async fn check(document: &Value, path: &str, response: Response<Body>) -> u16 {
    let status = response.status().as_u16();
    let place = format!("{path} {status}");
    let said = resolve(document, &document["paths"][path]["get"]["responses"][status.to_string()]);
    assert!(said.is_object(), "{place} is not in the document");
    for (name, header) in said["headers"].as_object().into_iter().flatten() {
        let value = response.headers().get(name).unwrap_or_else(|| panic!("{place} has no {name}"));
        let value = value.to_str().unwrap();
        let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
        assert_eq!(faults(document, &header["schema"], &value), [""; 0], "{place}: {name}");
    }
    let kind = response.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let content = &said["content"][&kind];
    assert!(content.is_object(), "{place}: {kind} is not in the document");
    let mut body = response.into_body();
    let body = if kind == "text/event-stream" {
        // It has no end: the first event is enough.
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    } else {
        body.collect().await.unwrap().to_bytes()
    };
    if kind == "application/octet-stream" {
        assert!(minutes::read(&body).is_some(), "{place}");
        return status;
    }
    let text = String::from_utf8(body.to_vec()).unwrap();
    if kind == "text/event-stream" {
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let schema = json!({"$ref": "#/components/schemas/StatsAnswer"});
        assert_eq!(faults(document, &schema, &serde_json::from_str(data).unwrap()), [""; 0], "{place}");
    } else if kind.ends_with("json") {
        let value = serde_json::from_str(&text).unwrap();
        assert_eq!(faults(document, &content["schema"], &value), [""; 0], "{place}: {text}");
    }
    status
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_document_has_no_other() {
    let document = document().await;
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(documented, paths().collect());
    for path in paths() {
        let methods: Vec<_> = document["paths"][path].as_object().unwrap().keys().collect();
        assert_eq!(methods, ["get"], "{path}");
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

const CLICKS: &str = "/v1/clicks/{id}";
const CLICK: &str = "/v1/clicks/07000300803bb16a2a00000000000000";
const RANGE: &str = "start=2026-11-23T00:00:00Z&end=2026-11-23T00:10:00Z";

/// An archive that has deleted what [`CLICK`] would be in.
async fn deleted() -> Place {
    let place = Place::of(Arc::new(InMemory::new()));
    let entry = json!({
        "batch": 0, "offsets": [], "blocks": 1, "rows": 1, "unreadable": 0,
        "objects": [{"path": "a", "hour": 1_790_000_000 / 3600, "rows": 1, "bytes": 1, "crc32c": 1}],
    });
    let line = json!({
        "number": 0, "at_ms": 0, "by": "ann", "reason": "asked for", "what": "deleting", "day": "2026-09-21",
        "objects": [{"path": "a", "before": {"rows": 1, "bytes": 1, "crc32c": 1}, "after": null}],
    });
    for (path, value) in [("_manifest/000000000000.json", entry), ("_audit/000000000000.json", line)] {
        place.put(path, value.to_string().into_bytes()).await.unwrap();
    }
    place
}

#[tokio::test]
async fn every_answer_has_status_headers_and_fields_as_the_document_has_them() {
    let document = document().await;
    let (open, empty) = (filled(&Serve::default()), Central::new(&Serve::default()));
    let one_a_second = keyed(1, true, filled);
    let mut seen = BTreeSet::new();
    for query in ["", "by=country", "format=csv", "by=os&window=1h", "limit=2", "window=1d", "limit=0"] {
        let url = format!("/v1/stats?ad_id=7&{query}&{RANGE}").replace("&&", "&");
        let response = answered(&open, Method::GET, &url, "").await;
        seen.insert(("/v1/stats", check(&document, "/v1/stats", response).await));
    }
    for query in ["limit=5", "format=csv", "order=gross", "order=age"] {
        let response = answered(&open, Method::GET, &format!("/v1/stats/top?{query}&{RANGE}"), "").await;
        seen.insert(("/v1/stats/top", check(&document, "/v1/stats/top", response).await));
    }
    let none = Central::with(&Serve::default(), false);
    let deleted = deleted().await;
    for (path, query) in [("/v1/stats", "campaign_id=3"), ("/v1/stats/top", "of=campaigns")] {
        for (central, query) in
            [(&open, query.to_owned()), (&open, format!("{query}&format=csv")), (&none, query.to_owned())]
        {
            let response = answered(central, Method::GET, &format!("{path}?{query}&{RANGE}"), "").await;
            seen.insert((path, check(&document, path, response).await));
        }
    }
    for query in ["", "state=open", "limit=1"] {
        let response = answered(&open, Method::GET, &format!("/v1/alerts?{query}"), "").await;
        seen.insert(("/v1/alerts", check(&document, "/v1/alerts", response).await));
    }
    let stream = "/v1/stats/stream";
    let response = answered(&none, Method::GET, &format!("{stream}?campaign_id=3"), "").await;
    seen.insert((stream, check(&document, stream, response).await));
    for (central, url) in [
        (keyed(9, false, filled), CLICK),
        (keyed(9, true, filled), CLICK),
        (keyed(9, true, filled), "/v1/clicks/none"),
        (keyed(9, true, |config| Central::with(config, false)), CLICK),
        (keyed(9, true, |config| Central::over(config, Some(deleted.clone()))), CLICK),
    ] {
        let response = answered(&central, Method::GET, url, BEARER).await;
        seen.insert((CLICKS, check(&document, CLICKS, response).await));
    }
    for path in paths() {
        let url = match path {
            CLICKS => CLICK.to_owned(),
            "/v1/stats" | "/v1/stats/stream" => format!("{path}?ad_id=7"),
            "/v1/minutes" => format!("{path}?{RANGE}"),
            _ => path.to_owned(),
        };
        let asked = [
            (&open, Method::GET, url.clone(), ""),
            (&open, Method::DELETE, url.clone(), ""),
            (&empty, Method::GET, url.clone(), ""),
            (&one_a_second, Method::GET, url.clone(), "Bearer nobody"),
            (&one_a_second, Method::GET, url.clone(), BEARER),
            (&one_a_second, Method::GET, url, BEARER),
            (&open, Method::GET, format!("{path}?limit=x"), ""),
        ];
        for (central, method, url, key) in asked {
            let response = answered(central, method, &url, key).await;
            seen.insert((path, check(&document, path, response).await));
        }
    }
    // What the document has and no answer showed, but for a store that fails.
    for path in paths() {
        for status in document["paths"][path]["get"]["responses"].as_object().unwrap().keys() {
            let status = status.parse().unwrap();
            assert!(status == 500 || seen.contains(&(path, status)), "{path} never answers {status}");
        }
    }
}

#[tokio::test]
async fn every_bound_of_the_document_is_that_of_the_program() {
    let (document, central) = (document().await, filled(&Serve::default()));
    for path in ["/v1/stats", "/v1/stats/top", "/v1/stats/stream", "/v1/alerts"] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        for parameter in parameters.iter().map(|parameter| resolve(&document, parameter)) {
            let name = parameter["name"].as_str().unwrap();
            let url = |value: &str| match name {
                "ad_id" | "campaign_id" => format!("{path}?{name}={value}"),
                _ if ["/v1/stats/top", "/v1/alerts"].contains(&path) => format!("{path}?{name}={value}"),
                _ => format!("{path}?ad_id=7&{name}={value}"),
            };
            let named = resolve(&document, &parameter["schema"]);
            let schema = if named["oneOf"].is_array() { &named["oneOf"][1] } else { named };
            for value in schema["enum"].as_array().into_iter().flatten() {
                let url = url(value.as_str().unwrap());
                assert_eq!(status(&central, &url).await, 200, "{url}");
            }
            let (least, most) = (schema["minimum"].as_u64(), schema["maximum"].as_u64());
            if let (Some(least), Some(most)) = (least, most) {
                // A range that begins at the end of time, or ends at its beginning, is empty.
                let (at_least, at_most) = (u16::from(name == "end"), u16::from(name == "start"));
                for (value, expected) in [
                    (u128::from(least), 200 + 200 * at_least),
                    (u128::from(most), 200 + 200 * at_most),
                    (u128::from(most) + 1, 400),
                ] {
                    let url = url(&value.to_string());
                    assert_eq!(status(&central, &url).await, expected, "{url}");
                }
                assert_eq!(
                    status(&central, &url(&format!("{}", i128::from(least) - 1))).await,
                    400,
                    "{name}"
                );
            }
            assert!(named["enum"].is_array() || most.is_some(), "{name} has no bound");
            assert_eq!(status(&central, &url("none")).await, 400, "{name}");
        }
    }
}

#[tokio::test]
async fn the_examples_of_the_document_are_right_and_a_default_is_what_is_meant_without() {
    let document = document().await;
    let (central, audited) = (filled(&Serve::default()), keyed(9, true, filled));
    for path in paths() {
        let get = &document["paths"][path]["get"];
        let (mut example, mut defaults) = (vec![], vec![]);
        for parameter in get["parameters"].as_array().into_iter().flatten() {
            let parameter = resolve(&document, parameter);
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let pair = |value: &Value| format!("{}={}", parameter["name"].as_str().unwrap(), text(value));
            if parameter["in"] == "path" {
                let id = text(&parameter["example"]);
                let response = answered(&audited, Method::GET, &path.replace("{id}", &id), BEARER).await;
                assert_eq!(response.status(), 200, "{path}: {id}");
                continue;
            }
            example.extend(parameter.get("example").map(pair));
            defaults.extend(parameter["schema"].get("default").map(pair));
        }
        if path != CLICKS {
            let url = format!("{path}?{}", example.join("&"));
            assert_eq!(status(&central, &url).await, 200, "{url}");
        }
        if !path.ends_with("stream") && !defaults.is_empty() {
            let asked = match path {
                "/v1/stats" => format!("{path}?{RANGE}&ad_id=7&"),
                "/v1/alerts" => format!("{path}?"),
                _ => format!("{path}?{RANGE}&"),
            };
            let meant = central.get(&format!("{asked}{}", defaults.join("&"))).await;
            assert_eq!(central.get(&asked).await, meant, "{path} {defaults:?}");
        }
        for (kind, content) in get["responses"]["200"]["content"].as_object().unwrap() {
            let Some(example) = content.get("example") else { continue };
            assert_eq!(faults(&document, &content["schema"], example), [""; 0], "{path} {kind}");
        }
    }
}

#[tokio::test]
async fn whoever_takes_another_way_is_told_so_in_the_same_form() {
    let (document, central) = (document().await, Central::new(&Serve::default()));
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    for (method, url, expected) in [(Method::GET, "/v2/stats", 404), (Method::POST, "/v1/stats", 405)] {
        let response = answered(&central, method, url, "").await;
        assert_eq!(response.status(), expected);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(faults(&document, &schema, &serde_json::from_slice(&body).unwrap()), [""; 0]);
    }
}

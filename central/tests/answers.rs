//! Questions over HTTP, and their answers: from a store that was filled with what nodes say.

mod rules;
mod served;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use served::{Central, DAY, Said, life, sketch};
use tower::ServiceExt;
use weir_central::config::{Key, Serve};
use weir_central::record::Word;
use weir_central::serve::minutes;
use weir_common::time::Minute;

fn of(answer: &Value, name: &str) -> Vec<Value> {
    answer["data"].as_array().unwrap().iter().map(|point| point[name].clone()).collect()
}

const RANGE: &str = "start=2026-11-23T00:00:00Z&end=2026-11-23T00:10:00Z";

#[tokio::test]
async fn an_ad_is_answered_in_the_windows_asked_for_with_zeros_where_nothing_was() {
    let central = Central::new(&Serve::default());
    central.take([
        Said::new(7, DAY, 10).word(),
        Said::new(7, DAY + 6, 5).word(),
        Said::new(8, DAY, 99).word(),
    ]);
    let answer = central.json(&format!("/v1/stats?ad_id=7&window=5m&{RANGE}")).await;
    assert_eq!((&answer["ad_id"], &answer["window"]), (&json!("7"), &json!("5m")));
    assert_eq!(of(&answer, "timestamp"), ["2026-11-23T00:00:00Z", "2026-11-23T00:05:00Z"]);
    assert_eq!(of(&answer, "click_count"), [10, 5]);
    assert_eq!(of(&answer, "gross"), [13, 8]);
    assert_eq!(of(&answer, "net"), [9, 4]);
    assert_eq!(of(&answer, "cost_micros"), [4500, 2000]);
    assert_eq!(answer["data"][0]["filtered_by_reason"], json!({"prefetch": 2}));
    let answer = central.json(&format!("/v1/stats?ad_id=7&window=1m&{RANGE}")).await;
    assert_eq!(of(&answer, "click_count"), [10, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    for window in ["1h", "1d"] {
        let answer = central.json(&format!("/v1/stats?ad_id=7&window={window}&{RANGE}")).await;
        assert_eq!(of(&answer, "click_count"), [15], "{window}");
    }
}

#[tokio::test]
async fn shares_of_nodes_are_summed_and_split_by_a_dimension() {
    let central = Central::new(&Serve::default());
    let said = Said::new(7, DAY, 10);
    let from_germany = Said { country: *b"DE", accepted: 4, ..said };
    central.take([said.word(), Said { node: 2, accepted: 3, ..said }.word(), from_germany.word()]);
    for window in ["1m", "1h"] {
        let answer = central.json(&format!("/v1/stats?ad_id=7&window={window}&by=country&{RANGE}")).await;
        assert_eq!(of(&answer, "value"), ["DE", "PL"], "{window}");
        assert_eq!(of(&answer, "click_count"), [4, 13], "{window}");
    }
}

#[tokio::test]
async fn a_campaign_is_all_its_ads_with_each_user_once_and_is_not_complete_while_ads_wait_for_theirs() {
    let central = Central::new(&Serve::default());
    central.take([
        Said::new(7, DAY, 10).word(),
        Said::new(8, DAY + 1, 5).word(),
        Said::new(9, DAY, 99).word(),
    ]);
    central.take([sketch(1, 7, DAY, 0..8), sketch(1, 8, DAY + 1, 4..9), sketch(1, 9, DAY, 50..99)]);
    central.is_final_before(&[(1, DAY + 1440)]);
    central.assign(3, &[7, 8]);
    let asked = format!("/v1/stats?campaign_id=3&window=5m&{RANGE}");
    let answer = central.json(&asked).await;
    assert_eq!((&answer["campaign_id"], &answer["ads"]), (&json!(3), &json!(2)));
    assert_eq!(of(&answer, "click_count"), [15, 0]);
    assert_eq!(of(&answer, "unique_users"), [9, 0]);
    // Ad 9 may be of this campaign: who knows?
    let completeness = &answer["completeness"];
    assert_eq!((&completeness["complete"], &completeness["unassigned_ads"]), (&json!(false), &json!(1)));
    let top = central.json(&format!("/v1/stats/top?of=campaigns&window=1d&{RANGE}")).await;
    assert_eq!(of(&top, "campaign_id"), [Value::Null, json!(3)]);
    assert_eq!(of(&top, "click_count"), [99, 15]);
    assert_eq!((&top["campaigns"], &top["total"]["click_count"]), (&json!(2), &json!(114)));

    central.assign(3, &[9]);
    // Kept for this second alone, though every window of it is final.
    let deadline = Instant::now() + Duration::from_secs(10);
    let answer = loop {
        let answer = central.json(&asked).await;
        if answer["completeness"]["complete"] == true || Instant::now() > deadline {
            break answer;
        }
        // Unless it waits, it asks oftener than it may.
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(of(&answer, "click_count"), [114, 0]);
    let answer = central.json(&format!("/v1/stats?campaign_id=3&window=1d&by=country&{RANGE}")).await;
    assert_eq!((of(&answer, "value"), of(&answer, "click_count")), (vec![json!("PL")], vec![json!(114)]));
    let (_, csv) = central.get(&format!("/v1/stats/top?of=campaigns&window=1d&format=csv&{RANGE}")).await;
    assert!(csv.starts_with("campaign_id,click_count,") && csv.contains("\n3,114,"), "{csv}");
}

#[tokio::test]
async fn alerts_are_listed_the_last_first_and_the_open_ones_alone_when_asked() {
    let central = Central::new(&Serve::default());
    central.had_an_alert(3);
    let answer = central.json("/v1/alerts").await;
    let of = |answer: &Value, name: &str| -> Vec<Value> {
        answer["alerts"].as_array().unwrap().iter().map(|alert| alert[name].clone()).collect()
    };
    assert_eq!(of(&answer, "first_window"), ["2026-11-23T00:30:00Z", "2026-11-23T00:10:00Z"]);
    assert_eq!(of(&answer, "clicks"), [5000, 900]);
    assert_eq!(of(&answer, "closed_at"), [Value::Null, json!("2026-11-23T00:25:00Z")]);
    let answer = central.json("/v1/alerts?state=open").await;
    assert_eq!(of(&answer, "reasons"), [json!(["z_score", "volume"])]);
}

#[tokio::test]
async fn users_are_told_once_a_window_is_final_at_every_node_and_not_before() {
    let central = Central::new(&Serve::default());
    central.take([Said::new(7, DAY, 100).word(), Said { node: 2, ..Said::new(7, DAY, 100) }.word()]);
    central.take([sketch(1, 7, DAY, 0..60), sketch(2, 7, DAY, 40..90)]);
    let path = "/v1/stats?ad_id=7&start=2026-11-23T00:00:00Z&end=2026-11-23T00:02:00Z";
    central.is_final_before(&[(1, DAY + 9), (2, DAY)]);
    let answer = central.json(path).await;
    assert_eq!(of(&answer, "unique_users"), [Value::Null, Value::Null]);
    assert_eq!(of(&answer, "final"), [false, false]);
    assert_eq!(answer["completeness"]["complete"], false);
    assert_eq!(answer["completeness"]["slowest_node"], 2);
    assert_eq!(answer["completeness"]["counted_until"], "2026-11-23T00:05:00Z");
    central.is_final_before(&[(1, DAY + 9), (2, DAY + 2)]);
    let answer = central.json(path).await;
    assert_eq!(of(&answer, "unique_users"), [90, 0]);
    assert_eq!(of(&answer, "final"), [true, true]);
    assert_eq!(answer["completeness"]["complete"], true);
}

#[tokio::test]
async fn a_minute_that_lacks_sketches_tells_no_users_rather_than_too_few() {
    let central = Central::new(&Serve::default());
    let unsketched = Word::Unsketched { life: life(1), minute: Minute(DAY + 1), clicks: 3 };
    central.take([Said::new(7, DAY, 10).word(), sketch(1, 7, DAY, 0..9), unsketched]);
    central.is_final_before(&[(1, DAY + 60)]);
    let answer = central.json("/v1/stats?ad_id=7&start=2026-11-23T00:00:00Z&end=2026-11-23T00:02:00Z").await;
    assert_eq!(of(&answer, "unique_users"), [json!(9), Value::Null]);
    let answer = central.json(&format!("/v1/stats?ad_id=7&window=1h&{RANGE}")).await;
    assert_eq!(of(&answer, "unique_users"), [Value::Null]);
}

#[tokio::test]
async fn a_kept_answer_is_given_until_a_final_minute_changes() {
    let central = Central::new(&Serve::default());
    let path = format!("/v1/stats?ad_id=7&window=1h&{RANGE}");
    central.take([Said::new(7, DAY, 10).word()]);
    central.is_final_before(&[(1, DAY + 120)]);
    assert_eq!(of(&central.json(&path).await, "click_count"), [10]);
    central.take([Said { node: 2, accepted: 5, ..Said::new(7, DAY, 0) }.word()]);
    assert_eq!(of(&central.json(&path).await, "click_count"), [10], "kept");
    central.seen.send_modify(|seen| seen.rewrites += 1);
    assert_eq!(of(&central.json(&path).await, "click_count"), [15]);
}

#[tokio::test]
async fn the_busiest_ads_come_first_with_the_total_of_all() {
    let central = Central::new(&Serve::default());
    let ads = (1..=30).map(|ad| Said::new(ad, DAY + (ad % 3) as u32, 100 + ad).word());
    central.take(ads);
    let answer = central.json(&format!("/v1/stats/top?window=1h&limit=3&{RANGE}")).await;
    assert_eq!(of(&answer, "ad_id"), ["30", "29", "28"]);
    assert_eq!(answer["ads"], 30);
    assert_eq!(answer["total"]["click_count"], (101..=130).sum::<u64>());
    let (_, csv) = central.get(&format!("/v1/stats/top?window=1m&limit=1&format=csv&{RANGE}")).await;
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines[0], "ad_id,click_count,gross,net,repeat,filtered,late,unsigned,marked,cost_micros");
    assert_eq!(lines[1], "30,130,133,129,1,2,0,1,0,64500");
}

#[tokio::test]
async fn totals_of_every_ad_are_told_by_minute_as_octets() {
    let central = Central::new(&Serve::default());
    let said = Said::new(7, DAY, 10);
    central.take([said.word(), Said { node: 2, ..said }.word(), Said::new(8, DAY + 9, 3).word()]);
    central.take([Said::new(8, DAY + 10, 3).word()]);
    let request = Request::get(format!("/v1/minutes?{RANGE}")).body(Body::empty()).unwrap();
    let body = central.router.clone().oneshot(request).await.unwrap().into_body();
    let entries = minutes::read(&body.collect().await.unwrap().to_bytes()).unwrap();
    let entries: Vec<_> =
        entries.iter().map(|((ad, minute), totals)| (*ad, minute.0, totals.accepted.get())).collect();
    assert_eq!(entries, [(7, DAY, 20), (8, DAY + 9, 3)]);
    assert_eq!(minutes::read(&[0; 141]), None);
    let hours = "start=2026-11-23T00:00:00Z&end=2026-11-23T02:00:00Z";
    let (status, _) = central.get(&format!("/v1/minutes?{hours}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_together_have_every_window_once() {
    let central = Central::new(&Serve::default());
    central.take((0..10).map(|n| Said::new(7, DAY + n, u64::from(n) + 1).word()));
    let (mut start, mut counts) = ("2026-11-23T00:00:00Z".to_owned(), Vec::new());
    loop {
        let path = format!("/v1/stats?ad_id=7&limit=4&start={start}&end=2026-11-23T00:10:00Z");
        let answer = central.json(&path).await;
        counts.extend(of(&answer, "click_count"));
        let Some(next) = answer["next"].as_str() else { break };
        start = next.to_owned();
    }
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn csv_has_a_line_a_window_and_quotes_what_it_must() {
    let central = Central::new(&Serve::default());
    central.take([Said { country: *b"\",", ..Said::new(7, DAY, 2) }.word()]);
    let (status, csv) =
        central.get(&format!("/v1/stats?ad_id=7&window=1h&by=country&format=csv&{RANGE}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(csv.lines().nth(1).unwrap(), "7,1h,2026-11-23T00:00:00Z,\"\"\",\",2,5,1,1,2,0,1,0,500,,false");
}

#[tokio::test]
async fn what_makes_no_question_is_answered_with_what_is_wrong() {
    let central = Central::new(&Serve::default());
    for (path, detail) in [
        ("/v1/stats", "ad_id or campaign_id is missing"),
        ("/v1/stats?ad_id=7&window=2m", "window is \"2m\": expected 1m, 5m, 1h or 1d"),
        ("/v1/stats?ad_id=7&start=5000&end=100", "start is not before end"),
        ("/v1/stats/stream?ad_id=x", "ad_id is \"x\": expected a number from 0 to 18446744073709551615"),
        (
            "/v1/stats/stream?ad_id=7&format=csv",
            "format is \"csv\": expected json, as every event of a stream is",
        ),
        ("/v1/stats/top?order=age", "order is \"age\": expected click_count, gross, net or cost_micros"),
    ] {
        let (status, body) = central.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["detail"], detail, "{path}");
    }
    let (status, body) = central.get("/v1/stats?ad_id=7&widnow=1m").await;
    assert!(status == StatusCode::BAD_REQUEST && body.contains("widnow"), "{body}");
}

#[tokio::test]
async fn where_there_are_keys_figures_are_told_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("finance.key");
    std::fs::write(&file, "k".repeat(40)).unwrap();
    let key = Key { name: "finance".to_owned(), file, requests_per_s: Some(1), audit: false };
    let central = Central::new(&Serve { keys: vec![key], ..Serve::default() });
    for path in ["/v1/stats?ad_id=7", "/v1/stats/top", "/v1/stats/stream?ad_id=7", "/v1/nodes"] {
        assert_eq!(central.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for path in ["/", "/openapi.json", "/livez", "/metrics"] {
        assert_eq!(central.get(path).await.0, StatusCode::OK, "{path}");
    }
    let ask = || {
        let bearer = format!("Bearer {}", "k".repeat(40));
        let request = Request::get("/v1/nodes").header("authorization", bearer).body(Body::empty());
        central.router.clone().oneshot(request.unwrap())
    };
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    let denied = ask().await.unwrap();
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(denied.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn it_is_ready_once_it_knows_how_far_the_nodes_are() {
    let central = Central::new(&Serve::default());
    assert_eq!(central.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    central.is_final_before(&[(1, DAY)]);
    assert_eq!(central.get("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
    let nodes = central.json("/v1/nodes").await;
    assert_eq!(nodes["nodes"][0]["final_before_minute"], DAY);
}

#[tokio::test]
async fn a_stream_sends_the_answer_again_when_it_has_changed() {
    let central = Central::new(&Serve::default());
    central.take([Said::new(7, DAY, 10).word()]);
    let path = format!("/v1/stats/stream?ad_id=7&window=1h&{RANGE}");
    let request = Request::get(path).body(Body::empty()).unwrap();
    let mut body = central.router.clone().oneshot(request).await.unwrap().into_body();
    let mut counts = Vec::new();
    for accepted in [10, 12] {
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let event = String::from_utf8(event.to_vec()).unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        counts.extend(of(&serde_json::from_str(data).unwrap(), "click_count"));
        central.take([Said { revision: 2, ..Said::new(7, DAY, accepted + 2) }.word()]);
        central.seen.send_modify(|seen| seen.writes += 1);
    }
    assert_eq!(counts, [10, 12]);
}

#[tokio::test]
async fn every_metric_that_the_document_names_is_exported() {
    let central = Central::new(&Serve::default());
    central.is_final_before(&[(1, DAY)]);
    let (_, exported) = central.get("/metrics").await;
    let document = include_str!("../../docs/central.md");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: Vec<_> =
        document.split(|c| !is_name(c)).filter(|word| word.starts_with("weir_central_")).collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(exported.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
    }
}

#[tokio::test]
async fn who_has_a_thousand_streams_open_gets_another_when_one_has_ended() {
    let central = Central::new(&Serve::default());
    let open = || {
        let request = Request::get("/v1/stats/stream?ad_id=7").body(Body::empty()).unwrap();
        central.router.clone().oneshot(request)
    };
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(open().await.unwrap());
        assert_eq!(streams.last().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(open().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    streams.pop();
    assert_eq!(open().await.unwrap().status(), StatusCode::OK);
}

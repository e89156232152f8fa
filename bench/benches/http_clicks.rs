//! What it costs to read clicks from JSON, on one core, in memory: from the bytes of a body to clicks with
//! their extensions.
//!
//! `cargo bench -p weir-bench --bench http_clicks`
//!
//! The clicks are typical ones: fifteen fields, among them a UUID, a time, a price and a user agent; every
//! body has others. `signed` ones have a token in place of the UUID and of all that it covers. Time is that of
//! a whole body; criterion's throughput is in clicks.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use weir::rx::http::catalog::Catalog;
use weir::rx::http::clicks::{Clicks, Sender, read};
use weir::rx::http::head::Format;
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::time::UnixMs;
use weir_common::wire::{CLICK_LEN, Click, Header};
use weir_sdk::Token;
use zerocopy::IntoBytes;

const CATALOG: &str = include_str!("../../tests/samples/catalog.toml");
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
/// Bodies that take turns, so that no branch predictor knows them by heart.
const BODIES: u64 = 64;

/// What stands under an id, and time as it is written.
fn rest(number: u64, time: &str) -> String {
    format!(
        r#""timestamp":{time},"user_id":"user-{number}","session_id":"s-{number:x}","device_type":"mobile","country":"DE","user_agent":"{AGENT}","referrer":"https://news.example/article/{number}","lat":52.52{:02},"lon":13.40{:02},"x":{},"y":{}"#,
        number % 100,
        number % 89,
        number % 300,
        number % 250
    )
}

fn unsigned(number: u64) -> String {
    let id = uuid_text(number);
    let rest = rest(number, &(1_790_000_000_000 + number).to_string());
    format!(
        r#"{{"event_id":"{id}","ad_id":{},"campaign_id":{},"publisher_id":77,"cost_per_click":0.25,{rest}}}"#,
        number % 997,
        number % 31
    )
}

fn named(number: u64) -> String {
    let id = uuid_text(number);
    let rest = rest(number, &format!("\"2026-09-21T14:13:{:02}.{:03}Z\"", number % 60, number % 1000));
    format!(
        r#"{{"event_id":"{id}","ad_id":"spring-sale","campaign_id":"spring","publisher_id":77,"cost_per_click":"0.25",{rest}}}"#
    )
}

fn signed(number: u64) -> String {
    let click = Click {
        impression: ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, number),
        ad: 42.into(),
        price_micros: 250_000.into(),
        tag: number.wrapping_mul(0x9e37_79b9_7f4a_7c15).into(),
        ..Click::zeroed()
    };
    let rest = rest(number, &(1_790_000_000_000 + number).to_string());
    format!(r#"{{"impression":"{}",{rest}}}"#, Token::text(&click))
}

fn uuid_text(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}-{:04x}-4{:03x}-8000-{number:012x}", mixed >> 32, mixed >> 16 & 0xffff, mixed & 0xfff)
}

fn datagram(clicks: u8) -> Vec<u8> {
    let header = Header::new(clicks, CLICK_LEN * usize::from(clicks));
    [header.as_bytes(), &Click::zeroed().as_bytes().repeat(clicks.into())].concat()
}

/// Reads bodies of `clicks` clicks each, in turns.
fn measure<M: criterion::measurement::Measurement>(
    group: &mut BenchmarkGroup<'_, M>,
    name: &str,
    format: Format,
    clicks: u64,
    body: impl Fn(u64) -> Vec<u8>,
) {
    let bodies: Vec<_> = (0..BODIES).map(|number| body(number * clicks)).collect();
    let catalog = Catalog::parse(CATALOG, false).expect("a sound catalog");
    let sender = Sender { received_at: UnixMs(1_790_000_000_000), ..Sender::default() };
    let mut out = Clicks::default();
    let mut turn = bodies.iter().cycle();
    group.throughput(Throughput::Elements(clicks));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let body = turn.next().expect("a cycle");
            read(format, black_box(body), &sender, &catalog, &mut out).expect("a sound body");
            black_box(out.len())
        });
    });
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http_clicks");
    let array = |object: fn(u64) -> String| {
        move |first: u64| {
            let objects: Vec<_> = (first..first + 100).map(object).collect();
            format!("[{}]", objects.join(",")).into_bytes()
        }
    };
    let lines = |first: u64| (first..first + 100).map(|number| unsigned(number) + "\n").collect::<String>();
    measure(&mut group, "array of 100", Format::Json, 100, array(unsigned));
    measure(&mut group, "array of 100, names and ISO 8601", Format::Json, 100, array(named));
    measure(&mut group, "array of 100, signed", Format::Json, 100, array(signed));
    measure(&mut group, "100 lines", Format::Lines, 100, |first| lines(first).into_bytes());
    measure(&mut group, "100 lines as text/plain", Format::Text, 100, |first| lines(first).into_bytes());
    measure(&mut group, "single", Format::Json, 1, |number| unsigned(number).into_bytes());
    measure(&mut group, "single, signed", Format::Json, 1, |number| signed(number).into_bytes());
    measure(&mut group, "datagram of 100", Format::Datagram, 100, |_| datagram(100));
    group.finish();
}

criterion_group!(http_clicks, benches);
criterion_main!(http_clicks);

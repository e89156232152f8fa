//! What a score costs: the sample model over batches as a worker has them, and the features of a
//! click. Figures are per click where a throughput is given.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use weir::score::{Activity, Campaign, Facts, Features, Model, Scorer, Scratch};
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::time::UnixMs;
use weir_common::wire::{Click, click_flags};

/// Different clicks, so that no branch and no path through a tree is learnt: 8,192 of 96 octets.
const CLICKS: usize = 8_192;

fn sample() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/score/sample.onnx");
    Model::load(&path).expect("the sample model")
}

/// Features over the ranges that the sample's splits are made for.
fn rows() -> Vec<(Campaign, Features)> {
    let mut random = SmallRng::seed_from_u64(1);
    let spread = |random: &mut SmallRng, most: f32| {
        let value: f32 = random.random();
        // Small values are the usual ones, and one in eight is unknown.
        if random.random_range(0..8) == 0 { f32::NAN } else { value * value * most }
    };
    (0..CLICKS)
        .map(|at| {
            let mut values = [0.0; Features::COUNT];
            for (value, most) in values.iter_mut().zip(MOST) {
                *value = spread(&mut random, most);
            }
            (Campaign(at as u32 % 100), Features::from_array(values))
        })
        .collect()
}

/// The largest usual value of each feature, in order.
const MOST: [f32; Features::COUNT] = [
    4.0, 6.0, 1.2, 90.0, 90.0, 2.0, 3.0, 60.0, 600.0, 24.0, 1.2, 1.2, 1.2, 1.2, 300.0, 250.0, 180.0, 3.2,
    120.0, 10.0, 60.0, 40.0, 400.0, 60.0,
];

fn batches(criterion: &mut Criterion) {
    let model = sample();
    println!("{} trees, {} nodes, {} steps a click", model.trees(), model.nodes(), model.steps());
    let scorer = Scorer { model: Some(Arc::new(model)), ..Scorer::default() };
    let rows = rows();
    let mut group = criterion.benchmark_group("score");
    for batch in [1, 8, 64, 512] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("mark", batch), |bencher| {
            let (mut scratch, mut marks) = (Scratch::default(), Vec::new());
            let mut batches = rows.chunks_exact(batch).cycle();
            bencher.iter(|| {
                marks.clear();
                scorer.mark(batches.next().expect("endless"), &mut scratch, &mut marks);
                black_box(&marks);
            });
        });
    }
    group.finish();
}

fn features(criterion: &mut Criterion) {
    let click = Click {
        impression: ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, 1),
        clicked_at_ms: 1_790_000_012_345.into(),
        latitude_e6: 52_520_008.into(),
        longitude_e6: 13_404_954.into(),
        country: *b"DE",
        device: 2,
        os: 5,
        flags: click_flags::POSITION,
        ..Click::zeroed()
    };
    let facts = Facts {
        click: &click,
        received_at: UnixMs(1_790_000_012_400),
        user_agent: b"Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/129.0 Mobile Safari/537.36",
        is_robot: false,
        referrer: b"https://publisher.example/article",
        is_ipv6: Some(true),
        is_data_centre: Some(false),
        activity: Activity { user_clicks_minute: Some(1), ..Activity::default() },
    };
    let mut group = criterion.benchmark_group("score");
    group.throughput(Throughput::Elements(1));
    group.bench_function("features", |bencher| bencher.iter(|| Features::of(black_box(&facts))));
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/score/sample.onnx");
    let bytes = std::fs::read(path).expect("the sample model");
    criterion.bench_function("score/parse", |bencher| bencher.iter(|| Model::parse(black_box(&bytes))));
}

criterion_group!(score, batches, features, load);
criterion_main!(score);

//! Scores are those of onnxruntime, on ten thousand inputs and every model of the vectors.
//!
//! `deploy/score/train.py` wrote inputs, models and reference scores. Of the inputs 6,000 are
//! generated clicks, 2,000 lie at a model's thresholds or one float beside them, 1,500 have NaN,
//! infinities and zeros of both signs, 500 are any bits at all.

mod score_fixture;

use score_fixture::{bytes_of, floats_of, in_tree, inputs};
use weir::score::{Features, Model};

/// How far a score may be from the reference. Both add 32-bit floats tree by tree in one order, so
/// only the last rounding of `exp` and of the division can differ: a few times 2^-24, which is
/// 6e-8. A click that took another leaf in one tree differs by a thousand times this.
const TOLERANCE: f32 = 1e-6;

fn largest_difference(model: &Model, name: &str) -> f32 {
    let inputs = inputs();
    let expected = floats_of(&format!("tests/vectors/score/{name}.f32.gz"));
    assert_eq!((inputs.len(), expected.len()), (10_000, 10_000), "{name}");
    let mut scores = Vec::new();
    model.score(&inputs, &mut scores);
    assert_eq!(scores.len(), 10_000);
    let mut largest = 0_f32;
    for ((at, score), expected) in scores.iter().enumerate().zip(expected) {
        // A regressor's prediction may lie beyond; a score does not.
        let difference = (score - expected.clamp(0.0, 1.0)).abs();
        assert!(difference <= TOLERANCE, "{name}, input {at}: {score}, not {expected}");
        largest = largest.max(difference);
    }
    println!("{name}: at most {largest:e} from the reference");
    largest
}

#[test]
fn the_sample_model_gives_the_scores_of_onnxruntime_on_ten_thousand_inputs() {
    let model = Model::load(&in_tree("deploy/score/sample.onnx")).expect("the sample");
    assert_eq!(model.trees(), 60);
    largest_difference(&model, "sample");
}

#[test]
fn exports_of_other_libraries_and_the_rest_of_the_format_give_the_scores_of_onnxruntime() {
    for name in ["random_forest", "gradient_boosting", "comparisons", "no_missing", "sum", "average"] {
        let model = Model::load(&in_tree(&format!("tests/vectors/score/{name}.onnx"))).expect(name);
        largest_difference(&model, name);
    }
}

#[test]
fn the_vectors_reach_both_ends_of_the_scores_and_the_middle() {
    let scores = floats_of("tests/vectors/score/sample.f32.gz");
    let share = |range: std::ops::Range<f32>| scores.iter().filter(|score| range.contains(score)).count();
    assert!(share(0.0..0.1) > 1_000 && share(0.1..0.9) > 1_000 && share(0.9..1.1) > 1_000);
}

#[test]
fn a_score_depends_on_nothing_but_its_click() {
    let model = Model::parse(&bytes_of("deploy/score/sample.onnx")).expect("the sample");
    let inputs = inputs();
    let mut together = Vec::new();
    model.score(&inputs[..512], &mut together);
    for batch in [1, 3, 8, 9, 64] {
        let mut apart = Vec::new();
        for rows in inputs[..512].chunks(batch) {
            model.score(rows, &mut apart);
        }
        assert_eq!(apart, together, "in batches of {batch}");
    }
}

#[test]
fn any_float_in_any_feature_gives_a_score() {
    let model = Model::parse(&bytes_of("deploy/score/sample.onnx")).expect("the sample");
    let odd =
        [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0];
    let mut rows: Vec<Features> =
        odd.iter().map(|&value| Features::from_array([value; Features::COUNT])).collect();
    for value in odd {
        rows.extend((0..Features::COUNT).map(|at| {
            let mut values = [1.0; Features::COUNT];
            values[at] = value;
            Features::from_array(values)
        }));
    }
    let mut scores = Vec::new();
    model.score(&rows, &mut scores);
    assert_eq!(scores.len(), rows.len());
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
}

#[test]
fn the_training_script_names_the_features_of_the_node() {
    let script = String::from_utf8(bytes_of("deploy/score/features.py")).expect("text");
    let list = script.split_once("NAMES = [").expect("a list").1;
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(names, Features::NAMES);
    assert!(script.contains(&format!("VERSION = {}\n", Features::VERSION.0)));
}

//! Scoring marks and never blocks: with a model, without one, and with one that cannot be read.

mod score_fixture;

use std::path::Path;
use std::sync::Arc;

use score_fixture::{Draft, in_tree, inputs};
use weir::score::{
    Campaign, Features, MAX_FILE_MIB, Mark, Model, Score, Scorer, Scratch, Threshold, Thresholds,
};

fn threshold(score: f32) -> Threshold {
    Threshold::new(score).expect("a share")
}

/// Clicks of devices 0 and 1 for two campaigns: the sound draft gives them 0.25 and 0.75.
fn clicks() -> Vec<(Campaign, Features)> {
    let features = |device| {
        let mut features = Features::from_array([0.0; Features::COUNT]);
        features.device = device;
        features
    };
    let campaigns = [Campaign(1), Campaign(2)];
    campaigns.iter().flat_map(|&campaign| [0.0, 1.0].map(|device| (campaign, features(device)))).collect()
}

fn marks(scorer: &Scorer, rows: &[(Campaign, Features)]) -> Vec<Mark> {
    let mut marks = Vec::new();
    scorer.mark(rows, &mut Scratch::default(), &mut marks);
    marks
}

#[test]
fn without_a_model_every_click_is_marked_as_unscored() {
    assert_eq!(marks(&Scorer::default(), &clicks()), [Mark::Unscored; 4]);
    assert_eq!(marks(&Scorer::default(), &[]), []);
}

#[test]
fn a_campaign_is_held_to_its_own_threshold_and_others_to_the_default() {
    let model = Model::parse(&Draft::sound().bytes()).expect("a sound model");
    let thresholds = Thresholds::new(threshold(0.76), [(Campaign(2), threshold(0.25))]);
    let scorer = Scorer { model: Some(Arc::new(model)), thresholds: Arc::new(thresholds) };
    let (low, high) = (Score::clamped(0.25), Score::clamped(0.75));
    let expected = [Mark::Below(low), Mark::Below(high), Mark::Reached(low), Mark::Reached(high)];
    assert_eq!(marks(&scorer, &clicks()), expected);
}

#[test]
fn marks_are_appended_in_order_and_a_batch_knows_nothing_of_the_one_before() {
    let model = Model::parse(&Draft::sound().bytes()).expect("a sound model");
    let scorer = Scorer { model: Some(Arc::new(model)), ..Scorer::default() };
    let (mut scratch, mut marks) = (Scratch::default(), vec![Mark::Unscored]);
    scorer.mark(&clicks(), &mut scratch, &mut marks);
    scorer.mark(&clicks()[1..2], &mut scratch, &mut marks);
    let (low, high) = (Mark::Below(Score::clamped(0.25)), Mark::Below(Score::clamped(0.75)));
    assert_eq!(marks, [Mark::Unscored, low, high, low, high, high]);
}

#[test]
fn memory_that_once_held_a_batch_holds_the_next() {
    let model = Model::load(&in_tree("deploy/score/sample.onnx")).expect("the sample");
    let scorer = Scorer { model: Some(Arc::new(model)), ..Scorer::default() };
    let rows: Vec<_> = inputs().into_iter().take(64).map(|features| (Campaign(0), features)).collect();
    let (mut scratch, mut marks) = (Scratch::default(), Vec::new());
    scorer.mark(&rows, &mut scratch, &mut marks);
    let before = (marks.as_ptr(), marks.capacity());
    for _ in 0..3 {
        marks.clear();
        scorer.mark(&rows, &mut scratch, &mut marks);
        assert_eq!((marks.as_ptr(), marks.capacity()), before);
    }
}

#[track_caller]
fn is_not_loaded(path: &Path, words: &[&str]) {
    let error = Model::load(path).expect_err("no model").to_string();
    let path = path.display().to_string();
    for word in words.iter().chain(&[path.as_str(), "unscored"]) {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn a_model_that_cannot_be_loaded_is_named_with_what_becomes_of_the_clicks() {
    let folder = tempfile::tempdir().expect("a folder");
    is_not_loaded(&folder.path().join("missing.onnx"), &["cannot read", "No such file"]);
    is_not_loaded(folder.path(), &["is no file"]);
    let damaged = folder.path().join("damaged.onnx");
    std::fs::write(&damaged, &Draft::sound().bytes()[..50]).expect("written");
    is_not_loaded(&damaged, &["is refused", "copy it again"]);
    let empty = folder.path().join("empty.onnx");
    std::fs::write(&empty, b"").expect("written");
    is_not_loaded(&empty, &["is refused", "no graph"]);
}

#[test]
fn a_pipe_in_a_models_place_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe.onnx");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        is_not_loaded(&pipe, &["it is no file"]);
        done.send(()).expect("somebody waits");
    });
    // Opening a pipe that nobody writes to has no end; a refusal takes microseconds.
    is_done.recv_timeout(std::time::Duration::from_secs(30)).expect("a refusal");
}

#[test]
fn a_file_of_the_largest_size_is_read_and_a_larger_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.onnx");
    // An unknown field as long as needed, which a reader passes over.
    let padded = |len: u64| {
        let sound = Draft::sound().bytes();
        // Its key takes an octet, its length four.
        let padding = usize::try_from(len).expect("an address") - sound.len() - 5;
        let length = [0, 7, 14, 21].map(|shift| (padding >> shift) as u8 | if shift < 21 { 0x80 } else { 0 });
        [&sound[..], &[6 << 3 | 2], &length, &vec![0; padding]].concat()
    };
    std::fs::write(&path, padded(MAX_FILE_MIB << 20)).expect("written");
    assert_eq!(Model::load(&path).expect("the largest").trees(), 1);
    std::fs::write(&path, padded((MAX_FILE_MIB << 20) + 1)).expect("written");
    is_not_loaded(&path, &["it has more than 8 MiB"]);
}

#[test]
fn a_model_is_told_apart_by_its_checksum() {
    let one = Model::parse(&Draft::sound().bytes()).expect("a sound model");
    let mut other = Draft::sound();
    other.weights[0].weight = 0.26;
    let other = Model::parse(&other.bytes()).expect("a sound model");
    assert_ne!(one.checksum(), other.checksum());
    assert_eq!(one.checksum(), Model::parse(&Draft::sound().bytes()).expect("the same").checksum());
}

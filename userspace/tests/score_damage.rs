//! A model file that is broken in any way gives an error or scores from 0 to 1: no panic, no end
//! that does not come, no score beyond.

mod score_fixture;

use proptest::prelude::*;
use score_fixture::{Draft, Node, Weight, bytes_of};
use weir::score::{Features, Model};

/// What clicks can look like to a damaged split.
fn probes() -> Vec<Features> {
    [0.0, 1.0, -1e30, f32::NAN, f32::INFINITY]
        .map(|value| Features::from_array([value; Features::COUNT]))
        .to_vec()
}

/// Whether the bytes were taken; if they were, every score is one.
#[track_caller]
fn is_taken(bytes: &[u8], probes: &[Features]) -> bool {
    let Ok(model) = Model::parse(bytes) else { return false };
    let mut scores = Vec::new();
    model.score(probes, &mut scores);
    assert_eq!(scores.len(), probes.len());
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    true
}

#[test]
fn a_model_cut_at_any_octet_is_refused() {
    let probes = probes();
    for path in ["tests/vectors/score/comparisons.onnx", "tests/vectors/score/average.onnx"] {
        let whole = bytes_of(path);
        assert!(is_taken(&whole, &probes), "{path}");
        for cut in 0..whole.len() {
            assert!(!is_taken(&whole[..cut], &probes), "{path} cut after {cut} octets");
        }
    }
}

#[test]
fn a_model_with_any_bit_flipped_is_refused_or_gives_scores() {
    let probes = probes();
    for draft in [Draft::sound(), Draft::regressor()] {
        every_bit_flipped(&draft.bytes(), &probes);
    }
    every_bit_flipped(&bytes_of("tests/vectors/score/sum.onnx"), &probes);
}

fn every_bit_flipped(whole: &[u8], probes: &[Features]) {
    let mut bytes = whole.to_vec();
    assert!(is_taken(whole, probes));
    let mut taken = 0;
    for bit in 0..whole.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        taken += usize::from(is_taken(&bytes, probes));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    // Flipped thresholds and weights make another model, flipped structure makes none.
    assert!(taken > 0 && taken < whole.len() * 8, "{taken}");
}

/// A change of a file that keeps most of it.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, octet)| Change::Set(at, octet)),
        (at(), 1..40_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1..400_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        (at(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, octets)| Change::Insert(at, octets)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes.iter() {
        if bytes.is_empty() {
            break;
        }
        let (Change::Set(at, _) | Change::Remove(at, _) | Change::Repeat(at, _) | Change::Insert(at, _)) =
            change;
        let at = at.index(bytes.len());
        match change {
            Change::Set(_, octet) => bytes[at] = *octet,
            Change::Remove(_, count) => {
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Change::Repeat(_, count) => {
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Change::Insert(_, octets) => {
                bytes.splice(at..at, octets.iter().copied());
            }
        }
    }
    bytes
}

/// A tree whose nodes name each other as they like: cycles, shared children, children that are not
/// there, forests of anything.
fn any_structure() -> impl Strategy<Value = Draft> {
    let number = || prop_oneof![8 => 0..6_i64, 1 => any::<i64>()];
    let value = || prop_oneof![4 => -2.0..2.0_f32, 1 => any::<f32>()];
    let mode =
        prop::sample::select(vec!["LEAF", "LEAF", "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "x"]);
    let node = (0..3_i64, number(), 0..30_i64, mode, value(), number(), number(), 0..2_i64).prop_map(
        |(tree, id, feature, mode, value, if_true, if_false, missing_is_true)| Node {
            tree,
            id,
            feature,
            mode: mode.to_owned(),
            value,
            if_true,
            if_false,
            missing_is_true,
        },
    );
    let weight = (0..3_i64, number(), 0..2_i64, value()).prop_map(|(tree, id, class, weight)| Weight {
        tree,
        id,
        class,
        weight,
    });
    (prop::collection::vec(node, 0..9), prop::collection::vec(weight, 0..9))
        .prop_map(|(nodes, weights)| Draft { nodes, weights, ..Draft::regressor() })
}

/// A random tree that is sound, then one of its numbers changed: what passes most checks.
fn nearly_sound() -> impl Strategy<Value = Draft> {
    (prop::collection::vec(any::<bool>(), 1..12), any::<prop::sample::Index>(), 0..6_u8, 0..14_i64).prop_map(
        |(sides, at, what, number)| {
            let mut draft = chain(&sides);
            let at = at.index(draft.nodes.len());
            match what {
                0 => draft.nodes[at].if_true = number,
                1 => draft.nodes[at].if_false = number,
                2 => draft.nodes[at].id = number,
                3 => draft.nodes[at].feature = number * 3,
                4 => draft.nodes.swap(0, at),
                _ => {}
            }
            draft
        },
    )
}

/// A tree that goes down on one side of each split and ends on the other.
fn chain(sides: &[bool]) -> Draft {
    let mut draft = Draft { nodes: Vec::new(), weights: Vec::new(), ..Draft::regressor() };
    for (level, &is_true) in sides.iter().enumerate() {
        let [down, end] = [2 * level as i64 + 2, 2 * level as i64 + 1];
        let (if_true, if_false) = if is_true { (down, end) } else { (end, down) };
        draft.nodes.push(score_fixture::split(
            2 * level as i64,
            "BRANCH_LEQ",
            level as f32 / 4.0,
            if_true,
            if_false,
        ));
        draft.nodes.push(score_fixture::leaf(end));
        draft.weights.push(score_fixture::weight(end, level as f32 / 12.0));
    }
    let last = 2 * sides.len() as i64;
    draft.nodes.push(score_fixture::leaf(last));
    draft.weights.push(score_fixture::weight(last, 1.0));
    draft
}

#[test]
fn the_drafts_that_are_broken_below_are_taken_whole() {
    for sides in [&[true][..], &[false, true, true], &[true; 12]] {
        assert!(is_taken(&chain(sides).bytes(), &probes()), "{sides:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_changed_model_is_refused_or_gives_scores(changes in prop::collection::vec(change(), 1..5)) {
        is_taken(&changed(bytes_of("tests/vectors/score/sum.onnx"), &changes), &probes());
    }

    #[test]
    fn any_octets_are_refused_or_give_scores(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!is_taken(&octets, &probes()));
    }

    #[test]
    fn nodes_that_name_each_other_at_random_are_refused_or_give_scores(draft in any_structure()) {
        is_taken(&draft.bytes(), &probes());
    }

    #[test]
    fn a_tree_with_one_wrong_number_is_refused_or_gives_scores(draft in nearly_sound()) {
        is_taken(&draft.bytes(), &probes());
    }
}

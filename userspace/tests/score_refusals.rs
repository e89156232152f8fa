//! What a model may not be, and what its error then says; and what its splits mean.

mod score_fixture;

use score_fixture::{Draft, leaf, metadata, split, weight};
use weir::score::{Features, Model, ModelFault};

#[track_caller]
fn is_refused(draft: &Draft, words: &[&str]) {
    let fault = Model::parse(&draft.bytes()).expect_err("a refusal").to_string();
    for word in words {
        assert!(fault.contains(word), "{word:?} is not in {fault:?}");
    }
}

#[track_caller]
fn score(draft: &Draft, device: f32) -> f32 {
    let model = Model::parse(&draft.bytes()).expect("a sound model");
    let mut row = Features::from_array([0.0; Features::COUNT]);
    row.device = device;
    let mut scores = Vec::new();
    model.score(&[row], &mut scores);
    scores[0]
}

#[test]
fn a_sound_model_is_taken_by_both_operators() {
    for draft in [Draft::sound(), Draft::regressor()] {
        assert_eq!((score(&draft, 0.5), score(&draft, 0.6)), (0.25, 0.75));
    }
}

#[test]
fn a_model_of_other_features_is_refused_with_the_first_that_differs() {
    let named = |names: &[&str]| {
        let mut draft = Draft::sound();
        draft.metadata[1].1 = names.join(",");
        draft
    };
    let mut swapped = Features::NAMES;
    swapped.swap(3, 4);
    is_refused(&named(&swapped), &["feature 3", "\"longitude\"", "\"latitude\"", "train it again"]);
    is_refused(&named(&Features::NAMES[..20]), &["feature 20", "\"\"", "\"user_clicks_hour\""]);
    let more = [&Features::NAMES[..], &["mood"]].concat();
    is_refused(&named(&more), &["\"mood\"", "\"\""]);
    let mut draft = Draft::sound();
    draft.metadata[0].1 = "2".to_owned();
    is_refused(&draft, &["version \"2\"", "computes 1"]);
}

#[test]
fn a_model_of_operators_that_may_mean_something_else_is_refused() {
    let importing = |domain: &str, version: u8| {
        let import = [&[0x0a, domain.len() as u8], domain.as_bytes(), &[0x10, version]].concat();
        [&Draft::sound().bytes()[..], &[8 << 3 | 2, import.len() as u8], &import].concat()
    };
    for (domain, version) in [("ai.onnx.ml", 1), ("ai.onnx.ml", 3), ("ai.onnx.ml", 4), ("", 21)] {
        assert!(Model::parse(&importing(domain, version)).is_ok(), "{domain:?} {version}");
    }
    for version in [0, 5, 99] {
        let fault = Model::parse(&importing("ai.onnx.ml", version)).expect_err("a refusal").to_string();
        assert!(
            fault.contains(&format!("of ai.onnx.ml {version}; export it for ai.onnx.ml 1 to 4")),
            "{fault}"
        );
    }
}

#[test]
fn a_model_of_more_metadata_or_attributes_than_any_writer_makes_is_refused() {
    let of_metadata = |entries: usize| {
        let mut draft = Draft::sound();
        let more = (draft.metadata.len()..entries).map(|n| (format!("key {n}"), "value".to_owned()));
        let more: Vec<_> = more.collect();
        draft.metadata.extend(more);
        draft
    };
    assert_eq!(score(&of_metadata(256), 0.0), 0.25);
    is_refused(&of_metadata(257), &["more than 256 attributes or entries of metadata"]);
    let names: Vec<&'static str> = (0..64).map(|n| &*format!("attribute {n}").leak()).collect();
    let more = |count: usize| Draft {
        with: names[..count].iter().map(|name| (*name, vec![1])).collect(),
        ..Draft::sound()
    };
    // Few are looked at one by one, and the first that is not known is named.
    is_refused(&more(30), &["attribute \"attribute 0\"", "not understood"]);
    is_refused(&more(64), &["more than 64 attributes or entries of metadata"]);
}

#[test]
fn a_model_that_does_not_name_its_features_is_refused() {
    for (at, key) in [(0, "weir.features_version"), (1, "weir.features")] {
        let mut draft = Draft::sound();
        draft.metadata.remove(at);
        is_refused(&draft, &[key, "train.py"]);
    }
    let mut twice = Draft::sound();
    twice.metadata.splice(0..0, [("weir.features".to_owned(), "old".to_owned())]);
    assert_eq!(score(&twice, 0.0), 0.25);
}

#[test]
fn what_is_no_single_tree_node_is_refused() {
    is_refused(
        &Draft { operator: "LinearClassifier", ..Draft::sound() },
        &["LinearClassifier", "TreeEnsemble"],
    );
    is_refused(&Draft { domain: "", ..Draft::sound() }, &["ai.onnx.ml"]);
    is_refused(&Draft { copies: 2, ..Draft::sound() }, &["more than its tree node", "bare()"]);
    is_refused(&Draft { copies: 0, ..Draft::sound() }, &["no node"]);
    assert!(Model::parse(b"").expect_err("nothing").to_string().contains("no graph"));
    let twice = [Draft::sound().bytes(), Draft::sound().bytes()].concat();
    assert!(Model::parse(&twice).expect_err("two graphs").to_string().contains("more than one graph"));
}

#[test]
fn an_attribute_that_is_unknown_missing_or_there_twice_is_refused() {
    let with = |name, values: &[i64]| Draft { with: vec![(name, values.to_vec())], ..Draft::sound() };
    is_refused(&with("nodes_values_as_tensor", &[1]), &["nodes_values_as_tensor", "not understood"]);
    is_refused(&with("aggregate_function", &[]), &["aggregate_function", "not understood"]);
    is_refused(&with("nodes_treeids", &[0, 0, 0]), &["nodes_treeids", "twice"]);
    assert_eq!(score(&with("nodes_hitrates", &[]), 0.0), 0.25);
    for name in ["nodes_modes", "nodes_values", "class_ids", "classlabels_int64s", "nodes_truenodeids"] {
        is_refused(&Draft { without: vec![name], ..Draft::sound() }, &[name, "no attribute"]);
    }
}

#[test]
fn transforms_and_aggregates_that_would_give_other_numbers_are_refused() {
    for transform in ["SOFTMAX", "SOFTMAX_ZERO", "PROBIT", ""] {
        is_refused(&Draft { post_transform: transform, ..Draft::sound() }, &["post transform", "LOGISTIC"]);
    }
    // onnxruntime passes over it.
    is_refused(&Draft { post_transform: "LOGISTIC", ..Draft::regressor() }, &["post transform"]);
    for aggregate in ["MIN", "MAX"] {
        is_refused(&Draft { aggregate: Some(aggregate), ..Draft::regressor() }, &[aggregate, "SUM"]);
    }
    is_refused(&Draft { base_values: vec![0.1, 0.2], ..Draft::sound() }, &["2 base values"]);
    is_refused(&Draft { labels: vec![1, 0], ..Draft::sound() }, &["labels must be 0"]);
    is_refused(&Draft { labels: vec![0, 1, 2], ..Draft::sound() }, &["labels must be 0"]);
    is_refused(&Draft { labels: vec![2], ..Draft::regressor() }, &["one target"]);
    let mut margins = Draft::sound();
    margins.weights[0].weight = -0.1;
    is_refused(&margins, &["margins", "LOGISTIC"]);
    margins.post_transform = "LOGISTIC";
    assert!((score(&margins, 0.0) - 0.475_020_8).abs() < 1e-6);
}

#[test]
fn columns_of_different_lengths_are_refused() {
    let short = |name| Draft { without: vec![name], with: vec![(name, vec![0, 0])], ..Draft::sound() };
    for name in ["nodes_treeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"] {
        is_refused(&short(name), &[name, "2 entries", "3"]);
    }
    is_refused(&short("nodes_missing_value_tracks_true"), &["2 entries"]);
    let short = |name| Draft { without: vec![name], with: vec![(name, vec![0])], ..Draft::sound() };
    for name in ["class_treeids", "class_nodeids", "class_ids"] {
        is_refused(&short(name), &[name, "1 entries"]);
    }
    is_refused(&Draft { nodes: vec![], weights: vec![], ..Draft::sound() }, &["no tree"]);
}

#[test]
fn what_is_no_tree_is_refused() {
    let nodes = |nodes: Vec<score_fixture::Node>| Draft { nodes, ..Draft::sound() };
    let sound = Draft::sound().nodes;
    let mut cycle = sound.clone();
    cycle[0].if_true = 0;
    is_refused(&nodes(cycle), &["node 0 of tree 0", "two ways or from itself"]);
    let mut shared = sound.clone();
    shared[0].if_false = 1;
    is_refused(&nodes(shared), &["node 1 of tree 0", "two ways"]);
    for missing in [3, -1, i64::MAX] {
        let mut dangling = sound.clone();
        dangling[0].if_false = missing;
        is_refused(&nodes(dangling), &["node 0 of tree 0", &format!("child {missing}")]);
    }
    let mut orphan = Draft::sound();
    orphan.nodes.push(leaf(3));
    orphan.weights.push(weight(3, 0.5));
    is_refused(&orphan, &["node 3 of tree 0", "from nowhere"]);
    is_refused(&nodes([&sound[..], &[leaf(2)]].concat()), &["node 2 of tree 0", "twice"]);
    // A child in another tree is not there.
    let mut elsewhere = sound.clone();
    elsewhere[2].tree = 1;
    is_refused(&Draft { weights: vec![weight(1, 0.2)], ..nodes(elsewhere) }, &["child 2", "not there"]);
    // The first node is the root: what stands above it is not reached.
    let mut turned = sound;
    turned.swap(0, 1);
    is_refused(&nodes(turned), &["from nowhere"]);
}

#[test]
fn what_splits_nothing_or_reads_no_feature_is_refused() {
    let changed = |change: fn(&mut score_fixture::Node)| {
        let mut draft = Draft::sound();
        change(&mut draft.nodes[0]);
        draft
    };
    is_refused(&changed(|node| node.value = f32::NAN), &["threshold NaN"]);
    is_refused(&changed(|node| node.value = f32::NEG_INFINITY), &["minus infinity"]);
    is_refused(&changed(|node| node.feature = Features::COUNT as i64), &["feature 24", "there are 24"]);
    is_refused(&changed(|node| node.feature = -1), &["feature -1"]);
    is_refused(&changed(|node| node.mode = "BRANCH_EQ".to_owned()), &["BRANCH_EQ", "categorical"]);
    is_refused(&changed(|node| node.mode = "BRANCH_MEMBER".to_owned()), &["BRANCH_MEMBER"]);
}

#[test]
fn a_leaf_has_exactly_one_finite_weight() {
    let weights = |weights: Vec<score_fixture::Weight>| Draft { weights, ..Draft::sound() };
    is_refused(&weights(vec![weight(1, 0.1)]), &["leaf 2 of tree 0", "exactly one weight"]);
    let twice = vec![weight(1, 0.1), weight(2, 0.1), weight(2, 0.1)];
    is_refused(&weights(twice), &["leaf 2 of tree 0", "exactly one weight"]);
    is_refused(&weights(vec![weight(0, 0.1)]), &["node 0 of tree 0", "no leaf"]);
    is_refused(&weights(vec![weight(9, 0.1)]), &["node 9 of tree 0", "no leaf"]);
    for wrong in [f32::NAN, f32::INFINITY, 1_000_001.0, -2e6] {
        is_refused(&weights(vec![weight(1, wrong), weight(2, 0.1)]), &["weight", "not a number"]);
        is_refused(&Draft { base_values: vec![wrong], ..Draft::sound() }, &["base value"]);
    }
    let mut second_class = Draft::sound();
    second_class.weights[1].class = 1;
    is_refused(&second_class, &["class or target 1", "two classes"]);
}

/// A tree that goes down on one side, `depth` splits deep.
fn deep(depth: i64) -> Draft {
    let mut draft = Draft { nodes: vec![], weights: vec![], ..Draft::regressor() };
    for level in 0..depth {
        draft
            .nodes
            .extend([split(2 * level, "BRANCH_LEQ", 0.0, 2 * level + 2, 2 * level + 1), leaf(2 * level + 1)]);
        draft.weights.push(weight(2 * level + 1, 0.0));
    }
    draft.nodes.push(leaf(2 * depth));
    draft.weights.push(weight(2 * depth, 0.5));
    draft
}

/// This draft's trees, `count` times.
fn many(draft: &Draft, count: i64) -> Draft {
    let mut many = Draft { nodes: vec![], weights: vec![], ..draft.clone() };
    for tree in 0..count {
        many.nodes.extend(draft.nodes.iter().cloned().map(|node| score_fixture::Node { tree, ..node }));
        many.weights.extend(draft.weights.iter().map(|weight| score_fixture::Weight { tree, ..*weight }));
    }
    many
}

#[test]
fn a_model_that_would_take_too_long_is_refused() {
    assert_eq!(score(&deep(32), -1.0), 0.5);
    is_refused(&deep(33), &["tree 0", "32 levels", "max_depth"]);
    assert_eq!(score(&many(&deep(2), 1_024), 1.0), 0.0);
    is_refused(&many(&deep(1), 1_025), &["1025 trees", "1024"]);
    is_refused(&many(&deep(3), 1_024), &["3072 steps", "2048"]);
    assert!(matches!(Model::parse(&many(&deep(3), 20_000).bytes()), Err(ModelFault::Format(_))));
}

#[test]
fn every_comparison_means_what_it_says_at_its_threshold() {
    let (below, at, above) = (0.5_f32.next_down(), 0.5, 0.5_f32.next_up());
    let expected = [
        ("BRANCH_LEQ", [true, true, false]),
        ("BRANCH_LT", [true, false, false]),
        ("BRANCH_GTE", [false, true, true]),
        ("BRANCH_GT", [false, false, true]),
    ];
    for (mode, ways) in expected {
        let mut draft = Draft::sound();
        draft.nodes[0].mode = mode.to_owned();
        let is_true = [below, at, above].map(|value| score(&draft, value) == 0.25);
        assert_eq!(is_true, ways, "{mode}");
        let ends = [f32::NEG_INFINITY, f32::INFINITY].map(|value| score(&draft, value) == 0.25);
        assert_eq!(ends, [ways[0], ways[2]], "{mode} at the ends");
        // Zero has one place, whatever its sign.
        draft.nodes[0].value = -0.0;
        assert_eq!(score(&draft, 0.0), score(&draft, -0.0), "{mode}");
        assert_eq!(score(&draft, 0.0) == 0.25, ways[1], "{mode} at zero");
    }
}

#[test]
fn an_unknown_feature_goes_where_the_split_says() {
    for mode in ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"] {
        for (flag, expected) in [(0, 0.75), (1, 0.25)] {
            let mut draft = Draft::sound();
            draft.nodes[0].mode = mode.to_owned();
            draft.nodes[0].missing_is_true = flag;
            assert_eq!(score(&draft, f32::NAN), expected, "{mode} with {flag}");
        }
    }
    let without = Draft { without: vec!["nodes_missing_value_tracks_true"], ..Draft::sound() };
    assert_eq!(score(&without, f32::NAN), 0.75);
}

#[test]
fn a_prediction_beyond_0_and_1_is_the_nearest_score() {
    let beyond = |low, high| Draft { weights: vec![weight(1, low), weight(2, high)], ..Draft::regressor() };
    let draft = beyond(-3.0, 7.0);
    assert_eq!((score(&draft, 0.0), score(&draft, 1.0)), (0.0, 1.0));
    let certain = Draft {
        post_transform: "LOGISTIC",
        weights: vec![weight(1, -1e6), weight(2, 1e6)],
        ..Draft::sound()
    };
    assert_eq!((score(&certain, 0.0), score(&certain, 1.0)), (0.0, 1.0));
}

#[test]
fn names_from_the_file_are_short_in_messages() {
    let mut draft = Draft::sound();
    draft.metadata = metadata();
    draft.metadata[0].1 = "\u{1b}[31m".repeat(10_000);
    let fault = Model::parse(&draft.bytes()).expect_err("a refusal").to_string();
    assert!(fault.len() < 400 && !fault.contains('\u{1b}'), "{} octets", fault.len());
}

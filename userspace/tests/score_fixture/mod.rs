//! Writes small models octet by octet, right or wrong on purpose, and reads the vectors.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use weir::score::Features;

/// A path of the tree.
pub(crate) fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The octets of a file of the tree.
pub(crate) fn bytes_of(path: &str) -> Vec<u8> {
    std::fs::read(in_tree(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The little-endian floats of a compressed file of the tree.
pub(crate) fn floats_of(path: &str) -> Vec<f32> {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(&bytes_of(path)[..]).read_to_end(&mut raw).expect("gzip");
    let (whole, rest) = raw.as_chunks();
    assert!(rest.is_empty(), "{path} ends within a float");
    whole.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The inputs of the vectors, which the file holds feature by feature.
pub(crate) fn inputs() -> Vec<Features> {
    let floats = floats_of("tests/vectors/score/inputs.f32.gz");
    let count = floats.len() / Features::COUNT;
    assert_eq!(floats.len(), count * Features::COUNT);
    let row = |at: usize| std::array::from_fn(|feature| floats[feature * count + at]);
    (0..count).map(|at| Features::from_array(row(at))).collect()
}

/// One node as the file has it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) tree: i64,
    pub(crate) id: i64,
    pub(crate) feature: i64,
    pub(crate) mode: String,
    pub(crate) value: f32,
    pub(crate) if_true: i64,
    pub(crate) if_false: i64,
    pub(crate) missing_is_true: i64,
}

/// One weight as the file has it.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    pub(crate) tree: i64,
    pub(crate) id: i64,
    pub(crate) class: i64,
    pub(crate) weight: f32,
}

/// A model that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) operator: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weights: Vec<Weight>,
    pub(crate) post_transform: &'static str,
    pub(crate) aggregate: Option<&'static str>,
    pub(crate) base_values: Vec<f32>,
    pub(crate) labels: Vec<i64>,
    pub(crate) metadata: Vec<(String, String)>,
    /// Attributes to leave out.
    pub(crate) without: Vec<&'static str>,
    /// Attributes of integers to add, in place of those left out or beside the same.
    pub(crate) with: Vec<(&'static str, Vec<i64>)>,
    /// How often the graph has the node.
    pub(crate) copies: usize,
}

/// A split of tree 0 on the first feature.
pub(crate) fn split(id: i64, mode: &str, value: f32, if_true: i64, if_false: i64) -> Node {
    Node { tree: 0, id, feature: 0, mode: mode.to_owned(), value, if_true, if_false, missing_is_true: 0 }
}

/// A leaf of tree 0; its weight stands apart.
pub(crate) fn leaf(id: i64) -> Node {
    split(id, "LEAF", 0.0, 0, 0)
}

/// The weight of a leaf of tree 0.
pub(crate) fn weight(id: i64, weight: f32) -> Weight {
    Weight { tree: 0, id, class: 0, weight }
}

/// Metadata as this node asks for it.
pub(crate) fn metadata() -> Vec<(String, String)> {
    let version = ("weir.features_version".to_owned(), Features::VERSION.0.to_string());
    vec![version, ("weir.features".to_owned(), Features::NAMES.join(","))]
}

impl Draft {
    /// One split at 0.5 between leaves of 0.25, where it is true, and 0.75.
    pub(crate) fn sound() -> Self {
        Self {
            operator: "TreeEnsembleClassifier",
            domain: "ai.onnx.ml",
            nodes: vec![split(0, "BRANCH_LEQ", 0.5, 1, 2), leaf(1), leaf(2)],
            weights: vec![weight(1, 0.25), weight(2, 0.75)],
            post_transform: "NONE",
            aggregate: None,
            base_values: Vec::new(),
            labels: vec![0, 1],
            metadata: metadata(),
            without: Vec::new(),
            with: Vec::new(),
            copies: 1,
        }
    }

    /// The same as a regressor.
    pub(crate) fn regressor() -> Self {
        Self { operator: "TreeEnsembleRegressor", labels: vec![1], ..Self::sound() }
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut node = text(4, self.operator.as_bytes());
        node.extend(text(7, self.domain.as_bytes()));
        for (name, attribute) in self.attributes() {
            node.extend(text(5, &[text(1, name.as_bytes()), attribute].concat()));
        }
        let graph: Vec<u8> = (0..self.copies).flat_map(|_| text(1, &node)).collect();
        let mut file = text(7, &graph);
        for (key, value) in &self.metadata {
            file.extend(text(14, &[text(1, key.as_bytes()), text(2, value.as_bytes())].concat()));
        }
        file
    }

    fn attributes(&self) -> Vec<(&'static str, Vec<u8>)> {
        let ints = |of: fn(&Node) -> i64| self.nodes.iter().flat_map(|node| int(8, of(node))).collect();
        let of_weights =
            |of: fn(&Weight) -> i64| self.weights.iter().flat_map(|weight| int(8, of(weight))).collect();
        let is_classifier = self.operator == "TreeEnsembleClassifier";
        let own = |class, target| if is_classifier { class } else { target };
        let modes = self.nodes.iter().flat_map(|node| text(9, node.mode.as_bytes())).collect();
        let mut attributes = vec![
            ("nodes_treeids", ints(|node| node.tree)),
            ("nodes_nodeids", ints(|node| node.id)),
            ("nodes_featureids", ints(|node| node.feature)),
            ("nodes_modes", modes),
            ("nodes_values", floats(self.nodes.iter().map(|node| node.value))),
            ("nodes_truenodeids", ints(|node| node.if_true)),
            ("nodes_falsenodeids", ints(|node| node.if_false)),
            ("nodes_missing_value_tracks_true", ints(|node| node.missing_is_true)),
            (own("class_treeids", "target_treeids"), of_weights(|weight| weight.tree)),
            (own("class_nodeids", "target_nodeids"), of_weights(|weight| weight.id)),
            (own("class_ids", "target_ids"), of_weights(|weight| weight.class)),
            (own("class_weights", "target_weights"), floats(self.weights.iter().map(|w| w.weight))),
            ("post_transform", text(4, self.post_transform.as_bytes())),
            ("base_values", floats(self.base_values.iter().copied())),
        ];
        let labels = |field| self.labels.iter().flat_map(|&label| int(field, label)).collect();
        attributes.push(if is_classifier {
            ("classlabels_int64s", labels(8))
        } else {
            ("n_targets", labels(3))
        });
        attributes.extend(self.aggregate.map(|name| ("aggregate_function", text(4, name.as_bytes()))));
        attributes.retain(|(name, _)| !self.without.contains(name));
        let added = |values: &[i64]| values.iter().flat_map(|&value| int(8, value)).collect();
        attributes.extend(self.with.iter().map(|(name, values)| (*name, added(values))));
        attributes
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut octets = Vec::new();
    while number >= 0x80 {
        octets.push(number as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
    octets
}

fn int(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value.cast_unsigned())].concat()
}

fn text(field: u64, octets: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(octets.len() as u64), octets.to_vec()].concat()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(|value| [vec![7 << 3 | 5], value.to_le_bytes().to_vec()].concat()).collect()
}

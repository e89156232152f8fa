//! ONNX, as far as one ensemble of trees needs it: the columns of the model's only node, and its
//! metadata. What the columns mean together is for [`super::forest`] to check.
//!
//! Field numbers are those of `onnx-ml.proto`, attributes those of `TreeEnsembleClassifier` and
//! `TreeEnsembleRegressor` in `ai.onnx.ml` 1 to 4
//! (<https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md>). An attribute that is not
//! understood is refused: passing over it would give scores that nobody trained.

use displaydoc::Display;
use thiserror::Error;

use super::protobuf::{self, Damage, Fields};

/// Entries of one column: more trees or leaves than fit the time of a click.
pub(super) const MAX_NODES: usize = 1 << 17;
/// A tree node has two dozen attributes.
const MAX_ATTRIBUTES: usize = 64;
/// An import has one version; the last of several counts, as protobuf does it.
const MAX_VERSIONS: usize = 4;
/// Writers add a handful of entries.
const MAX_METADATA: usize = 256;
/// The domain of the operators.
const DOMAIN: &str = "ai.onnx.ml";
/// Versions of the domain in which they are what is read here: 4 has those of 3, 5 does away with them.
const OPSETS: std::ops::RangeInclusive<i64> = 1..=4;
/// Characters of a name from the file that are repeated in a message.
const QUOTED_MAX: usize = 40;

/// The file is protobuf, but no model of one ensemble of trees.
#[derive(Clone, Debug, PartialEq, Eq, Display, Error)]
pub enum FormatFault {
    /// {0}
    Damaged(#[from] Damage),
    /// the file has no graph; export the model as ONNX
    NoGraph,
    /// the file has more than one {0}; export the model again
    Twice(&'static str),
    /// the graph has no node; export the model again
    NoNode,
    /// the graph has more than its tree node; cut it to that, as bare() in deploy/score/train.py does
    MoreNodes,
    /// the node is {operator:?} of domain {domain:?}; export a TreeEnsembleClassifier or TreeEnsembleRegressor of ai.onnx.ml 1 to 4
    Operator {
        /// What it is.
        operator: String,
        /// Where it is defined.
        domain: String,
    },
    /// the model is of ai.onnx.ml {0}; export it for ai.onnx.ml 1 to 4
    Opset(i64),
    /// the tree node has an attribute {0:?}, which is not understood; export 32-bit values, labels 0 and 1, and ai.onnx.ml 1 to 4
    UnknownAttribute(String),
    /// the tree node has no attribute {0}; export the model again
    NoAttribute(&'static str),
    /// the tree node has the attribute {0:?} twice; export the model again
    AttributeTwice(String),
    /// the file has more than {0} attributes or entries of metadata; export the model again
    TooManyEntries(usize),
}

/// Which of the two operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Classifier,
    Regressor,
}

/// The columns of the tree node, lengths not yet compared.
#[derive(Debug)]
pub(super) struct Ensemble<'a> {
    pub(super) operator: Operator,
    pub(super) nodes: Nodes<'a>,
    pub(super) leaves: Leaves,
    pub(super) base_values: Vec<f32>,
    pub(super) post_transform: &'a [u8],
    pub(super) aggregate: &'a [u8],
    /// Labels of a classifier, or the number of targets of a regressor.
    pub(super) labels: Vec<i64>,
}

/// One entry a node.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    pub(super) trees: Vec<i64>,
    pub(super) ids: Vec<i64>,
    pub(super) features: Vec<i64>,
    pub(super) modes: Vec<&'a [u8]>,
    pub(super) values: Vec<f32>,
    pub(super) if_true: Vec<i64>,
    pub(super) if_false: Vec<i64>,
    /// Empty means that no missing value goes the way of true.
    pub(super) missing_is_true: Vec<i64>,
}

/// One entry a weight of a leaf.
#[derive(Debug)]
pub(super) struct Leaves {
    pub(super) trees: Vec<i64>,
    pub(super) ids: Vec<i64>,
    pub(super) classes: Vec<i64>,
    pub(super) weights: Vec<f32>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) ensemble: Ensemble<'a>,
    metadata: Vec<(&'a str, &'a str)>,
}

impl<'a> File<'a> {
    /// Reads `ModelProto`: `graph` is field 7, `opset_import` 8, `metadata_props` 14. A model that imports no
    /// operators is of the first version, as before they had any.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, FormatFault> {
        let mut graph = None;
        let mut metadata = Vec::new();
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                7 if graph.is_some() => return Err(FormatFault::Twice("graph")),
                7 => graph = Some(field.bytes()?),
                8 => check_opset(field.bytes()?)?,
                14 if metadata.len() == MAX_METADATA => {
                    return Err(FormatFault::TooManyEntries(MAX_METADATA));
                }
                14 => metadata.push(entry(field.bytes()?)?),
                _ => {}
            }
        }
        let ensemble = only_node(graph.ok_or(FormatFault::NoGraph)?)?;
        Ok(Self { ensemble: Ensemble::parse(ensemble)?, metadata })
    }

    /// The last value under this key, as maps do it.
    pub(super) fn metadata(&self, key: &str) -> Option<&'a str> {
        self.metadata.iter().rev().find(|(known, _)| *known == key).map(|&(_, value)| value)
    }
}

/// `OperatorSetIdProto`: domain 1, version 2.
fn check_opset(message: &[u8]) -> Result<(), FormatFault> {
    let mut domain = "";
    for field in Fields::of(message) {
        let field = field?;
        if field.number == 1 {
            domain = field.text()?;
        }
    }
    let version = protobuf::ints(message, 2, MAX_VERSIONS)?.last().copied().unwrap_or_default();
    if domain == DOMAIN && !OPSETS.contains(&version) { Err(FormatFault::Opset(version)) } else { Ok(()) }
}

/// `StringStringEntryProto`: key 1, value 2.
fn entry(message: &[u8]) -> Result<(&str, &str), Damage> {
    let mut entry = ("", "");
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => entry.0 = field.text()?,
            2 => entry.1 = field.text()?,
            _ => {}
        }
    }
    Ok(entry)
}

/// `GraphProto`: `node` is field 1.
fn only_node(graph: &[u8]) -> Result<&[u8], FormatFault> {
    let mut only = None;
    for field in Fields::of(graph) {
        let field = field?;
        if field.number == 1 {
            if only.is_some() {
                return Err(FormatFault::MoreNodes);
            }
            only = Some(field.bytes()?);
        }
    }
    only.ok_or(FormatFault::NoNode)
}

impl<'a> Ensemble<'a> {
    /// Reads `NodeProto`: `op_type` is field 4, `attribute` 5, `domain` 7.
    fn parse(node: &'a [u8]) -> Result<Self, FormatFault> {
        let (mut operator, mut domain) = ("", "");
        let mut attributes = Attributes(Vec::new());
        for field in Fields::of(node) {
            let field = field?;
            match field.number {
                4 => operator = field.text()?,
                5 => attributes.add(field.bytes()?)?,
                7 => domain = field.text()?,
                _ => {}
            }
        }
        let operator = match (domain, operator) {
            (DOMAIN, "TreeEnsembleClassifier") => Operator::Classifier,
            (DOMAIN, "TreeEnsembleRegressor") => Operator::Regressor,
            _ => return Err(FormatFault::Operator { operator: quoted(operator), domain: quoted(domain) }),
        };
        attributes.check_names(operator)?;
        let (leaves, labels) = match operator {
            Operator::Classifier => (
                attributes.leaves(["class_treeids", "class_nodeids", "class_ids", "class_weights"])?,
                attributes.ints("classlabels_int64s")?,
            ),
            Operator::Regressor => (
                attributes.leaves(["target_treeids", "target_nodeids", "target_ids", "target_weights"])?,
                attributes.int("n_targets")?.into_iter().collect(),
            ),
        };
        Ok(Self {
            operator,
            nodes: attributes.nodes()?,
            leaves,
            base_values: attributes.optional_floats("base_values")?,
            post_transform: attributes.string("post_transform")?.unwrap_or(b"NONE"),
            aggregate: attributes.string("aggregate_function")?.unwrap_or(b"SUM"),
            labels,
        })
    }
}

/// What both operators have.
const COMMON: [&str; 11] = [
    "base_values",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates", // how often a node was passed in training; no score depends on it
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_truenodeids",
    "nodes_values",
    "post_transform",
];
const OF_CLASSIFIER: [&str; 5] =
    ["class_ids", "class_nodeids", "class_treeids", "class_weights", "classlabels_int64s"];
const OF_REGRESSOR: [&str; 6] =
    ["aggregate_function", "n_targets", "target_ids", "target_nodeids", "target_treeids", "target_weights"];

/// `AttributeProto` by name: name 1, i 3, s 4, floats 7, ints 8, strings 9.
struct Attributes<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Attributes<'a> {
    fn add(&mut self, attribute: &'a [u8]) -> Result<(), FormatFault> {
        let mut name = "";
        for field in Fields::of(attribute) {
            let field = field?;
            if field.number == 1 {
                name = field.text()?;
            }
        }
        if self.find(name).is_some() {
            return Err(FormatFault::AttributeTwice(quoted(name)));
        }
        if self.0.len() == MAX_ATTRIBUTES {
            return Err(FormatFault::TooManyEntries(MAX_ATTRIBUTES));
        }
        self.0.push((name, attribute));
        Ok(())
    }

    fn check_names(&self, operator: Operator) -> Result<(), FormatFault> {
        let own: &[&str] = match operator {
            Operator::Classifier => &OF_CLASSIFIER,
            Operator::Regressor => &OF_REGRESSOR,
        };
        let unknown = self.0.iter().find(|(name, _)| !COMMON.contains(name) && !own.contains(name));
        unknown.map_or(Ok(()), |(name, _)| Err(FormatFault::UnknownAttribute(quoted(name))))
    }

    fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|&(_, attribute)| attribute)
    }

    fn must(&self, name: &'static str) -> Result<&'a [u8], FormatFault> {
        self.find(name).ok_or(FormatFault::NoAttribute(name))
    }

    fn ints(&self, name: &'static str) -> Result<Vec<i64>, FormatFault> {
        Ok(protobuf::ints(self.must(name)?, 8, MAX_NODES)?)
    }

    fn floats(&self, name: &'static str) -> Result<Vec<f32>, FormatFault> {
        Ok(protobuf::floats(self.must(name)?, 7, MAX_NODES)?)
    }

    fn optional_floats(&self, name: &'static str) -> Result<Vec<f32>, FormatFault> {
        if self.find(name).is_some() { self.floats(name) } else { Ok(Vec::new()) }
    }

    fn string(&self, name: &str) -> Result<Option<&'a [u8]>, FormatFault> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        Ok(protobuf::strings(attribute, 4, 1)?.first().copied())
    }

    fn int(&self, name: &'static str) -> Result<Option<i64>, FormatFault> {
        Ok(protobuf::ints(self.must(name)?, 3, 1)?.first().copied())
    }

    fn nodes(&self) -> Result<Nodes<'a>, FormatFault> {
        let missing = "nodes_missing_value_tracks_true";
        Ok(Nodes {
            trees: self.ints("nodes_treeids")?,
            ids: self.ints("nodes_nodeids")?,
            features: self.ints("nodes_featureids")?,
            modes: protobuf::strings(self.must("nodes_modes")?, 9, MAX_NODES)?,
            values: self.floats("nodes_values")?,
            if_true: self.ints("nodes_truenodeids")?,
            if_false: self.ints("nodes_falsenodeids")?,
            missing_is_true: if self.find(missing).is_some() { self.ints(missing)? } else { Vec::new() },
        })
    }

    fn leaves(&self, [trees, ids, classes, weights]: [&'static str; 4]) -> Result<Leaves, FormatFault> {
        Ok(Leaves {
            trees: self.ints(trees)?,
            ids: self.ints(ids)?,
            classes: self.ints(classes)?,
            weights: self.floats(weights)?,
        })
    }
}

/// A name from the file, short enough for a message.
pub(super) fn quoted(name: &str) -> String {
    name.chars().take(QUOTED_MAX).collect()
}

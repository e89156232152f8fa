//! Why trees were refused.

use displaydoc::Display;
use thiserror::Error;

/// The columns of a model make no trees that could be evaluated as they were meant, or in time.
#[derive(Clone, Debug, PartialEq, Eq, Display, Error)]
pub enum TreeFault {
    /// column {column} has {entries} entries where there are {expected}; export the model again
    Length {
        /// The column.
        column: &'static str,
        /// How many it has.
        entries: usize,
        /// How many it should have.
        expected: usize,
    },
    /// the model has no tree; train it with at least one
    NoTree,
    /// the model has {trees} trees, at most {max} are taken; train fewer
    TooManyTrees {
        /// How many it has.
        trees: usize,
        /// How many it may have.
        max: usize,
    },
    /// tree {tree} is more than {max} levels deep; train with a smaller max_depth
    TooDeep {
        /// The tree, by its number in the file.
        tree: i64,
        /// How deep it may be.
        max: u32,
    },
    /// a click would take {steps} steps through the trees, at most {max} fit its time; train fewer or shallower trees
    TooSlow {
        /// The depths of all trees together.
        steps: u64,
        /// How many they may be.
        max: u64,
    },
    /// node {node} of tree {tree} is there twice; export the model again
    NodeTwice {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// node {node} of tree {tree} compares by {mode:?}; only BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT and LEAF are taken, so train without categorical features
    Mode {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
        /// What it says.
        mode: String,
    },
    /// node {node} of tree {tree} reads feature {feature}, and there are {count}; train on the node's features
    Feature {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
        /// Which one it reads.
        feature: i64,
        /// How many there are.
        count: usize,
    },
    /// node {node} of tree {tree} has the threshold NaN or minus infinity, which splits nothing; train again without such values
    Threshold {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// node {node} of tree {tree} names the child {child}, which is not there; export the model again
    Dangling {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
        /// The child, by its number in the file.
        child: i64,
    },
    /// node {node} of tree {tree} is reached on two ways or from itself; export the model again
    NoTreeShape {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// node {node} of tree {tree} is reached from nowhere; export the model again
    Unreached {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// there is a weight for node {node} of tree {tree}, which is no leaf; export the model again
    WeightElsewhere {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// leaf {node} of tree {tree} has not exactly one weight; export a model of two classes
    WeightCount {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
    },
    /// leaf {node} of tree {tree} votes for class or target {class}; export a model of two classes or one target
    Class {
        /// The tree, by its number in the file.
        tree: i64,
        /// The node, by its number in the file.
        node: i64,
        /// For which.
        class: i64,
    },
    /// a weight or base value is not a number or above {max}; train again with a smaller learning rate
    Weight {
        /// The most one may be, to either side of 0.
        max: u32,
    },
    /// a classifier's labels must be 0, valid, and 1, invalid; train it on those
    Labels,
    /// a regressor must have one target; train it on 0, valid, and 1, invalid
    Targets,
    /// there are {0} base values; export a model of two classes or one target
    BaseValues(usize),
    /// the post transform {0:?} is not taken; export a classifier with LOGISTIC or NONE, or a regressor with NONE
    PostTransform(String),
    /// the trees are aggregated by {0:?}; only SUM and AVERAGE are taken
    Aggregate(String),
    /// a classifier with the post transform NONE has negative weights, so it gives margins and not shares; export it with LOGISTIC
    Margins,
}

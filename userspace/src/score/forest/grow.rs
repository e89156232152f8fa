//! From the columns of a model to checked trees. Every bound and every refusal stands here.
//!
//! A tree is laid out level by level, children side by side. Each node is laid out at most once, so
//! it ends for any input; what is reached twice or never is refused.

use std::collections::HashMap;

use super::{Finish, Forest, Node, Tree, TreeFault};
use crate::score::features::Features;
use crate::score::onnx::{Ensemble, Leaves, MAX_NODES, Nodes, Operator, quoted};

/// More trees than this are more than a click has time for, at two steps each.
const MAX_TREES: usize = 1_024;
/// A split halves what is left: a deeper tree has learnt single clicks.
const MAX_DEPTH: u32 = 32;
/// Steps of all trees together, for one click. At the 2.1 ns of a step that `docs/performance.md`
/// measures they take 4.3 us: a model that is taken keeps the bar of 5 us a click.
const MAX_STEPS: u64 = 2_048;
/// A margin of a hundred is certainty. Far more of them than there can be trees stay finite.
const MAX_WEIGHT: u32 = 1_000_000;

const _: () = assert!(MAX_WEIGHT as u64 * (MAX_TREES as u64 + 1) < 1 << 60);
const _: () = assert!(MAX_NODES < u32::MAX as usize);
const _: () = assert!(MAX_STEPS == 2 * MAX_TREES as u64);

/// A node by the numbers of the file: tree, node.
type Name = (i64, i64);

impl Forest {
    /// Checks the columns and lays the trees out, in the order in which the file first names them.
    pub(in crate::score) fn grow(ensemble: &Ensemble) -> Result<Self, TreeFault> {
        let nodes = &ensemble.nodes;
        check_lengths(ensemble)?;
        let finish = finish(ensemble)?;
        let rows = rows_by_name(nodes)?;
        let weights = weights_by_row(nodes, &ensemble.leaves, &rows)?;
        let roots = roots(nodes)?;
        let mut grown = Growth { nodes, rows, weights, forest: Self::empty(finish), reached: Vec::new() };
        grown.reached.resize(nodes.ids.len(), false);
        for root in roots {
            grown.tree(root)?;
        }
        let forest = grown.whole()?;
        let forest = forest.with_divisor(ensemble.aggregate == b"AVERAGE");
        let steps = forest.steps();
        if steps > MAX_STEPS {
            return Err(TreeFault::TooSlow { steps, max: MAX_STEPS });
        }
        Ok(forest)
    }

    const fn empty(finish: Finish) -> Self {
        Self { nodes: Vec::new(), weights: Vec::new(), trees: Vec::new(), finish }
    }

    fn with_divisor(mut self, is_average: bool) -> Self {
        if is_average {
            self.finish.divisor = self.trees.len() as f32;
        }
        self
    }
}

fn check_lengths(ensemble: &Ensemble) -> Result<(), TreeFault> {
    let (nodes, leaves) = (&ensemble.nodes, &ensemble.leaves);
    let expected = nodes.ids.len();
    if expected == 0 {
        return Err(TreeFault::NoTree);
    }
    let missing = nodes.missing_is_true.len();
    let columns = [
        ("nodes_treeids", nodes.trees.len(), expected),
        ("nodes_featureids", nodes.features.len(), expected),
        ("nodes_modes", nodes.modes.len(), expected),
        ("nodes_values", nodes.values.len(), expected),
        ("nodes_truenodeids", nodes.if_true.len(), expected),
        ("nodes_falsenodeids", nodes.if_false.len(), expected),
        ("nodes_missing_value_tracks_true", missing, if missing == 0 { 0 } else { expected }),
        ("class_treeids or target_treeids", leaves.trees.len(), leaves.weights.len()),
        ("class_nodeids or target_nodeids", leaves.ids.len(), leaves.weights.len()),
        ("class_ids or target_ids", leaves.classes.len(), leaves.weights.len()),
    ];
    let wrong = columns.into_iter().find(|(_, entries, expected)| entries != expected);
    wrong.map_or(Ok(()), |(column, entries, expected)| Err(TreeFault::Length { column, entries, expected }))
}

/// What follows the sum; the divisor is set when the trees are counted.
fn finish(ensemble: &Ensemble) -> Result<Finish, TreeFault> {
    let text = |bytes| quoted(&String::from_utf8_lossy(bytes));
    let weights = &ensemble.leaves.weights;
    let is_wrong = |weight: &f32| weight.is_nan() || weight.abs() > MAX_WEIGHT as f32;
    if weights.iter().chain(&ensemble.base_values).any(is_wrong) {
        return Err(TreeFault::Weight { max: MAX_WEIGHT });
    }
    let base = match ensemble.base_values[..] {
        [] => 0.0,
        [base] => base,
        _ => return Err(TreeFault::BaseValues(ensemble.base_values.len())),
    };
    if !matches!(ensemble.aggregate, b"SUM" | b"AVERAGE") {
        return Err(TreeFault::Aggregate(text(ensemble.aggregate)));
    }
    let logistic = match (ensemble.operator, ensemble.post_transform) {
        (Operator::Classifier, b"LOGISTIC") => true,
        // The reference passes over any transform of a regressor of one target but PROBIT: what
        // asks for one is not what its trainer saw.
        (_, b"NONE") => false,
        (_, other) => return Err(TreeFault::PostTransform(text(other))),
    };
    match ensemble.operator {
        Operator::Classifier if ensemble.labels != [0, 1] => return Err(TreeFault::Labels),
        Operator::Classifier if !logistic && weights.iter().any(|&weight| weight < 0.0) => {
            return Err(TreeFault::Margins);
        }
        Operator::Regressor if ensemble.labels != [1] => return Err(TreeFault::Targets),
        _ => {}
    }
    Ok(Finish { divisor: 1.0, base, logistic })
}

fn rows_by_name(nodes: &Nodes) -> Result<HashMap<Name, usize>, TreeFault> {
    let mut rows = HashMap::with_capacity(nodes.ids.len());
    for (row, (&tree, &node)) in nodes.trees.iter().zip(&nodes.ids).enumerate() {
        if rows.insert((tree, node), row).is_some() {
            return Err(TreeFault::NodeTwice { tree, node });
        }
    }
    Ok(rows)
}

/// The one weight of each leaf; `None` for what has none.
fn weights_by_row(
    nodes: &Nodes,
    leaves: &Leaves,
    rows: &HashMap<Name, usize>,
) -> Result<Vec<Option<f32>>, TreeFault> {
    let mut weights = vec![None; nodes.ids.len()];
    let names = leaves.trees.iter().copied().zip(leaves.ids.iter().copied());
    for (((tree, node), &class), &weight) in names.zip(&leaves.classes).zip(&leaves.weights) {
        if class != 0 {
            return Err(TreeFault::Class { tree, node, class });
        }
        let row = rows.get(&(tree, node)).filter(|&&row| nodes.modes[row] == b"LEAF");
        let &row = row.ok_or(TreeFault::WeightElsewhere { tree, node })?;
        if weights[row].replace(weight).is_some() {
            return Err(TreeFault::WeightCount { tree, node });
        }
    }
    Ok(weights)
}

/// The first row of each tree: exporters write the root first, and the reference takes it for that.
fn roots(nodes: &Nodes) -> Result<Vec<usize>, TreeFault> {
    let mut seen = std::collections::HashSet::new();
    let roots: Vec<usize> = (0..nodes.trees.len()).filter(|&row| seen.insert(nodes.trees[row])).collect();
    if roots.len() > MAX_TREES {
        return Err(TreeFault::TooManyTrees { trees: roots.len(), max: MAX_TREES });
    }
    Ok(roots)
}

/// A split as the file has it.
struct Split {
    left: i64,
    right: i64,
    threshold: f32,
    nan_is_left: bool,
}

/// Trees that are being laid out.
struct Growth<'a> {
    nodes: &'a Nodes<'a>,
    rows: HashMap<Name, usize>,
    weights: Vec<Option<f32>>,
    forest: Forest,
    reached: Vec<bool>,
}

impl Growth<'_> {
    fn name(&self, row: usize) -> Name {
        (self.nodes.trees[row], self.nodes.ids[row])
    }

    /// Lays out the tree of this root, level by level.
    fn tree(&mut self, root: usize) -> Result<(), TreeFault> {
        let first = self.forest.nodes.len();
        let mut level = vec![root];
        self.reach(root)?;
        let mut depth = 0;
        loop {
            // Where the level after this one begins.
            let mut next_at = self.forest.nodes.len() + level.len();
            let mut next = Vec::new();
            for row in level {
                let children = self.lay_out(row, next_at)?;
                if let Some(children) = children {
                    next.extend(children);
                    next_at += children.len();
                }
            }
            if next.is_empty() {
                break;
            }
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(TreeFault::TooDeep { tree: self.name(root).0, max: MAX_DEPTH });
            }
            level = next;
        }
        self.forest.trees.push(Tree { root: first, depth });
        Ok(())
    }

    /// Appends one node; gives the rows of the children of a split, which will stand at `children_at`.
    fn lay_out(&mut self, row: usize, children_at: usize) -> Result<Option<[usize; 2]>, TreeFault> {
        let (tree, node) = self.name(row);
        let at = self.forest.nodes.len() as u32;
        if self.nodes.modes[row] == b"LEAF" {
            let weight = self.weights[row].ok_or(TreeFault::WeightCount { tree, node })?;
            self.forest.nodes.push(Node::leaf(at));
            self.forest.weights.push(weight);
            return Ok(None);
        }
        let split = self.split(row)?;
        let feature = self.nodes.features[row];
        let count = Features::COUNT;
        let known = usize::try_from(feature).ok().filter(|&feature| feature < count);
        let Some(known) = known else {
            return Err(TreeFault::Feature { tree, node, feature, count });
        };
        let mut children = [0; 2];
        for (row, child) in children.iter_mut().zip([split.left, split.right]) {
            let found = self.rows.get(&(tree, child)).copied();
            *row = found.ok_or(TreeFault::Dangling { tree, node, child })?;
            self.reach(*row)?;
        }
        self.forest.nodes.push(Node {
            threshold: split.threshold,
            left: children_at as u32,
            feature: known as u16,
            nan_is_left: split.nan_is_left,
        });
        self.forest.weights.push(0.0);
        Ok(Some(children))
    }

    /// The four comparisons as one, "up to the threshold to the left".
    ///
    /// Below a number is up to the float before it; at or above it is what is not below it. What
    /// is missing makes every comparison false, unless the node says that it tracks true.
    fn split(&self, row: usize) -> Result<Split, TreeFault> {
        let (tree, node) = self.name(row);
        let value = self.nodes.values[row];
        if value.is_nan() || value == f32::NEG_INFINITY {
            return Err(TreeFault::Threshold { tree, node });
        }
        let is_true = self.nodes.missing_is_true.get(row).is_some_and(|&flag| flag != 0);
        let (if_true, if_false) = (self.nodes.if_true[row], self.nodes.if_false[row]);
        let below = value.next_down();
        let true_left = |threshold| Split { left: if_true, right: if_false, threshold, nan_is_left: is_true };
        let true_right =
            |threshold| Split { left: if_false, right: if_true, threshold, nan_is_left: !is_true };
        match self.nodes.modes[row] {
            b"BRANCH_LEQ" => Ok(true_left(value)),
            b"BRANCH_LT" => Ok(true_left(below)),
            b"BRANCH_GT" => Ok(true_right(value)),
            b"BRANCH_GTE" => Ok(true_right(below)),
            other => Err(TreeFault::Mode { tree, node, mode: quoted(&String::from_utf8_lossy(other)) }),
        }
    }

    fn reach(&mut self, row: usize) -> Result<(), TreeFault> {
        let (tree, node) = self.name(row);
        if std::mem::replace(&mut self.reached[row], true) {
            return Err(TreeFault::NoTreeShape { tree, node });
        }
        Ok(())
    }

    /// The forest, if every node of the file stands in it.
    fn whole(self) -> Result<Forest, TreeFault> {
        if let Some(row) = self.reached.iter().position(|reached| !reached) {
            let (tree, node) = self.name(row);
            return Err(TreeFault::Unreached { tree, node });
        }
        Ok(self.forest)
    }
}

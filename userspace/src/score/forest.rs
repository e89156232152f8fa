//! An ensemble of binary trees, checked once and laid out flat; and its evaluation.
//!
//! [`Forest::grow`] takes the columns of a model and leaves nothing to check: every tree is a tree,
//! every child exists, every leaf has one finite weight, and the steps a click can cost are bounded.
//!
//! Evaluation walks one tree with [`LANES`] clicks at a time, so that the processor waits for the
//! memory of several at once, and takes as many steps as the tree is deep: a leaf's step leads to
//! itself. So no branch depends on a click.

mod fault;
mod grow;

pub use fault::TreeFault;

/// Floats of a row, features first: a power of two, so that a mask keeps look-ups inside.
pub(super) const ROW: usize = 32;
/// Clicks that walk a tree together. Eight hide the latency of a look-up and fit the registers.
const LANES: usize = 8;
/// Clicks from which on a group walks together, empty lanes with it: eight lanes cost less than two
/// clicks one after the other.
const TOGETHER_MIN: usize = 2;

/// A node of 12 octets: a split, or a leaf, whose step leads to itself.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// To the left go values up to this one.
    threshold: f32,
    /// The left child; the right one is next to it. A leaf's is the leaf itself.
    left: u32,
    /// Which feature.
    feature: u16,
    /// Whether an unknown value goes to the left.
    nan_is_left: bool,
}

impl Node {
    /// The step to the leaf itself, whatever the value: all numbers are up to infinity, and NaN
    /// goes to the left.
    const fn leaf(itself: u32) -> Self {
        Self { threshold: f32::INFINITY, left: itself, feature: 0, nan_is_left: true }
    }

    #[inline(always)]
    fn next(&self, row: &[f32; ROW]) -> usize {
        let value = row[usize::from(self.feature) % ROW];
        // Not short-circuit: two comparisons cost less than a branch that is guessed wrong.
        let is_left = (value <= self.threshold) | (value.is_nan() & self.nan_is_left);
        self.left as usize + usize::from(!is_left)
    }
}

/// Where a tree begins, and how many steps lead to any of its leaves.
#[derive(Clone, Copy, Debug)]
struct Tree {
    root: usize,
    depth: u32,
}

/// How the sum of a click's leaves becomes its score.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Finish {
    /// What the sum is divided by: 1, or the number of trees.
    divisor: f32,
    /// Added to it.
    base: f32,
    logistic: bool,
}

impl Finish {
    /// The score, from 0 to 1. In the order and the precision of the reference, onnxruntime.
    #[inline]
    fn score(self, sum: f32) -> f32 {
        let margin = sum / self.divisor + self.base;
        if !self.logistic {
            return margin.clamp(0.0, 1.0);
        }
        let share = 1.0 / (1.0 + (-margin.abs()).exp());
        if margin < 0.0 { 1.0 - share } else { share }
    }
}

/// Trees that were checked.
#[derive(Clone, Debug)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// By node; that of a split is never read.
    weights: Vec<f32>,
    trees: Vec<Tree>,
    finish: Finish,
}

impl Forest {
    /// How many trees.
    pub(super) const fn trees(&self) -> usize {
        self.trees.len()
    }

    /// How many nodes.
    pub(super) const fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The most steps one click takes.
    pub(super) fn steps(&self) -> u64 {
        self.trees.iter().map(|tree| u64::from(tree.depth)).sum()
    }

    /// Appends the score of each row, in order. What a row has beyond `N` values is zero to it.
    pub(super) fn score<const N: usize>(&self, rows: &[impl AsRef<[f32; N]>], out: &mut Vec<f32>) {
        const { assert!(N <= ROW) }
        out.reserve(rows.len());
        let mut lanes = [[0.0; ROW]; LANES];
        for group in rows.chunks(LANES) {
            for (lane, row) in lanes.iter_mut().zip(group) {
                lane[..N].copy_from_slice(row.as_ref());
            }
            if group.len() < TOGETHER_MIN {
                let alone = lanes[..group.len()].chunks_exact(1).filter_map(<[_]>::first_chunk);
                out.extend(alone.map(|lane| self.finish.score(self.sums::<1>(lane)[0])));
            } else {
                let sums = self.sums(&lanes);
                out.extend(sums[..group.len()].iter().map(|&sum| self.finish.score(sum)));
            }
        }
    }

    /// The sum of the leaves each lane comes to, tree by tree: the order is part of the result.
    fn sums<const L: usize>(&self, lanes: &[[f32; ROW]; L]) -> [f32; L] {
        let mut sums = [0.0; L];
        for tree in &self.trees {
            let mut at = [tree.root; L];
            for _ in 0..tree.depth {
                for (at, row) in at.iter_mut().zip(lanes) {
                    *at = self.nodes[*at].next(row);
                }
            }
            for (sum, at) in sums.iter_mut().zip(at) {
                *sum += self.weights[at];
            }
        }
        sums
    }
}

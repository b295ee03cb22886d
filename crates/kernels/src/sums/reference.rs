//! The sums as definitions: what the kernels of [`super`] return, bit for bit.

use super::Images;
use crate::leaves::{BatchLeaf, LANES, LEAF, batch_leaves, tree};

/// The sum of the terms of one leaf: term `j` to lane `j % 32`, lanes added 16-8-4-2-1.
pub fn leaf_sum(terms: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; LANES];
    for (j, term) in terms.enumerate() {
        lanes[j % LANES] += term;
    }
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// `term(0) + … + term(count - 1)` by leaves of [`LEAF`] terms; +0 of nothing.
pub fn sum(count: usize, term: impl Fn(usize) -> f64) -> f64 {
    let leaf = |leaf: usize| leaf_sum((leaf * LEAF..((leaf + 1) * LEAF).min(count)).map(&term));
    tree(count.div_ceil(LEAF), leaf, |a, b| a + b).unwrap_or(0.0)
}

/// The sum of `term(index)` over the flat indices of channel `c` of `x [n, c, h, w]`, by the leaves of a
/// batch ([`batch_leaves`]).
pub fn channel_sum(shape: Images, c: usize, term: impl Fn(usize) -> f64) -> f64 {
    let leaves = batch_leaves(shape.n, shape.h, shape.w);
    let leaf = |leaf: usize| {
        let BatchLeaf { samples, rows } = leaves[leaf].clone();
        let first = |n: usize| (n * shape.c + c) * shape.h * shape.w;
        let positions = rows.start * shape.w..rows.end * shape.w;
        leaf_sum(samples.flat_map(|n| positions.clone().map(move |at| first(n) + at)).map(&term))
    };
    tree(leaves.len(), leaf, |a, b| a + b).unwrap_or(0.0)
}

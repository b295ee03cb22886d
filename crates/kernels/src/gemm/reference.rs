//! The definitions.

use super::{Extents, Matrix};
use crate::leaves::tree;

/// `c[i][j] = Σ a[i][k]·b[k][j]`, k ascending from +0, each term one fused multiply-add.
pub fn multiply(extents: Extents, a: Matrix, b: Matrix, c: &mut [f32]) {
    multiply_in_leaves(extents, extents.k.max(1), a, b, c);
}

/// The same in leaves of `leaf` consecutive k, added in f32 by the tree of their index.
pub fn multiply_in_leaves(extents: Extents, leaf: usize, a: Matrix, b: Matrix, c: &mut [f32]) {
    for i in 0..extents.m {
        for j in 0..extents.n {
            let chain = |index: usize| {
                let mut sum = 0.0_f32;
                for k in index * leaf..((index + 1) * leaf).min(extents.k) {
                    sum = a.at(i, k).mul_add(b.at(k, j), sum);
                }
                sum
            };
            c[i * extents.n + j] = tree(extents.k.div_ceil(leaf), chain, |a, b| a + b).unwrap_or(0.0);
        }
    }
}

//! The sums of the contract as definitions: f64 inside, in a stated order, rounded by the caller.
//!
//! A sum of n terms is cut into leaves of 4096; inside a leaf, term j goes to virtual lane j mod 32, the
//! lanes are added 16-8-4-2-1, and the leaves by the binary tree of their index.

use crate::real::Real;
use crate::shape::Shape;
use kinone_kernels::leaves::{BatchLeaf, LANES, LEAF, batch_leaves, tree};

/// The sum of the terms of one leaf.
pub fn leaf_sum<W: Real>(terms: impl Iterator<Item = W>) -> W {
    let mut lanes = [W::zero(); LANES];
    for (j, term) in terms.enumerate() {
        lanes[j % LANES] = lanes[j % LANES] + term;
    }
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = lanes[lane] + lanes[lane + width];
        }
    }
    lanes[0]
}

/// The sum of `term(0), …, term(count - 1)`; +0 of nothing.
pub fn sum<W: Real>(count: usize, term: impl Fn(usize) -> W) -> W {
    let leaf = |index: usize| leaf_sum((index * LEAF..((index + 1) * LEAF).min(count)).map(&term));
    tree(count.div_ceil(LEAF), leaf, |a, b| a + b).unwrap_or(W::zero())
}

/// The sum over a batch `[n, h, w]` of `term(sample, position)`, with the leaves of a batch.
pub fn batch_sum<W: Real>(n: usize, h: usize, w: usize, term: impl Fn(usize, usize) -> W) -> W {
    let leaves = batch_leaves(n, h, w);
    let leaf = |index: usize| {
        let BatchLeaf { samples, rows } = &leaves[index];
        let positions = rows.start * w..rows.end * w;
        leaf_sum(
            samples
                .clone()
                .flat_map(|sample| positions.clone().map(move |at| (sample, at)))
                .map(|(s, p)| term(s, p)),
        )
    };
    tree(leaves.len(), leaf, |a, b| a + b).unwrap_or(W::zero())
}

/// For each element of shape `small`, the flat indices of the elements of `large` that broadcasting maps to
/// it, in row-major order of `large`.
///
/// `small` broadcasts to `large`.
pub fn fibres(small: &Shape, large: &Shape) -> Vec<Vec<usize>> {
    let mut fibres = vec![Vec::new(); small.size()];
    for (flat, target) in broadcast_index(small, large).into_iter().enumerate() {
        fibres[target].push(flat);
    }
    fibres
}

/// For each element of `large`, in row-major order, the flat index of the element of `small` it repeats.
pub fn broadcast_index(small: &Shape, large: &Shape) -> Vec<usize> {
    let offset = large.len() - small.len();
    let strides = small.strides();
    let mut index = vec![0; large.len()];
    let mut flat = Vec::with_capacity(large.size());
    for _ in 0..large.size() {
        let mut at = 0;
        for (axis, stride) in strides.iter().enumerate() {
            if small[axis] != 1 {
                at += index[offset + axis] * stride;
            }
        }
        flat.push(at);
        for axis in (0..large.len()).rev() {
            index[axis] += 1;
            if index[axis] < large[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    flat
}

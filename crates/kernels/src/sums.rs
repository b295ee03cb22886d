//! Sums of many terms to few results (contract, rules 4 and 5).
//!
//! The definition, [`reference::sum`]: terms are taken in leaves of [`LEAF`]; term `j` of a leaf is added to
//! f64 lane `j % 32`, lanes start at +0 and are added 16-8-4-2-1, leaves by the tree of their index
//! ([`crate::leaves::tree`]). So the bits depend on the number of terms alone. The 32 lanes are the vector
//! registers of every instruction set; leaves are what threads share.

mod batch;
pub mod reference;

pub use batch::{Images, channel_dot_sums, channel_sums};
pub(crate) use batch::{Planes, channel_leaf};

use crate::leaves::{LANES, LEAF, tree};
use crate::{Cpu, Task};
use std::array::from_fn;

/// Lanes whose sums stay in registers together.
const HALF: usize = LANES / 2;
/// Chunks of which one half of the lanes is summed before the other half is.
const CHUNKS: usize = 4;
/// The leaves a thread takes at least.
const LEAF_GRAIN: usize = 4;
/// How many neighbouring sums advance together where the terms of one are far apart.
const COLUMNS: usize = 32;

/// `Σ x[j]`
pub fn sum(cpu: &Cpu, x: &[f32]) -> f64 {
    long_sum(cpu, Values, [x])[0]
}

/// `Σ x[j]²`; each square is exact in f64.
pub fn sum_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    long_sum(cpu, Squares, [x])[0]
}

/// `Σ a[j]·b[j]`; each product is exact in f64.
///
/// # Panics
/// When the lengths differ.
pub fn dot(cpu: &Cpu, a: &[f32], b: &[f32]) -> f64 {
    long_sum(cpu, Products, [a, b])[0]
}

/// `y[o, i] = f32(Σ_j x[o, j, i])` for x of shape `[outer, len, inner]`: each sum as [`sum`], rounded once.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn sum_axis(cpu: &Cpu, outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f32]) {
    let mut wide = vec![0.0; y.len()];
    sum_axis_wide(cpu, outer, len, inner, x, &mut wide);
    for (y, wide) in y.iter_mut().zip(wide) {
        *y = wide as f32;
    }
}

/// [`sum_axis`] before rounding.
///
/// # Panics
/// When a slice does not have the length of its shape.
pub fn sum_axis_wide(cpu: &Cpu, outer: usize, len: usize, inner: usize, x: &[f32], y: &mut [f64]) {
    assert_eq!(x.len(), outer * len * inner, "x is not [{outer}, {len}, {inner}]");
    assert_eq!(y.len(), outer * inner, "y is not [{outer}, {inner}]");
    let leaves = len.div_ceil(LEAF);
    if leaves == 0 {
        y.fill(0.0);
    } else if leaves == 1 {
        axis_leaves(cpu, len, inner, x, y);
    } else {
        let mut sums = vec![0.0; outer * leaves * inner];
        axis_leaves(cpu, len, inner, x, &mut sums);
        for o in 0..outer {
            let of_leaf = |leaf: usize| sums[(o * leaves + leaf) * inner..][..inner].to_vec();
            let total = tree(leaves, of_leaf, add_each);
            y[o * inner..][..inner].copy_from_slice(&total.unwrap_or_default());
        }
    }
}

fn add_each(mut a: Vec<f64>, b: Vec<f64>) -> Vec<f64> {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
    a
}

/// `sums[o, leaf, i]`, the sums of the leaves of `x[o, :, i]`.
fn axis_leaves(cpu: &Cpu, len: usize, inner: usize, x: &[f32], sums: &mut [f64]) {
    // A grain is some COLUMNS of one leaf, or many short ones.
    let grain = (LEAF * LEAF_GRAIN / len.min(LEAF)).next_multiple_of(COLUMNS);
    cpu.for_slices(sums.len(), grain, &mut [Some(sums)], |offset, parts| {
        for sums in parts.iter_mut().flatten() {
            cpu.vectorize(AxisLeaves { len, inner, x, offset, sums });
        }
    });
}

/// Writes `sums[offset..]` of the array `[outer, leaves, inner]` of leaf sums.
struct AxisLeaves<'a> {
    len: usize,
    inner: usize,
    x: &'a [f32],
    offset: usize,
    sums: &'a mut [f64],
}

impl Task for AxisLeaves<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let AxisLeaves { len, inner, x, offset, sums } = self;
        let leaves = len.div_ceil(LEAF);
        let mut done = 0;
        while done < sums.len() {
            let (row, i) = ((offset + done) / inner, (offset + done) % inner);
            let (o, leaf) = (row / leaves, row % leaves);
            let (lo, hi) = (leaf * LEAF, (leaf * LEAF + LEAF).min(len));
            let terms = &x[(o * len + lo) * inner..(o * len + hi) * inner];
            if inner == 1 {
                [sums[done]] = leaf_sum(Values, [terms]);
                done += 1;
            } else {
                let columns = COLUMNS.min(inner - i).min(sums.len() - done);
                leaf_columns(&terms[i..], inner, &mut sums[done..done + columns]);
                done += columns;
            }
        }
    }
}

/// `sums[i] = Σ_j x[j·stride + i]`, the j of one leaf; at most [`COLUMNS`] sums.
#[inline(always)]
fn leaf_columns(x: &[f32], stride: usize, sums: &mut [f64]) {
    let count = x.len().div_ceil(stride).min(LANES);
    let mut lanes = [[0.0f64; COLUMNS]; LANES];
    for (j, row) in x.chunks(stride).enumerate() {
        let mut block = [0.0; COLUMNS];
        match row.first_chunk() {
            Some(row) if sums.len() == COLUMNS => block = *row,
            _ => block[..sums.len()].copy_from_slice(&row[..sums.len()]),
        }
        let lane = &mut lanes[j % LANES];
        for i in 0..COLUMNS {
            lane[i] += f64::from(block[i]);
        }
    }
    // A lane is never -0, so adding one that is still +0 changes nothing.
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width.min(count.saturating_sub(width)) {
            let high = lanes[lane + width];
            for i in 0..COLUMNS {
                lanes[lane][i] += high[i];
            }
        }
    }
    sums.copy_from_slice(&lanes[0][..sums.len()]);
}

/// The terms of `K` sums over the same `N` arrays.
pub(crate) trait Terms<const N: usize, const K: usize>: Copy + Sync {
    /// The term of each sum for one index. Mark it `#[inline(always)]`.
    fn terms(self, x: [f32; N]) -> [f64; K];
}

/// `x`
#[derive(Clone, Copy)]
pub(crate) struct Values;
impl Terms<1, 1> for Values {
    #[inline(always)]
    fn terms(self, [x]: [f32; 1]) -> [f64; 1] {
        [f64::from(x)]
    }
}

/// `x²`
#[derive(Clone, Copy)]
struct Squares;
impl Terms<1, 1> for Squares {
    #[inline(always)]
    fn terms(self, [x]: [f32; 1]) -> [f64; 1] {
        [f64::from(x) * f64::from(x)]
    }
}

/// `a·b`
#[derive(Clone, Copy)]
pub(crate) struct Products;
impl Terms<2, 1> for Products {
    #[inline(always)]
    fn terms(self, [a, b]: [f32; 2]) -> [f64; 1] {
        [f64::from(a) * f64::from(b)]
    }
}

/// The sums over arrays of any length, on all threads.
fn long_sum<const N: usize, const K: usize>(cpu: &Cpu, terms: impl Terms<N, K>, x: [&[f32]; N]) -> [f64; K] {
    let len = x[0].len();
    assert!(x.iter().all(|x| x.len() == len), "arrays of unequal length");
    let mut leaves = vec![[0.0; K]; len.div_ceil(LEAF)];
    cpu.for_slices(leaves.len(), LEAF_GRAIN, &mut [Some(&mut leaves)], |first, parts| {
        for sums in parts.iter_mut().flatten() {
            let x = x.map(|x| &x[first * LEAF..((first + sums.len()) * LEAF).min(len)]);
            cpu.vectorize(Leaves { terms, x, sums });
        }
    });
    add_leaves(&leaves)
}

/// The tree sum of the sums of leaves.
fn add_leaves<const K: usize>(leaves: &[[f64; K]]) -> [f64; K] {
    tree(leaves.len(), |leaf| leaves[leaf], |a, b| from_fn(|k| a[k] + b[k])).unwrap_or([0.0; K])
}

/// The sum over arrays of any length on this thread. For use inside a [`Task`]; `leaves` is scratch.
#[inline(always)]
pub(crate) fn serial_sum<const N: usize>(
    terms: impl Terms<N, 1>,
    x: [&[f32]; N],
    leaves: &mut Vec<[f64; 1]>,
) -> f64 {
    let len = x[0].len();
    if len <= LEAF {
        return leaf_sum(terms, x)[0];
    }
    leaves.clear();
    for start in (0..len).step_by(LEAF) {
        let mut leaf = x;
        for leaf in &mut leaf {
            *leaf = &leaf[start..len.min(start + LEAF)];
        }
        leaves.push(leaf_sum(terms, leaf));
    }
    add_leaves(leaves)[0]
}

/// The sums of neighbouring leaves.
struct Leaves<'a, T, const N: usize, const K: usize> {
    terms: T,
    x: [&'a [f32]; N],
    sums: &'a mut [[f64; K]],
}

impl<T: Terms<N, K>, const N: usize, const K: usize> Task for Leaves<'_, T, N, K> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let len = self.x[0].len();
        for (leaf, sums) in self.sums.iter_mut().enumerate() {
            let (lo, hi) = (leaf * LEAF, ((leaf + 1) * LEAF).min(len));
            let mut x = self.x;
            for x in &mut x {
                *x = &x[lo..hi];
            }
            *sums = leaf_sum(self.terms, x);
        }
    }
}

/// The sums of one leaf, on this thread. For use inside a [`Task`].
#[inline(always)]
fn leaf_sum<const N: usize, const K: usize>(terms: impl Terms<N, K>, x: [&[f32]; N]) -> [f64; K] {
    leaf_sum_of_parts(terms, 1, |_| x)
}

/// The same of a leaf that lies in so many parts, one after the other.
#[inline(always)]
fn leaf_sum_of_parts<'a, const N: usize, const K: usize>(
    terms: impl Terms<N, K>,
    parts: usize,
    part: impl Fn(usize) -> [&'a [f32]; N],
) -> [f64; K] {
    let mut lanes = [[0.0; LANES]; K];
    // The end of a part and the beginning of the next, which share the lanes.
    let (mut held, mut len) = ([[0.0; LANES]; N], 0);
    for index in 0..parts {
        let mut rest = part(index);
        while !rest[0].is_empty() {
            let mut chunks: [&[[f32; LANES]]; N] = [&[]; N];
            if len > 0 || rest[0].len() < LANES {
                let taken = (LANES - len).min(rest[0].len());
                for i in 0..N {
                    let (from, after) = rest[i].split_at(taken);
                    rest[i] = after;
                    for (to, from) in held[i][len..len + taken].iter_mut().zip(from) {
                        *to = *from;
                    }
                }
                len += taken;
                if len < LANES {
                    break;
                }
                len = 0;
                for i in 0..N {
                    chunks[i] = std::slice::from_ref(&held[i]);
                }
            } else {
                for i in 0..N {
                    (chunks[i], rest[i]) = rest[i].as_chunks();
                }
            }
            add_chunks(terms, chunks, &mut lanes);
        }
    }
    if len > 0 {
        // A lane is never -0, so adding +0 to those without a term leaves them as they are.
        let mut last = [[0.0; LANES]; K];
        for lane in 0..len {
            let mut one = [0.0; N];
            for i in 0..N {
                one[i] = held[i][lane];
            }
            let terms = terms.terms(one);
            for k in 0..K {
                last[k][lane] = terms[k];
            }
        }
        for k in 0..K {
            for lane in 0..LANES {
                lanes[k][lane] += last[k][lane];
            }
        }
    }
    let mut sums = [0.0; K];
    for k in 0..K {
        sums[k] = add_lanes(&mut lanes[k]);
    }
    sums
}

/// Adds a term to each lane, chunk by chunk. To be called from one place: of a second the compiler made slow code.
#[inline(always)]
fn add_chunks<const N: usize, const K: usize>(
    terms: impl Terms<N, K>,
    chunks: [&[[f32; LANES]]; N],
    lanes: &mut [[f64; LANES]; K],
) {
    let full = chunks[0].len();
    let mut chunks = chunks;
    for chunks in &mut chunks {
        *chunks = &chunks[..full];
    }
    for start in (0..full).step_by(CHUNKS) {
        let some = start..(start + CHUNKS).min(full);
        // Half of the lanes after the other, so that their sums stay in registers.
        for first in (0..LANES).step_by(HALF) {
            let mut sums = [[0.0; HALF]; K];
            for k in 0..K {
                sums[k].copy_from_slice(&lanes[k][first..first + HALF]);
            }
            for at in some.clone() {
                let mut half = [[0.0; HALF]; N];
                for i in 0..N {
                    half[i].copy_from_slice(&chunks[i][at][first..first + HALF]);
                }
                // Each of the K sums by itself: what the compiler makes vectors of.
                let mut added = [[0.0; HALF]; K];
                for lane in 0..HALF {
                    let mut one = [0.0; N];
                    for i in 0..N {
                        one[i] = half[i][lane];
                    }
                    let terms = terms.terms(one);
                    for k in 0..K {
                        added[k][lane] = terms[k];
                    }
                }
                for k in 0..K {
                    for lane in 0..HALF {
                        sums[k][lane] += added[k][lane];
                    }
                }
            }
            for k in 0..K {
                lanes[k][first..first + HALF].copy_from_slice(&sums[k]);
            }
        }
    }
}

#[inline(always)]
fn add_lanes(lanes: &mut [f64; LANES]) -> f64 {
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

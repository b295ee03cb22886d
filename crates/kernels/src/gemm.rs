//! Matrix products.
//!
//! `c[i][j] = +0; for k ascending { c = fma(a[i][k], b[k][j], c) }`

pub mod reference;

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::product::{LeafProduct, Product, multiply, multiply_leaves};
use std::ops::Range;

/// A matrix to be read: element (i, j) is `data[i·rows + j·columns]`, so a transposed one is the same numbers
/// with the strides exchanged.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// The distance from one row to the next.
    pub rows: usize,
    /// The distance from one column to the next.
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    /// Numbers that lie row after row, `width` in each.
    pub fn new(data: &'a [f32], width: usize) -> Matrix<'a> {
        Matrix { data, rows: width, columns: 1 }
    }

    /// The same numbers, rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix { rows: self.columns, columns: self.rows, ..self }
    }

    /// Element (i, j).
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.rows + j * self.columns]
    }
}

/// The extents of a product: `a [m, k]`, `b [k, n]`, `c [m, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Rows of a and c.
    pub m: usize,
    /// Columns of b and c.
    pub n: usize,
    /// Terms.
    pub k: usize,
}

/// `c = a·b`, `c` row after row: [`reference::multiply`].
///
/// # Panics
/// When `c` does not have m·n elements or an operand is too short.
pub fn multiply_matrices(cpu: &Cpu, extents: Extents, a: Matrix, b: Matrix, c: &mut [f32]) {
    assert_eq!(c.len(), extents.m * extents.n, "an output of another size");
    multiply(cpu, &Plain { extents, a, b, c: SharedMut::new(c) });
}

/// `c = a·b` with the terms cut into leaves of `leaf` consecutive k, each a chain from +0, leaves added in f32
/// by the tree of their index: [`reference::multiply_in_leaves`]. Gradients of weights are sums over a batch,
/// and are taken so.
///
/// # Panics
/// As [`multiply_matrices`], and when `leaf` is 0.
pub fn multiply_in_leaves(cpu: &Cpu, extents: Extents, leaf: usize, a: Matrix, b: Matrix, c: &mut [f32]) {
    assert_eq!(c.len(), extents.m * extents.n, "an output of another size");
    assert!(leaf > 0, "leaves of no terms");
    multiply_leaves(cpu, &InLeaves { plain: Plain { extents, a, b, c: SharedMut::new(c) }, leaf });
}

struct Plain<'a> {
    extents: Extents,
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: SharedMut<'a, f32>,
}

impl Product for Plain<'_> {
    fn rows(&self) -> usize {
        self.extents.m
    }
    fn columns(&self) -> usize {
        self.extents.n
    }
    fn terms(&self) -> usize {
        self.extents.k
    }
    fn pack_rows(&self, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        for (out, k) in out.chunks_exact_mut(width).zip(terms) {
            for (i, value) in out.iter_mut().enumerate() {
                *value = if row + i < self.extents.m { self.a.at(row + i, k) } else { 0.0 };
            }
        }
    }
    fn pack_columns(&self, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        for (out, k) in out.chunks_exact_mut(width).zip(terms) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = if column + j < self.extents.n { self.b.at(k, column + j) } else { 0.0 };
            }
        }
    }
    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]) {
        let used = width.min(self.extents.n - column);
        for (i, line) in tile.chunks_exact(width).take(self.extents.m - row).enumerate() {
            // SAFETY: tiles of one product do not overlap.
            unsafe { self.c.write((row + i) * self.extents.n + column, 1, &line[..used]) };
        }
    }
}

struct InLeaves<'a> {
    plain: Plain<'a>,
    leaf: usize,
}

impl InLeaves<'_> {
    fn absolute(&self, leaf: usize, terms: Range<usize>) -> Range<usize> {
        leaf * self.leaf + terms.start..leaf * self.leaf + terms.end
    }
}

impl LeafProduct for InLeaves<'_> {
    fn rows(&self) -> usize {
        self.plain.rows()
    }
    fn columns(&self) -> usize {
        self.plain.columns()
    }
    fn leaves(&self) -> usize {
        self.plain.extents.k.div_ceil(self.leaf)
    }
    fn terms(&self, leaf: usize) -> usize {
        self.leaf.min(self.plain.extents.k - leaf * self.leaf)
    }
    fn pack_rows(&self, leaf: usize, row: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        self.plain.pack_rows(row, self.absolute(leaf, terms), width, out);
    }
    fn pack_columns(&self, leaf: usize, column: usize, terms: Range<usize>, width: usize, out: &mut [f32]) {
        self.plain.pack_columns(column, self.absolute(leaf, terms), width, out);
    }
    fn store(&self, row: usize, column: usize, width: usize, tile: &[f32]) {
        self.plain.store(row, column, width, tile);
    }
}

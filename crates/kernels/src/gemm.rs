//! Matrix products.
//!
//! `c[i][j] = +0; for k ascending { c = fma(a[i][k], b[k][j], c) }`

pub mod reference;

use crate::Cpu;
use crate::cpu::SharedMut;
use crate::product::{
    self, LeafProduct, Output, Panel, Product, Step, Strewn, multiply, multiply_leaves, transpose,
};
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

impl Extents {
    /// Strides may be anything, so places are counted where they cannot overflow.
    fn check(&self, a: &Matrix, b: &Matrix, c: usize) {
        assert_eq!(Some(c), self.m.checked_mul(self.n), "an output of another size");
        if self.m == 0 || self.n == 0 {
            return;
        }
        for (matrix, rows, columns) in [(a, self.m, self.k), (b, self.k, self.n)] {
            let far = |count: usize, apart: usize| count.saturating_sub(1) as u128 * apart as u128;
            let last = far(rows, matrix.rows).saturating_add(far(columns, matrix.columns));
            assert!(self.k == 0 || last < matrix.data.len() as u128, "an operand is too short");
        }
    }
}

/// `c = a·b`, `c` row after row: [`reference::multiply`].
///
/// # Panics
/// When `c` does not have m·n elements or an operand is too short.
pub fn multiply_matrices(cpu: &Cpu, extents: Extents, a: Matrix, b: Matrix, c: &mut [f32]) {
    extents.check(&a, &b, c.len());
    multiply(cpu, &Plain { extents, a, b, c: SharedMut::new(c) }, None);
}

/// `c = a·b` with the terms cut into leaves of `leaf` consecutive k, each a chain from +0, leaves added in f32
/// by the tree of their index: [`reference::multiply_in_leaves`]. Gradients of weights are sums over a batch,
/// and are taken so.
///
/// # Panics
/// As [`multiply_matrices`], and when `leaf` is 0.
pub fn multiply_in_leaves(cpu: &Cpu, extents: Extents, leaf: usize, a: Matrix, b: Matrix, c: &mut [f32]) {
    extents.check(&a, &b, c.len());
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
    /// The panels, and the terms staged.
    type Group = (Vec<Panel>, Range<usize>);
    fn rows(&self) -> usize {
        self.extents.m
    }
    fn columns(&self) -> usize {
        self.extents.n
    }
    fn terms(&self) -> usize {
        self.extents.k
    }
    fn block(&self) -> usize {
        product::block()
    }
    fn pack_rows(&self, cpu: &Cpu, rows: Range<usize>, height: usize, terms: Range<usize>, out: &mut [f32]) {
        for start in rows.clone().step_by(height) {
            let tile = start..(start + height).min(rows.end);
            let (width, at) = (tile.len(), (start - rows.start) * terms.len());
            let out = &mut out[at..at + width * terms.len()];
            pack(cpu, self.a.transposed(), terms.clone(), tile, width, out);
        }
    }
    fn group(&self, panels: &[Panel], _: usize) -> Self::Group {
        (panels.to_vec(), 0..0)
    }
    fn stage(&self, _: &Cpu, group: &mut Self::Group, terms: Range<usize>) {
        group.1 = terms;
    }
    fn pack_columns(&self, cpu: &Cpu, (panels, terms): &Self::Group, slot: usize, out: &mut [f32]) {
        for (Panel { columns, width }, out) in panels.iter().zip(out.chunks_mut(slot)) {
            pack(cpu, self.b, terms.clone(), columns.clone(), *width, &mut out[..terms.len() * width]);
        }
    }
    fn output(&self) -> Output<'_> {
        Output { memory: self.c, stride: self.extents.n }
    }
    fn place(&self, panel: &Panel) -> Option<usize> {
        (panel.columns.len() == panel.width).then_some(panel.columns.start)
    }
    fn store(&self, _cpu: &Cpu, panel: &Panel, rows: Range<usize>, tile: &[f32]) {
        self.store_panel(panel, rows, tile);
    }
}

impl Plain<'_> {
    fn store_panel(&self, panel: &Panel, rows: Range<usize>, tile: &[f32]) {
        for (row, line) in rows.zip(tile.chunks_exact(panel.width)) {
            let start = row * self.extents.n + panel.columns.start;
            // SAFETY: tiles of one product do not overlap.
            unsafe { self.c.write(start, 1, &line[..panel.columns.len()]) };
        }
    }
}

/// `out[k][j] = matrix[k][j]` for some of its rows and columns, `width` values apart from k to k.
fn pack(cpu: &Cpu, matrix: Matrix, rows: Range<usize>, columns: Range<usize>, width: usize, out: &mut [f32]) {
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    let from = &matrix.data[rows.start * matrix.rows + columns.start * matrix.columns..];
    if matrix.columns == 1 {
        for (k, out) in out.chunks_exact_mut(width).enumerate() {
            out[..columns.len()].copy_from_slice(&from[k * matrix.rows..][..columns.len()]);
        }
    } else if matrix.rows == 1 {
        transpose(cpu, (columns.len(), rows.len()), (from, matrix.columns), (out, width));
    } else {
        for (k, out) in out.chunks_exact_mut(width).enumerate() {
            for (j, value) in out[..columns.len()].iter_mut().enumerate() {
                *value = from[k * matrix.rows + j * matrix.columns];
            }
        }
    }
}

struct InLeaves<'a> {
    plain: Plain<'a>,
    leaf: usize,
}

impl LeafProduct for InLeaves<'_> {
    fn rows(&self) -> usize {
        self.plain.extents.m
    }
    fn columns(&self) -> usize {
        self.plain.extents.n
    }
    fn leaves(&self) -> Vec<Range<usize>> {
        let k = self.plain.extents.k;
        (0..k).step_by(self.leaf).map(|start| start..(start + self.leaf).min(k)).collect()
    }
    fn stage<'s>(
        &'s self,
        _: &Cpu,
        rows: Range<usize>,
        terms: Range<usize>,
        _: &'s mut Vec<f32>,
    ) -> Strewn<'s> {
        let a = self.plain.a;
        let bases = rows.map(|i| i * a.rows).collect();
        Strewn::new(a.data, bases, terms.map(|k| Step::to(k * a.columns)).collect())
    }
    fn pack_columns(&self, cpu: &Cpu, panel: &Panel, terms: Range<usize>, out: &mut [f32]) {
        let out = &mut out[..terms.len() * panel.width];
        pack(cpu, self.plain.b, terms, panel.columns.clone(), panel.width, out);
    }
    fn store(&self, _: &Cpu, rows: Range<usize>, panel: &Panel, tile: &[f32]) {
        self.plain.store_panel(panel, rows, tile);
    }
}

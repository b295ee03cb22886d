//! `matmul`: the product of matrices, one for each element of a batch.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::gemm::{Extents, Matrix, multiply_in_leaves, multiply_matrices};
use kinone_kernels::leaves::{BatchLeaf, LEAF, batch_leaves, tree};
use std::ops::Range;

/// a·b
#[derive(Clone, Debug)]
pub struct Matmul;

impl Tensor {
    /// `self [.., m, k]` times `other [.., k, n]`: `[.., m, n]`. The leading dimensions are equal, or one of the
    /// two has none.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor, ShapeError> {
        apply(Matmul, &[self, other])
    }
}

/// A product for each element of a batch; an operand without a batch takes part in each.
struct Batch {
    count: usize,
    extents: Extents,
    /// Whether a, and b, move on from one element to the next.
    moves: [bool; 2],
}

impl Batch {
    fn new(a: &Shape, b: &Shape) -> Result<(Batch, Vec<usize>), ShapeError> {
        let wrong =
            || ShapeError::new(Matmul::DOC.name, format!("takes [.., m, k] and [.., k, n], not {a} and {b}"));
        let ([batch_a @ .., m, k], [batch_b @ .., inner, n]) = (&a[..], &b[..]) else { return Err(wrong()) };
        let fits = batch_a == batch_b || batch_a.is_empty() || batch_b.is_empty();
        if k != inner || !fits {
            return Err(wrong());
        }
        let batch = if batch_a.is_empty() { batch_b } else { batch_a };
        let moves = [!batch_a.is_empty(), !batch_b.is_empty()];
        let mut shape = batch.to_vec();
        shape.extend([*m, *n]);
        let extents = Extents { m: *m, n: *n, k: *k };
        Ok((Batch { count: batch.iter().product(), extents, moves }, shape))
    }

    fn known(a: &Shape, b: &Shape) -> Batch {
        match Batch::new(a, b) {
            Ok((batch, _)) => batch,
            Err(error) => unreachable!("shapes were checked: {error}"),
        }
    }

    /// Where a, b and c of one element begin.
    fn starts(&self, element: usize) -> [usize; 3] {
        let Extents { m, n, k } = self.extents;
        let start = |moves, size| if moves { element * size } else { 0 };
        [start(self.moves[0], m * k), start(self.moves[1], k * n), element * m * n]
    }

    /// Whether all elements share a, and b.
    fn shared(&self) -> [bool; 2] {
        [self.moves == [false, true], self.moves == [true, false]]
    }

    /// The gradient of an operand of `columns` columns and `size` numbers an element. Each of its elements is a
    /// `chain(row, column, elements, terms)` of one element's `terms`; of an operand that all elements share, a
    /// sum over the batch: chains of its leaves, added by the tree of their index.
    fn gradient<F: Real>(
        &self,
        shared: bool,
        [size, columns, terms]: [usize; 3],
        out: &mut [F],
        chain: impl Fn(usize, usize, Range<usize>, Range<usize>) -> F,
    ) {
        let leaves = batch_leaves(self.count, terms, 1);
        for (at, out) in out.iter_mut().enumerate() {
            let (element, row, column) = (at / size, at % size / columns, at % columns);
            *out = if shared {
                let leaf =
                    |leaf: usize| chain(row, column, leaves[leaf].samples.clone(), leaves[leaf].rows.clone());
                tree(leaves.len(), leaf, |a, b| a + b).unwrap_or(F::zero())
            } else {
                chain(row, column, element..element + 1, 0..terms)
            };
        }
    }

    /// `da[i,k] = Σ_j dy[i,j]·b[k,j]`
    fn left_gradient<F: Real>(&self, dy: &[F], b: &[F], da: &mut [F]) {
        let Extents { m, n, k } = self.extents;
        self.gradient(self.shared()[0], [m * k, k, n], da, |i, l, elements, columns| {
            let mut sum = F::zero();
            for element in elements {
                let [_, b0, y0] = self.starts(element);
                for j in columns.clone() {
                    sum = dy[y0 + i * n + j].fma(b[b0 + l * n + j], sum);
                }
            }
            sum
        });
    }

    /// `db[k,j] = Σ_i a[i,k]·dy[i,j]`
    fn right_gradient<F: Real>(&self, dy: &[F], a: &[F], db: &mut [F]) {
        let Extents { m, n, k } = self.extents;
        self.gradient(self.shared()[1], [k * n, n, m], db, |l, j, elements, rows| {
            let mut sum = F::zero();
            for element in elements {
                let [a0, _, y0] = self.starts(element);
                for i in rows.clone() {
                    sum = a[a0 + i * k + l].fma(dy[y0 + i * n + j], sum);
                }
            }
            sum
        });
    }

    /// `out[r][c] = Σ left[t][r]·right[t][c]` over the terms t of all elements, `terms` each, by the leaves of the
    /// batch. `extents` are those of the product, but for the number of terms.
    fn multiply_batch(
        &self,
        cpu: &Cpu,
        terms: usize,
        extents: Extents,
        [left, right]: [&[f32]; 2],
        out: &mut [f32],
    ) {
        let Extents { m, n, .. } = extents;
        let leaves = batch_leaves(self.count, terms, 1);
        let from = |t: usize| (Matrix::new(&left[t * m..], m).transposed(), Matrix::new(&right[t * n..], n));
        if terms <= LEAF {
            // All leaves but the last have one length.
            let length = leaves.first().map_or(1, |leaf| (leaf.samples.len() * terms).max(1));
            let extents = Extents { m, n, k: self.count * terms };
            return multiply_in_leaves(cpu, extents, length, from(0).0, from(0).1, out);
        }
        let leaf = |index: usize| {
            let BatchLeaf { samples, rows } = &leaves[index];
            let (left, right) = from(samples.start * terms + rows.start);
            let mut sum = vec![0.0; m * n];
            multiply_matrices(cpu, Extents { m, n, k: rows.len() }, left, right, &mut sum);
            sum
        };
        let add = |mut sum: Vec<f32>, right: Vec<f32>| {
            for (sum, right) in sum.iter_mut().zip(right) {
                *sum += right;
            }
            sum
        };
        match tree(leaves.len(), leaf, add) {
            Some(sum) => out.copy_from_slice(&sum),
            None => out.fill(0.0),
        }
    }
}

/// Each matrix `[rows, columns]` of `x` with rows and columns exchanged.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len());
    for matrix in x.chunks_exact((rows * columns).max(1)) {
        for j in 0..columns {
            y.extend((0..rows).map(|i| matrix[i * columns + j]));
        }
    }
    y
}

impl Operator for Matmul {
    const DOC: Doc = Doc {
        name: "matmul",
        summary: "The product of matrices.",
        formula: r"y_{\cdot ij} = \sum_k a_{\cdot ik} b_{\cdot kj}",
        gradient: r"\bar a = \bar y\, b^\top, \quad \bar b = a^\top \bar y",
        shapes: "a [.., m, k], b [.., k, n]; y [.., m, n]; equal leading dimensions, or none in a or in b",
        conventions: "Products in ascending order from +0; 0 without terms. The gradient of an operand that all \
            elements of a batch share is summed over the batch: in its leaves, whose positions are the rows of a \
            (for b) or the columns of b (for a).",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[2], x.len())?;
        Batch::new(x[0], x[1]).map(|(_, shape)| Shape::from(shape).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let batch = Batch::known(x[0].shape(), x[1].shape());
        let Extents { m, n, k } = batch.extents;
        for element in 0..batch.count {
            let [a0, b0, c0] = batch.starts(element);
            for i in 0..m {
                for j in 0..n {
                    let mut sum = F::zero();
                    for l in 0..k {
                        sum = x[0][a0 + i * k + l].fma(x[1][b0 + l * n + j], sum);
                    }
                    y.value[c0 + i * n + j] = sum;
                }
            }
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (a, b) = (saved.input(0), saved.input(1));
        let batch = Batch::known(a.shape(), b.shape());
        if let Some(da) = &mut dx[0] {
            batch.left_gradient(dy.data(), b.data(), da);
        }
        if let Some(db) = &mut dx[1] {
            batch.right_gradient(dy.data(), a.data(), db);
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let batch = Batch::known(x[0].shape(), x[1].shape());
        let Extents { m, n, k } = batch.extents;
        for element in 0..batch.count {
            let [a0, b0, c0] = batch.starts(element);
            let a = Matrix::new(&x[0].data()[a0..], k);
            let b = Matrix::new(&x[1].data()[b0..], n);
            multiply_matrices(cpu, batch.extents, a, b, &mut y.value[c0..c0 + m * n]);
        }
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (a, b) = (saved.input(0), saved.input(1));
        let batch = Batch::known(a.shape(), b.shape());
        let Extents { m, n, k } = batch.extents;
        let [left_shared, right_shared] = batch.shared();
        if let Some(da) = &mut dx[0] {
            if left_shared {
                let (dy, b) = (transposed(dy.data(), m, n), transposed(b.data(), k, n));
                batch.multiply_batch(cpu, n, Extents { m, n: k, k: n }, [&dy, &b], da);
            } else {
                for element in 0..batch.count {
                    let [a0, b0, y0] = batch.starts(element);
                    let left = Matrix::new(&dy.data()[y0..], n);
                    let right = Matrix::new(&b.data()[b0..], n).transposed();
                    let extents = Extents { m, n: k, k: n };
                    multiply_matrices(cpu, extents, left, right, &mut da[a0..a0 + m * k]);
                }
            }
        }
        if let Some(db) = &mut dx[1] {
            if right_shared {
                let extents = Extents { m: k, n, k: m };
                batch.multiply_batch(cpu, m, extents, [a.data(), dy.data()], db);
            } else {
                for element in 0..batch.count {
                    let [a0, b0, y0] = batch.starts(element);
                    let left = Matrix::new(&a.data()[a0..], k).transposed();
                    let right = Matrix::new(&dy.data()[y0..], n);
                    let extents = Extents { m: k, n, k: m };
                    multiply_matrices(cpu, extents, left, right, &mut db[b0..b0 + k * n]);
                }
            }
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("MatMul", &[&x[0].name, &x[1].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, a: &[usize], b: &[usize]| Case::new(name, Matmul, [Input::real(a), Input::real(b)]);
        vec![
            case("matrices", &[3, 4], &[4, 5]),
            case("a batch", &[2, 3, 2, 4], &[2, 3, 4, 3]),
            case("one matrix for all on the right", &[3, 2, 4], &[4, 3]),
            case("one matrix for all on the left", &[2, 4], &[3, 4, 2]),
            case("one matrix for several leaves", &[17, 1, 2], &[2, 3]),
            case("one matrix on the left for several leaves", &[2, 3], &[17, 3, 1]),
            case("large", &[67, 600], &[600, 59]).bits_only(),
            case("one matrix for large elements", &[9, 700, 5], &[5, 6]).bits_only(),
            case("one matrix on the left for large elements", &[5, 6], &[9, 6, 700]).bits_only(),
            case("elements of several leaves", &[2, 4500, 3], &[3, 5]).bits_only(),
            case("elements of several leaves on the right", &[3, 5], &[2, 5, 4500]).bits_only(),
            case("no terms", &[2, 3, 0], &[0, 4]).bits_only(),
            case("no elements", &[0, 3, 2], &[2, 4]).bits_only(),
            case("a large batch", &[5, 33, 34], &[34, 35]).bits_only(),
        ]
    }
}

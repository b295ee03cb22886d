//! `matmul`: the product of matrices, one for each element of a batch.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::Cpu;
use kinone_kernels::gemm::{Extents, Matrix, multiply_matrices};

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

    /// `da[i,l] = Σ dc[i,j]·b[l,j]` over (element, j), in that order from +0: one chain where `a` has no batch.
    fn left_gradient<F: Real>(&self, dc: &[F], b: &[F], da: &mut [F]) {
        let Extents { m, n, k } = self.extents;
        da.fill(F::zero());
        for element in 0..self.count {
            let [a0, b0, c0] = self.starts(element);
            for i in 0..m {
                for l in 0..k {
                    let mut sum = da[a0 + i * k + l];
                    for j in 0..n {
                        sum = dc[c0 + i * n + j].fma(b[b0 + l * n + j], sum);
                    }
                    da[a0 + i * k + l] = sum;
                }
            }
        }
    }

    /// `db[l,j] = Σ a[i,l]·dc[i,j]` over (element, i), in that order from +0.
    fn right_gradient<F: Real>(&self, dc: &[F], a: &[F], db: &mut [F]) {
        let Extents { m, n, k } = self.extents;
        db.fill(F::zero());
        for element in 0..self.count {
            let [a0, b0, c0] = self.starts(element);
            for l in 0..k {
                for j in 0..n {
                    let mut sum = db[b0 + l * n + j];
                    for i in 0..m {
                        sum = a[a0 + i * k + l].fma(dc[c0 + i * n + j], sum);
                    }
                    db[b0 + l * n + j] = sum;
                }
            }
        }
    }
}

impl Operator for Matmul {
    const DOC: Doc = Doc {
        name: "matmul",
        summary: "The product of matrices.",
        formula: r"y_{\cdot ij} = \sum_k a_{\cdot ik} b_{\cdot kj}",
        gradient: r"\bar a = \bar y\, b^\top, \quad \bar b = a^\top \bar y",
        shapes: "a [.., m, k], b [.., k, n]; y [.., m, n]; equal leading dimensions, or none in a or in b",
        conventions: "Products in ascending order from +0. The gradient of an operand without leading \
            dimensions is one chain over the whole batch.",
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
        if let Some(da) = &mut dx[0] {
            if batch.moves[0] || batch.count == 1 {
                for element in 0..batch.count {
                    let [a0, b0, c0] = batch.starts(element);
                    let left = Matrix::new(&dy.data()[c0..], n);
                    let right = Matrix::new(&b.data()[b0..], n).transposed();
                    let extents = Extents { m, n: k, k: n };
                    multiply_matrices(cpu, extents, left, right, &mut da[a0..a0 + m * k]);
                }
            } else {
                batch.left_gradient(dy.data(), b.data(), da);
            }
        }
        if let Some(db) = &mut dx[1] {
            if batch.moves[1] || batch.count == 1 {
                for element in 0..batch.count {
                    let [a0, b0, c0] = batch.starts(element);
                    let left = Matrix::new(&a.data()[a0..], k).transposed();
                    let right = Matrix::new(&dy.data()[c0..], n);
                    let extents = Extents { m: k, n, k: m };
                    multiply_matrices(cpu, extents, left, right, &mut db[b0..b0 + k * n]);
                }
            } else {
                // The matrices of a batch, one under the other, are one chain.
                let extents = Extents { m: k, n, k: batch.count * m };
                let left = Matrix::new(a.data(), k).transposed();
                multiply_matrices(cpu, extents, left, Matrix::new(dy.data(), n), db);
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
            case("large", &[67, 600], &[600, 59]).bits_only(),
            case("a large batch", &[5, 33, 34], &[34, 35]).bits_only(),
        ]
    }
}

//! `linear`: the affine map of rows.

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;
use kinone_kernels::gemm::{Extents, Matrix, multiply_in_leaves, multiply_matrices};
use kinone_kernels::leaves::tree;
use kinone_kernels::sums::Images;
use kinone_kernels::{Cpu, conv};

/// x·wᵀ + b
#[derive(Clone, Debug)]
pub struct Linear;

/// Samples of a leaf of the weight's gradient: a batch of samples of one position.
const LEAF: usize = 8;

impl Tensor {
    /// Rows `self [n, i]` times `w [o, i]` transposed, plus `bias [o]`: `[n, o]`.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn linear(&self, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, ShapeError> {
        match bias {
            Some(bias) => apply(Linear, &[self, w, bias]),
            None => apply(Linear, &[self, w]),
        }
    }
}

fn extents(x: &Shape, w: &Shape) -> [usize; 3] {
    [x[0], w[0], x[1]]
}

fn add_bias<F: Real>(b: &[F], y: &mut [F]) {
    for row in y.chunks_exact_mut(b.len().max(1)) {
        for (y, b) in row.iter_mut().zip(b) {
            *y = *y + *b;
        }
    }
}

impl Operator for Linear {
    const DOC: Doc = Doc {
        name: "linear",
        summary: "The affine map of rows.",
        formula: r"y_{no} = \sum_i x_{ni} w_{oi} + b_o",
        gradient: r"\bar x_{ni} = \sum_o \bar y_{no} w_{oi}, \quad \bar w_{oi} = \sum_n \bar y_{no} x_{ni}, \quad
            \bar b_o = \sum_n \bar y_{no}",
        shapes: "x [n, i], w [o, i], b [o] or none; y [n, o]",
        conventions: "Products in ascending order from +0, the bias added by a rounding of its own. The weight's \
            gradient is summed in leaves of 8 rows, the bias's in f64 by the same leaves. Without inputs y is b.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        arity(Self::DOC.name, &[2, 3], x.len())?;
        let (rows, w) = (x[0], x[1]);
        if rows.len() != 2 || w.len() != 2 || rows[1] != w[1] {
            let reason = format!("takes x [n, i] and w [o, i], not {rows} and {w}");
            return Err(ShapeError::new(Self::DOC.name, reason));
        }
        if let Some(bias) = x.get(2).filter(|bias| bias[..] != [w[0]]) {
            return Err(ShapeError::new(Self::DOC.name, format!("the bias is [{}], not {bias}", w[0])));
        }
        Ok(Shape::from([rows[0], w[0]]).into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let [rows, outputs, inputs] = extents(x[0].shape(), x[1].shape());
        for n in 0..rows {
            for o in 0..outputs {
                let mut sum = F::zero();
                for i in 0..inputs {
                    sum = x[0][n * inputs + i].fma(x[1][o * inputs + i], sum);
                }
                y.value[n * outputs + o] = sum;
            }
        }
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), y.value);
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let [rows, outputs, inputs] = extents(x.shape(), w.shape());
        if let Some(dx) = &mut dx[0] {
            for n in 0..rows {
                for i in 0..inputs {
                    let mut sum = F::zero();
                    for o in 0..outputs {
                        sum = dy[n * outputs + o].fma(w[o * inputs + i], sum);
                    }
                    dx[n * inputs + i] = sum;
                }
            }
        }
        if let Some(dw) = &mut dx[1] {
            for o in 0..outputs {
                for i in 0..inputs {
                    let leaf = |index: usize| {
                        let mut sum = F::zero();
                        for n in index * LEAF..((index + 1) * LEAF).min(rows) {
                            sum = dy[n * outputs + o].fma(x[n * inputs + i], sum);
                        }
                        sum
                    };
                    dw[o * inputs + i] = tree(rows.div_ceil(LEAF), leaf, |a, b| a + b).unwrap_or(F::zero());
                }
            }
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            for (o, db) in db.iter_mut().enumerate() {
                *db = F::narrow(reduce::batch_sum(rows, 1, 1, |n, _| dy[n * outputs + o].wide()));
            }
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        let [m, n, k] = extents(x[0].shape(), x[1].shape());
        let (left, right) = (Matrix::new(x[0].data(), k), Matrix::new(x[1].data(), k).transposed());
        multiply_matrices(cpu, Extents { m, n, k }, left, right, y.value);
        if let Some(bias) = x.get(2) {
            add_bias(bias.data(), y.value);
        }
    }

    fn vjp_fast(&self, cpu: &Cpu, saved: &Saved<f32>, dy: View<f32>, dx: &mut [Slot<f32>]) {
        let (x, w) = (saved.input(0), saved.input(1));
        let [rows, outputs, inputs] = extents(x.shape(), w.shape());
        let cotangent = Matrix::new(dy.data(), outputs);
        if let Some(dx) = &mut dx[0] {
            let extents = Extents { m: rows, n: inputs, k: outputs };
            multiply_matrices(cpu, extents, cotangent, Matrix::new(w.data(), inputs), dx);
        }
        if let Some(dw) = &mut dx[1] {
            let extents = Extents { m: outputs, n: inputs, k: rows };
            let right = Matrix::new(x.data(), inputs);
            multiply_in_leaves(cpu, extents, LEAF, cotangent.transposed(), right, dw);
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            conv::bias_gradient(cpu, Images { n: rows, c: outputs, h: 1, w: 1 }, dy.data(), db);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let inputs: Vec<&str> = x.iter().map(|value| value.name.as_str()).collect();
        Ok(graph.node("Gemm", &inputs, &[("transB", Attribute::Int(1))]))
    }

    fn cases() -> Vec<Case<Self>> {
        let inputs = |n: usize, i: usize, o: usize| [Input::real([n, i]), Input::real([o, i])];
        let with_bias = |n, i, o| {
            let [x, w] = inputs(n, i, o);
            [x, w, Input::real([o])]
        };
        vec![
            Case::new("plain", Linear, inputs(3, 4, 5)),
            Case::new("a bias", Linear, with_bias(4, 3, 2)),
            Case::new("several leaves", Linear, with_bias(27, 2, 3)),
            Case::new("large", Linear, with_bias(67, 600, 59)).bits_only(),
            Case::new("no rows", Linear, with_bias(0, 3, 4)).bits_only(),
            Case::new("no inputs", Linear, with_bias(3, 0, 4)).bits_only(),
        ]
    }
}

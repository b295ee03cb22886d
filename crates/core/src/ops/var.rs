//! `var`: the variance over axes.

use crate::axes::Axes;
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// Σ (x − mean)² / (m − correction)
#[derive(Clone, Debug)]
pub struct Var {
    /// The axes.
    pub axes: Axes,
    /// 0 for the variance of the numbers, 1 for the unbiased estimate of what they were drawn from.
    pub correction: usize,
}

impl Tensor {
    /// The variance over `axes`, the sum of squares divided by the count less `correction`.
    ///
    /// # Errors
    /// An axis is missing or named twice.
    pub fn var(&self, axes: Axes, correction: usize) -> Result<Tensor, ShapeError> {
        apply(Var { axes, correction }, &[self])
    }
}

impl Var {
    fn divisor<F: Real>(&self, x: &Shape) -> F::Wide {
        F::Wide::of(self.axes.count(x) as f64 - self.correction as f64)
    }

    fn mean<F: Real>(x: View<F>, fibre: &[usize]) -> F::Wide {
        reduce::sum(fibre.len(), |k| x[fibre[k]].wide()) / F::Wide::of(fibre.len() as f64)
    }
}

impl Operator for Var {
    const DOC: Doc = Doc {
        name: "var",
        summary: "The variance over axes.",
        formula: r"y = \frac{1}{m-k} \sum (x-\mu)^2, \quad \mu = \tfrac1m \sum x",
        gradient: r"\bar x = \bar y \frac{2 (x-\mu)}{m-k}",
        shapes: "x any; y without the axes, or with the extent 1 in their place",
        conventions: "Mean and squares in f64 by leaves of 4096 terms in row-major order, rounded once; NaN of \
            nothing, and of one number with the correction 1.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        Ok(self.axes.shape(Self::DOC.name, x)?.into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let x = x[0];
        for (y, fibre) in y.value.iter_mut().zip(self.axes.fibres(x.shape())) {
            let mean = Self::mean(x, &fibre);
            let square = |k: usize| {
                let off = x[fibre[k]].wide() - mean;
                off * off
            };
            *y = F::narrow(reduce::sum(fibre.len(), square) / self.divisor::<F>(x.shape()));
        }
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        let x = saved.input(0);
        for (k, fibre) in self.axes.fibres(x.shape()).iter().enumerate() {
            let mean = Self::mean(x, fibre);
            let factor = F::Wide::of(2.0) * dy[k].wide() / self.divisor::<F>(x.shape());
            for &at in fibre {
                dx[at] = F::narrow(factor * (x[at].wide() - mean));
            }
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let kept = Axes::new(&self.axes.axes, true);
        let mean = graph.node("ReduceMean", &[&x[0].name], &kept.attributes());
        let off = graph.node("Sub", &[&x[0].name, &mean], &[]);
        let squares = graph.node("Mul", &[&off, &off], &[]);
        let sum = self.axes.onnx_sum(graph, &squares);
        let divisor = graph.scalar(self.axes.count(&x[0].shape) as f32 - self.correction as f32);
        Ok(graph.node("Div", &[&sum, &divisor], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, axes: &[usize], correction: usize, keep: bool, x: &[usize]| {
            Case::new(name, Var { axes: Axes::new(axes, keep), correction }, [Input::real(x)])
        };
        vec![
            case("all", &[0, 1], 0, false, &[3, 5]),
            case("unbiased, the last", &[2], 1, false, &[2, 3, 4]),
            case("not neighbours, kept", &[0, 2], 1, true, &[3, 2, 4]),
            case("many terms", &[0, 1], 0, false, &[101, 97]).bits_only(),
        ]
    }
}

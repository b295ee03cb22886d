//! `mean`: the mean over axes.

use crate::axes::Axes;
use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use kinone_kernels::Cpu;

/// Σ x / m
#[derive(Clone, Debug)]
pub struct Mean {
    /// The axes.
    pub axes: Axes,
}

impl Tensor {
    /// The mean over `axes`.
    ///
    /// # Errors
    /// An axis is missing or named twice.
    pub fn mean(&self, axes: Axes) -> Result<Tensor, ShapeError> {
        apply(Mean { axes }, &[self])
    }
}

impl Operator for Mean {
    const DOC: Doc = Doc {
        name: "mean",
        summary: "The mean over axes.",
        formula: r"y = \tfrac1m \sum x",
        gradient: r"\bar x = \bar y / m",
        shapes: "x any; y without the axes, or with the extent 1 in their place",
        conventions: "The sum in f64 by leaves of 4096 terms in row-major order, divided, rounded once; NaN of nothing.",
    };
    const SAVES: Saves = Saves::NOTHING;

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        Ok(self.axes.shape(Self::DOC.name, x)?.into())
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        self.axes.sum(x[0], self.axes.count(x[0].shape()) as f64, y.value);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dx) = &mut dx[0] else { return };
        let count = F::of(self.axes.count(saved.shape(0)) as f64);
        for (dx, target) in dx.iter_mut().zip(self.axes.targets(saved.shape(0))) {
            *dx = dy[target] / count;
        }
    }

    fn forward_fast(&self, cpu: &Cpu, x: &[View<f32>], y: &mut Output<f32>) {
        self.axes.sum_fast(cpu, x[0], self.axes.count(x[0].shape()) as f64, y);
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("ReduceMean", &[&x[0].name], &self.axes.attributes()))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, axes: &[usize], keep: bool, x: &[usize]| {
            Case::new(name, Mean { axes: Axes::new(axes, keep) }, [Input::real(x)])
        };
        vec![
            case("all", &[0, 1], false, &[3, 5]),
            case("the last", &[2], false, &[2, 3, 4]),
            case("the first, kept", &[0], true, &[4, 3]),
            case("not neighbours", &[0, 2], false, &[3, 2, 4]),
            case("many terms", &[0, 1], false, &[101, 97]).bits_only(),
            case("many outputs", &[1], true, &[57, 5, 61]).bits_only(),
        ]
    }
}

//! `mean_squared_error`: the mean of squared differences.

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce::sum;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// Σ (x − t)² / m
#[derive(Clone, Debug)]
pub struct MeanSquaredError;

impl Tensor {
    /// The mean of the squares of `self − target`.
    ///
    /// # Errors
    /// The shapes differ.
    pub fn mean_squared_error(&self, target: &Tensor) -> Result<Tensor, ShapeError> {
        apply(MeanSquaredError, &[self, target])
    }
}

impl Operator for MeanSquaredError {
    const DOC: Doc = Doc {
        name: "mean_squared_error",
        summary: "The mean of squared differences.",
        formula: r"y = \tfrac1m \sum (x-t)^2",
        gradient: r"\bar x = \bar y \tfrac2m (x-t), \quad \bar t = -\bar x",
        shapes: "x, t alike; y []",
        conventions: "In f64 by leaves of 4096, rounded once; NaN of nothing.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        match x {
            [x, t] if x == t => Ok(Shape::scalar().into()),
            _ => Err(ShapeError::new(Self::DOC.name, format!("takes two arrays alike, not {x:?}"))),
        }
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let size = x[0].data().len();
        let term = |k: usize| {
            let off = x[0][k].wide() - x[1][k].wide();
            off * off
        };
        y.value[0] = F::narrow(sum(size, term) / F::Wide::of(size as f64));
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let (x, t) = (saved.input(0), saved.input(1));
        let share = F::narrow(F::Wide::of(2.0) * dy[0].wide() / F::Wide::of(x.data().len() as f64));
        let slope = |k: usize| {
            let off = x[k] - t[k];
            share * off
        };
        let [dx, dt] = dx else { unreachable!("two inputs") };
        for (k, d) in dx.iter_mut().flat_map(|dx| dx.iter_mut()).enumerate() {
            *d = slope(k);
        }
        for (k, d) in dt.iter_mut().flat_map(|dt| dt.iter_mut()).enumerate() {
            *d = -slope(k);
        }
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let off = graph.node("Sub", &[&x[0].name, &x[1].name], &[]);
        let terms = graph.node("Mul", &[&off, &off], &[]);
        Ok(graph.node("ReduceMean", &[&terms], &[("keepdims", Attribute::Int(0))]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, x: &[usize]| Case::new(name, MeanSquaredError, [Input::real(x), Input::real(x)]);
        vec![case("a matrix", &[3, 4]), case("one number", &[]), case("many", &[701, 14]).bits_only()]
    }
}

//! `gelu`: the Gaussian error linear unit, exact form (Hendrycks and Gimpel, 2016).

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x·Φ(x), Φ the normal distribution function
#[derive(Clone, Debug)]
pub struct Gelu;

/// 1/√(2π)
const INVERSE_ROOT_TAU: f64 = 0.398_942_280_401_432_7;

impl Tensor {
    /// `self·Φ(self)`
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn gelu(&self) -> Result<Tensor, ShapeError> {
        apply(Gelu, &[self])
    }
}

impl Pointwise for Gelu {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "gelu",
        summary: "The Gaussian error linear unit, exact form.",
        formula: r"y = \tfrac12 x\,(1+\mathrm{erf}(x/\sqrt2))",
        gradient: r"\bar x = \bar y\,\bigl(\Phi(x) + x\,e^{-x^2/2}/\sqrt{2\pi}\bigr)",
        shapes: "y like x",
        conventions: "At negative infinity NaN (infinity times 0).",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        let half = F::of(0.5);
        half * x * (F::one() + (x * F::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let half = F::of(0.5);
        let cumulative = half * (F::one() + (x * F::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
        let density = (-(half * x * x)).exp() * F::of(INVERSE_ROOT_TAU);
        [dy * (cumulative + x * density)]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let root = graph.scalar(std::f32::consts::FRAC_1_SQRT_2);
        let scaled = graph.node("Mul", &[&x[0].name, &root], &[]);
        let erf = graph.node("Erf", &[&scaled], &[]);
        let one = graph.scalar(1.0);
        let sum = graph.node("Add", &[&erf, &one], &[]);
        let half = graph.scalar(0.5);
        let halved = graph.node("Mul", &[&x[0].name, &half], &[]);
        Ok(graph.node("Mul", &[&halved, &sum], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Gelu, [Input::real([4, 5])]),
            Case::new("many", Gelu, [Input::real([40_003])]).bits_only(),
        ]
    }
}

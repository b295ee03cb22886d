//! `pow`: a constant power.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// xᵖ
#[derive(Clone, Debug)]
pub struct Pow {
    /// The exponent.
    pub exponent: f32,
}

impl Tensor {
    /// `self` to the power of `exponent`.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn pow(&self, exponent: f32) -> Result<Tensor, ShapeError> {
        apply(Pow { exponent }, &[self])
    }
}

impl Pointwise for Pow {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "pow",
        summary: "A constant power.",
        formula: r"y = x^p",
        gradient: r"\bar x = p\, x^{p-1} \bar y",
        shapes: "y like x",
        conventions: "As IEEE 754 has it: NaN for a negative base and a broken exponent, 1 for the exponent 0.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x.pow(self.exponent)
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let slope = F::of(f64::from(self.exponent)) * x.pow(self.exponent - 1.0);
        [dy * slope]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let exponent = graph.scalar(self.exponent);
        Ok(graph.node("Pow", &[&x[0].name, &exponent], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Pow { exponent: 2.5 }, [Input::uniform([4, 5], 0.2, 3.0)]),
            Case::new(
                "a matrix, other attributes",
                Pow { exponent: -1.0 },
                [Input::uniform([4, 5], 0.2, 3.0)],
            ),
            Case::new(
                "a matrix, other attributes",
                Pow { exponent: 3.0 },
                [Input::uniform([4, 5], 0.2, 3.0)],
            ),
            Case::new("many", Pow { exponent: 2.5 }, [Input::uniform([40_003], 0.2, 3.0)]).bits_only(),
        ]
    }
}

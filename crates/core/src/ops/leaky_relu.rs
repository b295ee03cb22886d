//! `leaky_relu`: the rectified linear unit with a slope below zero (Maas, Hannun and Ng, 2013).

use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Saves};
use crate::pointwise::Pointwise;
use crate::real::Real;
use crate::shape::ShapeError;
use crate::tensor::{Tensor, apply};

/// x above 0, slope·x below
#[derive(Clone, Debug)]
pub struct LeakyRelu {
    /// The slope below zero.
    pub slope: f32,
}

impl Tensor {
    /// `self` above 0, `slope·self` below.
    ///
    /// # Errors
    /// None: every shape fits.
    pub fn leaky_relu(&self, slope: f32) -> Result<Tensor, ShapeError> {
        apply(LeakyRelu { slope }, &[self])
    }
}

impl Pointwise for LeakyRelu {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "leaky_relu",
        summary: "The rectified linear unit with a slope below zero.",
        formula: r"y = x \ (x>0), \quad a x \ (x \le 0)",
        gradient: r"\bar x = \bar y \ (x>0), \quad a \bar y \ (x \le 0)",
        shapes: "y like x",
        conventions: "The derivative at 0 is the slope. NaN stays NaN, and so does its gradient.",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        let slope = F::of(f64::from(self.slope));
        if x > F::zero() { x } else { slope * x }
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let slope = F::of(f64::from(self.slope));
        [if x > F::zero() { dy } else { slope * dy }]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("LeakyRelu", &[&x[0].name], &[("alpha", Attribute::Float(self.slope))]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", LeakyRelu { slope: 0.01 }, [Input::real([4, 5]).avoiding(&[0.0])]),
            Case::new(
                "a matrix, other attributes",
                LeakyRelu { slope: 0.3 },
                [Input::real([4, 5]).avoiding(&[0.0])],
            ),
            Case::new("many", LeakyRelu { slope: 0.01 }, [Input::real([40_003]).avoiding(&[0.0])])
                .bits_only(),
        ]
    }
}

//! An operator from outside the crate: softsign, x / (1 + |x|) (Bergstra et al., 2009). It gets the same proof as
//! those inside, and works in the graph like them.
//!
//! `cargo run --release --example custom_operator`

use kinone::core::array::Array;
use kinone::core::case::{Case, Input};
use kinone::core::check::{Checker, Proof};
use kinone::core::onnx::{Fragment, Unsupported, Value};
use kinone::core::operator::{Doc, Saves};
use kinone::core::pointwise::Pointwise;
use kinone::core::real::Real;
use kinone::core::tensor::{Tensor, apply};
use std::error::Error;

/// x / (1 + |x|)
#[derive(Clone, Debug)]
pub(crate) struct Softsign;

impl Pointwise for Softsign {
    type Args<F: Real> = [F; 1];

    const DOC: Doc = Doc {
        name: "softsign",
        summary: "A sigmoid with slow tails.",
        formula: r"y = x / (1 + |x|)",
        gradient: r"\bar x = \bar y / (1 + |x|)^2",
        shapes: "y like x",
        conventions: "NaN at either infinity (infinity over infinity).",
    };
    const SAVES: Saves = Saves::inputs(&[0]);

    #[inline(always)]
    fn value<F: Real>(&self, [x]: [F; 1]) -> F {
        x / (F::one() + if F::zero() > x { -x } else { x })
    }

    #[inline(always)]
    fn gradient<F: Real>(&self, [x]: [F; 1], _y: F, dy: F) -> [F; 1] {
        let scale = F::one() + if F::zero() > x { -x } else { x };
        [dy / (scale * scale)]
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        Ok(graph.node("Softsign", &[&x[0].name], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        vec![
            Case::new("a matrix", Softsign, [Input::real([4, 5]).avoiding(&[0.0])]),
            Case::new("many", Softsign, [Input::real([40_003])]).bits_only(),
        ]
    }
}

/// The chain of trust, as `kinone gradcheck` shows it for the operators inside.
pub(crate) fn proof() -> Proof {
    Checker::new().prove::<Softsign>()
}

fn main() -> Result<(), Box<dyn Error>> {
    let proof = proof();
    println!("{proof:#?}");
    let x = Tensor::variable(Array::scalar(1.0));
    let y = apply(Softsign, &[&x])?.square()?;
    let adjoints = y.backward()?;
    println!("softsign(1)^2 = {:?}, its slope {:?}", y.item(), adjoints.of(&x).map(Array::data));
    if proof.holds() { Ok(()) } else { Err("the proof does not hold".into()) }
}

//! `cross_entropy_with_logits`: the negative log-likelihood of one class among several.

use crate::axes::greatest;
use crate::case::{Case, Input};
use crate::onnx::{Attribute, Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce::sum;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};

/// The mean over rows of −log softmax(z) at the class
#[derive(Clone, Debug)]
pub struct CrossEntropyWithLogits;

impl Tensor {
    /// The mean cross entropy of logits `self [n, classes]` and the class of each row, `classes [n]`.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn cross_entropy_with_logits(&self, classes: &Tensor) -> Result<Tensor, ShapeError> {
        apply(CrossEntropyWithLogits, &[self, classes])
    }
}

/// One row: its logits, their maximum and the sum of exponentials, and the class; `None` if there is no such.
struct Row<'a, F: Real> {
    logits: &'a [F],
    most: F,
    total: F::Wide,
    class: Option<usize>,
}

fn rows<'a, F: Real>(z: View<'a, F>, classes: View<'a, F>) -> impl Iterator<Item = Row<'a, F>> {
    let width = z.dim(1).max(1);
    z.data().chunks_exact(width).zip(classes.data()).map(move |(logits, class)| {
        let most = greatest(width, |k| logits[k]);
        let total = sum(width, |k| (logits[k] - most).exp().wide());
        let index = class.value();
        let whole = index >= 0.0 && index < width as f64 && index.fract() == 0.0;
        Row { logits, most, total, class: whole.then_some(index as usize) }
    })
}

impl Operator for CrossEntropyWithLogits {
    const DOC: Doc = Doc {
        name: "cross_entropy_with_logits",
        summary: "The mean negative log-likelihood of one class among several.",
        formula: r"y = \frac1n \sum_i \bigl[\log \sum_k e^{z_{ik}-m_i} - (z_{i c_i} - m_i)\bigr], \quad
            m_i = \max_k z_{ik}",
        gradient: r"\bar z_{ik} = \tfrac1n \bar y \bigl(\mathrm{softmax}(z_i)_k - [k = c_i]\bigr)",
        shapes: "z [n, classes], c [n]; y []",
        conventions: "Classes have no gradient; a row whose class is no whole number in range has the loss NaN. \
            Sums in f64 by leaves of 4096.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        match x {
            [z, c] if z.len() == 2 && z[1] > 0 && c[..] == z[..1] => Ok(Shape::scalar().into()),
            _ => Err(ShapeError::new(Self::DOC.name, format!("takes z [n, classes] and c [n], not {x:?}"))),
        }
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let losses: Vec<F> = rows(x[0], x[1])
            .map(|row| match row.class {
                Some(class) => F::narrow(row.total).log() - (row.logits[class] - row.most),
                None => F::of(f64::NAN),
            })
            .collect();
        y.value[0] = F::narrow(sum(losses.len(), |k| losses[k].wide()) / F::Wide::of(losses.len() as f64));
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dz) = &mut dx[0] else { return };
        let z = saved.input(0);
        let share = F::narrow(dy[0].wide() / F::Wide::of(z.dim(0) as f64));
        for (dz, row) in dz.chunks_exact_mut(z.dim(1)).zip(rows(z, saved.input(1))) {
            for (k, dz) in dz.iter_mut().enumerate() {
                let probability = F::narrow((row.logits[k] - row.most).exp().wide() / row.total);
                *dz = match row.class {
                    Some(class) if class == k => share * (probability - F::one()),
                    Some(_) => share * probability,
                    None => F::of(f64::NAN),
                };
            }
        }
    }

    fn is_differentiable(&self, k: usize) -> bool {
        k == 0
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let classes = graph.node("Cast", &[&x[1].name], &[("to", Attribute::Int(7))]);
        Ok(graph.node("SoftmaxCrossEntropyLoss", &[&x[0].name, &classes], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |name, n: usize, classes: usize| {
            let inputs = [Input::real([n, classes]), Input::classes([n], classes as u32)];
            Case::new(name, CrossEntropyWithLogits, inputs)
        };
        vec![case("a few rows", 4, 5), case("one class", 3, 1), case("many rows", 701, 14).bits_only()]
    }
}

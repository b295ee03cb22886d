//! `binary_cross_entropy_with_logits`: the negative log-likelihood of independent yes-or-no labels.

use crate::case::{Case, Input};
use crate::onnx::{Fragment, Unsupported, Value};
use crate::operator::{Doc, Operator, Output, Saved, Saves, Shapes, Slot, View};
use crate::real::Real;
use crate::reduce;
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, apply};
use crate::window::arity;

/// The mean over elements that the mask admits.
#[derive(Clone, Debug, Default)]
pub struct BinaryCrossEntropyWithLogits {
    /// The weight of a positive label, one a class (the last dimension); none for 1 throughout.
    pub pos_weight: Option<Vec<f32>>,
}

impl Tensor {
    /// The mean binary cross entropy of logits `self [.., classes]` and `targets` in [0, 1] of that shape, over
    /// the elements where `mask` (of that shape, 0 or 1) is 1. A positive weighs `pos_weight[class]`.
    ///
    /// # Errors
    /// The shapes differ, or there is not one weight a class.
    pub fn binary_cross_entropy_with_logits(
        &self,
        targets: &Tensor,
        mask: Option<&Tensor>,
        pos_weight: Option<&[f32]>,
    ) -> Result<Tensor, ShapeError> {
        let operator = BinaryCrossEntropyWithLogits { pos_weight: pos_weight.map(<[f32]>::to_vec) };
        match mask {
            Some(mask) => apply(operator, &[self, targets, mask]),
            None => apply(operator, &[self, targets]),
        }
    }
}

impl BinaryCrossEntropyWithLogits {
    fn weight<F: Real>(&self, k: usize) -> F {
        match &self.pos_weight {
            Some(weights) => F::of(f64::from(weights[k % weights.len()])),
            None => F::one(),
        }
    }

    /// The weight of element k in the mean: the mask over the number it admits.
    fn share<F: Real>(size: usize, mask: Option<View<F>>) -> (F::Wide, impl Fn(usize) -> F::Wide) {
        let admitted = move |k: usize| mask.map_or(F::Wide::one(), |mask| mask[k].wide());
        (reduce::sum(size, admitted), admitted)
    }
}

impl Operator for BinaryCrossEntropyWithLogits {
    const DOC: Doc = Doc {
        name: "binary_cross_entropy_with_logits",
        summary: "The mean negative log-likelihood of independent yes-or-no labels.",
        formula: r"y = \frac{1}{\sum m} \sum_k m_k \bigl[(1-t_k) z_k + (1 + (w_k-1) t_k)\, \log(1+e^{-z_k})\bigr]",
        gradient: r"\bar z_k = \bar y \frac{m_k}{\sum m}
            \bigl[(1-t_k) - (1 + (w_k-1) t_k)\, \sigma(-z_k)\bigr]",
        shapes: "z [.., classes], t like z, m like z or none, w [classes] or none; y []",
        conventions: "Targets and mask have no gradient. Terms are f32, their sum f64 by leaves of 4096. A mask \
            that admits nothing gives 0/0, NaN: such a batch has no loss.",
    };
    const SAVES: Saves = Saves::inputs(&[0, 1, 2]);

    fn shape(&self, x: &[&Shape]) -> Result<Shapes, ShapeError> {
        let name = Self::DOC.name;
        arity(name, &[2, 3], x.len())?;
        if let Some(other) = x[1..].iter().find(|other| **other != x[0]) {
            return Err(ShapeError::new(
                name,
                format!("logits {} need targets and mask alike, not {other}", x[0]),
            ));
        }
        let classes = x[0].last().copied().unwrap_or(1);
        match self.pos_weight.as_ref().map(Vec::len).filter(|weights| *weights != classes) {
            Some(weights) => Err(ShapeError::new(name, format!("{weights} weights for {classes} classes"))),
            None => Ok(Shape::scalar().into()),
        }
    }

    fn forward<F: Real>(&self, x: &[View<F>], y: &mut Output<F>) {
        let (z, t) = (x[0], x[1]);
        let (count, admitted) = Self::share(z.data().len(), x.get(2).copied());
        let term = |k: usize| {
            let positive = F::one() + (self.weight::<F>(k) - F::one()) * t[k];
            let loss = (F::one() - t[k]) * z[k] + positive * (-z[k]).softplus();
            loss.wide() * admitted(k)
        };
        y.value[0] = F::narrow(reduce::sum(z.data().len(), term) / count);
    }

    fn vjp<F: Real>(&self, saved: &Saved<F>, dy: View<F>, dx: &mut [Slot<F>]) {
        let Some(dz) = &mut dx[0] else { return };
        let (z, t) = (saved.input(0), saved.input(1));
        let (count, admitted) = Self::share(z.data().len(), saved.kept(2));
        for k in 0..dz.len() {
            let positive = F::one() + (self.weight::<F>(k) - F::one()) * t[k];
            let slope = (F::one() - t[k]) - positive * (-z[k]).sigmoid();
            dz[k] = F::narrow(dy[0].wide() * admitted(k) / count) * slope;
        }
    }

    fn is_differentiable(&self, k: usize) -> bool {
        k == 0
    }

    fn onnx(&self, graph: &mut Fragment, x: &[Value]) -> Result<String, Unsupported> {
        let (z, t) = (x[0].name.as_str(), x[1].name.as_str());
        let one = graph.scalar(1.0);
        let negative = graph.node("Sub", &[&one, t], &[]);
        let linear = graph.node("Mul", &[&negative, z], &[]);
        let minus = graph.node("Neg", &[z], &[]);
        let soft = graph.node("Softplus", &[&minus], &[]);
        let weighted = match &self.pos_weight {
            None => soft,
            Some(weights) => {
                let excess: Vec<f32> = weights.iter().map(|weight| weight - 1.0).collect();
                let excess = graph.floats([weights.len()], &excess);
                let excess = graph.node("Mul", &[&excess, t], &[]);
                let positive = graph.node("Add", &[&one, &excess], &[]);
                graph.node("Mul", &[&positive, &soft], &[])
            }
        };
        let terms = graph.node("Add", &[&linear, &weighted], &[]);
        let no_axes = [("keepdims", crate::onnx::Attribute::Int(0))];
        let Some(mask) = x.get(2) else { return Ok(graph.node("ReduceMean", &[&terms], &no_axes)) };
        let admitted = graph.node("Mul", &[&terms, &mask.name], &[]);
        let sum = graph.node("ReduceSum", &[&admitted], &no_axes);
        let count = graph.node("ReduceSum", &[&mask.name], &no_axes);
        Ok(graph.node("Div", &[&sum, &count], &[]))
    }

    fn cases() -> Vec<Case<Self>> {
        let plain = BinaryCrossEntropyWithLogits::default();
        let weighted = BinaryCrossEntropyWithLogits { pos_weight: Some(vec![2.0, 0.5, 7.25]) };
        let inputs = |shape: [usize; 2]| vec![Input::uniform(shape, -6.0, 6.0), Input::classes(shape, 2)];
        let masked =
            |shape: [usize; 2]| vec![Input::real(shape), Input::classes(shape, 2), Input::classes(shape, 2)];
        let soft = vec![Input::real([3, 4]), Input::uniform([3, 4], 0.0, 1.0)];
        vec![
            Case::new("labels", plain.clone(), inputs([4, 3])),
            Case::new("soft labels", plain.clone(), soft),
            Case::new("a weight a class", weighted.clone(), inputs([5, 3])),
            Case::new("a mask and weights", weighted, masked([6, 3])),
            Case::new("several leaves", plain, masked([701, 14])).bits_only(),
        ]
    }
}

//! A value, and how it came to be.

use crate::array::Array;
use crate::graph::{Kept, Node, SavedValues};
use crate::operator::{Output, Primitive, View};
use crate::shape::{Shape, ShapeError};
use crate::watch::{self, Phase, Seen};
use kinone_kernels::Cpu;
use std::sync::Arc;

/// A value and the record of its making. Cheap to clone; a value that others hold never changes.
///
/// Recording is decided by the data: a result is recorded exactly when one of its inputs is, and a record
/// begins with [`Tensor::variable`].
///
/// ```
/// use kinone_core::array::Array;
/// use kinone_core::tensor::Tensor;
/// let a = Tensor::variable(Array::scalar(2.0));
/// let b = Tensor::variable(Array::scalar(5.0));
/// let y = a.add(&b)?.add(&a)?;
/// let adjoints = y.backward()?;
/// assert_eq!(adjoints.of(&a).unwrap().data(), [2.0]);
/// assert_eq!(adjoints.of(&b).unwrap().data(), [1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor {
    value: Arc<Array>,
    node: Option<Arc<Node>>,
    /// Whether gradients that read the value keep its record instead.
    recomputed: bool,
}

impl Tensor {
    /// A value that no gradient is wanted for: data, labels, a mask.
    pub fn constant(value: impl Into<Arc<Array>>) -> Tensor {
        Tensor { value: value.into(), node: None, recomputed: false }
    }

    /// A value that gradients are wanted for: what is computed from it is recorded.
    pub fn variable(value: impl Into<Arc<Array>>) -> Tensor {
        let value = value.into();
        let node = Node::leaf(value.shape().clone());
        Tensor { value, node: Some(node), recomputed: false }
    }

    /// `value` as the result recorded by `node`.
    pub(crate) fn recorded(value: Arc<Array>, node: Option<Arc<Node>>) -> Tensor {
        Tensor { value, node, recomputed: false }
    }

    /// The value.
    pub fn value(&self) -> &Arc<Array> {
        &self.value
    }

    /// The numbers.
    pub fn data(&self) -> &[f32] {
        self.value.data()
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// The number of a tensor of one element; `None` of any other.
    pub fn item(&self) -> Option<f32> {
        match self.data() {
            [x] => Some(*x),
            _ => None,
        }
    }

    /// The record, if there is one.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The numbers of a variable or a constant, to be changed; a copy of them where someone else holds the
    /// value. `None` for a computed value: its record would lie.
    pub fn modify(&mut self) -> Option<&mut [f32]> {
        match &self.node {
            Some(node) if !node.is_leaf() => None,
            _ => Some(Arc::make_mut(&mut self.value).data_mut()),
        }
    }

    /// The same value without its record: gradients stop here.
    pub fn detach(&self) -> Tensor {
        Tensor { value: Arc::clone(&self.value), node: None, recomputed: false }
    }

    /// The same value, which gradients will compute again, with equal bits, instead of keeping it: for what is
    /// large and cheap, such as a normalization. Where its operator's gradient does not keep all inputs itself, the
    /// value is kept as ever. In a chain of such values every link is computed from the first that is kept.
    pub fn recomputed(self) -> Tensor {
        let recomputed = self.node.as_ref().is_some_and(|node| node.keeps_all_inputs());
        Tensor { recomputed, ..self }
    }
}

/// The result of `operator` on `inputs`, recorded if one of them is.
///
/// # Errors
/// The inputs do not fit the operator.
pub fn apply(operator: impl Primitive + 'static, inputs: &[&Tensor]) -> Result<Tensor, ShapeError> {
    apply_with_auxiliaries(operator, inputs).map(|(tensor, _)| tensor)
}

/// The same, with the auxiliary outputs.
///
/// # Errors
/// As [`apply`].
pub fn apply_with_auxiliaries(
    operator: impl Primitive + 'static,
    inputs: &[&Tensor],
) -> Result<(Tensor, Vec<Arc<Array>>), ShapeError> {
    apply_primitive(Arc::new(operator), inputs)
}

/// The same for an operator whose type is not known here.
///
/// # Errors
/// As [`apply`].
pub fn apply_primitive(
    operator: Arc<dyn Primitive>,
    inputs: &[&Tensor],
) -> Result<(Tensor, Vec<Arc<Array>>), ShapeError> {
    let views: Vec<View<f32>> = inputs.iter().map(|input| input.value.view()).collect();
    let (value, auxiliaries) = compute(&Cpu::current(), operator.as_ref(), &views)?;
    if watch::is_watched() {
        let inputs: Vec<Option<u64>> = inputs.iter().map(|x| x.node().map(|node| node.id())).collect();
        let parts = std::iter::once(value.data()).chain(auxiliaries.iter().map(Array::data));
        for (part, values) in parts.enumerate() {
            let operator = operator.name();
            watch::show(&Seen { phase: Phase::Forward, operator, inputs: &inputs, part, values });
        }
    }
    let value = Arc::new(value);
    let auxiliaries: Vec<Arc<Array>> = auxiliaries.into_iter().map(Arc::new).collect();
    if inputs.iter().all(|input| input.node.is_none()) {
        return Ok((Tensor::constant(value), auxiliaries));
    }
    let saves = operator.saves();
    let kept = |input: &Tensor| match &input.node {
        Some(node) if input.recomputed => Kept::Record(Arc::clone(node)),
        _ => Kept::Value(Arc::clone(&input.value)),
    };
    let keep = |k: usize| saves.inputs.contains(&k).then(|| kept(inputs[k]));
    let saved = SavedValues {
        shapes: inputs.iter().map(|input| input.shape().clone()).collect(),
        inputs: (0..inputs.len()).map(keep).collect(),
        output: saves.output.then(|| Arc::clone(&value)),
        auxiliaries: if saves.auxiliaries { auxiliaries.clone() } else { Vec::new() },
    };
    let parents = inputs.iter().map(|input| input.node.clone()).collect();
    let node = Node::operation(operator, parents, saved, value.shape().clone());
    Ok((Tensor::recorded(value, Some(node)), auxiliaries))
}

/// What `operator` makes of `inputs`: the value and the auxiliary outputs.
pub(crate) fn compute(
    cpu: &Cpu,
    operator: &dyn Primitive,
    inputs: &[View<f32>],
) -> Result<(Array, Vec<Array>), ShapeError> {
    let shapes: Vec<&Shape> = inputs.iter().map(View::shape).collect();
    let produced = operator.shape(&shapes)?;
    let mut value = Array::uninitialized(produced.value);
    let mut auxiliaries: Vec<Array> = produced.auxiliaries.into_iter().map(Array::uninitialized).collect();
    let (shape, data) = value.parts_mut();
    let mut output =
        Output { shape, value: data, auxiliaries: auxiliaries.iter_mut().map(Array::data_mut).collect() };
    operator.forward(cpu, inputs, &mut output);
    Ok((value, auxiliaries))
}

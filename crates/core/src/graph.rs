//! The define-by-run graph and reverse-mode differentiation (Linnainmaa, 1970; Speelpenning, 1980).
//!
//! Every recorded result has a [`Node`] whose number is larger than its parents'. Taking the largest number
//! out of an ordered map, again and again, is a reverse topological walk; the map is the accumulator of the
//! adjoints; and contributions are added in the order in which the walk meets them. No recursion, no set of
//! visited nodes, one short loop: [`Tensor::backward_from`].

use crate::array::Array;
use crate::operator::{Primitive, Saved, Slot, View};
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, compute};
use crate::watch::{self, Phase, Seen};
use kinone_kernels::{Cpu, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How one recorded value came to be.
#[derive(Debug)]
pub struct Node {
    id: u64,
    origin: Origin,
    parents: Vec<Option<Arc<Node>>>,
    shape: Shape,
}

#[derive(Debug)]
enum Origin {
    Leaf,
    Operation { operator: Arc<dyn Primitive>, saved: Mutex<Option<SavedValues>> },
    Checkpoint(Mutex<Option<Recomputation>>),
}

/// What a node keeps for its gradient: what the operator's `SAVES` declares, and the shapes.
#[derive(Debug)]
pub(crate) struct SavedValues {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) inputs: Vec<Option<Kept>>,
    pub(crate) output: Option<Arc<Array>>,
    pub(crate) auxiliaries: Vec<Arc<Array>>,
}

/// An input that a gradient reads.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The numbers.
    Value(Arc<Array>),
    /// The record of their making, from which they are computed again ([`Tensor::recomputed`]).
    Record(Arc<Node>),
}

impl SavedValues {
    /// Computes again what was kept as a record.
    fn resolve(&mut self, cpu: &Cpu) -> Result<(), BackwardError> {
        for kept in self.inputs.iter_mut().flatten() {
            if let Kept::Record(node) = kept {
                *kept = Kept::Value(Arc::new(node.compute_again(cpu)?));
            }
        }
        Ok(())
    }

    /// The inputs of which the numbers are here.
    fn views(&self) -> Vec<Option<View<'_, f32>>> {
        let inputs = self.inputs.iter().map(|input| match input {
            Some(Kept::Value(array)) => Some(array.view()),
            Some(Kept::Record(_)) | None => None,
        });
        inputs.collect()
    }
}

type Body = dyn Fn(&[Tensor]) -> Result<Tensor, ShapeError> + Send + Sync;

struct Recomputation {
    inputs: Vec<Tensor>,
    body: Box<Body>,
}

impl fmt::Debug for Recomputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recomputation").field("inputs", &self.inputs.len()).finish()
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Node {
    fn new(origin: Origin, parents: Vec<Option<Arc<Node>>>, shape: Shape) -> Arc<Node> {
        Arc::new(Node { id: NEXT.fetch_add(1, Ordering::Relaxed), origin, parents, shape })
    }

    pub(crate) fn leaf(shape: Shape) -> Arc<Node> {
        Node::new(Origin::Leaf, Vec::new(), shape)
    }

    pub(crate) fn operation(
        operator: Arc<dyn Primitive>,
        parents: Vec<Option<Arc<Node>>>,
        saved: SavedValues,
        shape: Shape,
    ) -> Arc<Node> {
        Node::new(Origin::Operation { operator, saved: Mutex::new(Some(saved)) }, parents, shape)
    }

    /// A number that grows with every node: larger than every parent's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The operator; `None` for a variable and for a checkpoint.
    pub fn operator(&self) -> Option<&Arc<dyn Primitive>> {
        match &self.origin {
            Origin::Operation { operator, .. } => Some(operator),
            Origin::Leaf | Origin::Checkpoint(_) => None,
        }
    }

    /// Whether this is a variable.
    pub fn is_leaf(&self) -> bool {
        matches!(self.origin, Origin::Leaf)
    }

    /// The records of the inputs; `None` for an input that was not recorded.
    pub fn parents(&self) -> &[Option<Arc<Node>>] {
        &self.parents
    }

    /// The shape of the value.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether the record keeps every input, so that the value can be computed again.
    pub(crate) fn keeps_all_inputs(&self) -> bool {
        let count = self.parents.len();
        self.operator().is_some_and(|operator| (0..count).all(|k| operator.saves().inputs.contains(&k)))
    }

    /// The value of an operation that keeps all inputs.
    fn compute_again(&self, cpu: &Cpu) -> Result<Array, BackwardError> {
        let Origin::Operation { operator, saved } = &self.origin else {
            unreachable!("only operations are computed again")
        };
        let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = saved.as_mut().ok_or(BackwardError::Freed(operator.name()))?;
        saved.resolve(cpu)?;
        let inputs: Vec<View<f32>> = saved.views().into_iter().flatten().collect();
        let computed = compute(cpu, operator.as_ref(), &inputs);
        computed.map(|(value, _)| value).map_err(|error| BackwardError::Recomputation(error.to_string()))
    }
}

/// A derived drop would recurse along the chain of parents and overflow the stack on a deep graph.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending: Vec<Arc<Node>> = self.take_references();
        while let Some(node) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                pending.extend(node.take_references());
            }
        }
    }
}

impl Node {
    fn take_references(&mut self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<Arc<Node>> = std::mem::take(&mut self.parents).into_iter().flatten().collect();
        match &mut self.origin {
            Origin::Leaf => {}
            Origin::Operation { saved, .. } => {
                let saved = saved.get_mut().unwrap_or_else(PoisonError::into_inner).take();
                let inputs = saved.into_iter().flat_map(|saved| saved.inputs).flatten();
                nodes.extend(inputs.filter_map(|kept| match kept {
                    Kept::Value(_) => None,
                    Kept::Record(node) => Some(node),
                }));
            }
            Origin::Checkpoint(kept) => {
                let kept = kept.get_mut().unwrap_or_else(PoisonError::into_inner).take();
                nodes.extend(kept.into_iter().flat_map(|kept| kept.inputs).filter_map(|x| x.node().cloned()));
            }
        }
        nodes
    }
}

/// Why there is no gradient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackwardError {
    /// Nothing led to this value that gradients are wanted for.
    #[error("backward: the value was not computed from any variable, so it has no gradient")]
    NotRecorded,
    /// The value is not one number, and no cotangent was given.
    #[error("backward: a value of shape {0} is not one number; give a cotangent of its shape")]
    NotScalar(Shape),
    /// The cotangent does not fit.
    #[error("backward: the cotangent has shape {cotangent}, the value {value}")]
    Cotangent {
        /// What came.
        cotangent: Shape,
        /// What was expected.
        value: Shape,
    },
    /// The walk passed here before and freed what it needed.
    #[error("backward: the graph behind `{0}` was freed by an earlier backward; compute the value again")]
    Freed(&'static str),
    /// A checkpoint's body, or an operator, failed or returned another shape when it ran again.
    #[error("backward: what was recomputed differs from its first run: {0}")]
    Recomputation(String),
}

/// The adjoints of variables: ∂y/∂(variable), for the y that was differentiated.
#[derive(Debug, Default)]
pub struct Adjoints(BTreeMap<u64, Array>);

impl Adjoints {
    /// The adjoint of `tensor`; `None` if no path leads from it to the result.
    pub fn of(&self, tensor: &Tensor) -> Option<&Array> {
        self.0.get(&tensor.node()?.id)
    }

    /// The same, to be changed: for clipping.
    pub fn of_mut(&mut self, tensor: &Tensor) -> Option<&mut Array> {
        self.0.get_mut(&tensor.node()?.id)
    }
}

/// A node met by the walk, with the sum of the contributions to its adjoint so far.
struct Met {
    node: Arc<Node>,
    adjoint: Array,
}

impl Tensor {
    /// The adjoints of every variable that led to this number.
    ///
    /// # Errors
    /// The value is not one number, was not recorded, or its graph was freed by an earlier walk.
    pub fn backward(&self) -> Result<Adjoints, BackwardError> {
        if self.shape().size() != 1 {
            return Err(BackwardError::NotScalar(self.shape().clone()));
        }
        self.backward_from(Array::full(self.shape().clone(), 1.0), &[])
    }

    /// The adjoints of every variable, and of the tensors `also`, of ⟨`cotangent`, self⟩.
    ///
    /// The walk frees what the graph kept as it passes.
    ///
    /// # Errors
    /// As [`Tensor::backward`]; and the cotangent has another shape.
    pub fn backward_from(&self, cotangent: Array, also: &[&Tensor]) -> Result<Adjoints, BackwardError> {
        let node = Arc::clone(self.node().ok_or(BackwardError::NotRecorded)?);
        if cotangent.shape() != self.shape() {
            let (cotangent, value) = (cotangent.shape().clone(), self.shape().clone());
            return Err(BackwardError::Cotangent { cotangent, value });
        }
        let cpu = Cpu::current();
        let also: BTreeSet<u64> =
            also.iter().filter_map(|tensor| tensor.node()).map(|node| node.id).collect();
        let mut adjoints = Adjoints::default();
        let mut met = BTreeMap::from([(node.id, Met { node, adjoint: cotangent })]);
        while let Some((id, Met { node, adjoint })) = met.pop_last() {
            if also.contains(&id) {
                adjoints.0.insert(id, adjoint.clone());
            }
            match &node.origin {
                Origin::Leaf => {
                    adjoints.0.insert(id, adjoint);
                }
                Origin::Operation { operator, saved } => {
                    let saved = saved.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let mut saved = saved.ok_or(BackwardError::Freed(operator.name()))?;
                    saved.resolve(&cpu)?;
                    let contributions = pull_back(&cpu, operator.as_ref(), &node.parents, &saved, adjoint);
                    for (parent, contribution) in contributions {
                        accumulate(&cpu, &mut met, parent, contribution);
                    }
                }
                Origin::Checkpoint(kept) => {
                    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let Recomputation { inputs, body } = kept.ok_or(BackwardError::Freed("checkpoint"))?;
                    // The nodes made now have larger numbers than any left: the walk enters them next, in
                    // the order in which it would have met those of the first run.
                    let again = body(&inputs).map_err(|e| BackwardError::Recomputation(e.to_string()))?;
                    match again.node() {
                        Some(node) if again.shape() == adjoint.shape() => {
                            accumulate(&cpu, &mut met, Arc::clone(node), adjoint);
                        }
                        _ => {
                            let reason = format!("shape {} became {}", adjoint.shape(), again.shape());
                            return Err(BackwardError::Recomputation(reason));
                        }
                    }
                }
            }
        }
        Ok(adjoints)
    }
}

/// One operator's contributions to the adjoints of its parents. What can be written over `adjoint` is.
fn pull_back(
    cpu: &Cpu,
    operator: &dyn Primitive,
    parents: &[Option<Arc<Node>>],
    saved: &SavedValues,
    mut adjoint: Array,
) -> Vec<(Arc<Node>, Array)> {
    let wanted = |k: usize| parents[k].is_some() && operator.is_differentiable(k);
    let over = operator.over().filter(|k| wanted(*k));
    let fresh = |k: usize| Array::uninitialized(saved.shapes[k].clone());
    let mut gradients: Vec<Option<Array>> =
        (0..parents.len()).map(|k| (wanted(k) && over != Some(k)).then(|| fresh(k))).collect();
    let mut slots: Vec<Slot<f32>> =
        gradients.iter_mut().map(|slot| slot.as_mut().map(Array::data_mut)).collect();
    let read = Saved::new(
        operator.name(),
        &saved.shapes,
        saved.views(),
        saved.output.as_ref().map(|array| array.view()),
        saved.auxiliaries.iter().map(|array| array.view()).collect(),
    );
    match over {
        Some(k) => {
            operator.vjp_over(cpu, &read, adjoint.data_mut(), &mut slots);
            gradients[k] = adjoint.reshaped(saved.shapes[k].clone());
        }
        None => operator.vjp(cpu, &read, adjoint.view(), &mut slots),
    }
    if watch::is_watched() {
        let inputs: Vec<Option<u64>> = parents.iter().map(|x| x.as_ref().map(|node| node.id)).collect();
        for (part, gradient) in gradients.iter().enumerate() {
            if let Some(gradient) = gradient {
                let (operator, values) = (operator.name(), gradient.data());
                watch::show(&Seen { phase: Phase::Backward, operator, inputs: &inputs, part, values });
            }
        }
    }
    let parents = parents.iter().zip(gradients);
    parents.filter_map(|(parent, gradient)| Some((Arc::clone(parent.as_ref()?), gradient?))).collect()
}

struct AddAssign<'a>(&'a mut [f32], &'a [f32]);

impl Task for AddAssign<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (a, b) in self.0.iter_mut().zip(self.1) {
            *a += b;
        }
    }
}

fn accumulate(cpu: &Cpu, met: &mut BTreeMap<u64, Met>, parent: Arc<Node>, contribution: Array) {
    match met.get_mut(&parent.id) {
        Some(Met { adjoint, .. }) => {
            let len = adjoint.data().len();
            cpu.for_slices(len, 16_384, &mut [Some(adjoint.data_mut())], |offset, parts| {
                for part in parts.iter_mut().flatten() {
                    let range = offset..offset + part.len();
                    cpu.vectorize(AddAssign(part, &contribution.data()[range]));
                }
            });
        }
        None => {
            met.insert(parent.id, Met { node: parent, adjoint: contribution });
        }
    }
}

/// The result of `body` on `inputs`, of whose inner values nothing is kept: backward runs `body` again
/// (Griewank and Walther, "Revolve", 2000; Chen et al., 2016).
///
/// `body` must be a pure function of `inputs` and of the tensors it captured; values, adjoints and the
/// order of their sums are then, bit for bit, those without the checkpoint.
///
/// # Errors
/// Those of `body`.
pub fn checkpoint(
    inputs: &[&Tensor],
    body: impl Fn(&[Tensor]) -> Result<Tensor, ShapeError> + Send + Sync + 'static,
) -> Result<Tensor, ShapeError> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    let result = body(&inputs)?;
    if result.node().is_none() {
        return Ok(result);
    }
    let value = Arc::clone(result.value());
    drop(result);
    let parents = inputs.iter().map(|input| input.node().cloned()).collect();
    let shape = value.shape().clone();
    let kept = Recomputation { inputs, body: Box::new(body) };
    let node = Node::new(Origin::Checkpoint(Mutex::new(Some(kept))), parents, shape);
    Ok(Tensor::recorded(value, Some(node)))
}

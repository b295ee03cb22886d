//! The walk from a result back to the variables.

use super::{Node, Origin, Recomputation, SavedValues};
use crate::array::Array;
use crate::operator::{Primitive, Saved, Slot};
use crate::shape::Shape;
use crate::tensor::Tensor;
use crate::watch::{self, Phase, Seen};
use kinone_kernels::Cpu;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

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

/// The nodes that the walk has met and not passed, with the sums of the contributions to their adjoints so far.
struct Met<'a> {
    cpu: &'a Cpu,
    nodes: BTreeMap<u64, (Arc<Node>, Array)>,
    /// The last contribution to a node whose operator adds it itself if that node is passed next, and the node's number.
    waiting: Option<(u64, Array)>,
}

impl Met<'_> {
    /// Adds a contribution to the adjoint of a node.
    fn add(&mut self, node: Arc<Node>, contribution: Array) {
        let adds = |operator: &Arc<dyn Primitive>| operator.is_over_sum();
        match self.nodes.get_mut(&node.id) {
            None => {
                self.nodes.insert(node.id, (node, contribution));
            }
            Some(_) if node.operator().is_some_and(adds) => {
                self.settle();
                self.waiting = Some((node.id, contribution));
            }
            Some((_, adjoint)) => accumulate(self.cpu, adjoint, &contribution),
        }
    }

    /// Adds what is waiting.
    fn settle(&mut self) {
        if let Some((id, more)) = self.waiting.take() {
            let Some((_, adjoint)) = self.nodes.get_mut(&id) else { unreachable!("it waits for a node met") };
            accumulate(self.cpu, adjoint, &more);
        }
    }

    /// The node with the largest number, all of whose contributions are here.
    fn pop(&mut self) -> Option<Last> {
        let (id, (node, adjoint)) = self.nodes.pop_last()?;
        let more = self.waiting.take_if(|(waiting, _)| *waiting == id).map(|(_, more)| more);
        // What waits for another takes room.
        self.settle();
        Some(Last { node, adjoint, more })
    }
}

/// A node that the walk passes, and its adjoint.
struct Last {
    node: Arc<Node>,
    adjoint: Array,
    /// What is still to be added.
    more: Option<Array>,
}

impl Last {
    /// Adds it.
    fn settle(&mut self, cpu: &Cpu) {
        if let Some(more) = self.more.take() {
            accumulate(cpu, &mut self.adjoint, &more);
        }
    }
}

fn accumulate(cpu: &Cpu, adjoint: &mut Array, more: &Array) {
    kinone_kernels::accumulate(cpu, adjoint.data_mut(), more.data());
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
        let mut met = Met { cpu: &cpu, nodes: BTreeMap::new(), waiting: None };
        met.add(node, cotangent);
        while let Some(mut last) = met.pop() {
            let node = Arc::clone(&last.node);
            if also.contains(&node.id) && !node.is_leaf() {
                last.settle(&cpu);
                adjoints.0.insert(node.id, last.adjoint.clone());
            }
            match &node.origin {
                Origin::Leaf => {
                    adjoints.0.insert(node.id, last.adjoint);
                }
                Origin::Operation { operator, saved } => {
                    let saved = saved.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let mut saved = saved.ok_or(BackwardError::Freed(operator.name()))?;
                    if saved.record().is_some() {
                        // What is computed again needs the room.
                        last.settle(&cpu);
                    }
                    saved.resolve(&cpu)?;
                    let contributions = pull_back(&cpu, operator.as_ref(), &saved, last);
                    for (parent, contribution) in contributions {
                        met.add(parent, contribution);
                    }
                }
                Origin::Checkpoint(kept) => {
                    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let Recomputation { inputs, body } = kept.ok_or(BackwardError::Freed("checkpoint"))?;
                    // The nodes made now have larger numbers than any left: the walk enters them next, in
                    // the order in which it would have met those of the first run.
                    let again = body(&inputs).map_err(|e| BackwardError::Recomputation(e.to_string()))?;
                    let reason = match again.node() {
                        Some(node) if again.shape() == last.adjoint.shape() => {
                            met.add(Arc::clone(node), last.adjoint);
                            continue;
                        }
                        Some(_) => format!("shape {} became {}", last.adjoint.shape(), again.shape()),
                        None => "no variable leads to it any more".to_owned(),
                    };
                    return Err(BackwardError::Recomputation(reason));
                }
            }
        }
        Ok(adjoints)
    }
}

/// The contributions of an operator's node to the adjoints of its parents. What can be written over its own is.
fn pull_back(
    cpu: &Cpu,
    operator: &dyn Primitive,
    saved: &SavedValues,
    mut last: Last,
) -> Vec<(Arc<Node>, Array)> {
    let node = Arc::clone(&last.node);
    let parents = &node.parents;
    let wanted = |k: usize| parents[k].is_some() && operator.is_differentiable(k);
    let over = operator.over().filter(|k| wanted(*k));
    if over.is_none() {
        // The operator adds nothing itself; what is added needs no room while there are gradients.
        last.settle(cpu);
    }
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
    if let Some(k) = over {
        let dy = last.adjoint.data_mut();
        match last.more.take() {
            Some(more) => operator.vjp_over_sum(cpu, &read, dy, more.data(), &mut slots),
            None => operator.vjp_over(cpu, &read, dy, &mut slots),
        }
        let gradient = last.adjoint.reshaped(saved.shapes[k].clone());
        assert!(gradient.is_some(), "{}: input {k} is not of the output's size", operator.name());
        gradients[k] = gradient;
    } else {
        operator.vjp(cpu, &read, last.adjoint.view(), &mut slots);
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
    // What was written over the cotangent is there first, as in the parts of which a fused operator is composed.
    let others = (0..parents.len()).filter(|k| over != Some(*k));
    let handed = |k: usize| Some((Arc::clone(parents[k].as_ref()?), gradients[k].take()?));
    over.into_iter().chain(others).filter_map(handed).collect()
}

#[cfg(test)]
mod tests {
    use super::Met;
    use crate::array::Array;
    use crate::tensor::Tensor;
    use kinone_kernels::Cpu;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// It waits while others come, but not while another node is passed.
    #[test]
    fn the_last_contribution_waits_for_an_operator_that_adds_it() {
        let (cpu, shape) = (Cpu::current(), [1, 1, 1, 2]);
        let full = |value: f32| Array::full(shape, value);
        let vector = || Tensor::constant(Array::full([1], 1.0));
        let x = Tensor::variable(full(1.0));
        let (end, _) = x.batch_norm2d_add_relu(&vector(), &vector(), &x, 1e-5).unwrap();
        let later = Tensor::variable(full(1.0));
        let node = |tensor: &Tensor| Arc::clone(tensor.node().unwrap());
        for (other, waits) in [(&x, true), (&later, false)] {
            let mut met = Met { cpu: &cpu, nodes: BTreeMap::new(), waiting: None };
            for value in [1.0, 2.0, 4.0] {
                met.add(node(&end), full(value));
            }
            met.add(node(other), full(8.0));
            if !waits {
                assert_eq!(met.pop().unwrap().adjoint.data(), [8.0; 2]);
            }
            let last = met.pop().unwrap();
            assert_eq!(last.node.id, node(&end).id);
            assert_eq!(last.adjoint.data(), if waits { [3.0; 2] } else { [7.0; 2] });
            assert_eq!(last.more.map(|more| more.data()[0]), waits.then_some(4.0));
        }
    }
}

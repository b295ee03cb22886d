//! Modules one after another, and modules that are recomputed instead of remembered.

use crate::module::Module;
use crate::pass::Pass;
use crate::state::Visitor;
use kinone_core::graph::checkpoint;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Modules one after another, named 0, 1, 2, …
#[derive(Debug, Default)]
pub struct Sequential(Vec<Box<dyn Module>>);

impl Sequential {
    /// These modules in this order.
    pub fn new(modules: Vec<Box<dyn Module>>) -> Sequential {
        Sequential(modules)
    }

    /// The same function with less memory: every module [`Checkpointed`].
    pub fn checkpointed(self) -> Sequential {
        let checkpointed = |module: Box<dyn Module>| -> Box<dyn Module> {
            Box::new(Checkpointed::<dyn Module>(module.into()))
        };
        Sequential(self.0.into_iter().map(checkpointed).collect())
    }
}

impl Module for Sequential {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        self.0.iter().try_fold(x.clone(), |x, module| module.forward(pass, &x))
    }

    fn visit(&self, visitor: &mut Visitor) {
        for (index, module) in self.0.iter().enumerate() {
            visitor.module(&index.to_string(), module.as_ref());
        }
    }
}

/// A module of whose inner values nothing is kept in training: backward runs it again, with equal bits.
#[derive(Clone, Debug)]
pub struct Checkpointed<M: ?Sized>(Arc<M>);

impl<M: Module> Checkpointed<M> {
    /// The same function with less memory.
    pub fn new(module: M) -> Checkpointed<M> {
        Checkpointed(Arc::new(module))
    }
}

impl<M: Module + ?Sized + 'static> Module for Checkpointed<M> {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        if !pass.is_training() {
            return self.0.forward(pass, x);
        }
        let (module, pass) = (Arc::clone(&self.0), pass.clone());
        let ran = AtomicBool::new(false);
        checkpoint(&[x], move |x| {
            // What was observed in the first run must not be observed again.
            let again = ran.swap(true, Ordering::Relaxed);
            module.forward(&if again { pass.unobserved() } else { pass.clone() }, &x[0])
        })
    }

    fn visit(&self, visitor: &mut Visitor) {
        self.0.visit(visitor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::layers::{Activation, BatchNorm2d, Conv2d, ConvConfig};
    use crate::state::{dictionary, parameters};
    use kinone_core::array::Array;

    /// Gradients and observed statistics, as bits.
    fn run(checkpointed: bool) -> Vec<Vec<u8>> {
        let conv = Conv2d::new(&Init::new(3), 2, 2, ConvConfig::same(3, 1));
        let block =
            Sequential::new(vec![Box::new(conv), Box::new(BatchNorm2d::new(2)), Box::new(Activation::Relu)]);
        let block = if checkpointed { block.checkpointed() } else { block };
        let pass = Pass::training(1, 0, &[0, 1]);
        let y = block.forward(&pass, &Tensor::constant(Init::new(5).normal([2, 2, 4, 4], 1.0))).unwrap();
        let adjoints = y.backward_from(Array::full([2, 2, 4, 4], 0.5), &[]).unwrap();
        pass.commit();
        let bytes = |array: &Array| array.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        let gradients = parameters(&block).into_iter().map(|(_, p)| bytes(adjoints.of(&p.tensor()).unwrap()));
        gradients.chain(dictionary(&block).values().map(|value| value.bytes())).collect()
    }

    #[test]
    fn checkpointed_modules_have_the_same_gradients_and_observe_once() {
        assert_eq!(run(true), run(false));
    }
}

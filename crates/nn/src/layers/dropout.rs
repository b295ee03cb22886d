//! Dropout as a layer.

use crate::module::Module;
use crate::pass::Pass;
use crate::state::Visitor;
use kinone_core::ops::Dropout as Operator;
use kinone_core::rng::Stream;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;

/// Random zeros in training, the identity in evaluation.
#[derive(Clone, Debug)]
pub struct Dropout {
    p: f32,
    name: String,
}

impl Dropout {
    /// A share `p` of zeros; `name` tells its random numbers from those of other layers.
    pub fn new(p: f32, name: impl Into<String>) -> Dropout {
        Dropout { p, name: name.into() }
    }
}

impl Module for Dropout {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let Some((seed, epoch, samples)) = pass.draws() else { return Ok(x.clone()) };
        let stream = Stream::new(seed, &format!("dropout/{}", self.name));
        x.dropout(Operator { p: self.p, stream, epoch, samples: samples.into() })
    }

    fn visit(&self, _visitor: &mut Visitor) {}
}

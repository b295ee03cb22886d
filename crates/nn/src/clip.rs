//! Gradient clipping by norm (Pascanu, Mikolov and Bengio, ICML 2013).

use crate::state::Parameter;
use kinone_core::array::Array;
use kinone_core::graph::Adjoints;
use kinone_kernels::{Cpu, optim};

/// The Euclidean norm of all gradients together, in f64: [`optim::norm`] over the parameters in their order.
pub fn gradient_norm(parameters: &[(String, Parameter)], adjoints: &Adjoints) -> f64 {
    let gradients = parameters.iter().filter_map(|(_, parameter)| adjoints.of(&parameter.tensor()));
    let gradients: Vec<&[f32]> = gradients.map(Array::data).collect();
    optim::norm(&Cpu::current(), &gradients)
}

/// Scales all gradients by `limit/norm` if their norm is above `limit`; returns the norm before.
///
/// A norm that is not finite scales nothing: such a step is refused by whoever asked.
pub fn clip_gradients(parameters: &[(String, Parameter)], adjoints: &mut Adjoints, limit: f64) -> f64 {
    let norm = gradient_norm(parameters, adjoints);
    if norm.is_finite() && norm > limit {
        let factor = (limit / norm) as f32;
        for (_, parameter) in parameters {
            if let Some(gradient) = adjoints.of_mut(&parameter.tensor()) {
                optim::scale(&Cpu::current(), factor, gradient.data_mut());
            }
        }
    }
    norm
}

//! The core of Kinone: a tensor with its adjoint, a define-by-run graph, reverse-mode differentiation, and
//! the operators with their definitions and gradients.

pub mod rng;

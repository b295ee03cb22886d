//! The core of Kinone: a tensor with its adjoint, a define-by-run graph, reverse-mode differentiation, and
//! the operators with their definitions and gradients.

pub mod array;
pub mod axes;
pub mod case;
pub mod check;
pub mod dual;
pub mod graph;
pub mod onnx;
pub mod operator;
pub mod ops;
pub mod pointwise;
pub mod real;
pub mod reduce;
pub mod rng;
pub mod rounded;
pub mod shape;
pub mod tensor;
pub mod watch;
pub mod window;
pub(crate) mod winograd;

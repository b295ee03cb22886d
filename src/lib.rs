//! Kinone (木の根, "roots of a tree"): gradient-based learning from first principles, with equal bits on every
//! machine.
//!
//! ```
//! use kinone::core::array::Array;
//! use kinone::core::tensor::Tensor;
//!
//! let x = Tensor::variable(Array::scalar(3.0));
//! let y = x.mul(&x)?.add(&x)?;
//! let adjoints = y.backward()?;
//! assert_eq!(adjoints.of(&x).unwrap().data(), [7.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate gathers the rooms; `ARCHITECTURE.md` says what is where, and what is nowhere.

pub use kinone_core as core;
pub use kinone_files as files;
pub use kinone_kernels as kernels;
pub use kinone_metrics as metrics;
pub use kinone_nn as nn;
pub use kinone_onnx as onnx;
pub use kinone_runs as runs;
pub use kinone_train as train;
pub use kinone_xray as xray;

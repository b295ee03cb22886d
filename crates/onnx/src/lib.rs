//! Models of Kinone as ONNX files: IR version 8, operator set 17.
//!
//! An operator writes itself in its own file ([`Operator::onnx`](kinone_core::operator::Operator::onnx)), in the
//! words of [`kinone_core::onnx`]. This room collects what they write and puts it into the file format.
//!
//! Reading order: [`mod@export`] (a network, by walking its traced graph), [`single`] (one operator, for replay in
//! other runtimes), [`manifest`] (a folder of them), [`graph`] (what both build), [`proto`] (the messages of the format).

pub mod export;
pub mod graph;
pub mod manifest;
pub mod proto;
pub mod single;

pub use export::{ExportError, Trace, export};
pub use graph::{Extent, Graph, Model};
pub use single::{Replay, ReplayError, Run};

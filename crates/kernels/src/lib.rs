//! The numeric kernels of Kinone: plain slices in, plain slices out.
//!
//! This is the only crate with `unsafe` in it. Every kernel returns, bit for bit, what its textbook loop
//! returns, on every instruction set, for every number of threads, alignment and tile size; the tests of
//! this crate compare them. What a kernel may do is written in the numeric contract (`docs/NUMERICS.md`).
//!
//! Reading order: [`cpu`] (which instructions, how many threads), [`pool`] (who works on what), `shares.rs` (in which
//! shares), [`memory`] (where results go), then the kernels.

mod accumulate;
pub mod conv;
pub mod cpu;
mod denormals;
pub mod gemm;
mod interleave;
pub mod leaves;
pub mod math;
pub mod memory;
pub mod norm;
pub mod optim;
pub mod perturb;
pub mod pool;
pub mod pool2d;
mod processor;
mod product;
pub mod rows;
mod shares;
pub mod sums;

pub use accumulate::accumulate;
pub use cpu::{Cpu, CpuError, Isa, Task};

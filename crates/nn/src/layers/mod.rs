//! Layers: modules of one operator each, and what strings them together.

mod activation;
mod batch_norm;
mod conv;
mod dropout;
mod linear;
mod pool;
mod sequential;

pub use activation::Activation;
pub use batch_norm::BatchNorm2d;
pub use conv::{Conv2d, ConvAlgorithm, ConvConfig, winograd_tile};
pub use dropout::Dropout;
pub use linear::{Flatten, Linear};
pub use pool::{AdaptiveAvgPool2d, MaxPool2d};
pub use sequential::{Checkpointed, Sequential};

//! Models.

mod resnet;

pub use resnet::{Depth, ResNet, UnknownModel};

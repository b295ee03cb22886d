//! Writes a network of fresh weights as an ONNX file, for other runtimes to be measured on: one channel, 15 classes,
//! any batch. `fresh_resnet MODEL SIZE FILE`
//!
//! The weights are those of `infer_speed`.

use kinone_core::tensor::Tensor;
use kinone_nn::init::Init;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::state::variables;
use kinone_nn::{Module, Pass};
use kinone_onnx::{Trace, export};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fresh_resnet: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, size, file] = arguments.as_slice() else {
        return Err("usage: fresh_resnet MODEL SIZE FILE".into());
    };
    let depth: Depth = model.parse()?;
    let size: usize = size.parse().map_err(|_| format!("SIZE must be a number, not `{size}`"))?;
    let network = ResNet::new(depth, 1, 15, 1);
    // Two images, so that the extent of the batch is seen to be free.
    let images = Tensor::variable(Init::new(1).normal([2, 1, size, size], 1.0));
    let logits = network.forward(&Pass::trace(), &images)?;
    let trace = Trace {
        name: depth.name(),
        inputs: &[("images", &images)],
        weights: &variables(&network),
        output: ("logits", &logits),
    };
    export(&trace, &[])?.write(Path::new(file))?;
    Ok(())
}

//! Writes what `oracle/pytorch_parity.py` compares with PyTorch: `parity FOLDER [SIZE [SEED]]`, 64 and 3 unless told.
//! On many images some sign before a ReLU differs between two orders of rounding, and gradients with it: in a fresh
//! ResNet-50 on all that were tried, by PyTorch too. So it is compared once more with residual branches that begin at 0.

use kinone_core::array::Array;
use kinone_core::tensor::Tensor;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_nn::state::{Dictionary, Value, dictionary, parameters};
use kinone_nn::{Module, Pass, init::Init};
use kinone_runs::weights::write_tensors;
use kinone_train::trainer::{Batch, Trainer};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

const CLASSES: usize = 14;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: parity FOLDER [SIZE [SEED]]")?;
    let size = arguments.next().map_or(Ok(64), |size| size.parse())?;
    let seed = arguments.next().map_or(Ok(3), |seed| seed.parse())?;
    for (depth, zero) in [(Depth::D18, false), (Depth::D50, false), (Depth::D18, true), (Depth::D50, true)] {
        let name = if zero { format!("{depth}-zero-residuals") } else { depth.to_string() };
        let folder = Path::new(&folder).join(name);
        kinone_files::make_folder(&folder)?;
        let model = ResNet::new(depth, 1, CLASSES, 3);
        let (before, after) = run(if zero { model.zero_residuals() } else { model }, size, seed)?;
        write_tensors(&folder.join("before.safetensors"), &before)?;
        write_tensors(&folder.join("after.safetensors"), &after)?;
    }
    Ok(())
}

fn run(model: ResNet, size: usize, seed: u64) -> Result<(Dictionary, Dictionary), Box<dyn Error>> {
    let draw = Init::new(seed);
    let images = draw.at("images").normal([8, 1, size, size], 1.0);
    let mut targets = draw.at("targets").uniform([8, CLASSES], 1.0);
    for target in targets.data_mut() {
        *target = if *target > 0.5 { 1.0 } else { 0.0 };
    }

    let mut before = dictionary(&model);
    before.insert("x".into(), Value::F32(Arc::new(images.clone())));
    before.insert("y".into(), Value::F32(Arc::new(targets.clone())));

    let pass = Pass::training(0, 0, &[0; 8]);
    let logits = model.forward(&pass, &Tensor::constant(images.clone()))?;
    let loss = logits.binary_cross_entropy_with_logits(&Tensor::constant(targets.clone()), None, None)?;
    let mut after = Dictionary::new();
    after.insert("logits".into(), Value::F32(Arc::clone(logits.value())));
    after.insert("loss".into(), Value::F32(Arc::clone(loss.value())));
    let adjoints = loss.backward()?;
    for (name, parameter) in parameters(&model) {
        let gradient = adjoints.of(&parameter.tensor()).ok_or("a parameter without a gradient")?;
        after.insert(format!("gradient/{name}"), Value::F32(Arc::new(gradient.clone())));
    }

    let rate = Rate::new(1e-3, Schedule::Constant, 0);
    let mut trainer = Trainer::new(model, Optimizer::new(Rule::adam()), rate, None, 0);
    let mut losses = Array::full([20], 0.0);
    for loss in losses.data_mut() {
        let batch = Batch { images: images.clone(), targets: targets.clone(), samples: (0..8).collect() };
        *loss = trainer.step(0, batch)?.loss;
    }
    after.insert("adam_losses".into(), Value::F32(Arc::new(losses)));
    Ok((before, after))
}

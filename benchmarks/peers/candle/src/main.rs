//! The speed of candle on the CPU, on the work of `step_speed` and `infer_speed`: one channel, 15 classes.
//!
//! `candle_speed train|infer MODEL BATCH SIZE REPEATS THREADS` prints one JSON object: images a second (median, lowest,
//! highest repetition), the median time in ms and the peak memory of the process.
//!
//! Candle has no gradient of a max pool whose windows overlap. In training the stem therefore pools 2×2, where the
//! network has 3×3; the output's shape is the same, and the work a little less.

#[path = "../../common.rs"]
mod common;

use candle_core::{DType, Device, Module, ModuleT, Result, Tensor};
use candle_nn::{
    AdamW, BatchNorm, Conv2d, Conv2dConfig, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap, batch_norm,
    conv2d_no_bias, linear, loss,
};
use common::{CLASSES, Convolution, Measured, STEM, Work};
use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

const DEVICE: Device = Device::Cpu;
const NOTE: &str = "the stem pools 2x2, not 3x3: candle has no gradient of a max pool whose windows overlap";

fn main() -> ExitCode {
    common::report(include_str!("../Cargo.lock"), &["candle-core", "candle-nn"], |work| {
        if work.train { steps(work) } else { inference(work) }
    })
}

fn steps(work: &Work) -> std::result::Result<Measured, Box<dyn Error>> {
    let weights = VarMap::new();
    let model = ResNet::new(work, VarBuilder::from_varmap(&weights, DType::F32, &DEVICE))?;
    // Without decay of the weights AdamW is Adam.
    let options = ParamsAdamW { lr: 1e-3, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut adam = AdamW::new(weights.all_vars(), options)?;
    let mut times = Vec::new();
    let mut check = f32::NAN;
    for _ in 0..work.repetitions() {
        let images = images(work)?;
        let targets =
            Tensor::rand(0f32, 1.0, (work.batch, CLASSES), &DEVICE)?.gt(0.5)?.to_dtype(DType::F32)?;
        let start = Instant::now();
        let loss = loss::binary_cross_entropy_with_logit(&model.forward_t(&images, true)?, &targets)?;
        adam.backward_step(&loss)?;
        times.push(start.elapsed());
        check = loss.to_scalar()?;
    }
    Ok(Measured { times, parameters: parameters(&weights)?, check, note: Some(NOTE) })
}

/// On tensors that are no variables candle keeps no graph.
fn inference(work: &Work) -> std::result::Result<Measured, Box<dyn Error>> {
    let weights = VarMap::new();
    ResNet::new(work, VarBuilder::from_varmap(&weights, DType::F32, &DEVICE))?;
    let fixed: HashMap<String, Tensor> = named(&weights)?.into_iter().collect();
    let model = ResNet::new(work, VarBuilder::from_tensors(fixed, DType::F32, &DEVICE))?;
    let mut times = Vec::new();
    let mut check = f32::NAN;
    for _ in 0..work.repetitions() {
        let images = images(work)?;
        let start = Instant::now();
        let logits = model.forward_t(&images, false)?;
        times.push(start.elapsed());
        check = logits.get(0)?.get(0)?.to_scalar()?;
    }
    Ok(Measured { times, parameters: parameters(&weights)?, check, note: None })
}

fn images(work: &Work) -> Result<Tensor> {
    Tensor::randn(0f32, 1.0, (work.batch, 1, work.size, work.size), &DEVICE)
}

/// The weights and running statistics, as tensors apart from the graph.
fn named(weights: &VarMap) -> Result<Vec<(String, Tensor)>> {
    let data = weights.data().lock().map_err(|_| candle_core::Error::msg("the weights are poisoned"))?;
    Ok(data.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect())
}

fn parameters(weights: &VarMap) -> Result<usize> {
    let named = named(weights)?;
    Ok(named
        .iter()
        .filter(|(name, _)| !name.contains("running_"))
        .map(|(_, tensor)| tensor.elem_count())
        .sum())
}

struct ResNet {
    stem: Unit,
    blocks: Vec<Block>,
    fc: Linear,
}

impl ResNet {
    fn new(work: &Work, weights: VarBuilder) -> Result<ResNet> {
        let block = |(index, block): (usize, &common::Block)| Block::new(block, weights.pp(index));
        Ok(ResNet {
            stem: Unit::new(STEM, weights.pp("stem"))?,
            blocks: work.blocks().iter().enumerate().map(block).collect::<Result<_>>()?,
            fc: linear(work.features(), CLASSES, weights.pp("fc"))?,
        })
    }
}

impl ModuleT for ResNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = pool(&self.stem.forward_t(images, train)?.relu()?, train)?;
        for block in &self.blocks {
            x = block.forward_t(&x, train)?;
        }
        self.fc.forward(&x.mean((2, 3))?)
    }
}

/// The max pool of the stem. Behind a ReLU padding with zeros is padding with nothing.
fn pool(x: &Tensor, train: bool) -> Result<Tensor> {
    if !train {
        return x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.max_pool2d_with_stride(3, 2);
    }
    let (_, _, height, width) = x.dims4()?;
    x.pad_with_zeros(2, 0, height % 2)?.pad_with_zeros(3, 0, width % 2)?.max_pool2d(2)
}

struct Block {
    row: Vec<Unit>,
    shortcut: Option<Unit>,
}

impl Block {
    fn new(block: &common::Block, weights: VarBuilder) -> Result<Block> {
        let unit = |(index, &conv): (usize, &Convolution)| Unit::new(conv, weights.pp(index));
        Ok(Block {
            row: block.row.iter().enumerate().map(unit).collect::<Result<_>>()?,
            shortcut: block.shortcut.map(|conv| Unit::new(conv, weights.pp("shortcut"))).transpose()?,
        })
    }
}

impl ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut y = x.clone();
        for (index, unit) in self.row.iter().enumerate() {
            y = unit.forward_t(&if index == 0 { y } else { y.relu()? }, train)?;
        }
        let beside = match &self.shortcut {
            Some(unit) => unit.forward_t(x, train)?,
            None => x.clone(),
        };
        (y + beside)?.relu()
    }
}

/// A convolution and its batch norm.
struct Unit {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Unit {
    fn new(conv: Convolution, weights: VarBuilder) -> Result<Unit> {
        let options =
            Conv2dConfig { stride: conv.stride, padding: conv.padding(), ..Conv2dConfig::default() };
        Ok(Unit {
            conv: conv2d_no_bias(conv.inputs, conv.outputs, conv.kernel, options, weights.pp("conv"))?,
            norm: batch_norm(conv.outputs, 1e-5, weights.pp("norm"))?,
        })
    }
}

impl ModuleT for Unit {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward_t(&self.conv.forward(x)?, train)
    }
}

//! The speed of burn on its CPU backend flex, on the work of `step_speed` and `infer_speed`: one channel, 15 classes.
//!
//! `burn_speed train|infer MODEL BATCH SIZE REPEATS THREADS` prints one JSON object: images a second (median, lowest,
//! highest repetition), the median time in ms and the peak memory of the process.

#[path = "../../common.rs"]
mod common;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use common::{CLASSES, Convolution, Measured, STEM, Work};
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    common::report(include_str!("../Cargo.lock"), &["burn", "burn-flex"], |work| {
        if work.train { steps(work) } else { inference(work) }
    })
}

fn steps(work: &Work) -> Result<Measured, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let mut model = ResNet::new(work, &device);
    let parameters = model.parameters();
    // burn's usual epsilon is 1e-5.
    let mut adam = AdamConfig::new().with_epsilon(1e-8).init();
    let criterion = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
    let mut times = Vec::new();
    let mut check = f32::NAN;
    for _ in 0..work.repetitions() {
        let images = images(work, &device);
        let chances: Tensor<2> = Tensor::random([work.batch, CLASSES], Distribution::Default, &device);
        let targets = chances.greater_elem(0.5).int();
        let start = Instant::now();
        let loss = criterion.forward(model.forward(images), targets);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adam.step(1e-3, model, gradients);
        times.push(start.elapsed());
        check = loss.into_scalar();
    }
    Ok(Measured { times, parameters, check, note: None })
}

/// Without autodiff no graph is kept, and batch norm uses its running statistics.
fn inference(work: &Work) -> Result<Measured, Box<dyn Error>> {
    let device = Device::flex();
    let model = ResNet::new(work, &device);
    let mut times = Vec::new();
    let mut check = f32::NAN;
    for _ in 0..work.repetitions() {
        let images = images(work, &device);
        let start = Instant::now();
        let logits = model.forward(images);
        times.push(start.elapsed());
        check = logits.slice([0..1, 0..1]).into_scalar();
    }
    Ok(Measured { times, parameters: model.parameters(), check, note: None })
}

fn images(work: &Work, device: &Device) -> Tensor<4> {
    Tensor::random([work.batch, 1, work.size, work.size], Distribution::Normal(0.0, 1.0), device)
}

#[derive(Module, Debug)]
struct ResNet {
    stem: Unit,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    average: AdaptiveAvgPool2d,
    fc: Linear,
}

impl ResNet {
    fn new(work: &Work, device: &Device) -> ResNet {
        let block = |block: &common::Block| Block {
            row: block.row.iter().map(|&conv| Unit::new(conv, device)).collect(),
            shortcut: block.shortcut.map(|conv| Unit::new(conv, device)),
        };
        ResNet {
            stem: Unit::new(STEM, device),
            pool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            blocks: work.blocks().iter().map(block).collect(),
            average: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(work.features(), CLASSES).init(device),
        }
    }

    /// Those that are trained; burn counts the running statistics too, half of what a batch norm holds.
    fn parameters(&self) -> usize {
        let units = self.blocks.iter().flat_map(|block| block.row.iter().chain(&block.shortcut));
        let running: usize = units.chain([&self.stem]).map(|unit| unit.norm.num_params() / 2).sum();
        self.num_params() - running
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = self.pool.forward(relu(self.stem.forward(images)));
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.fc.forward(self.average.forward(x).flatten(1, 3))
    }
}

#[derive(Module, Debug)]
struct Block {
    row: Vec<Unit>,
    shortcut: Option<Unit>,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut y = x.clone();
        for (index, unit) in self.row.iter().enumerate() {
            y = unit.forward(if index == 0 { y } else { relu(y) });
        }
        let beside = match &self.shortcut {
            Some(unit) => unit.forward(x),
            None => x,
        };
        relu(y + beside)
    }
}

/// A convolution and its batch norm.
#[derive(Module, Debug)]
struct Unit {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Unit {
    fn new(conv: Convolution, device: &Device) -> Unit {
        let padding = conv.padding();
        Unit {
            conv: Conv2dConfig::new([conv.inputs, conv.outputs], [conv.kernel; 2])
                .with_stride([conv.stride; 2])
                .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(conv.outputs).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

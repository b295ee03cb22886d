//! What the tests and the examples replay, and how tract does it.
#![allow(dead_code, reason = "each user takes a part of it")]

use kinone_core::ops::OPERATORS;
use kinone_core::tensor::Tensor as Value;
use kinone_nn::init::Init;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::state::variables;
use kinone_nn::{Module, Pass};
use kinone_onnx::{Replay, ReplayError, Run, Trace, export};
use std::error::Error;
use tract_onnx::prelude::*;

/// A registered operator's case, replayed if ONNX has a form for it.
pub(crate) struct Attempt {
    pub(crate) operator: &'static str,
    pub(crate) case: &'static str,
    pub(crate) replay: Result<Replay, ReplayError>,
}

/// Every case of every registered operator.
pub(crate) fn operators() -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for entry in OPERATORS {
        let operator = entry.doc.name;
        attempts.extend(Replay::of(entry).into_iter().map(|(case, replay)| Attempt {
            operator,
            case,
            replay,
        }));
    }
    attempts
}

/// A ResNet-18 whose running statistics have seen a batch, traced on two images, run on one and on eight.
pub(crate) fn network() -> Result<Replay, Box<dyn Error>> {
    const SIZE: usize = 64;
    let draw = Init::new(5);
    let images = |name: &str, n: usize| draw.at(name).normal([n, 1, SIZE, SIZE], 1.0);
    let model = ResNet::new(Depth::D18, 1, 14, 2);
    let pass = Pass::training(0, 0, &[0; 4]);
    model.forward(&pass, &Value::constant(images("seen", 4)))?;
    pass.commit();

    let x = Value::variable(images("traced", 2));
    let y = model.forward(&Pass::trace(), &x)?;
    let trace = Trace {
        name: "resnet18",
        inputs: &[("images", &x)],
        weights: &variables(&model),
        output: ("logits", &y),
    };
    let exported = export(&trace, &[("classes", "Mass,Nodule".to_owned()), ("contract", "1".to_owned())])?;
    let mut runs = Vec::new();
    for (name, n) in [("one", 1), ("eight", 8)] {
        let inputs = vec![images(name, n)];
        let logits = model.forward(&Pass::evaluation(), &Value::constant(inputs[0].clone()))?;
        runs.push(Run { inputs, output: logits.value().as_ref().clone() });
    }
    Ok(Replay { name: "resnet18 on one image and on eight".to_owned(), model: exported, runs })
}

/// The worst difference over the runs, in tract.
pub(crate) fn worst(replay: &Replay) -> TractResult<f64> {
    let bytes = replay.model.to_bytes();
    let mut worst = 0.0;
    for run in &replay.runs {
        let apart = difference(&bytes, run)?;
        worst = if apart > worst { apart } else { worst };
    }
    Ok(worst)
}

/// How far tract's output of one run of the model in `bytes` is from Kinone's.
pub(crate) fn difference(mut bytes: &[u8], run: &Run) -> TractResult<f64> {
    let mut model = tract_onnx::onnx().model_for_read(&mut bytes)?;
    let mut inputs = tvec![];
    for (index, array) in run.inputs.iter().enumerate() {
        model.set_input_fact(index, f32::fact(&array.shape()[..]).into())?;
        inputs.push(Tensor::from_shape(array.shape(), array.data())?.into());
    }
    let outputs = model.into_optimized()?.into_runnable()?.run(inputs)?;
    let found = outputs[0].to_plain_array_view::<f32>()?;
    let values: Vec<f32> = found.iter().copied().collect();
    let alike = found.shape() == &run.output.shape()[..];
    Ok(if alike { run.difference(&values) } else { f64::INFINITY })
}

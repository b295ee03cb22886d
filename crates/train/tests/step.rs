//! Steps that are refused, steps of several batches, runs that end early.

use kinone_core::array::Array;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_nn::models::{Depth, ResNet};
use kinone_nn::optim::{Optimizer, Rule};
use kinone_nn::schedule::{Rate, Schedule};
use kinone_nn::state::{Dictionary, Value, Visitor, dictionary};
use kinone_nn::{Module, Parameter, Pass};
use kinone_runs::CONTRACT;
use kinone_runs::config::{Config, ConvAlgo, Data, OptimizerName, ScheduleName};
use kinone_train::course::{Course, Plan, Validation};
use kinone_train::prepare;
use kinone_train::trainer::{Batch, StepError, Trainer};
use kinone_xray::Part;

/// `√(w·x)`: at w = 0 the value is finite and the gradient is not.
#[derive(Debug)]
struct Root(Parameter);

impl Module for Root {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        x.mul(&pass.parameter(&self.0))?.sqrt()
    }
    fn visit(&self, visitor: &mut Visitor) {
        visitor.parameter("w", &self.0);
    }
}

fn trainer<M: Module>(model: M) -> Trainer<M> {
    Trainer::new(model, Optimizer::new(Rule::adam()), Rate::new(1e-3, Schedule::Constant, 0), None, 7)
}

fn batch(shape: [usize; 4], targets: impl Into<kinone_core::shape::Shape>, first: u64) -> Batch {
    let n = shape[0];
    let mut images = Array::full(shape, 1.0);
    for (k, x) in images.data_mut().iter_mut().enumerate() {
        *x = ((k as u64 * 7 + first) % 13) as f32 / 13.0 + 1.0;
    }
    Batch { images, targets: Array::full(targets, 1.0), samples: (first..first + n as u64).collect() }
}

#[test]
fn a_gradient_that_is_not_finite_is_traced_to_its_operator_and_parameter() {
    let mut trainer = trainer(Root(Parameter::new(Array::full([1], 0.0))));
    let error = trainer.step(0, batch([2, 1, 1, 1], [2, 1, 1, 1], 5)).unwrap_err();
    let said = error.to_string();
    let StepError::NotFinite { step: 1, samples, .. } = error else { panic!("{said}") };
    assert_eq!(samples, [5, 6]);
    for words in ["norm of the gradient", "from sqrt", "reaches the parameter w", "nothing was updated"] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
    assert_eq!((trainer.steps(), trainer.parameters()[0].1.tensor().data()), (0, &[0.0][..]));
}

#[test]
fn a_loss_that_is_not_finite_is_traced_to_its_operator() {
    let mut trainer = trainer(Root(Parameter::new(Array::full([1], -1.0))));
    let said = trainer.step(0, batch([2, 1, 1, 1], [2, 1, 1, 1], 5)).unwrap_err().to_string();
    assert!(said.contains("the loss is NaN") && said.contains("in the output of sqrt"), "{said}");
}

fn bytes(dictionary: &Dictionary, of: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let chosen = dictionary.iter().filter(|(name, _)| of(name));
    chosen.map(|(name, value)| (name.clone(), value.bytes())).collect()
}

/// Half of a gradient and its half again are the gradient, exactly; the running statistics saw two batches.
#[test]
fn a_batch_twice_in_one_step_is_the_batch_once_but_for_the_statistics() {
    let model = || ResNet::new(Depth::D18, 1, 14, 3);
    let (mut once, mut twice) = (trainer(model()), trainer(model()));
    let batch = || batch([2, 1, 32, 32], [2, 14], 0);
    let one = once.step(0, batch()).unwrap();
    let two = twice.step_over(0, vec![batch(), batch()]).unwrap();
    assert_eq!(
        (one.loss.to_bits(), one.gradient_norm.to_bits()),
        (two.loss.to_bits(), two.gradient_norm.to_bits())
    );
    let learned = |name: &str| !name.contains("running_") && !name.contains("num_batches");
    let (one, two) = (dictionary(&once.model), dictionary(&twice.model));
    assert_eq!(bytes(&one, learned), bytes(&two, learned));
    let counted = |dictionary: &Dictionary| match dictionary["bn1.num_batches_tracked"] {
        Value::I64(count) => count,
        Value::F32(_) => panic!("a count"),
    };
    assert_eq!((counted(&one), counted(&two)), (1, 2));
    assert_ne!(one["bn1.running_mean"].bytes(), two["bn1.running_mean"].bytes());
}

#[test]
fn a_run_out_of_patience_ends() {
    let config = Config {
        contract: CONTRACT,
        model: "resnet18".to_owned(),
        image_size: 32,
        epochs: 9,
        batch_size: 8,
        accumulate: 1,
        lr: 1e-3,
        schedule: ScheduleName::Constant,
        warmup_steps: 0,
        optimizer: OptimizerName::Sgd,
        momentum: 0.0,
        weight_decay: 0.0,
        clip_norm: 0.0,
        ema: 0.0,
        patience: 2,
        hash_every: 0,
        seed: 7,
        no_finding: false,
        conv_algo: ConvAlgo::Direct,
        recompute: false,
        data: Data::BuiltIn { images: 100 },
        load_checkpoint: None,
    };
    let data = prepare::dataset(&config, &Part::ALL, &kinone_kernels::Cpu::current(), &|_, _| {}).unwrap();
    let plan = Plan::new(&config, &data).unwrap();
    let mut course = Course::begin(&plan, prepare::model(&config).unwrap());
    for (auroc, is_best, is_finished) in
        [(0.5, true, false), (0.7, true, false), (0.6, false, false), (0.7, false, true)]
    {
        course.progress.loss_images = 1;
        let validation =
            Validation { loss: Some(1.0), auroc_macro: Some(auroc), thresholds: vec![Some(0.5)] };
        assert_eq!((course.end_epoch(&validation), course.is_finished()), (is_best, is_finished), "{auroc}");
    }
    assert_eq!(course.progress.best.as_ref().map(|best| best.epoch), Some(2));
}

//! Optimizers. Each step is element-wise; its formula with every rounding is in [`kinone_kernels::optim`].

mod state;

use crate::state::Parameter;
use kinone_core::array::Array;
use kinone_core::graph::Adjoints;
use kinone_kernels::{Cpu, optim};

/// How a parameter moves. Constants are f64 here; what a step needs of them is computed in f64 and rounded
/// to f32 once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent (Robbins and Monro, 1951) with momentum (Polyak, 1964; Sutskever et al.,
    /// ICML 2013): [`optim::Sgd`].
    Sgd {
        /// The share of the velocity that is kept; 0 for none.
        momentum: f64,
        /// Whether the step looks ahead (Nesterov, 1983).
        nesterov: bool,
        /// The factor of the weight that is added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba, ICLR 2015): [`optim::Adam`].
    Adam {
        /// β₁, β₂: the shares of the two moments that are kept.
        betas: (f64, f64),
        /// What is added to the root of the second moment.
        eps: f64,
        /// The decay of the weight.
        weight_decay: f64,
        /// Whether the decay shrinks the weight itself (AdamW: Loshchilov and Hutter, ICLR 2019) instead of
        /// being added to the gradient.
        decoupled: bool,
    },
    /// RMSProp (Tieleman and Hinton, 2012): [`optim::RmsProp`].
    RmsProp {
        /// The share of the mean square that is kept.
        alpha: f64,
        /// What is added to its root.
        eps: f64,
        /// The factor of the weight that is added to the gradient.
        weight_decay: f64,
        /// The share of the velocity that is kept; 0 for none.
        momentum: f64,
    },
}

impl Rule {
    /// Adam with the paper's constants and no decay.
    pub fn adam() -> Rule {
        Rule::Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled: false }
    }

    /// The names of what is kept for each parameter.
    pub fn moments(self) -> &'static [&'static str] {
        match self {
            Rule::Sgd { momentum: 0.0, .. } => &[],
            Rule::Sgd { .. } => &["momentum_buffer"],
            Rule::Adam { .. } => &["exp_avg", "exp_avg_sq"],
            Rule::RmsProp { momentum: 0.0, .. } => &["square_avg"],
            Rule::RmsProp { .. } => &["square_avg", "momentum_buffer"],
        }
    }

    /// Step number `step` (from 1) of one parameter's `weights`.
    fn apply(
        self,
        cpu: &Cpu,
        step: u64,
        lr: f32,
        gradient: &[f32],
        weights: &mut [f32],
        moments: &mut [Array],
    ) {
        let mut moments = moments.iter_mut().map(Array::data_mut);
        match self {
            Rule::Sgd { momentum, nesterov, weight_decay } => {
                let (momentum, weight_decay) = (momentum as f32, weight_decay as f32);
                optim::Sgd { lr, momentum, weight_decay, nesterov }.step(
                    cpu,
                    gradient,
                    weights,
                    moments.next(),
                );
            }
            Rule::Adam { betas: (first, second), eps, weight_decay, decoupled } => {
                let rate = f64::from(lr);
                let correction = |beta: f64| 1.0 - libm::pow(beta, step as f64);
                let adam = optim::Adam {
                    first_rate: (1.0 - first) as f32,
                    second_keep: second as f32,
                    second_rate: (1.0 - second) as f32,
                    step_size: (rate / correction(first)) as f32,
                    second_scale: (1.0 / correction(second).sqrt()) as f32,
                    eps: eps as f32,
                    weight_decay: if decoupled { 0.0 } else { weight_decay as f32 },
                    shrink: if decoupled { (1.0 - rate * weight_decay) as f32 } else { 1.0 },
                };
                if let (Some(m), Some(v)) = (moments.next(), moments.next()) {
                    adam.step(cpu, gradient, weights, m, v);
                }
            }
            Rule::RmsProp { alpha, eps, weight_decay, momentum } => {
                let rmsprop = optim::RmsProp {
                    lr,
                    keep: alpha as f32,
                    rate: (1.0 - alpha) as f32,
                    eps: eps as f32,
                    weight_decay: weight_decay as f32,
                    momentum: momentum as f32,
                };
                if let Some(square) = moments.next() {
                    rmsprop.step(cpu, gradient, weights, square, moments.next());
                }
            }
        }
    }
}

/// A rule under way: its moments and the number of steps made, which are all its state.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    steps: u64,
    moments: Vec<Vec<Array>>,
}

impl Optimizer {
    /// Before the first step.
    pub fn new(rule: Rule) -> Optimizer {
        Optimizer { rule, steps: 0, moments: Vec::new() }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The number of steps made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves every parameter that has an adjoint. The parameters are the same, in the same order, each time.
    pub fn update(&mut self, parameters: &[(String, Parameter)], adjoints: &Adjoints, lr: f32) {
        let cpu = Cpu::current();
        if self.moments.is_empty() {
            let zeros = |(_, p): &(String, Parameter)| {
                let shape = p.tensor().shape().clone();
                self.rule.moments().iter().map(|_| Array::full(shape.clone(), 0.0)).collect()
            };
            self.moments = parameters.iter().map(zeros).collect();
        }
        self.steps += 1;
        for ((_, parameter), moments) in parameters.iter().zip(&mut self.moments) {
            // The tensor is gone before the change, which would copy what is still held.
            let gradient = adjoints.of(&parameter.tensor());
            if let Some(gradient) = gradient {
                parameter.modify(|weights| {
                    self.rule.apply(&cpu, self.steps, lr, gradient.data(), weights, moments);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::tensor::Tensor;

    /// Minimises (x − 3)² + (y + 1)² from the origin.
    fn minimise(rule: Rule, lr: f32, steps: usize) -> Vec<f32> {
        let parameter = Parameter::new(Array::full([2], 0.0));
        let named = vec![("x".to_owned(), parameter.clone())];
        let target = Tensor::constant(Array::new([2], &[3.0, -1.0]).unwrap());
        let mut optimizer = Optimizer::new(rule);
        for _ in 0..steps {
            let off = parameter.tensor().sub(&target).unwrap();
            let squares = off.mul(&off).unwrap();
            let adjoints = squares.backward_from(Array::full([2], 1.0), &[]).unwrap();
            drop((off, squares));
            optimizer.update(&named, &adjoints, lr);
        }
        parameter.tensor().data().to_vec()
    }

    #[test]
    fn every_rule_goes_down_to_the_minimum() {
        let sgd = |momentum, nesterov| Rule::Sgd { momentum, nesterov, weight_decay: 0.0 };
        let rmsprop = |momentum| Rule::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay: 0.0, momentum };
        for (rule, lr) in [
            (sgd(0.0, false), 0.3),
            (sgd(0.9, false), 0.05),
            (sgd(0.9, true), 0.05),
            (Rule::adam(), 0.05),
            (rmsprop(0.0), 0.01),
            (rmsprop(0.5), 0.01),
        ] {
            let found = minimise(rule, lr, 1500);
            // RMSProp and Adam end in steps of about the learning rate around the minimum.
            assert!((found[0] - 3.0).abs() <= lr && (found[1] + 1.0).abs() <= lr, "{rule:?}: {found:?}");
        }
    }

    #[test]
    fn an_update_writes_over_the_weights() {
        let parameter = Parameter::new(Array::full([100], 2.0));
        let named = vec![("x".to_owned(), parameter.clone())];
        let adjoints = parameter.tensor().backward_from(Array::full([100], 1.0), &[]).unwrap();
        let place = |parameter: &Parameter| parameter.tensor().data().as_ptr();
        let before = place(&parameter);
        Optimizer::new(Rule::adam()).update(&named, &adjoints, 0.5);
        assert_eq!(before, place(&parameter));
        assert_ne!(parameter.tensor().data()[0], 2.0);
    }

    /// With the gradient zero, a decoupled decay shrinks by exactly 1 − ηλ.
    #[test]
    fn a_decoupled_decay_shrinks_the_weight() {
        let parameter = Parameter::new(Array::full([1], 2.0));
        let named = vec![("x".to_owned(), parameter.clone())];
        let tensor = parameter.tensor();
        let adjoints = tensor.sub(&tensor).unwrap().backward_from(Array::full([1], 1.0), &[]).unwrap();
        drop(tensor);
        let rule = Rule::Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.5, decoupled: true };
        Optimizer::new(rule).update(&named, &adjoints, 0.5);
        assert_eq!(parameter.tensor().data(), [1.5]);
    }
}

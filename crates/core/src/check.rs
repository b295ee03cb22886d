//! The proof of an operator, generated from its definition: no test is written by hand.
//!
//! ```text
//! vjp::<f64>     against central differences of forward::<f64>     -> is the derivative       (eps_rel)
//! vjp::<f64>     paired with forward::<Dual>                       -> is exactly the adjoint  (adjoint_error)
//! loop::<f32>    within the bound that loop::<Rounded> computes    -> is the oracle, rounded  (rounding_fraction)
//! forward_fast, vjp_fast   on every ISA and several thread counts  -> are loop::<f32>         (bit_equal)
//! ```
//!
//! The cotangent is random: the mean of a normalised output is a constant, and a gradient of zero would pass
//! a test that sums the output.

mod bits;
mod run;

use crate::case::Case;
use crate::dual::Dual;
use crate::operator::Operator;
use crate::real::Real;
use crate::rng::Stream;
use crate::rounded::Rounded;
use crate::shape::Shape;
use kinone_kernels::{Cpu, Isa};
use run::Run;

/// The step of the central difference.
pub const STEP: f64 = 1e-3;
/// The promise: ‖∇̂f − ∇f‖₂ / (‖∇f‖₂ + 10⁻⁶) stays below this for every input of every operator.
pub const EPS_REL: f64 = 1e-4;
/// The pairing ⟨ȳ, J v⟩ = ⟨Jᵀȳ, v⟩ holds to this, relative to the sum of the magnitudes of its terms: f64
/// rounding (2⁻⁵³) times the few thousand operations of a case.
pub const ADJOINT: f64 = 1e-12;
/// The numbers of threads on which bits are compared.
pub const THREADS: [usize; 4] = [1, 2, 3, 7];

/// What was shown about one operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// The operator's name.
    pub operator: &'static str,
    /// The number of cases.
    pub cases: usize,
    /// The largest relative error of the central difference; `None` when no case measured it.
    pub eps_rel: Option<f64>,
    /// The largest relative error of the adjoint pairing; `None` when no case measured it.
    pub adjoint_error: Option<f64>,
    /// The largest share of the computed rounding bound that an f32 result used; `None` if not measured.
    pub rounding_fraction: Option<f64>,
    /// Whether every schedule returned the bits of the loop.
    pub bit_equal: bool,
    /// The instruction sets compared.
    pub isas: Vec<&'static str>,
    /// The numbers of threads compared.
    pub threads: Vec<usize>,
    /// FNV-1a (64 bits) of every f32 result of the loop on every case: pinned by a test, so that no bit
    /// changes unnoticed.
    pub hash: u64,
    /// Everything that went wrong, first things first.
    pub failures: Vec<String>,
}

/// Runs the proofs: the instruction sets and thread counts to compare on.
#[derive(Debug)]
pub struct Checker {
    cpus: Vec<Cpu>,
    isas: Vec<&'static str>,
    /// Why some could not be started.
    missing: Vec<String>,
}

impl Default for Checker {
    fn default() -> Self {
        Checker::new()
    }
}

impl Checker {
    /// Compares on every instruction set of this processor and every number of [`THREADS`].
    pub fn new() -> Checker {
        let isas = Isa::present();
        let (mut cpus, mut missing) = (Vec::new(), Vec::new());
        for (isa, threads) in isas.iter().flat_map(|isa| THREADS.map(|threads| (*isa, threads))) {
            match Cpu::new(isa, threads) {
                Ok(cpu) => cpus.push(cpu),
                Err(error) => missing.push(format!("{isa} on {threads} threads was not compared: {error}")),
            }
        }
        Checker { cpus, isas: isas.iter().map(|isa| isa.name()).collect(), missing }
    }

    /// The proof of `O`.
    pub fn prove<O: Operator>(&self) -> Proof {
        let cases = O::cases();
        let mut proof = Proof {
            operator: O::DOC.name,
            cases: cases.len(),
            eps_rel: None,
            adjoint_error: None,
            rounding_fraction: None,
            bit_equal: true,
            isas: self.isas.clone(),
            threads: THREADS.to_vec(),
            hash: bits::FNV_START,
            failures: self.missing.clone(),
        };
        for (index, case) in cases.iter().enumerate() {
            let drawn = Drawn::new(index, case);
            if !case.bits_only {
                raise(&mut proof.eps_rel, worst_central_difference(case, &drawn));
                raise(&mut proof.adjoint_error, worst_adjoint(case, &drawn));
                raise(&mut proof.rounding_fraction, worst_rounding(case, &drawn));
            }
            bits::compare(&self.cpus, case, &drawn, &mut proof);
        }
        proof.judge();
        proof
    }
}

impl Proof {
    fn judge(&mut self) {
        let limits = [
            ("eps_rel", self.eps_rel, EPS_REL),
            ("adjoint_error", self.adjoint_error, ADJOINT),
            ("rounding_fraction", self.rounding_fraction, 1.0),
        ];
        for (column, figure, limit) in limits {
            match figure {
                None => self.failures.push(format!("{column} was not measured: no case is small enough")),
                Some(figure) if figure <= limit => {}
                Some(figure) => self.failures.push(format!("{column} is {figure:.3e}, above {limit:e}")),
            }
        }
    }

    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.bit_equal
    }
}

/// Keeps the larger; NaN counts as infinitely bad.
fn raise(worst: &mut Option<f64>, figure: Option<f64>) {
    if let Some(figure) = figure {
        let figure = if figure.is_nan() { f64::INFINITY } else { figure };
        *worst = Some(worst.map_or(figure, |old| if old > figure { old } else { figure }));
    }
}

/// The inputs and the cotangent of one case.
struct Drawn {
    shapes: Vec<Shape>,
    inputs: Vec<Vec<f32>>,
    cotangent: Vec<f32>,
    stream: Stream,
}

impl Drawn {
    fn new<O: Operator>(index: usize, case: &Case<O>) -> Drawn {
        let stream = Stream::new(1, O::DOC.name).at(index as u32, 0);
        let inputs: Vec<Vec<f32>> =
            case.inputs.iter().zip(1..).map(|(input, k)| input.draw(&stream.at(index as u32, k))).collect();
        let shapes: Vec<Shape> = case.inputs.iter().map(|input| input.shape.clone()).collect();
        let produced = run::produced(case, &shapes);
        let cotangent = (0..produced.value.size() as u64).map(|k| 2.0 * stream.uniform(k) - 1.0).collect();
        Drawn { shapes, inputs, cotangent, stream: stream.at(index as u32, 1 << 20) }
    }

    fn inputs<F: Real>(&self) -> Vec<Vec<F>> {
        self.inputs.iter().map(|input| lift(input)).collect()
    }
}

fn lift<F: Real>(values: &[f32]) -> Vec<F> {
    values.iter().map(|value| F::of(f64::from(*value))).collect()
}

fn wanted<O: Operator>(case: &Case<O>) -> Vec<bool> {
    (0..case.inputs.len()).map(|k| case.operator.is_differentiable(k)).collect()
}

/// ‖∇̂f − ∇f‖₂ / (‖∇f‖₂ + 10⁻⁶) of the worst input, f = ⟨ȳ, operator⟩.
fn worst_central_difference<O: Operator>(case: &Case<O>, drawn: &Drawn) -> Option<f64> {
    let objective = |inputs: Vec<Vec<f64>>| -> f64 {
        let run = Run::of_loop(&case.operator, &drawn.shapes, inputs);
        run.value.iter().zip(&drawn.cotangent).fold(0.0, |sum, (y, c)| sum + y * f64::from(*c))
    };
    let run = Run::of_loop(&case.operator, &drawn.shapes, drawn.inputs::<f64>());
    let gradients = run.vjp_loop(&case.operator, &lift(&drawn.cotangent), &wanted(case));
    let mut worst = None;
    for (k, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        let (mut distance, mut norm) = (0.0, 0.0);
        for (element, analytic) in gradient.iter().enumerate() {
            let moved = |step: f64| {
                let mut inputs = drawn.inputs::<f64>();
                inputs[k][element] += step;
                objective(inputs)
            };
            let numeric = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            distance += (numeric - analytic) * (numeric - analytic);
            norm += analytic * analytic;
        }
        raise(&mut worst, Some(distance.sqrt() / (norm.sqrt() + 1e-6)));
    }
    worst
}

/// |⟨ȳ, J v⟩ − ⟨Jᵀȳ, v⟩| over the sum of the magnitudes of the terms, for random v in each input alone.
fn worst_adjoint<O: Operator>(case: &Case<O>, drawn: &Drawn) -> Option<f64> {
    let run = Run::of_loop(&case.operator, &drawn.shapes, drawn.inputs::<f64>());
    let gradients = run.vjp_loop(&case.operator, &lift(&drawn.cotangent), &wanted(case));
    let mut worst = None;
    for (k, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        for trial in 0..3 {
            let direction: Vec<f64> = (0..gradient.len() as u64)
                .map(|j| f64::from(drawn.stream.at(k as u32, trial).uniform(j)) * 2.0 - 1.0)
                .collect();
            let mut inputs = drawn.inputs::<Dual>();
            for (x, v) in inputs[k].iter_mut().zip(&direction) {
                x.du = *v;
            }
            let pushed = Run::of_loop(&case.operator, &drawn.shapes, inputs);
            let (mut difference, mut magnitude) = (0.0_f64, 0.0_f64);
            for (y, c) in pushed.value.iter().zip(&drawn.cotangent) {
                difference += y.du * f64::from(*c);
                magnitude += (y.du * f64::from(*c)).abs();
            }
            for (g, v) in gradient.iter().zip(&direction) {
                difference -= g * v;
                magnitude += (g * v).abs();
            }
            let error = if magnitude == 0.0 { 0.0 } else { difference.abs() / magnitude };
            raise(&mut worst, Some(error));
        }
    }
    worst
}

/// The largest |f32 − f64| / bound over value, auxiliaries and gradients.
fn worst_rounding<O: Operator>(case: &Case<O>, drawn: &Drawn) -> Option<f64> {
    let wanted = wanted(case);
    let single = Run::of_loop(&case.operator, &drawn.shapes, drawn.inputs::<f32>());
    let bounded = Run::of_loop(&case.operator, &drawn.shapes, drawn.inputs::<Rounded<24>>());
    let mut worst = None;
    let mut compare = |single: &[f32], bounded: &[Rounded<24>]| {
        for (x, r) in single.iter().zip(bounded) {
            let distance = (f64::from(*x) - r.value).abs();
            let share = if distance == 0.0 && r.bound.is_finite() { 0.0 } else { distance / r.bound };
            // An infinite bound promises nothing.
            raise(&mut worst, Some(if r.bound.is_finite() { share } else { f64::INFINITY }));
        }
    };
    compare(&single.value, &bounded.value);
    for (x, r) in single.auxiliaries.iter().zip(&bounded.auxiliaries) {
        compare(x, r);
    }
    let dx = single.vjp_loop(&case.operator, &drawn.cotangent, &wanted);
    let dr = bounded.vjp_loop(&case.operator, &lift(&drawn.cotangent), &wanted);
    for (x, r) in dx.iter().flatten().zip(dr.iter().flatten()) {
        compare(x, r);
    }
    worst
}

//! The last link of the chain: every schedule returns the bits of the loop.

use super::run::{Placed, Run};
use super::{Drawn, Proof, wanted};
use crate::case::Case;
use crate::operator::Operator;
use crate::rng::Stream;
use kinone_kernels::Cpu;

pub(super) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Values at which careless arithmetic goes astray.
const HOSTILE: [f32; 16] = [
    0.0,
    -0.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    1.0e-39,
    1.0,
    -1.0,
    88.8,
    -104.0,
];

/// The bits of a result; every NaN is one NaN.
fn canonical(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

const GRADIENT: &str = "the gradient of input ";

fn apart(input: &str) -> String {
    format!("{GRADIENT}{input}")
}

fn over_the_cotangent(input: &str) -> String {
    format!("{GRADIENT}{input}, one of them written over the cotangent")
}

fn over_a_part(input: &str) -> String {
    format!("{GRADIENT}{input}, of a sum of cotangents, one of them written over the first")
}

/// Everything an operator returned on one case, named.
type Results = Vec<(String, Placed<f32>)>;

/// The gradients among these, under other names.
fn gradients<'r>(
    results: &'r Results,
    name: fn(&str) -> String,
) -> impl Iterator<Item = (String, Placed<f32>)> + 'r {
    results.iter().filter_map(move |(old, values)| Some((name(old.strip_prefix(GRADIENT)?), values.clone())))
}

/// What an operator is given on a case.
#[derive(Clone, Copy)]
struct Given<'a> {
    inputs: &'a [Vec<f32>],
    cotangent: &'a [f32],
    /// What is added to the cotangent where the operator adds it.
    more: &'a [f32],
    wanted: &'a [bool],
}

/// Compares every schedule with the loop on the case's inputs, and once more with hostile values among them.
pub(super) fn compare<O: Operator>(cpus: &[Cpu], case: &Case<O>, drawn: &Drawn, proof: &mut Proof) {
    let wanted = wanted(case);
    for hostile in [false, true] {
        let mut inputs = drawn.inputs.clone();
        let mut cotangent = drawn.cotangent.clone();
        let more = drawn.stream.at(998, 0);
        let mut more: Vec<f32> = (0..cotangent.len() as u64).map(|k| 2.0 * more.uniform(k) - 1.0).collect();
        if hostile {
            for (k, (input, values)) in case.inputs.iter().zip(&mut inputs).enumerate() {
                if input.admits_special_values() {
                    spoil(values, &drawn.stream.at(1000 + k as u32, 0));
                }
            }
            spoil(&mut cotangent, &drawn.stream.at(999, 0));
            spoil(&mut more, &drawn.stream.at(998, 1));
        }
        let given = Given { inputs: &inputs, cotangent: &cotangent, more: &more, wanted: &wanted };
        // Two kinds of rubbish: what a schedule fails to overwrite differs from what the loop leaves.
        let rubbish = (0, f32::NAN);
        let mut definition = results(case, drawn, given, None, rubbish);
        if !hostile {
            proof.hash = definition.iter().fold(proof.hash, |hash, (_, values)| fnv(hash, values));
        }
        // What is written over the cotangent is the same.
        if O::OVER.is_some_and(|over| wanted[over]) {
            let mut others: Results = gradients(&definition, over_the_cotangent).collect();
            if O::OVER_SUM {
                let sum: Vec<f32> = cotangent.iter().zip(&more).map(|(a, b)| a + b).collect();
                let of_sum = results(case, drawn, Given { cotangent: &sum, ..given }, None, rubbish);
                others.extend(gradients(&of_sum, over_a_part));
            }
            definition.extend(others);
        }
        for (index, cpu) in cpus.iter().enumerate() {
            let place = (1 + (index * 5) % 15, f32::from_bits(0x7f12_3456 ^ 0x4000_0000));
            let fast = results(case, drawn, given, Some(cpu), place);
            report(proof, case, cpu, hostile, &definition, &fast);
            if index == 0 {
                alone(proof, case, drawn, cpu, &definition, given);
            }
        }
    }
}

/// One gradient asked for alone equals the same asked for together with the others.
fn alone<O: Operator>(
    proof: &mut Proof,
    case: &Case<O>,
    drawn: &Drawn,
    cpu: &Cpu,
    definition: &Results,
    given: Given,
) {
    let wanted = given.wanted;
    if wanted.iter().filter(|wanted| **wanted).count() < 2 {
        return;
    }
    for k in (0..wanted.len()).filter(|k| wanted[*k]) {
        let mut only = vec![false; wanted.len()];
        only[k] = true;
        for on in [None, Some(cpu)] {
            let one = results(case, drawn, Given { wanted: &only, ..given }, on, (3, 7.5));
            let expected: Results =
                definition.iter().filter(|(name, _)| one.iter().any(|(n, _)| n == name)).cloned().collect();
            report(proof, case, cpu, false, &expected, &one);
        }
    }
}

fn results<O: Operator>(
    case: &Case<O>,
    drawn: &Drawn,
    Given { inputs, cotangent, more, wanted }: Given,
    cpu: Option<&Cpu>,
    place: (usize, f32),
) -> Results {
    let operator = &case.operator;
    let run = Run::new(operator, &drawn.shapes, inputs, place, |x, y| match cpu {
        Some(cpu) => operator.forward_fast(cpu, x, y),
        None => operator.forward(x, y),
    });
    let gradients = run.vjp::<O>(cotangent, wanted, |saved, dy, dx| match cpu {
        Some(cpu) => operator.vjp_fast(cpu, saved, dy, dx),
        None => operator.vjp(saved, dy, dx),
    });
    let mut results = vec![("the output".to_owned(), run.value.clone())];
    for (k, values) in run.auxiliaries.iter().enumerate() {
        results.push((format!("auxiliary {k}"), values.clone()));
    }
    let mut push = |name: fn(&str) -> String, gradients: Vec<Option<Placed<f32>>>| {
        for (k, values) in gradients.into_iter().enumerate() {
            results.extend(values.map(|values| (name(&k.to_string()), values)));
        }
    };
    push(apart, gradients);
    if let (Some(cpu), Some(over)) = (cpu, O::OVER.filter(|over| wanted[*over])) {
        let over = |sum: Option<&[f32]>| run.vjp_over(operator, cpu, (cotangent, sum), wanted, over);
        push(over_the_cotangent, over(None));
        if O::OVER_SUM {
            push(over_a_part, over(Some(more)));
        }
    }
    results
}

fn report<O: Operator>(
    proof: &mut Proof,
    case: &Case<O>,
    cpu: &Cpu,
    hostile: bool,
    definition: &Results,
    fast: &Results,
) {
    for ((name, expected), (_, got)) in definition.iter().zip(fast) {
        let differs = |j: &usize| canonical(expected[*j]) != canonical(got[*j]);
        if let Some(j) = (0..expected.len()).find(differs) {
            proof.bit_equal = false;
            if proof.failures.len() < 8 {
                proof.failures.push(format!(
                    "case `{}`{}: {name}, element {j}: the loop gives {:e} ({:#010x}), {} on {} threads {:e} ({:#010x})",
                    case.name,
                    if hostile { " with hostile values" } else { "" },
                    expected[j],
                    expected[j].to_bits(),
                    cpu.isa(),
                    cpu.threads(),
                    got[j],
                    got[j].to_bits(),
                ));
            }
        }
    }
}

/// Puts a hostile value in about every eighth place.
fn spoil(values: &mut [f32], stream: &Stream) {
    for (k, value) in values.iter_mut().enumerate() {
        let bits = stream.bits(k as u64);
        if bits.is_multiple_of(8) {
            *value = HOSTILE[(bits >> 8) as usize % HOSTILE.len()];
        }
    }
}

fn fnv(mut hash: u64, values: &[f32]) -> u64 {
    for value in values {
        for byte in canonical(*value).to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

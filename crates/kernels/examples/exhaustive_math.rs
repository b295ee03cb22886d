//! Takes every f32 through every function of `kinone_kernels::math` that has one argument.
//!
//! `cargo run --release -p kinone-kernels --example exhaustive_math [FUNCTION...]`
//!
//! For each function: how many of the 2^32 results are the f32 nearest to the oracle, how many inputs the
//! oracle cannot decide (the first of them are listed), how many are wrong, the greatest distance from the
//! oracle in units of the last place, and the hash of all results, which must be the pinned one. About one
//! minute a function on two cores. Exits with 1 when a result is wrong or a hash differs.

#[path = "../tests/math_oracle/mod.rs"]
mod math_oracle;

use kinone_kernels::{Cpu, Isa};
use math_oracle::{CASES, Case, Hash, MARGIN, Verdict, judge, ulps};
use std::process::ExitCode;

/// Inputs are taken in pieces of this many.
const PIECE: u64 = 1 << 20;
/// So many undecided or wrong inputs of a function are shown at most.
const SHOWN: usize = 400;

/// What was seen on one piece.
#[derive(Default)]
struct Seen {
    hash: u64,
    undecided: u64,
    wrong: u64,
    worst: f64,
    shown: Vec<String>,
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(name) = names.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        eprintln!("{name}: no such function; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let cpu = match Cpu::detect() {
        Ok(cpu) => cpu,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if cpu.isa() == Isa::Scalar {
        eprintln!("with scalar code this takes hours");
    }
    let mut good = true;
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.name)) {
        good &= all_inputs(&cpu, case);
    }
    ExitCode::from(u8::from(!good))
}

/// Prints the line of one function; whether everything is as it should be.
fn all_inputs(cpu: &Cpu, case: &Case) -> bool {
    let mut pieces: Vec<Seen> = Vec::new();
    pieces.resize_with(((1 << 32) / PIECE) as usize, Seen::default);
    cpu.for_slices(pieces.len(), 1, &mut [Some(&mut pieces)], |first, parts| {
        let (mut x, mut y) = (vec![0.0; PIECE as usize], vec![0.0; PIECE as usize]);
        for (i, seen) in parts.iter_mut().flatten().flat_map(|part| part.iter_mut()).enumerate() {
            for (bits, x) in ((first + i) as u64 * PIECE..).zip(&mut x) {
                *x = f32::from_bits(bits as u32);
            }
            (case.vector)(cpu, &x, &mut y);
            *seen = compare(case, &x, &y);
        }
    });
    let mut hash = Hash::EMPTY;
    let (mut undecided, mut wrong, mut worst) = (0, 0, 0.0);
    let mut shown = 0;
    for piece in &pieces {
        hash.add(&piece.hash.to_le_bytes());
        undecided += piece.undecided;
        wrong += piece.wrong;
        worst = if piece.worst > worst { piece.worst } else { worst };
        for line in piece.shown.iter().take(SHOWN - shown) {
            println!("{line}");
            shown += 1;
        }
    }
    let pinned = hash.0 == case.exhaustive_hash;
    println!(
        "{:8} nearest {} undecided {undecided} wrong {wrong} worst {worst:.9} ulp hash {:#018x} {}",
        case.name,
        (1u64 << 32) - undecided - wrong,
        hash.0,
        if pinned { "as pinned" } else { "NOT as pinned" },
    );
    wrong == 0 && pinned
}

fn compare(case: &Case, x: &[f32], y: &[f32]) -> Seen {
    let mut seen = Seen { hash: Hash::of(y).0, ..Seen::default() };
    for (x, y) in x.iter().zip(y) {
        let oracle = (case.oracle)(f64::from(*x));
        let distance = ulps(*y, oracle);
        seen.worst = if distance > seen.worst { distance } else { seen.worst };
        let word = match judge(*y, oracle, MARGIN) {
            Verdict::Right => continue,
            Verdict::Undecided => {
                seen.undecided += 1;
                "undecided"
            }
            Verdict::Wrong => {
                seen.wrong += 1;
                "wrong"
            }
        };
        if seen.shown.len() < SHOWN {
            let (x, y) = (x.to_bits(), y.to_bits());
            seen.shown.push(format!("{word}: {}({x:#010x}) = {y:#010x}, oracle {oracle:e}", case.name));
        }
    }
    seen
}

//! How fast this processor's loops are beside each other, measured once. It decides which of two ways a product is
//! computed by, where both give the same bits.

use super::SLACK;
use super::kernel::Kernel;
use super::sparse::Bits;
use super::tile::{Left, Step, Tile};
use crate::memory::Buffer;
use crate::{Cpu, Isa};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Terms of the products that are measured, rows of the sparse one, and tiles of the other.
const TERMS: usize = 256;
const ROWS: usize = 48;
const TILES: usize = 8;
/// The fastest of so many runs counts, each of some microseconds: the others were interrupted. No more are begun after
/// a millisecond, which software multiply-adds need for one.
const RUNS: usize = 24;
const ENOUGH: Duration = Duration::from_millis(1);

/// How much longer a multiply-add takes in the loop of sparse operands, where half of the terms are left out, than in a
/// full tile. The first loads an operand for each, the other one for some: what that costs differs by half among
/// processors.
pub(super) fn of_sparse(cpu: &Cpu) -> f64 {
    static MEASURED: [OnceLock<f64>; Isa::ALL.len()] = [const { OnceLock::new() }; Isa::ALL.len()];
    let index = Isa::ALL.iter().position(|isa| *isa == cpu.isa()).unwrap_or(0);
    *MEASURED[index].get_or_init(|| {
        // First, for a processor that has been idle is slow for a while.
        let tiles = tiles(cpu);
        sparse(cpu) / tiles
    })
}

/// Seconds a multiply-add in tiles.
fn tiles(cpu: &Cpu) -> f64 {
    let kernel = Kernel::of(cpu);
    let (rows, width) = (TILES * kernel.rows, kernel.width());
    let (left, right) = (ones(rows * TERMS), ones(TERMS * width));
    let mut sums = ones(rows * width);
    let time = fastest(|| {
        let tile = tile(Left::Packed(&left), &right, width, &mut sums);
        // SAFETY: there is a sum for each row and column.
        unsafe { kernel.run(rows, width, &tile) };
    });
    time / (rows * TERMS * width) as f64
}

/// Seconds a multiply-add that is not left out.
fn sparse(cpu: &Cpu) -> f64 {
    let kernel = Kernel::of(cpu).of_sparse();
    let width = kernel.width();
    let (mut data, right) = (ones(ROWS * TERMS), ones(TERMS * width));
    // As chance would have it: the highest bit of multiples of a large odd number, mixed once more.
    let is_zero = |k: usize| {
        let mixed = (k as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0
    };
    for (_, value) in data.iter_mut().enumerate().filter(|(k, _)| is_zero(*k)) {
        *value = 0.0;
    }
    let bases: Vec<usize> = (0..ROWS).map(|row| row * TERMS).collect();
    let steps: Vec<Step> = (0..TERMS).map(Step::to).collect();
    let left = Left::Strewn { data: &data, bases: &bases, steps: &steps, reach: TERMS - 1 };
    let bits = Bits::of(cpu, &left, true);
    let mut sums = ones(ROWS * width);
    let time = fastest(|| {
        let tile = tile(left.sparse(&bits), &right, width, &mut sums);
        // SAFETY: there is a sum for each row and column, and a value for each base and step.
        unsafe { kernel.run(ROWS, width, &tile) };
    });
    let terms = data.iter().filter(|value| **value != 0.0).count();
    time / (terms * width) as f64
}

fn ones(len: usize) -> Buffer {
    let mut values = Buffer::take(len + SLACK);
    values.fill(1.0);
    values
}

fn tile<'a>(left: Left<'a>, right: &'a [f32], width: usize, sums: &mut [f32]) -> Tile<'a> {
    Tile {
        left,
        right,
        right_step: width,
        next: None,
        asked: &[],
        terms: TERMS,
        to: sums.as_mut_ptr(),
        stride: width,
        resume: false,
        earlier: &[],
        finish: None,
    }
}

/// Seconds of the fastest of several runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut least = Duration::MAX;
    for index in 0..RUNS {
        if index > 0 && begin.elapsed() > ENOUGH {
            break;
        }
        let start = Instant::now();
        run();
        least = least.min(start.elapsed());
    }
    // A nanosecond where the clock is too coarse.
    least.max(Duration::from_nanos(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::of_sparse;
    use crate::{Cpu, Isa};

    #[test]
    fn both_loops_have_a_pace_on_every_instruction_set_and_it_is_measured_once() {
        for isa in Isa::present() {
            let cpu = Cpu::new(isa, 1).unwrap();
            let pace = of_sparse(&cpu);
            assert!(pace.is_finite() && pace > 0.0, "{isa}: {pace}");
            assert_eq!(pace.to_bits(), of_sparse(&cpu).to_bits(), "{isa}");
        }
    }
}

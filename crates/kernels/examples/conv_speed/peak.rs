//! What the machine can do at most.

use kinone_kernels::{Cpu, Isa, Task};
use std::hint::black_box;
use std::time::Instant;

/// GFLOP/s of the fastest of several runs, at least three and for `seconds`.
pub(crate) fn fastest(work: f64, seconds: f64, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut spent = 0.0;
    let mut runs = 0;
    while runs < 3 || spent < seconds {
        let start = Instant::now();
        run();
        let seconds = start.elapsed().as_secs_f64();
        spent += seconds;
        runs += 1;
        if seconds < best {
            best = seconds;
        }
    }
    work / best / 1e9
}

/// GFLOP/s of fused multiply-adds that stay in registers, on all threads together.
pub(crate) fn peak(cpu: &Cpu, seconds: f64) -> f64 {
    if cpu.isa() == Isa::Avx512 { peak_of::<16>(cpu, seconds) } else { peak_of::<8>(cpu, seconds) }
}

fn peak_of<const LANES: usize>(cpu: &Cpu, seconds: f64) -> f64 {
    let work = 2.0 * (REPEATS * SUMS * LANES * cpu.threads()) as f64;
    fastest(work, seconds, || {
        cpu.on_every_thread(|_| {
            black_box(cpu.vectorize(Registers::<LANES> { factor: black_box(0.5) }));
        });
    })
}

const REPEATS: usize = 100_000;
const SUMS: usize = 8;

/// Independent chains of fused multiply-adds, enough to keep every unit busy.
struct Registers<const LANES: usize> {
    factor: f32,
}

impl<const LANES: usize> Task for Registers<LANES> {
    type Output = [[f32; LANES]; SUMS];
    #[inline(always)]
    fn run(self) -> Self::Output {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = [[1.0; LANES]; SUMS];
        for _ in 0..REPEATS {
            // One statement a chain: of an array of chains the compiler would mix the lanes.
            step(&mut a, self.factor);
            step(&mut b, self.factor);
            step(&mut c, self.factor);
            step(&mut d, self.factor);
            step(&mut e, self.factor);
            step(&mut f, self.factor);
            step(&mut g, self.factor);
            step(&mut h, self.factor);
        }
        [a, b, c, d, e, f, g, h]
    }
}

#[inline(always)]
fn step<const LANES: usize>(sum: &mut [f32; LANES], factor: f32) {
    for lane in sum {
        *lane = lane.mul_add(factor, 1.0);
    }
}

//! The speed of the convolutions of a ResNet, and its share of the measured peak: `conv_speed [THREADS [SIZE [LAYER]]]`,
//! where SIZE is the side of the network's input (64, 224) and LAYER a part of the names of the rows wanted. Where
//! Winograd's minimal filtering applies its rows follow, F(2×2) and F(4×4), their speed counted in the
//! multiplications of the plain sum.

use kinone_kernels::conv::winograd::{self, Tile, Winograd};
use kinone_kernels::conv::{self, Conv};
use kinone_kernels::{Cpu, Isa, Task};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, usual| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (threads, size) = (number(0, 1), number(1, 224));
    let wanted = arguments.get(2).map_or("", String::as_str);
    let Ok(cpu) = Isa::selected().and_then(|isa| Cpu::new(isa, threads)) else {
        eprintln!("conv_speed: no such instruction set or number of threads");
        std::process::exit(2);
    };
    let batch = 32;
    let layer = |c: usize, o: usize, side: usize, kernel: usize, stride: usize| Conv {
        n: batch,
        c,
        input: (side, side),
        o,
        kernel: (kernel, kernel),
        stride: (stride, stride),
        padding: (kernel / 2, kernel / 2),
        dilation: (1, 1),
        groups: 1,
    };
    let s = size / 4;
    let layers = [
        ("stem 7x7/2", layer(1, 64, size, 7, 2)),
        ("layer1 3x3", layer(64, 64, s, 3, 1)),
        ("layer2 3x3/2", layer(64, 128, s, 3, 2)),
        ("layer2 1x1/2", layer(64, 128, s, 1, 2)),
        ("layer2 3x3", layer(128, 128, s / 2, 3, 1)),
        ("layer3 3x3/2", layer(128, 256, s / 2, 3, 2)),
        ("layer3 3x3", layer(256, 256, s / 4, 3, 1)),
        ("layer4 3x3/2", layer(256, 512, s / 4, 3, 2)),
        ("layer4 3x3", layer(512, 512, s / 8, 3, 1)),
        ("50: 1x1 up", layer(64, 256, s, 1, 1)),
        ("50: 1x1 down", layer(256, 64, s, 1, 1)),
        ("50: 1x1 up 4", layer(512, 2048, s / 8, 1, 1)),
    ];
    let peak = peak(&cpu);
    println!(
        "{} threads, {}, batch {batch}, peak {peak:.0} GFLOP/s (multiply-adds in registers)",
        threads,
        cpu.isa()
    );
    println!("{:<14} {:>20} {:>20} {:>20}", "GFLOP/s, share", "forward", "input gradient", "weight gradient");
    for (name, conv) in layers.into_iter().filter(|(name, _)| name.contains(wanted)) {
        let (oh, ow) = conv.output();
        let work = 2.0 * (conv.n * conv.o * oh * ow * conv.c * conv.kernel.0 * conv.kernel.1) as f64;
        let mut x = values(conv.n * conv.c * conv.input.0 * conv.input.1);
        let mut w = values(conv.o * conv.c * conv.kernel.0 * conv.kernel.1);
        let mut y = values(conv.n * conv.o * oh * ow);
        let forward = fastest(work, || conv::forward(&cpu, &conv, &x, &w, &mut y));
        let input = fastest(work, || conv::input_gradient(&cpu, &conv, &y, &w, &mut x));
        let weight = fastest(work, || conv::weight_gradient(&cpu, &conv, &x, &y, &mut w));
        let cell = |speed: f64| format!("{speed:>10.1} {:>7.0} %", 100.0 * speed / peak);
        println!("{name:<14} {:>20} {:>20} {:>20}", cell(forward), cell(input), cell(weight));
        if (conv.kernel, conv.stride) != ((3, 3), (1, 1)) {
            continue;
        }
        for (name, tile) in [("  F(2x2)", Tile::Two), ("  F(4x4)", Tile::Four)] {
            let Conv { n, c, input, o, padding, .. } = conv;
            let conv = Winograd { tile, n, c, input, o, padding };
            let forward = fastest(work, || winograd::forward(&cpu, &conv, &x, &w, &mut y));
            let input = fastest(work, || winograd::input_gradient(&cpu, &conv, &y, &w, &mut x));
            let weight = fastest(work, || winograd::weight_gradient(&cpu, &conv, &x, &y, &mut w));
            println!("{name:<14} {:>20} {:>20} {:>20}", cell(forward), cell(input), cell(weight));
        }
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|k| ((k * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// GFLOP/s of the fastest of several runs.
fn fastest(work: f64, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut spent = 0.0;
    let mut runs = 0;
    while runs < 3 || spent < 0.5 {
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
fn peak(cpu: &Cpu) -> f64 {
    if cpu.isa() == Isa::Avx512 { peak_of::<16>(cpu) } else { peak_of::<8>(cpu) }
}

fn peak_of<const LANES: usize>(cpu: &Cpu) -> f64 {
    let work = 2.0 * (REPEATS * SUMS * LANES * cpu.threads()) as f64;
    fastest(work, || {
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

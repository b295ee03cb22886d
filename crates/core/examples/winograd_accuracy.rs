//! The error of a convolution in single precision, by the plain sum and by minimal filtering: `winograd_accuracy`.
//!
//! Root mean square over all results, in units of 2⁻²⁴·Σ|ab|, where Σ|ab| is the sum of the magnitudes of the
//! products that a result consists of. Inputs are relu of normal values, filters and cotangents normal.

use kinone_core::operator::{Operator, Output, Saved, View};
use kinone_core::ops::{Conv2d, Conv2dWinograd};
use kinone_core::rng::Stream;
use kinone_core::shape::Shape;
use kinone_kernels::Cpu;
use kinone_kernels::conv::winograd::Tile;

const PADDING: (usize, usize) = (1, 1);

fn main() {
    println!("{:<34} {:>8} {:>8} {:>8}", "rms error, 2^-24 sum |ab|", "direct", "F(2x2)", "F(4x4)");
    for channels in [64, 128, 256, 512] {
        print(&format!("forward, {channels} channels"), 0, [8, channels, 14, 14], 16);
        print(&format!("input gradient, {channels} filters"), 1, [8, 16, 14, 14], channels);
    }
    for side in [56, 28, 14, 7] {
        print(&format!("weight gradient, 32 images {side}x{side}"), 2, [32, 8, side, side], 8);
    }
}

/// One line: result 0 is the output, 1 the gradient of x, 2 that of w.
fn print(what: &str, result: usize, x: [usize; 4], o: usize) {
    let shapes = [Shape::from(x), Shape::from([o, x[1], 3, 3])];
    let normal = |stream: u64, len: usize| -> Vec<f32> {
        let stream = Stream::new(1, "accuracy").at(0, stream);
        (0..len as u64).map(|k| stream.normal_fixed(k) as f32 / 65536.0).collect()
    };
    let mut images = normal(0, shapes[0].size());
    for x in &mut images {
        *x = if *x > 0.0 { *x } else { 0.0 };
    }
    let inputs = [images, normal(1, shapes[1].size())];
    let plain = Conv2d { padding: PADDING, ..Conv2d::default() };
    let dy = normal(2, x[0] * o * x[2] * x[3]);
    let wide =
        |values: &[f32], f: fn(f64) -> f64| values.iter().map(|x| f(f64::from(*x))).collect::<Vec<_>>();
    let exact = oracle(&plain, result, &shapes, [0, 1].map(|k| wide(&inputs[k], |x| x)), &wide(&dy, |x| x));
    let magnitude =
        oracle(&plain, result, &shapes, [0, 1].map(|k| wide(&inputs[k], f64::abs)), &wide(&dy, f64::abs));
    let error = |found: &[f32]| {
        let mut sum = 0.0;
        for ((found, exact), magnitude) in found.iter().zip(&exact).zip(&magnitude) {
            let error = (f64::from(*found) - exact) / magnitude * f64::from(1 << 24);
            sum += error * error;
        }
        (sum / exact.len() as f64).sqrt()
    };
    let winograd = |tile| Conv2dWinograd { tile, padding: PADDING };
    println!(
        "{what:<34} {:>8.2} {:>8.2} {:>8.2}",
        error(&single(&plain, result, &shapes, &inputs, &dy)),
        error(&single(&winograd(Tile::Two), result, &shapes, &inputs, &dy)),
        error(&single(&winograd(Tile::Four), result, &shapes, &inputs, &dy)),
    );
}

/// The result in f64, by the definition.
fn oracle(conv: &Conv2d, result: usize, shapes: &[Shape; 2], inputs: [Vec<f64>; 2], dy: &[f64]) -> Vec<f64> {
    let views = [0, 1].map(|k| View::new(&shapes[k], &inputs[k]));
    let value = shape(conv, shapes);
    let mut out = vec![0.0; [value.size(), inputs[0].len(), inputs[1].len()][result]];
    if result == 0 {
        conv.forward(&views, &mut Output { shape: &value, value: &mut out, auxiliaries: Vec::new() });
    } else {
        let saved = Saved::new("conv2d", shapes, views.map(Some).to_vec(), None, Vec::new());
        let mut slots = [None, None];
        slots[result - 1] = Some(&mut out[..]);
        conv.vjp(&saved, View::new(&value, dy), &mut slots);
    }
    out
}

/// The result in f32, by the kernels.
fn single(
    conv: &impl Operator,
    result: usize,
    shapes: &[Shape; 2],
    inputs: &[Vec<f32>; 2],
    dy: &[f32],
) -> Vec<f32> {
    let cpu = Cpu::current();
    let views = [0, 1].map(|k| View::new(&shapes[k], &inputs[k]));
    let value = shape(conv, shapes);
    let mut out = vec![0.0; [value.size(), inputs[0].len(), inputs[1].len()][result]];
    if result == 0 {
        conv.forward_fast(
            &cpu,
            &views,
            &mut Output { shape: &value, value: &mut out, auxiliaries: Vec::new() },
        );
    } else {
        let saved = Saved::new("conv2d", shapes, views.map(Some).to_vec(), None, Vec::new());
        let mut slots = [None, None];
        slots[result - 1] = Some(&mut out[..]);
        conv.vjp_fast(&cpu, &saved, View::new(&value, dy), &mut slots);
    }
    out
}

fn shape(conv: &impl Operator, shapes: &[Shape; 2]) -> Shape {
    match conv.shape(&[&shapes[0], &shapes[1]]) {
        Ok(shapes) => shapes.value,
        Err(error) => unreachable!("the shapes fit: {error}"),
    }
}

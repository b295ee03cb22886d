//! Results written past the caches equal their definitions: here every result is, however small. In a file of its own,
//! since what is said to be large holds for the whole process.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::conv::{self, Conv};
use kinone_kernels::memory::Buffer;
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Then};
use kinone_kernels::perturb::Perturbation;
use kinone_kernels::sums::Images;

const EPS: f32 = 1.0e-5;

/// Room that begins with a cache line, or a few values after it, as long as it lives.
fn poisoned(len: usize, offset: usize) -> Buffer {
    let far = Some(1);
    Perturbation { far, offset, ..Perturbation::default() }.set();
    let mut buffer = Buffer::take(len);
    Perturbation { far, ..Perturbation::default() }.set();
    buffer.fill(f32::from_bits(0x7fa5_a5a5));
    buffer
}

fn normalization(random: &mut Random, shape: Images) {
    let [x, dy, residual] = [0; 3].map(|_| random.values(shape.len()));
    let (gamma, beta) = (random.values(shape.c), random.values(shape.c));
    for then in [Then::Nothing, Then::Relu, Then::AddRelu(&residual)] {
        let [mut y, mut mean, mut var, mut invstd] =
            [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
        norm::reference::train_forward(
            shape,
            &x,
            &gamma,
            &beta,
            EPS,
            then,
            &mut y,
            &mut mean,
            &mut var,
            &mut invstd,
        );
        let channels = Channels { mean: &mean, invstd: &invstd, gamma: &gamma };
        let mask = match then {
            Then::Nothing => Mask::Nothing,
            Then::Relu => Mask::Relu(&beta),
            Then::AddRelu(_) => Mask::AddRelu(&y),
        };
        let [mut dx, mut dresidual] = [0; 2].map(|_| Odd::poisoned(shape.len()));
        let to_residual = matches!(mask, Mask::AddRelu(_)).then_some(&mut *dresidual);
        let wanted = Gradients { dx: Some(&mut dx), dresidual: to_residual, ..Gradients::default() };
        norm::reference::train_backward(shape, &x, Cotangent::Kept(&dy), channels, mask, wanted);
        for cpu in cpus() {
            for offset in [0, 4, 15] {
                let what = format!("{shape:?}, {cpu:?}, {offset} values after a line");
                let mut got = poisoned(shape.len(), offset);
                let mut statistics = [0; 3].map(|_| Odd::poisoned(shape.c));
                let [mean, var, invstd] = &mut statistics;
                norm::train_forward(&cpu, shape, &x, &gamma, &beta, EPS, then, &mut got, mean, var, invstd);
                assert_same(&got, &y, &what);
                let (mut got, mut over) = (poisoned(shape.len(), offset), dy.clone());
                let cotangent = match mask {
                    Mask::AddRelu(_) => Cotangent::Spent(&mut over),
                    _ => Cotangent::Kept(&dy),
                };
                let gradients = Gradients { dx: Some(&mut got), ..Gradients::default() };
                norm::train_backward(&cpu, shape, &x, cotangent, channels, mask, gradients);
                assert_same(&got, &dx, &format!("{what}: dx"));
                if matches!(mask, Mask::AddRelu(_)) {
                    assert_same(&over, &dresidual, &format!("{what}: dresidual"));
                }
            }
        }
    }
}

fn convolution(random: &mut Random, conv: &Conv) {
    let (oh, ow) = conv.output();
    let (inputs, outputs) = (conv.n * conv.c * conv.input.0 * conv.input.1, conv.n * conv.o * oh * ow);
    let (x, dy) = (random.values(inputs), random.values(outputs));
    let w = random.values(conv.o * conv.c * conv.kernel.0 * conv.kernel.1);
    let (mut y, mut dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
    conv::reference::forward(conv, &x, &w, &mut y);
    conv::reference::input_gradient(conv, &dy, &w, &mut dx);
    for cpu in cpus() {
        for offset in [0, 4, 15] {
            let what = format!("{conv:?}, {cpu:?}, {offset} values after a line");
            let mut got = poisoned(outputs, offset);
            conv::forward(&cpu, conv, &x, &w, &mut got);
            assert_same(&got, &y, &what);
            let mut got = poisoned(inputs, offset);
            conv::input_gradient(&cpu, conv, &dy, &w, &mut got);
            assert_same(&got, &dx, &format!("{what}: dx"));
        }
    }
}

#[test]
fn results_written_past_the_caches_equal_their_definitions() {
    let mut random = Random(1);
    // Planes of whole lines, planes that end inside of one, and those of less than one.
    for [n, c, h, w] in
        [[2, 3, 8, 10], [3, 45, 7, 7], [2, 5, 33, 67], [5, 9, 1, 1], [2, 0, 3, 3], [3, 2, 0, 4]]
    {
        normalization(&mut random, Images { n, c, h, w });
    }
    let conv = |n, c, o, size, k, stride| Conv {
        n,
        c,
        input: (size, size),
        o,
        kernel: (k, k),
        stride: (stride, stride),
        padding: (k / 2, k / 2),
        dilation: (1, 1),
        groups: 1,
    };
    for shape in [
        conv(2, 7, 20, 16, 1, 1),
        conv(3, 70, 13, 12, 1, 1),
        conv(2, 300, 9, 8, 1, 1),
        conv(1, 5, 8, 7, 1, 1),
        conv(2, 6, 10, 16, 3, 2),
        conv(2, 6, 10, 9, 1, 2),
        conv(2, 5, 16, 12, 3, 1),
    ] {
        convolution(&mut random, &shape);
    }
}

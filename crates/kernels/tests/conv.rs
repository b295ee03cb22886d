//! Convolutions and their gradients equal their definitions bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::conv::{self, Conv, Finish, reference};
use kinone_kernels::memory::Kept;
use kinone_kernels::perturb::Perturbation;
use kinone_kernels::sums::{Images, reference::channel_sum};

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    if case.is_multiple_of(3) { random.hostile(len, case.is_multiple_of(2)) } else { random.values(len) }
}

fn outputs(conv: &Conv) -> usize {
    let (oh, ow) = conv.output();
    conv.n * conv.o * oh * ow
}

fn inputs(conv: &Conv) -> usize {
    conv.n * conv.c * conv.input.0 * conv.input.1
}

fn weights(conv: &Conv) -> usize {
    conv.o * (conv.c / conv.groups) * conv.kernel.0 * conv.kernel.1
}

/// Makes about six in ten of some values zero, of either sign: as behind a relu.
fn thin(random: &mut Random, values: &mut [f32]) {
    for value in values {
        match random.between(0, 9) {
            0..5 => *value = 0.0,
            5 => *value = -0.0,
            _ => {}
        }
    }
}

/// Compares the three kernels with their definitions, on every instruction set and number of threads. The case
/// decides how hostile the values are and where slices begin.
fn check(random: &mut Random, case: usize, shape: &Conv) {
    compare(random, case, shape, false);
    compare(random, case, shape, true);
}

/// [`check`] with many zeros among the pixels, or with few.
fn compare(random: &mut Random, case: usize, shape: &Conv, sparse: bool) {
    // Whether what is far is asked for early: hints alone, so that tests beside this one may see it change. All leave out
    // terms of zeros.
    let far = case.is_multiple_of(2).then_some(1);
    Perturbation { far, zeros: true, fill: Some(0x7fa5_a5a5), ..Default::default() }.set();
    let shift = case % 16;
    let mut x = values(random, case, shift + inputs(shape));
    if sparse {
        thin(random, &mut x);
    }
    let w = values(random, case + 1, shift + weights(shape));
    let dy = values(random, case + 2, shift + outputs(shape));
    let (x, w, dy) = (&x[shift..], &w[shift..], &dy[shift..]);
    let (mut y, mut dx, mut dw) =
        (Odd::poisoned(outputs(shape)), Odd::poisoned(inputs(shape)), Odd::poisoned(weights(shape)));
    reference::forward(shape, x, w, &mut y);
    reference::input_gradient(shape, dy, w, &mut dx);
    reference::weight_gradient(shape, x, dy, &mut dw);
    let (scale, shift_by) = (random.values(shape.o), random.values(shape.o));
    let residual = (case % 3 != 1).then_some(dy);
    let finish = Finish { scale: &scale, shift: &shift_by, residual, relu: case % 4 < 2 };
    let mut finished = Odd::poisoned(y.len());
    finished.copy_from_slice(&y);
    let (oh, ow) = shape.output();
    reference::finish(oh * ow, &finish, &mut finished);
    let shared = Kept::default();
    for cpu in cpus() {
        let what = format!("{shape:?}, sparse: {sparse}, {cpu:?}");
        let mut got = Odd::poisoned(shift + y.len());
        conv::forward(&cpu, shape, x, w, &mut got[shift..]);
        assert_same(&got[shift..], &y, &format!("forward, {what}"));
        let mut got = Odd::poisoned(shift + y.len());
        // The second call finds what the first one kept; other tiles find it made for these.
        let kept = Kept::default();
        for call in 1..3 {
            got.fill(f32::NAN);
            conv::forward_finished(&cpu, shape, x, (w, Some(&kept)), Some(finish), &mut got[shift..]);
            assert_same(&got[shift..], &finished, &format!("forward and {finish:?}, call {call}, {what}"));
        }
        conv::forward_finished(&cpu, shape, x, (w, Some(&shared)), Some(finish), &mut got[shift..]);
        assert_same(&got[shift..], &finished, &format!("forward after another processor's, {what}"));
        let mut got = Odd::poisoned(shift + dx.len());
        conv::input_gradient(&cpu, shape, dy, w, &mut got[shift..]);
        assert_same(&got[shift..], &dx, &format!("input gradient, {what}"));
        let mut got = Odd::poisoned(shift + dw.len());
        conv::weight_gradient(&cpu, shape, x, dy, &mut got[shift..]);
        assert_same(&got[shift..], &dw, &format!("weight gradient, {what}"));
    }
}

/// A plain 3×3 convolution to vary.
const PLAIN: Conv = Conv {
    n: 2,
    c: 1,
    input: (67, 66),
    o: 2,
    kernel: (3, 3),
    stride: (1, 1),
    padding: (1, 1),
    dilation: (1, 1),
    groups: 1,
};

/// Convolutions of all kinds: extents 1 to 67, few enough terms for the definition to be quick.
fn convolutions(random: &mut Random) -> Vec<Conv> {
    let mut convolutions = Vec::new();
    while convolutions.len() < 63 {
        let kind = convolutions.len() % 7;
        let mut pair = |low: usize, high: usize| (random.between(low, high), random.between(low, high));
        let kernel = match kind {
            0 => (1, 1),
            1 => (3, 3),
            2 => pair(1, 7),
            _ => pair(1, 4),
        };
        let stride = if kind == 1 { (1, 1) } else { pair(1, 3) };
        let dilation = if kind == 3 { pair(1, 3) } else { (1, 1) };
        let padding = pair(0, 3);
        let input = if kind == 4 { pair(1, 67) } else { pair(1, 14) };
        let groups = match kind {
            5 => random.between(1, 5),
            _ => 1,
        };
        // Depthwise, wide, or plain.
        let (c, o) = match kind {
            5 => (groups * random.between(1, 3), groups * random.between(1, 3)),
            6 => (random.between(1, 67), random.between(1, 67)),
            _ => (random.between(1, 9), random.between(1, 20)),
        };
        let n = random.between(1, 11);
        let conv = Conv { n, c, input, o, kernel, stride, padding, dilation, groups };
        let (oh, ow) = conv.output();
        let work = n * o * oh * ow * (c / groups) * kernel.0 * kernel.1;
        if oh > 0 && ow > 0 && work < 3_000_000 {
            convolutions.push(conv);
        }
    }
    convolutions
}

#[test]
fn convolutions_of_all_kinds_equal_their_definition() {
    let mut random = Random(2);
    for (case, shape) in convolutions(&mut random).iter().enumerate() {
        check(&mut random, case, shape);
    }
}

/// Shapes at which the kernels take another path.
#[test]
fn convolutions_at_the_limits_of_the_kernels_equal_their_definition() {
    let mut random = Random(3);
    let pointwise = Conv { kernel: (1, 1), padding: (0, 0), ..PLAIN };
    let shapes = [
        // An image in several leaves; several leaves to a block; three leaves, the last one short.
        PLAIN,
        Conv { n: 21, c: 3, input: (2, 2), o: 50, ..PLAIN },
        Conv { n: 5, c: 2, input: (40, 39), o: 3, ..PLAIN },
        // Several blocks of k, each taken up again, with and without a place in the output.
        Conv { n: 3, c: 67, input: (4, 4), o: 17, ..PLAIN },
        Conv { n: 1, c: 61, input: (16, 16), o: 9, ..PLAIN },
        // Several groups of panels, and many rows.
        Conv { n: 30, c: 3, input: (4, 7), o: 67, ..PLAIN },
        Conv { n: 9, c: 2, input: (7, 7), o: 70, stride: (2, 2), ..PLAIN },
        // Groups of more panels than the fewest.
        Conv { n: 4, c: 3, input: (33, 60), o: 5, ..PLAIN },
        Conv { n: 3, c: 29, input: (41, 50), o: 3, padding: (0, 0), kernel: (1, 1), ..PLAIN },
        // A stride beyond the kernel, and one beyond the image.
        Conv { n: 9, c: 3, input: (9, 8), o: 5, kernel: (2, 1), stride: (3, 4), ..PLAIN },
        Conv { n: 3, c: 2, input: (2, 3), o: 5, stride: (5, 5), ..PLAIN },
        // Padding beyond the kernel: whole rows and columns of padding.
        Conv { n: 3, c: 2, input: (3, 2), o: 5, padding: (4, 5), ..PLAIN },
        // Images that serve as they are, their last values at the end of memory, or not.
        Conv { n: 7, c: 19, input: (5, 5), o: 11, ..pointwise },
        Conv { n: 2, c: 300, input: (3, 16), o: 4, ..pointwise },
        // Several full panels together, some of them at the ends of images.
        Conv { n: 6, c: 5, input: (13, 37), o: 7, ..pointwise },
        // Large planes that are not even packed, but for the panels that end within one.
        Conv { n: 2, c: 270, input: (32, 33), o: 9, ..pointwise },
        Conv { n: 1, c: 20, input: (64, 32), o: 64, ..pointwise },
        Conv { n: 5, c: 6, input: (6, 7), o: 20, stride: (2, 2), ..pointwise },
        Conv { n: 4, c: 6, input: (5, 5), o: 9, groups: 3, ..pointwise },
        // More filters than channels, several panels of channels.
        Conv { n: 9, c: 35, input: (6, 7), o: 53, ..pointwise },
        // Depthwise, alone and with several filters a channel.
        Conv { n: 3, c: 17, input: (9, 10), o: 17, groups: 17, ..PLAIN },
        Conv { n: 3, c: 5, input: (9, 10), o: 15, groups: 5, stride: (2, 1), ..PLAIN },
        // The stem of a network for small images, and a dilated one.
        Conv { n: 2, input: (32, 32), o: 16, kernel: (7, 7), stride: (2, 2), padding: (3, 3), ..PLAIN },
        Conv {
            n: 2,
            c: 3,
            input: (11, 13),
            o: 6,
            dilation: (2, 3),
            padding: (2, 3),
            stride: (2, 1),
            ..PLAIN
        },
        // Kept filters that are many, and few positions: the product is turned round. Images that end within a tile;
        // a stride; the most positions; filters that are no whole panel.
        Conv { n: 3, c: 115, input: (5, 4), o: 64, ..PLAIN },
        Conv { n: 2, c: 70, input: (9, 8), o: 104, stride: (2, 2), ..PLAIN },
        Conv { n: 4, c: 601, input: (7, 7), o: 112, ..pointwise },
        // Pixels read where they are staged: groups of positions that each thread stages, the last of another size; fewer
        // positions than threads, for the outputs and for the input gradient.
        Conv { n: 3, c: 8, input: (26, 27), o: 64, ..PLAIN },
        Conv { n: 1, c: 3, input: (1, 2), o: 16, ..PLAIN },
        Conv { n: 1, c: 16, input: (1, 1), o: 16, stride: (2, 2), ..PLAIN },
        // Terms on the padding left out: several leaves, filters that fill no register, strides and dilations, blocks that
        // begin within an image.
        Conv { n: 19, c: 16, input: (7, 7), o: 19, ..PLAIN },
        Conv {
            n: 9,
            c: 33,
            input: (9, 8),
            o: 32,
            stride: (2, 2),
            padding: (2, 1),
            dilation: (2, 1),
            ..PLAIN
        },
        Conv { n: 3, c: 24, input: (15, 13), o: 16, padding: (0, 1), ..PLAIN },
        // With many zeros: groups, panels of several widths.
        Conv { n: 2, c: 32, o: 64, input: (6, 7), groups: 2, ..PLAIN },
        Conv { n: 2, c: 12, o: 176, input: (5, 6), ..PLAIN },
        Conv { n: 1, c: 70, o: 80, input: (9, 6), ..pointwise },
        // No image, no pixel, no position, no channel, no filter.
        Conv { c: 0, input: (4, 5), ..PLAIN },
        Conv { o: 0, input: (4, 5), ..PLAIN },
        Conv { n: 0, c: 3, input: (5, 5), o: 4, ..PLAIN },
        Conv { n: 0, c: 16, input: (5, 5), o: 16, ..PLAIN },
        Conv { n: 2, c: 3, input: (0, 5), o: 4, ..pointwise },
        Conv { n: 2, c: 3, input: (2, 1), o: 4, padding: (0, 0), ..PLAIN },
        // The same with as many positions as fill a panel.
        Conv { n: 8, c: 3, input: (0, 5), o: 4, ..PLAIN },
        Conv { n: 8, c: 3, input: (0, 5), o: 4, padding: (1, 1), ..pointwise },
        Conv { n: 16, c: 3, input: (2, 1), o: 4, padding: (0, 0), ..PLAIN },
    ];
    for (case, shape) in shapes.iter().enumerate() {
        check(&mut random, case, shape);
        check(&mut random, case + 1, shape);
    }
}

/// The gradient takes pixels by their residue to the stride: only those that there are.
#[test]
fn a_stride_far_beyond_the_image_costs_nothing() {
    let stride = (1 << 24, 1 << 20);
    let shape = Conv { n: 2, c: 1, input: (5, 5), o: 16, stride, ..PLAIN };
    check(&mut Random(5), 0, &shape);
}

/// Compares the three kernels of these pixels, weights and cotangents with their definitions. Returns the outputs and the
/// weight gradient.
fn equal(shape: &Conv, (x, w, dy): (&[f32], &[f32], &[f32]), what: &str) -> (Vec<f32>, Vec<f32>) {
    let (mut y, mut dx, mut dw) =
        (vec![1.0; outputs(shape)], vec![1.0; inputs(shape)], vec![1.0; weights(shape)]);
    reference::forward(shape, x, w, &mut y);
    reference::input_gradient(shape, dy, w, &mut dx);
    reference::weight_gradient(shape, x, dy, &mut dw);
    for cpu in cpus() {
        let what = format!("{shape:?}, {what}, {cpu:?}");
        let mut got = vec![2.0; y.len()];
        conv::forward(&cpu, shape, x, w, &mut got);
        assert_same(&got, &y, &format!("forward, {what}"));
        let mut got = vec![2.0; dx.len()];
        conv::input_gradient(&cpu, shape, dy, w, &mut got);
        assert_same(&got, &dx, &format!("input gradient, {what}"));
        let mut got = vec![2.0; dw.len()];
        conv::weight_gradient(&cpu, shape, x, dy, &mut got);
        assert_same(&got, &dw, &format!("weight gradient, {what}"));
    }
    (y, dw)
}

/// Terms on the padding are left out where that changes nothing: not where a sum would end with −0, nor where a weight
/// is not finite.
#[test]
fn terms_on_the_padding_count_where_they_change_a_sum() {
    for (n, side) in [(9, 4), (5, 7), (1, 7), (2, 14)] {
        let shape = Conv { n, c: 16, input: (side, side), o: 16, ..PLAIN };
        let tiny = 1.0e-30;
        let x = vec![tiny; inputs(&shape)];
        // Every product is too small for f32 and becomes −0; the weights of one tap are positive.
        for tap in [0, 2, 6, 8] {
            let mut w: Vec<f32> =
                (0..weights(&shape)).map(|k| if k % 9 == tap { tiny } else { -tiny }).collect();
            let dy: Vec<f32> = (0..outputs(&shape)).map(|k| if k % 3 == 0 { tiny } else { -tiny }).collect();
            for finite in [true, false] {
                if !finite {
                    w[shape.c * 9 - 1 - tap] = f32::NEG_INFINITY;
                }
                let (y, _) = equal(&shape, (&x, &w, &dy), &format!("tap {tap}, finite: {finite}"));
                if finite && tap == 6 {
                    // Below the last row lies padding alone, and its first tap makes +0 of −0.
                    let corner = side * (side - 1);
                    assert_eq!((y[0].to_bits(), y[corner].to_bits()), (1 << 31, 0), "{shape:?}");
                }
            }
        }
    }
}

/// Terms of zeros are left out where that changes nothing: not where a sum would end with −0, nor where the other factor
/// is not finite.
#[test]
fn terms_of_zeros_count_where_they_change_a_sum() {
    Perturbation { zeros: true, fill: Some(0x7fa5_a5a5), ..Default::default() }.set();
    let mut random = Random(6);
    let three = Conv { c: 16, o: 48, ..PLAIN };
    let shapes = [
        Conv { n: 3, input: (7, 7), ..three },
        Conv { n: 2, input: (9, 14), stride: (2, 2), ..three },
        Conv { n: 5, c: 70, input: (6, 6), kernel: (1, 1), padding: (0, 0), ..three },
        Conv { n: 1, c: 33, o: 128, input: (1, 5), ..three },
        // Several leaves in several blocks, and several blocks of k.
        Conv { n: 19, c: 32, o: 16, input: (7, 7), ..three },
        Conv { n: 2, c: 601, o: 16, input: (3, 4), kernel: (1, 1), padding: (0, 0), ..three },
    ];
    for (shape, finite) in shapes.into_iter().flat_map(|shape| [(shape, true), (shape, false)]) {
        let tiny = 1.0e-30;
        let mut x = vec![tiny; inputs(&shape)];
        thin(&mut random, &mut x);
        // Products are too small for f32 and become −0, and now and then +0; so do those of zeros.
        let mut signed =
            |len| (0..len).map(|_| if random.between(0, 99) == 0 { tiny } else { -tiny }).collect();
        let (mut w, mut dy): (Vec<f32>, Vec<f32>) = (signed(weights(&shape)), signed(outputs(&shape)));
        if !finite {
            w[weights(&shape) / 2] = f32::NEG_INFINITY;
            dy[outputs(&shape) / 2] = f32::NAN;
        }
        let (y, dw) = equal(&shape, (&x, &w, &dy), &format!("finite: {finite}"));
        if finite {
            let both = |sums: &[f32]| {
                sums.iter().all(|sum| *sum == 0.0)
                    && sums.iter().any(|sum| sum.is_sign_negative())
                    && sums.iter().any(|sum| sum.is_sign_positive())
            };
            assert!(both(&y) && both(&dw), "{shape:?}: no sum of either sign");
        }
    }
}

/// Filters kept by a product of pixels without zeros serve one with many, and the other way round.
#[test]
fn kept_filters_serve_pixels_with_zeros_and_without() {
    Perturbation { zeros: true, fill: Some(0x7fa5_a5a5), ..Default::default() }.set();
    let mut random = Random(7);
    let shape = Conv { n: 1, c: 4097, o: 16, input: (2, 3), kernel: (1, 1), padding: (0, 0), ..PLAIN };
    let dense = random.values(inputs(&shape));
    let mut sparse = random.values(inputs(&shape));
    thin(&mut random, &mut sparse);
    let (scale, shift) = (vec![1.0; shape.o], vec![0.0; shape.o]);
    let finish = Finish { scale: &scale, shift: &shift, residual: None, relu: false };
    for infinite in [false, true] {
        let mut w = random.values(weights(&shape));
        if infinite {
            // It meets a zero.
            w[sparse.iter().step_by(6).position(|x| *x == 0.0).unwrap()] = f32::INFINITY;
        }
        for cpu in cpus() {
            for order in [[&dense, &sparse], [&sparse, &dense]] {
                let kept = Kept::default();
                for x in order {
                    let (mut y, mut got) = (vec![0.0; outputs(&shape)], vec![2.0; outputs(&shape)]);
                    reference::forward(&shape, x, &w, &mut y);
                    reference::finish(6, &finish, &mut y);
                    conv::forward_finished(&cpu, &shape, x, (&w, Some(&kept)), Some(finish), &mut got);
                    assert_same(&got, &y, &format!("infinite: {infinite}, {cpu:?}"));
                }
            }
        }
    }
}

/// What is a term and what is not, worked out by hand: a weight that is not finite shows it.
#[test]
fn taps_on_the_padding_are_terms_and_taps_between_positions_are_not() {
    let mut w = [1.0_f32; 9];
    w[0] = f32::INFINITY;
    let one = Conv { n: 1, input: (3, 3), o: 1, ..PLAIN };
    // The tap (0, 0) of position (i, j) lies on the padding where i or j is 0: 0·∞ is NaN.
    let mut y = [0.0; 9];
    reference::forward(&one, &[1.0; 9], &w, &mut y);
    for (at, y) in y.iter().enumerate() {
        let padded = at / 3 == 0 || at % 3 == 0;
        assert!(if padded { y.is_nan() } else { *y == f32::INFINITY }, "position {at}: {y}");
    }
    // With stride 2 the pixel (h, v) meets the tap (0, 0) where h + 1 and v + 1 are even; of these, (3, ·) and
    // (·, 3) meet it beside the output of 2×2.
    let strided = Conv { input: (4, 4), stride: (2, 2), ..one };
    assert_eq!(strided.output(), (2, 2));
    let mut dx = [0.0; 16];
    reference::input_gradient(&strided, &[1.0; 4], &w, &mut dx);
    for (at, dx) in dx.iter().enumerate() {
        let (h, v) = (at / 4, at % 4);
        match (h % 2 == 1 && v % 2 == 1, h == 3 || v == 3) {
            (true, true) => assert!(dx.is_nan(), "pixel {at}: {dx}"),
            (true, false) => assert_eq!(*dx, f32::INFINITY, "pixel {at}"),
            (false, _) => assert!(dx.is_finite(), "pixel {at}: {dx}"),
        }
    }
}

/// One image, one channel, taps that can be told apart: the orders and places of the three loops.
#[test]
fn the_definitions_put_each_tap_in_its_place() {
    let shape = Conv { n: 1, input: (2, 2), o: 1, kernel: (2, 2), padding: (0, 0), ..PLAIN };
    let (x, w) = ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]);
    let mut y = [0.0];
    reference::forward(&shape, &x, &w, &mut y);
    assert_eq!(y, [300.0]);
    let (mut dx, mut dw) = ([0.0; 4], [0.0; 4]);
    reference::input_gradient(&shape, &[2.0], &w, &mut dx);
    assert_eq!(dx, [20.0, 40.0, 60.0, 80.0]);
    reference::weight_gradient(&shape, &x, &[2.0], &mut dw);
    assert_eq!(dw, [2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn bias_gradients_are_sums_of_channels_rounded_once() {
    let mut random = Random(4);
    for (n, c, h, w) in [(1, 1, 1, 1), (9, 5, 7, 3), (3, 2, 70, 66), (17, 40, 2, 2)] {
        let images = Images { n, c, h, w };
        let dy = random.values(images.len());
        for cpu in cpus() {
            let mut db = Odd::poisoned(c);
            conv::bias_gradient(&cpu, images, &dy, &mut db);
            for (channel, db) in db.iter().enumerate() {
                let sum = channel_sum(images, channel, |index| f64::from(dy[index]));
                assert_eq!(db.to_bits(), (sum as f32).to_bits(), "{images:?}, channel {channel}, {cpu:?}");
            }
        }
    }
}

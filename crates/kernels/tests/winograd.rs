//! Winograd's convolutions and their gradients equal their definitions bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::conv::winograd::{self, Tile, Winograd, reference};
use kinone_kernels::conv::{Finish, reference::finish};
use kinone_kernels::memory::{Kept, set_poison};
use kinone_kernels::perturb::Perturbation;

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    if case.is_multiple_of(3) { random.hostile(len, case.is_multiple_of(2)) } else { random.values(len) }
}

/// Compares the three kernels with their definitions, on every instruction set and number of threads. The case
/// decides how hostile the values are and where slices begin.
fn check(random: &mut Random, case: usize, shape: &Winograd) {
    let (oh, ow) = shape.output();
    let [inputs, weights, outputs] = [
        shape.n * shape.c * shape.input.0 * shape.input.1,
        shape.o * shape.c * 9,
        shape.n * shape.o * oh * ow,
    ];
    let shift = case % 16;
    let x = values(random, case, shift + inputs);
    let w = values(random, case + 1, shift + weights);
    let dy = values(random, case + 2, shift + outputs);
    let (x, w, dy) = (&x[shift..], &w[shift..], &dy[shift..]);
    let (mut y, mut dx, mut dw) = (Odd::poisoned(outputs), Odd::poisoned(inputs), Odd::poisoned(weights));
    reference::forward(shape, x, w, &mut y);
    reference::input_gradient(shape, dy, w, &mut dx);
    reference::weight_gradient(shape, x, dy, &mut dw);
    let (scale, shift_by) = (random.values(shape.o), random.values(shape.o));
    let residual = (case % 3 != 1).then_some(dy);
    let then = Finish { scale: &scale, shift: &shift_by, residual, relu: case % 4 < 2 };
    let mut finished = Odd::poisoned(outputs);
    finished.copy_from_slice(&y);
    finish(oh * ow, &then, &mut finished);
    let shared = Kept::default();
    for cpu in cpus() {
        let what = format!("{shape:?}, {cpu:?}");
        let mut got = Odd::poisoned(shift + outputs);
        // The second call finds what the first one kept; other tiles find it made for these.
        let kept = Kept::default();
        for call in 1..3 {
            got.fill(f32::NAN);
            winograd::forward_finished(&cpu, shape, x, (w, Some(&kept)), Some(then), &mut got[shift..]);
            assert_same(&got[shift..], &finished, &format!("forward and {then:?}, call {call}, {what}"));
        }
        winograd::forward_finished(&cpu, shape, x, (w, Some(&shared)), Some(then), &mut got[shift..]);
        assert_same(&got[shift..], &finished, &format!("forward after another processor's, {what}"));
        let mut got = Odd::poisoned(shift + outputs);
        winograd::forward(&cpu, shape, x, w, &mut got[shift..]);
        assert_same(&got[shift..], &y, &format!("forward, {what}"));
        let mut got = Odd::poisoned(shift + inputs);
        winograd::input_gradient(&cpu, shape, dy, w, &mut got[shift..]);
        assert_same(&got[shift..], &dx, &format!("input gradient, {what}"));
        let mut got = Odd::poisoned(shift + weights);
        winograd::weight_gradient(&cpu, shape, x, dy, &mut got[shift..]);
        assert_same(&got[shift..], &dw, &format!("weight gradient, {what}"));
    }
}

#[test]
fn convolutions_of_all_kinds_equal_their_definition() {
    set_poison(true);
    let mut random = Random(7);
    for case in 0..40 {
        let mut pair = |low: usize, high: usize| (random.between(low, high), random.between(low, high));
        let (padding, input) = (pair(0, 2), if case % 4 == 0 { pair(1, 40) } else { pair(1, 13) });
        let (n, c, o) = match case % 5 {
            0 => (1, random.between(1, 67), random.between(1, 67)),
            _ => (random.between(1, 11), random.between(1, 20), random.between(1, 20)),
        };
        let tile = if case % 2 == 0 { Tile::Two } else { Tile::Four };
        let shape = Winograd { tile, n, c, input, o, padding };
        let (oh, ow) = shape.output();
        if oh > 0 && ow > 0 && n * oh.max(4) * ow.max(4) * c * o < 1_000_000 {
            check(&mut random, case, &shape);
        }
    }
}

/// Shapes at which the kernels take another path.
#[test]
fn convolutions_at_the_limits_of_the_kernels_equal_their_definition() {
    set_poison(true);
    let mut random = Random(8);
    let plain = Winograd { tile: Tile::Two, n: 2, c: 1, input: (67, 66), o: 2, padding: (1, 1) };
    let shapes = [
        // An image in several leaves; three leaves, the last one short; leaves of several images.
        plain,
        Winograd { n: 5, c: 2, input: (20, 19), o: 3, ..plain },
        Winograd { n: 21, c: 3, input: (2, 2), o: 50, ..plain },
        // Filters too many to be shared.
        Winograd { n: 3, c: 160, input: (3, 2), o: 190, ..plain },
        Winograd { n: 1, c: 257, input: (1, 1), o: 257, padding: (2, 2), ..plain },
        // No image, no pixel, no position, no channel, no filter.
        Winograd { c: 0, input: (4, 5), ..plain },
        Winograd { c: 0, input: (512, 512), o: 3, ..plain },
        Winograd { o: 0, input: (4, 5), ..plain },
        Winograd { n: 0, c: 3, input: (5, 5), o: 4, ..plain },
        Winograd { c: 3, input: (0, 5), padding: (2, 1), ..plain },
        Winograd { c: 3, input: (2, 1), padding: (0, 0), ..plain },
    ];
    for (case, shape) in shapes.iter().enumerate() {
        check(&mut random, case, shape);
        check(&mut random, case + 1, &Winograd { tile: Tile::Four, ..*shape });
    }
    // Weight gradients whose squares are too many to be kept: threads share subtrees of the leaves, or elements. All
    // numbers are finite, since those sums would hardly be otherwise.
    for tile in [Tile::Two, Tile::Four] {
        // Caches for no sums, for all of them beside the squares of a few tiles, and for all.
        for cache in [1, 1 << 16, 1 << 30] {
            Perturbation { cache: Some(cache), fill: Some(0x7fa5_a5a5), ..Default::default() }.set();
            check(&mut random, 2, &Winograd { tile, n: 6, c: 3, input: (58, 59), o: 17, ..plain });
        }
        set_poison(true);
        // Subtrees of several leaves, the last one of fewer.
        check(&mut random, 2, &Winograd { tile, n: 34, c: 1, input: (49, 49), o: 1, ..plain });
    }
    // Squares too many to be made at once, and more tiles than are taken together.
    check(
        &mut random,
        2,
        &Winograd { tile: Tile::Four, n: 180, c: 1000, input: (1, 1), o: 30, padding: (1, 1) },
    );
    // Caches for the transformed filters of one channel, of a few, and of all.
    for cache in [1, 1 << 17, 1 << 30] {
        Perturbation { cache: Some(cache), fill: Some(0x7fa5_a5a5), ..Default::default() }.set();
        check(
            &mut random,
            2,
            &Winograd { tile: Tile::Four, n: 2, c: 171, input: (5, 4), o: 175, padding: (1, 1) },
        );
    }
}

//! Results written past the caches equal their definitions: here every result is, however small. In a file of its own,
//! since what is said to be large holds for the whole process.

mod common;
#[path = "common/stem.rs"]
mod stem;

use common::{Odd, Random, assert_same, cpus, square};
use kinone_kernels::conv::{self, Conv, Finish};
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Then};
use kinone_kernels::perturb::Perturbation;
use kinone_kernels::sums::Images;

const EPS: f32 = 1.0e-5;

/// Bits that no result has, around results and in their place.
const POISON: u32 = 0x7fa5_a5a5;
/// Values on either side that stay as they are, more than a tile has in a row.
const AROUND: usize = 96;

/// Room that begins with a cache line, or a few values after it.
struct Guarded {
    room: Vec<f32>,
    at: std::ops::Range<usize>,
}

impl Guarded {
    fn new(len: usize, offset: usize) -> Guarded {
        let room = vec![f32::from_bits(POISON); len + 2 * AROUND + 16 + offset];
        let start = room.as_ptr().wrapping_add(AROUND).align_offset(64) + AROUND + offset;
        Guarded { room, at: start..start + len }
    }

    /// Holds the result of `work` against what is wanted.
    fn check(len: usize, offset: usize, wanted: &[f32], what: &str, work: impl FnOnce(&mut [f32])) {
        let mut guarded = Guarded::new(len, offset);
        let Guarded { room, at } = &mut guarded;
        work(&mut room[at.clone()]);
        assert_same(&room[at.clone()], wanted, what);
        let mut outside = room[..at.start].iter().chain(&room[at.end..]);
        assert!(outside.all(|value| value.to_bits() == POISON), "{what}: a value outside");
    }
}

/// Every result is said to be large.
fn large() -> Perturbation {
    Perturbation { far: Some(1), ..Perturbation::default() }
}

fn normalization(random: &mut Random, shape: Images) {
    let [x, dy, more, residual] = [0; 4].map(|_| random.values(shape.len()));
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
        let defined = |dy: &[f32]| {
            let [mut dx, mut dresidual] = [0; 2].map(|_| Odd::poisoned(shape.len()));
            let to_residual = matches!(mask, Mask::AddRelu(_)).then_some(&mut *dresidual);
            let wanted = Gradients { dx: Some(&mut dx), dresidual: to_residual, ..Gradients::default() };
            norm::reference::train_backward(shape, &x, Cotangent::Kept(dy), channels, mask, wanted);
            (dx, dresidual)
        };
        let sum: Vec<f32> = dy.iter().zip(more.iter()).map(|(a, b)| a + b).collect();
        let ((dx, dresidual), (of_sum, residual_of_sum)) = (defined(&dy), defined(&sum));
        large().set();
        for cpu in cpus() {
            for offset in [0, 4, 15] {
                let what = format!("{shape:?}, {cpu:?}, {offset} values after a line");
                Guarded::check(shape.len(), offset, &y, &what, |got| {
                    let mut statistics = [0; 3].map(|_| Odd::poisoned(shape.c));
                    let [mean, var, invstd] = &mut statistics;
                    norm::train_forward(&cpu, shape, &x, &gamma, &beta, EPS, then, got, mean, var, invstd);
                });
                let backward = |cotangent: Cotangent, dx: &[f32], what: &str| {
                    Guarded::check(shape.len(), offset, dx, what, |got| {
                        let gradients = Gradients { dx: Some(got), ..Gradients::default() };
                        norm::train_backward(&cpu, shape, &x, cotangent, channels, mask, gradients);
                    });
                };
                if !matches!(mask, Mask::AddRelu(_)) {
                    backward(Cotangent::Kept(&dy), &dx, &format!("{what}: dx"));
                    continue;
                }
                let mut over = dy.clone();
                backward(Cotangent::Spent(&mut over), &dx, &format!("{what}: dx"));
                assert_same(&over, &dresidual, &format!("{what}: dresidual"));
                let mut over = dy.clone();
                backward(Cotangent::Added(&mut over, &more), &of_sum, &format!("{what}: dx of a sum"));
                assert_same(&over, &residual_of_sum, &format!("{what}: dresidual of a sum"));
            }
        }
    }
}

fn convolution(random: &mut Random, conv: &Conv) {
    let (oh, ow) = conv.output();
    let (inputs, outputs) = (conv.n * conv.c * conv.input.0 * conv.input.1, conv.n * conv.o * oh * ow);
    let (x, dy, residual) = (random.values(inputs), random.values(outputs), random.values(outputs));
    let w = random.values(conv.o * conv.c / conv.groups * conv.kernel.0 * conv.kernel.1);
    let (scale, shift) = (random.values(conv.o), random.values(conv.o));
    let finish = Finish { scale: &scale, shift: &shift, residual: Some(&residual), relu: true };
    let (mut y, mut dx) = (Odd::poisoned(outputs), Odd::poisoned(inputs));
    conv::reference::forward(conv, &x, &w, &mut y);
    conv::reference::input_gradient(conv, &dy, &w, &mut dx);
    let mut finished = y.clone();
    conv::reference::finish(oh * ow, &finish, &mut finished);
    // Tiles of every width and of fewer rows; and several blocks of k, whose sums are not written past the caches.
    for perturbed in [
        large(),
        Perturbation { registers: Some(1), rows: Some(4), ..large() },
        Perturbation { registers: Some(2), rows: Some(5), ..large() },
        Perturbation { registers: Some(3), ..large() },
        Perturbation { block: Some(3), ..large() },
    ] {
        perturbed.set();
        for cpu in cpus() {
            for offset in [0, 4, 15] {
                let what = format!("{conv:?}, {cpu:?}, {perturbed:?}, {offset} values after a line");
                Guarded::check(outputs, offset, &y, &what, |got| conv::forward(&cpu, conv, &x, &w, got));
                Guarded::check(outputs, offset, &finished, &format!("{what}: finished"), |got| {
                    conv::forward_finished(&cpu, conv, &x, (&w, None), Some(finish), got);
                });
                Guarded::check(inputs, offset, &dx, &format!("{what}: dx"), |got| {
                    conv::input_gradient(&cpu, conv, &dy, &w, got);
                });
            }
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
    large().set();
    for (shape, pool) in stem::shapes(&mut random) {
        stem::check(&mut random, shape, &pool);
    }
    let groups = |groups, conv| Conv { groups, ..conv };
    for shape in [
        square(2, 7, 20, 16, 1, 1),
        square(3, 70, 13, 12, 1, 1),
        square(2, 300, 9, 8, 1, 1),
        square(1, 5, 8, 7, 1, 1),
        square(2, 6, 10, 16, 3, 2),
        square(2, 6, 10, 9, 1, 2),
        square(2, 5, 16, 12, 3, 1),
        groups(2, square(2, 6, 12, 8, 1, 1)),
        groups(3, square(1, 6, 9, 8, 3, 2)),
        Conv { dilation: (2, 2), padding: (2, 2), ..square(1, 3, 16, 12, 3, 1) },
    ] {
        convolution(&mut random, &shape);
    }
}

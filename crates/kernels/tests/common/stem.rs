//! Normalization, a ReLU and max pooling in one pass against the definitions of the three, one after the other.

use super::common::{Odd, Random, assert_same, cpus};
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Pooled, Then, Unpool, reference};
use kinone_kernels::pool2d::{self, Pool, windows};
use kinone_kernels::sums::Images;

const EPS: f32 = 1.0e-5;

/// Images and windows over them: of one plane, of planes cut into leaves, and of leaves of several planes.
pub(crate) fn shapes(random: &mut Random) -> Vec<(Images, Pool)> {
    let mut images: Vec<[usize; 4]> = (0..25)
        .map(|_| [random.between(1, 9), random.between(1, 7), random.between(2, 20), random.between(2, 20)])
        .collect();
    images.extend([[1, 3, 67, 66], [2, 5, 80, 67], [17, 5, 2, 3], [40, 67, 5, 5], [2, 0, 3, 3]]);
    let mut shapes = Vec::new();
    for [n, c, h, w] in images {
        let [kernel, stride, dilation] = [4, 3, 2].map(|most| [0; 2].map(|_| random.between(1, most)));
        let padding = kernel.map(|k| random.between(0, k / 2));
        let count = |a: usize| windows([h, w][a], kernel[a], stride[a], padding[a], dilation[a], false);
        if let (Some(oh), Some(ow)) = (count(0), count(1)) {
            let (planes, input, output) = (n * c, [h, w], [oh, ow]);
            shapes.push((
                Images { n, c, h, w },
                Pool { planes, input, output, kernel, stride, padding, dilation },
            ));
        }
    }
    assert!(shapes.len() > 20, "most windows fit");
    shapes
}

pub(crate) fn check(random: &mut Random, shape: Images, pool: &Pool) {
    let outputs = pool.planes * pool.output[0] * pool.output[1];
    let (x, dy) = (random.values(shape.len()), random.values(outputs));
    let (gamma, beta) = (random.values(shape.c), random.values(shape.c));
    let mut wanted = [shape.len(), shape.c, shape.c, shape.c].map(Odd::poisoned);
    let [z, mean, var, invstd] = &mut wanted;
    reference::train_forward(shape, &x, &gamma, &beta, EPS, Then::Relu, z, mean, var, invstd);
    let [mut y, mut winner] = [outputs, outputs].map(Odd::poisoned);
    pool2d::reference::max(pool, z, &mut y, &mut winner);
    let mut dz = Odd::poisoned(shape.len());
    pool2d::reference::max_backward(pool, &winner, &dy, &mut dz);
    let channels = Channels { mean, invstd, gamma: &gamma };
    let gradients = || [shape.len(), shape.c, shape.c].map(Odd::poisoned);
    let mut wanted_gradients = gradients();
    let [dx, dgamma, dbeta] = &mut wanted_gradients;
    let to = Gradients { dx: Some(dx), dresidual: None, dgamma: Some(dgamma), dbeta: Some(dbeta) };
    reference::train_backward(shape, &x, Cotangent::Kept(&dz), channels, Mask::Relu(&beta), to);
    for cpu in cpus() {
        let what = format!("{shape:?}, {pool:?}, {cpu:?}");
        let mut got = [outputs, outputs, shape.c, shape.c, shape.c].map(Odd::poisoned);
        let [got_y, got_winner, got_mean, got_var, got_invstd] = &mut got;
        let to = Pooled { pool, y: got_y, winner: got_winner };
        let statistics = [&mut **got_mean, got_var, got_invstd];
        norm::train_forward_pooled(&cpu, shape, &x, (&gamma, &beta, EPS), to, statistics);
        for (got, wanted) in got.iter().zip([&y, &winner, mean, var, invstd]) {
            assert_same(got, wanted, &what);
        }
        let from = Unpool { pool, winner: &winner, dy: &dy };
        for with_dx in [true, false] {
            let mut got = gradients();
            let [dx, dgamma, dbeta] = &mut got;
            let dx = with_dx.then_some(&mut **dx);
            let to = Gradients { dx, dresidual: None, dgamma: Some(dgamma), dbeta: Some(dbeta) };
            norm::train_backward_pooled(&cpu, shape, &x, from, channels, &beta, to);
            let wanted = got.iter().zip(&wanted_gradients).skip(usize::from(!with_dx));
            wanted.for_each(|(got, wanted)| assert_same(got, wanted, &format!("{what}: gradients")));
        }
    }
}

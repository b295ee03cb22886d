//! Matrix products and convolutions equal their definitions bit for bit.

mod common;

use common::{Odd, Random, assert_same, cpus};
use kinone_kernels::conv::{self, Conv};
use kinone_kernels::gemm::{self, Extents, Matrix};

fn values(random: &mut Random, case: usize, len: usize) -> Odd {
    if case.is_multiple_of(3) { random.hostile(len, case.is_multiple_of(2)) } else { random.values(len) }
}

#[test]
fn matrix_products_equal_their_definition() {
    let mut random = Random(1);
    let cpus = cpus();
    for case in 0..60 {
        // Every tenth has more terms than a block of k.
        let long = if case % 10 == 9 { 1100 } else { 67 };
        let mut most = |limit: usize| random.between(1, limit);
        let extents = Extents { m: most(67), n: most(67), k: if case == 5 { 0 } else { most(long) } };
        let leaf = most(12);
        let Extents { m, n, k } = extents;
        let (a, b) = (values(&mut random, case, m * k), values(&mut random, case, k * n));
        let (left, right) = match case % 4 {
            0 => (Matrix::new(&a, k), Matrix::new(&b, n)),
            1 => (Matrix::new(&a, m).transposed(), Matrix::new(&b, n)),
            2 => (Matrix::new(&a, k), Matrix::new(&b, k).transposed()),
            _ => (Matrix::new(&a, m).transposed(), Matrix::new(&b, k).transposed()),
        };
        let (mut chain, mut leaves) = (Odd::poisoned(m * n), Odd::poisoned(m * n));
        gemm::reference::multiply(extents, left, right, &mut chain);
        gemm::reference::multiply_in_leaves(extents, leaf, left, right, &mut leaves);
        for cpu in &cpus {
            let what = format!("{extents:?} in leaves of {leaf}, {cpu:?}");
            let mut c = Odd::poisoned(m * n);
            gemm::multiply_matrices(cpu, extents, left, right, &mut c);
            assert_same(&chain, &c, &what);
            let mut c = Odd::poisoned(m * n);
            gemm::multiply_in_leaves(cpu, extents, leaf, left, right, &mut c);
            assert_same(&leaves, &c, &what);
        }
    }
}

/// Convolutions of all kinds: extents 1 to 67, few enough terms for the definition to be quick.
fn convolutions(random: &mut Random) -> Vec<Conv> {
    let mut convolutions = Vec::new();
    while convolutions.len() < 70 {
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
    // More than 4096 positions an image; more terms than a block of k; a stride beyond the kernel.
    let plain = Conv {
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
    convolutions.push(plain);
    convolutions.push(Conv { n: 3, c: 67, input: (4, 4), o: 17, ..plain });
    convolutions.push(Conv { n: 9, c: 3, input: (9, 8), o: 5, kernel: (2, 1), stride: (3, 4), ..plain });
    convolutions
}

#[test]
fn convolutions_equal_their_definition() {
    let mut random = Random(2);
    let cpus = cpus();
    for (case, shape) in convolutions(&mut random).into_iter().enumerate() {
        let (oh, ow) = shape.output();
        let inputs = shape.n * shape.c * shape.input.0 * shape.input.1;
        let weights = shape.o * (shape.c / shape.groups) * shape.kernel.0 * shape.kernel.1;
        let outputs = shape.n * shape.o * oh * ow;
        let (x, w) = (values(&mut random, case, inputs), values(&mut random, case + 1, weights));
        let dy = values(&mut random, case + 2, outputs);
        let (mut y, mut dx, mut dw) = (Odd::poisoned(outputs), Odd::poisoned(inputs), Odd::poisoned(weights));
        conv::reference::forward(&shape, &x, &w, &mut y);
        conv::reference::input_gradient(&shape, &dy, &w, &mut dx);
        conv::reference::weight_gradient(&shape, &x, &dy, &mut dw);
        for cpu in &cpus {
            let what = format!("{shape:?}, {cpu:?}");
            let mut got = Odd::poisoned(outputs);
            conv::forward(cpu, &shape, &x, &w, &mut got);
            assert_same(&y, &got, &format!("forward, {what}"));
            let mut got = Odd::poisoned(inputs);
            conv::input_gradient(cpu, &shape, &dy, &w, &mut got);
            assert_same(&dx, &got, &format!("input gradient, {what}"));
            let mut got = Odd::poisoned(weights);
            conv::weight_gradient(cpu, &shape, &x, &dy, &mut got);
            assert_same(&dw, &got, &format!("weight gradient, {what}"));
        }
    }
}

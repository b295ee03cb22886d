//! Kernels on random shapes against the plain loops, and predictions in batches of any size.

use crate::harness::{Fault, Place, Whole, is_full, small};
use kinone::core::rng::Stream;
use kinone::kernels::conv::{self, Conv};
use kinone::kernels::gemm::{self, Extents, Matrix};
use kinone::kernels::math::canonical_bits;
use kinone::kernels::norm::{self, Then};
use kinone::kernels::pool2d::{self, Pool};
use kinone::kernels::sums::Images;
use kinone::kernels::{Cpu, Isa, rows, sums};
use kinone::train::{evaluate, prepare};
use kinone::xray::Part;

/// Numbers of one case.
struct Draws(Stream, u64);

impl Draws {
    fn new(case: u64) -> Draws {
        Draws(Stream::new(case, "shapes"), 0)
    }

    /// A number of `low..=high`.
    fn between(&mut self, low: u32, high: u32) -> usize {
        self.1 += 1;
        (low + self.0.below(self.1, high - low + 1)) as usize
    }

    /// Values of both signs, with zeros of both signs and a denormal strewn in, `offset` f32 behind where the
    /// allocator begins.
    fn values(&mut self, offset: usize, len: usize) -> Vec<f32> {
        self.1 += 1;
        let stream = self.0.at(self.1 as u32, 1);
        let value = |k: u64| match stream.below(k, 40) {
            0 => 0.0,
            1 => -0.0,
            2 => f32::from_bits(1 + stream.below(k + 1, 1000)),
            _ => (stream.uniform(2 * k) - 0.5) * 8.0,
        };
        (0..(offset + len) as u64).map(value).collect()
    }
}

fn same(what: &str, cpu: &Cpu, got: &[f32], wanted: &[f32]) {
    let differs = got.iter().zip(wanted).position(|(g, w)| canonical_bits(*g) != canonical_bits(*w));
    assert!(differs.is_none() && got.len() == wanted.len(), "{what} on {cpu:?}: value {differs:?}");
}

fn cpus() -> Vec<Cpu> {
    let sets = Isa::present().into_iter();
    sets.flat_map(|isa| [1, 3].map(|threads| Cpu::new(isa, threads).unwrap())).collect()
}

fn products(draws: &mut Draws, offset: usize, cpus: &[Cpu]) {
    let [m, n, k] = [0; 3].map(|_| draws.between(1, 67));
    let (a, b) = (draws.values(offset, m * k), draws.values(offset, k * n));
    let extents = Extents { m, n, k };
    let (a, b) = (Matrix::new(&a[offset..], k), Matrix::new(&b[offset..], n));
    let (mut wanted, mut leaves) = (vec![0.0; m * n], vec![0.0; m * n]);
    gemm::reference::multiply(extents, a, b, &mut wanted);
    gemm::reference::multiply_in_leaves(extents, 7, a, b, &mut leaves);
    for cpu in cpus {
        let mut got = vec![f32::NAN; offset + m * n];
        gemm::multiply_matrices(cpu, extents, a, b, &mut got[offset..]);
        same(&format!("{extents:?}"), cpu, &got[offset..], &wanted);
        gemm::multiply_in_leaves(cpu, extents, 7, a, b, &mut got[offset..]);
        same(&format!("{extents:?} in leaves"), cpu, &got[offset..], &leaves);
    }
}

fn convolutions(draws: &mut Draws, offset: usize, cpus: &[Cpu]) {
    // At times one extent up to 67, so that the plain loop ends some time; the others smaller.
    let long = draws.between(0, 3);
    let mut extent = |axis: usize, most: u32| draws.between(1, if axis == long { 67 } else { most });
    let (n, c, o, h, w) = (extent(9, 3), extent(0, 7), extent(1, 7), extent(2, 13), extent(3, 13));
    let kernel = [0; 2].map(|_| draws.between(1, 5));
    let [stride, dilation] = [0; 2].map(|_| [0; 2].map(|_| draws.between(1, 2)));
    let padding = [0; 2].map(|_| draws.between(0, 2));
    let pair = |[a, b]: [usize; 2]| (a, b);
    let conv = Conv {
        n,
        c,
        input: (h, w),
        o,
        kernel: pair(kernel),
        stride: pair(stride),
        padding: pair(padding),
        dilation: pair(dilation),
        groups: 1,
    };
    let (oh, ow) = conv.output();
    if oh * ow == 0 {
        return;
    }
    let (size, weights, outputs) = (n * c * h * w, o * c * kernel[0] * kernel[1], n * o * oh * ow);
    let (x, f, dy) =
        (draws.values(offset, size), draws.values(offset, weights), draws.values(offset, outputs));
    let (x, f, dy) = (&x[offset..], &f[offset..], &dy[offset..]);
    let (mut y, mut dx, mut df) = (vec![0.0; outputs], vec![0.0; size], vec![0.0; weights]);
    conv::reference::forward(&conv, x, f, &mut y);
    conv::reference::input_gradient(&conv, dy, f, &mut dx);
    conv::reference::weight_gradient(&conv, x, dy, &mut df);
    for cpu in cpus {
        let mut got = vec![f32::NAN; offset + outputs.max(size).max(weights)];
        let got = &mut got[offset..];
        conv::forward(cpu, &conv, x, f, &mut got[..outputs]);
        same(&format!("{conv:?}"), cpu, &got[..outputs], &y);
        conv::input_gradient(cpu, &conv, dy, f, &mut got[..size]);
        same(&format!("input gradient of {conv:?}"), cpu, &got[..size], &dx);
        conv::weight_gradient(cpu, &conv, x, dy, &mut got[..weights]);
        same(&format!("weight gradient of {conv:?}"), cpu, &got[..weights], &df);
    }
}

fn planes(draws: &mut Draws, offset: usize, cpus: &[Cpu]) {
    let (n, c) = (draws.between(1, 5), draws.between(1, 9));
    let [h, w] = [0; 2].map(|_| draws.between(1, 67));
    let shape = Images { n, c, h, w };
    let len = shape.len();
    let (x, gamma, beta) = (draws.values(offset, len), draws.values(offset, c), draws.values(offset, c));
    let (x, gamma, beta) = (&x[offset..], &gamma[offset..], &beta[offset..]);
    let [mut y, mut mean, mut var, mut invstd] = [len, c, c, c].map(|len| vec![0.0; len]);
    let eps = 1e-5;
    norm::reference::train_forward(
        shape,
        x,
        gamma,
        beta,
        eps,
        Then::Relu,
        &mut y,
        &mut mean,
        &mut var,
        &mut invstd,
    );
    let pool = Pool {
        planes: n * c,
        input: [h, w],
        output: [h.div_ceil(2), w.div_ceil(2)],
        kernel: [3, 3],
        stride: [2, 2],
        padding: [1, 1],
        dilation: [1, 1],
    };
    let places = n * c * pool.output[0] * pool.output[1];
    let (mut most, mut winner) = (vec![0.0; places], vec![0.0; places]);
    pool2d::reference::max(&pool, x, &mut most, &mut winner);
    for cpu in cpus {
        let mut out = [len, c, c, c].map(|len| vec![f32::NAN; offset + len]);
        let [a, b, d, e] = &mut out;
        let (a, b, d, e) = (&mut a[offset..], &mut b[offset..], &mut d[offset..], &mut e[offset..]);
        norm::train_forward(cpu, shape, x, gamma, beta, eps, Then::Relu, a, b, d, e);
        for (got, wanted) in out.iter().zip([&y, &mean, &var, &invstd]) {
            same(&format!("batch norm of {shape:?}"), cpu, &got[offset..], wanted);
        }
        let [mut a, mut b] = [0; 2].map(|_| vec![f32::NAN; offset + places]);
        pool2d::max(cpu, &pool, x, &mut a[offset..], &mut b[offset..]);
        same(&format!("{pool:?}"), cpu, &a[offset..], &most);
        same(&format!("winners of {pool:?}"), cpu, &b[offset..], &winner);
    }
}

fn fibres(draws: &mut Draws, offset: usize, cpus: &[Cpu]) {
    let [outer, len, inner] = [0; 3].map(|_| draws.between(1, 67));
    let all = outer * len * inner;
    let x = draws.values(offset, all);
    let x = &x[offset..];
    let mut wanted = vec![0.0; all];
    rows::reference::softmax(outer, len, inner, x, &mut wanted);
    let sum = sums::reference::sum(all, |k| f64::from(x[k]));
    for cpu in cpus {
        let mut got = vec![f32::NAN; offset + all];
        rows::softmax(cpu, outer, len, inner, x, &mut got[offset..]);
        same(&format!("softmax of {outer} x {len} x {inner}"), cpu, &got[offset..], &wanted);
        assert_eq!(sums::sum(cpu, x).to_bits(), sum.to_bits(), "sum of {all} on {cpu:?}");
    }
}

#[test]
fn fault_j15_random_shapes() {
    let fault = Fault::new("J15");
    let cpus = cpus();
    let cases = if is_full() { 300 } else { 12 };
    for case in 0..cases {
        let mut draws = Draws::new(case);
        let offset = draws.between(0, 15);
        products(&mut draws, offset, &cpus);
        convolutions(&mut draws, offset, &cpus);
        planes(&mut draws, offset, &cpus);
        fibres(&mut draws, offset, &cpus);
    }
    fault.survived(
        4 * cases as usize,
        "products, convolutions with both gradients, batch norm, max pooling, softmax and sums on extents drawn from 1 to 67, at \
         every alignment, against their loops, on every instruction set",
    );
}

#[test]
fn fault_j13_validation_and_its_batches() {
    let fault = Fault::new("J13");
    let place = &Whole::get().place;
    let (model, header) = prepare::trained(&place.path("run/checkpoints/best.safetensors")).unwrap();
    let (_, config) = kinone::runs::directory::RunDirectory::open(&place.path("run")).unwrap();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let preprocessing = prepare::preprocessing(&header);
    // Each image alone, and in batches of several sizes, the last of each shorter.
    let table = preprocessing.table();
    let images: Vec<Vec<f32>> = (0..data.entries().len())
        .map(|index| data.pixels(index).iter().map(|u| table[usize::from(*u)]).collect())
        .collect();
    let logits = |batch: &[Vec<f32>]| {
        let logits = evaluate::logits(&model, &batch.concat(), preprocessing.size).unwrap();
        logits.data().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let alone: Vec<u32> = images.chunks(1).flat_map(logits).collect();
    let mut tried = 0;
    for cpu in cpus() {
        for size in [1, 2, 7, 64, 100] {
            let found: Vec<u32> = cpu.scope(|| images.chunks(size).flat_map(logits).collect());
            assert!(found == alone, "batches of {size} on {cpu:?}");
            tried += 1;
        }
    }
    // The steps are those of a run that validates on other images, or on none: the same samples, losses, weights.
    let steps = |place: &Place| {
        let text = place.text("run/chain.jsonl");
        let links = text.lines().skip(1).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        links
            .map(|link| [link["samples"].clone(), link["loss"].clone(), link["state"].clone()])
            .collect::<Vec<_>>()
    };
    let without = without_validation();
    let with = Place::new();
    with.json(&small(&["--run-dir=run"]));
    assert_eq!(without, steps(&with));
    fault.survived(
        tried + 1,
        "every image alone and in batches of 2, 7, 64, 100 on every instruction set: equal logits; steps without any validation: equal",
    );
}

/// What the steps of the harness's run come to where nobody looks at the validation part.
fn without_validation() -> Vec<[serde_json::Value; 3]> {
    use kinone::train::course::{Course, Plan, Validation};
    let (_, config) = kinone::runs::directory::RunDirectory::open(&Whole::get().place.path("run")).unwrap();
    let data = prepare::dataset(&config, &Part::ALL, &Cpu::current(), &|_, _| {}).unwrap();
    let plan = Plan::new(&config, &data).unwrap();
    let mut course = Course::begin(&plan, prepare::model(&config).unwrap());
    let mut steps = Vec::new();
    while !course.is_finished() {
        while let Some(made) = course.next_step().unwrap() {
            let link = serde_json::to_value(course.link(&Cpu::current(), &made)).unwrap();
            steps.push([link["samples"].clone(), link["loss"].clone(), link["state"].clone()]);
        }
        course.end_epoch(&Validation::default());
    }
    steps
}

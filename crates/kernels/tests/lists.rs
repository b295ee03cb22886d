//! While threads work, no list grows: to enlarge a block of memory locks the heap it came from, which is often another
//! thread's, and then one sleeps until the other is done. In a file of its own, since all that is allocated is counted.

mod common;

use common::{Odd, Random, square};
use kinone_kernels::conv::winograd::{self, Tile, Winograd};
use kinone_kernels::conv::{self, Conv, Finish};
use kinone_kernels::norm::{self, Channels, Cotangent, Gradients, Mask, Pooled, Then, Unpool};
use kinone_kernels::pool2d::Pool;
use kinone_kernels::sums::Images;
use kinone_kernels::{Cpu, Isa};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static GROWN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OF_TEST: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: it hands everything on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !OF_TEST.get() {
            GROWN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Whether nothing grows on other threads than this one during `work`, once there is room for what is kept from one time
/// to the next.
fn grows_no_more(mut work: impl FnMut()) -> bool {
    OF_TEST.set(true);
    (0..20).any(|_| {
        let before = GROWN.load(Ordering::Relaxed);
        work();
        GROWN.load(Ordering::Relaxed) == before
    })
}

/// The shares of a thread that does nothing are taken by the others, so several are watched.
fn cpu(isa: Isa) -> Cpu {
    Cpu::new(isa, 4).unwrap()
}

fn convolution(random: &mut Random, isa: Isa, conv: &Conv) {
    let (oh, ow) = conv.output();
    let (inputs, outputs) = (conv.n * conv.c * conv.input.0 * conv.input.1, conv.n * conv.o * oh * ow);
    let (dense, dy) = (random.values(inputs), random.values(outputs));
    let mut sparse = random.values(inputs);
    sparse.iter_mut().for_each(|x| *x = if *x > 0.0 { *x } else { 0.0 });
    let weights = conv.o * conv.c / conv.groups * conv.kernel.0 * conv.kernel.1;
    let w = random.values(weights);
    let (scale, shift) = (random.values(conv.o), random.values(conv.o));
    let finish = Finish { scale: &scale, shift: &shift, residual: None, relu: true };
    let [mut y, mut dx, mut dw] = [outputs, inputs, weights].map(Odd::poisoned);
    let cpu = cpu(isa);
    for (kind, x) in [("dense", &dense), ("sparse", &sparse)] {
        let what = format!("{conv:?}, {isa:?}, {kind}");
        assert!(grows_no_more(|| conv::forward(&cpu, conv, x, &w, &mut y)), "{what}: forward");
        let finished = || conv::forward_finished(&cpu, conv, x, (&w, None), Some(finish), &mut y);
        assert!(grows_no_more(finished), "{what}: finished");
        assert!(grows_no_more(|| conv::input_gradient(&cpu, conv, &dy, &w, &mut dx)), "{what}: dx");
        assert!(grows_no_more(|| conv::weight_gradient(&cpu, conv, x, &dy, &mut dw)), "{what}: dw");
    }
    if (conv.kernel, conv.stride) == ((3, 3), (1, 1)) {
        let (x, input) = (&dense, conv.input);
        let minimal =
            Winograd { n: conv.n, c: conv.c, input, o: conv.o, padding: conv.padding, tile: Tile::Two };
        let what = format!("{minimal:?}, {isa:?}");
        assert!(grows_no_more(|| winograd::forward(&cpu, &minimal, x, &w, &mut y)), "{what}: forward");
        let input_gradient = || winograd::input_gradient(&cpu, &minimal, &dy, &w, &mut dx);
        assert!(grows_no_more(input_gradient), "{what}: dx");
        let weight_gradient = || winograd::weight_gradient(&cpu, &minimal, x, &dy, &mut dw);
        assert!(grows_no_more(weight_gradient), "{what}: dw");
    }
}

fn normalization(random: &mut Random, isa: Isa, shape: Images, pool: &Pool) {
    let cpu = cpu(isa);
    let outputs = pool.planes * pool.output[0] * pool.output[1];
    let [x, residual] = [0; 2].map(|_| random.values(shape.len()));
    let (gamma, beta) = (random.values(shape.c), random.values(shape.c));
    let [mut y, mut over, mut dx] = [0; 3].map(|_| random.values(shape.len()));
    let [mut mean, mut var, mut invstd] = [0; 3].map(|_| Odd::poisoned(shape.c));
    let what = format!("{shape:?}, {isa:?}");
    for then in [Then::Relu, Then::AddRelu(&residual)] {
        let forward = || {
            norm::train_forward(
                &cpu,
                shape,
                &x,
                &gamma,
                &beta,
                1.0e-5,
                then,
                &mut y,
                &mut mean,
                &mut var,
                &mut invstd,
            );
        };
        assert!(grows_no_more(forward), "{what}: forward");
    }
    let channels = Channels { mean: &mean, invstd: &invstd, gamma: &gamma };
    for mask in [Mask::Relu(&beta), Mask::AddRelu(&y)] {
        let backward = || {
            let to = matches!(mask, Mask::AddRelu(_)).then_some(&mut *dx);
            let gradients = Gradients { dx: to, ..Gradients::default() };
            norm::train_backward(&cpu, shape, &x, Cotangent::Spent(&mut over), channels, mask, gradients);
        };
        assert!(grows_no_more(backward), "{what}: backward");
    }
    let ([mut y, mut winner], dy) = ([0; 2].map(|_| random.values(outputs)), random.values(outputs));
    let mut statistics = [0; 3].map(|_| Odd::poisoned(shape.c));
    let forward = || {
        let statistics = statistics.each_mut().map(|vector| &mut **vector);
        let to = Pooled { pool, y: &mut y, winner: &mut winner };
        norm::train_forward_pooled(&cpu, shape, &x, (&gamma, &beta, 1.0e-5), to, statistics);
    };
    assert!(grows_no_more(forward), "{what}: pooled");
    let backward = || {
        let from = Unpool { pool, winner: &winner, dy: &dy };
        let gradients = Gradients { dx: Some(&mut dx), ..Gradients::default() };
        norm::train_backward_pooled(&cpu, shape, &x, from, channels, &beta, gradients);
    };
    assert!(grows_no_more(backward), "{what}: pooled backward");
}

#[test]
fn no_list_grows_where_threads_work() {
    let mut random = Random(1);
    let convs = [
        square(2, 1, 64, 64, 7, 2),
        square(3, 64, 64, 28, 3, 1),
        square(2, 64, 128, 28, 3, 2),
        square(2, 64, 128, 28, 1, 2),
        square(1, 128, 128, 14, 3, 1),
        square(4, 256, 64, 14, 1, 1),
        square(2, 64, 256, 28, 1, 1),
        square(2, 256, 256, 7, 3, 1),
        square(8, 128, 512, 7, 1, 1),
    ];
    for isa in Isa::present() {
        for shape in &convs {
            convolution(&mut random, isa, shape);
        }
        for [n, c, size] in [[4, 64, 56], [8, 256, 14], [16, 512, 7]] {
            let half = size / 2;
            let pool = Pool {
                planes: n * c,
                input: [size; 2],
                output: [half; 2],
                kernel: [2; 2],
                stride: [2; 2],
                padding: [0; 2],
                dilation: [1; 2],
            };
            normalization(&mut random, isa, Images { n, c, h: size, w: size }, &pool);
        }
    }
}

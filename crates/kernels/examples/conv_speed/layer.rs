//! The convolutions that are measured, and by which algorithms.

use crate::peak::fastest;
use kinone_kernels::Cpu;
use kinone_kernels::conv::winograd::{self, Tile, Winograd};
use kinone_kernels::conv::{self, Conv};
use kinone_kernels::memory::Buffer;
use std::fmt;

/// Images.
pub(crate) const BATCH: usize = 32;

/// A convolution of the networks, and how often it stands in ResNet-18 and in ResNet-50.
pub(crate) struct Layer {
    pub(crate) stage: String,
    conv: Conv,
    pub(crate) counts: [usize; 2],
}

impl Layer {
    /// `layer2 3x3/2 64-128`
    pub(crate) fn name(&self) -> String {
        let Conv { c, o, kernel, stride, .. } = self.conv;
        let stride = if stride.0 > 1 { format!("/{}", stride.0) } else { String::new() };
        format!("{} {k}x{k}{stride} {c}-{o}", self.stage, k = kernel.0)
    }

    /// Operations: two a multiply-add, the same for the outputs and both gradients.
    pub(crate) fn work(&self) -> f64 {
        let conv = &self.conv;
        let (oh, ow) = conv.output();
        2.0 * (conv.n * conv.o * oh * ow * conv.c * conv.kernel.0 * conv.kernel.1) as f64
    }

    /// GFLOP/s of forward pass, input gradient and weight gradient; nothing where the algorithm does not apply.
    pub(crate) fn speeds(&self, algorithm: Algorithm, cpu: &Cpu, seconds: f64) -> Option<[f64; 3]> {
        let conv = &self.conv;
        let tile = match algorithm {
            // The images are no activations.
            Algorithm::HalfZero if self.stage == "stem" => return None,
            Algorithm::Direct | Algorithm::HalfZero => None,
            Algorithm::Winograd(_) if (conv.kernel, conv.stride) != ((3, 3), (1, 1)) => return None,
            Algorithm::Winograd(tile) => Some(tile),
        };
        let (oh, ow) = conv.output();
        let mut x = values(conv.n * conv.c * conv.input.0 * conv.input.1);
        let mut w = values(conv.o * conv.c * conv.kernel.0 * conv.kernel.1);
        let mut y = values(conv.n * conv.o * oh * ow);
        if algorithm == Algorithm::HalfZero {
            // Strewn as chance would.
            let multiply = |k: u64| k.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for (k, value) in x.iter_mut().enumerate() {
                let mixed = multiply(k as u64);
                if multiply(mixed ^ mixed >> 32) >> 63 == 0 {
                    *value = 0.0;
                }
            }
        }
        let work = self.work();
        Some(match tile {
            None => {
                let forward = fastest(work, seconds, || conv::forward(cpu, conv, &x, &w, &mut y));
                // Before the pixels are written over.
                let weight = fastest(work, seconds, || conv::weight_gradient(cpu, conv, &x, &y, &mut w));
                [forward, fastest(work, seconds, || conv::input_gradient(cpu, conv, &y, &w, &mut x)), weight]
            }
            Some(tile) => {
                let Conv { n, c, input, o, padding, .. } = *conv;
                let conv = &Winograd { tile, n, c, input, o, padding };
                [
                    fastest(work, seconds, || winograd::forward(cpu, conv, &x, &w, &mut y)),
                    fastest(work, seconds, || winograd::input_gradient(cpu, conv, &y, &w, &mut x)),
                    fastest(work, seconds, || winograd::weight_gradient(cpu, conv, &x, &y, &mut w)),
                ]
            }
        })
    }
}

/// By which definition a layer is computed, and of which pixels.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Algorithm {
    Direct,
    /// Direct, of pixels half of which are zero, as behind a relu.
    HalfZero,
    Winograd(Tile),
}

impl Algorithm {
    pub(crate) const ALL: [Algorithm; 4] = [
        Algorithm::Direct,
        Algorithm::HalfZero,
        Algorithm::Winograd(Tile::Two),
        Algorithm::Winograd(Tile::Four),
    ];

    /// The name of a row; those of the direct algorithm stand for the layer itself.
    pub(crate) fn indented(self, name: &str) -> String {
        if self == Algorithm::Direct { name.to_owned() } else { format!("  {self}") }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Algorithm::Direct => f.write_str("direct"),
            Algorithm::HalfZero => f.write_str("half zero"),
            Algorithm::Winograd(tile) => write!(f, "F({side}x{side})", side = tile.side()),
        }
    }
}

/// Every distinct convolution of ResNet-18 and ResNet-50 on images of one channel, in the order of the networks.
pub(crate) fn layers(size: usize) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for (network, blocks) in [[2, 2, 2, 2], [3, 4, 6, 3]].into_iter().enumerate() {
        let mut add = |stage: &str, side: usize, c: usize, o: usize, kernel: usize, stride: usize| {
            let conv = Conv {
                n: BATCH,
                c,
                input: (side, side),
                o,
                kernel: (kernel, kernel),
                stride: (stride, stride),
                padding: (kernel / 2, kernel / 2),
                dilation: (1, 1),
                groups: 1,
            };
            match layers.iter_mut().find(|layer| layer.conv == conv) {
                Some(layer) => layer.counts[network] += 1,
                None => {
                    let mut counts = [0; 2];
                    counts[network] = 1;
                    layers.push(Layer { stage: stage.to_owned(), conv, counts });
                }
            }
        };
        add("stem", size, 1, 64, 7, 2);
        // The pool after the stem halves once more.
        let (mut side, mut inputs) = (size.div_ceil(4), 64);
        for (index, blocks) in blocks.into_iter().enumerate() {
            let stage = format!("layer{}", index + 1);
            let width = 64 << index;
            let outputs = if network == 0 { width } else { 4 * width };
            for block in 0..blocks {
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                let half = side.div_ceil(stride);
                if network == 0 {
                    add(&stage, side, inputs, width, 3, stride);
                    add(&stage, half, width, width, 3, 1);
                } else {
                    add(&stage, side, inputs, width, 1, 1);
                    add(&stage, side, width, width, 3, stride);
                    add(&stage, half, width, outputs, 1, 1);
                }
                if stride != 1 || inputs != outputs {
                    add(&stage, side, inputs, outputs, 1, stride);
                }
                (side, inputs) = (half, outputs);
            }
        }
    }
    layers
}

/// Some values, in memory as the trainer has it: aligned to lines of the cache, in huge pages.
fn values(len: usize) -> Buffer {
    let mut values = Buffer::take(len);
    for (k, value) in values.iter_mut().enumerate() {
        *value = ((k * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
    }
    values
}

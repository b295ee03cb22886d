//! Initial values: each a pure function of a seed and the parameter's name.
//!
//! A parameter's values do not depend on how many others there are, nor on the order in which they are made.

use kinone_core::array::Array;
use kinone_core::rng::Stream;
use kinone_core::shape::Shape;
use kinone_kernels::{Cpu, Task, math};

/// Where initial values come from: a seed and a dotted path that grows with the modules.
#[derive(Clone, Debug)]
pub struct Init {
    seed: u64,
    path: String,
}

impl Init {
    /// The root of a model.
    pub fn new(seed: u64) -> Init {
        Init { seed, path: String::new() }
    }

    /// The place of a module inside this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Init {
        let dot = if self.path.is_empty() { "" } else { "." };
        Init { seed: self.seed, path: format!("{}{dot}{name}", self.path) }
    }

    fn stream(&self) -> Stream {
        Stream::new(self.seed, &format!("init/{}", self.path))
    }

    /// Uniform in `[-bound, bound)`.
    pub fn uniform(&self, shape: impl Into<Shape>, bound: f32) -> Array {
        fill(shape.into(), Uniform { stream: self.stream(), bound })
    }

    /// Normal of mean 0 (Box and Muller, 1958): `std·√(−2 log u)·cos(2πv)`, u in (0, 1], v in [0, 1).
    pub fn normal(&self, shape: impl Into<Shape>, std: f32) -> Array {
        fill(shape.into(), Normal { stream: self.stream(), std })
    }

    /// Normal with the variance 2/fan that keeps the size of a signal behind a ReLU (He et al., ICCV 2015,
    /// equation 10 with the fan-in, 14 with the fan-out).
    pub fn kaiming_normal(&self, shape: impl Into<Shape>, fan: Fan) -> Array {
        let shape = shape.into();
        let std = (2.0 / fan.of(&shape) as f32).sqrt();
        self.normal(shape, std)
    }

    /// Uniform with the same variance: bound √(6/fan).
    pub fn kaiming_uniform(&self, shape: impl Into<Shape>, fan: Fan) -> Array {
        let shape = shape.into();
        let bound = (6.0 / fan.of(&shape) as f32).sqrt();
        self.uniform(shape, bound)
    }

    /// Normal with variance 2/(fan-in + fan-out) (Glorot and Bengio, AISTATS 2010, equation 12).
    pub fn xavier_normal(&self, shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let both = Fan::In.of(&shape) + Fan::Out.of(&shape);
        self.normal(shape, (2.0 / both as f32).sqrt())
    }

    /// Uniform with the same variance: bound √(6/(fan-in + fan-out)) (equation 16 there).
    pub fn xavier_uniform(&self, shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let both = Fan::In.of(&shape) + Fan::Out.of(&shape);
        self.uniform(shape, (6.0 / both as f32).sqrt())
    }
}

/// Which side of a weight `[out, in, …]` is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// Terms of one output: `in · …`.
    In,
    /// Outputs that one input reaches: `out · …`.
    Out,
}

impl Fan {
    /// The count for a weight of this shape, at least 1.
    pub fn of(self, shape: &Shape) -> usize {
        let taps: usize = shape.iter().skip(2).product();
        let channels = match self {
            Fan::In => shape.get(1),
            Fan::Out => shape.first(),
        };
        (channels.copied().unwrap_or(1) * taps).max(1)
    }
}

/// A value for each index.
trait Draw: Copy + Sync {
    fn draw(&self, k: u64) -> f32;
}

#[derive(Clone, Copy)]
struct Uniform {
    stream: Stream,
    bound: f32,
}

impl Draw for Uniform {
    #[inline(always)]
    fn draw(&self, k: u64) -> f32 {
        (2.0 * self.stream.uniform(k) - 1.0) * self.bound
    }
}

#[derive(Clone, Copy)]
struct Normal {
    stream: Stream,
    std: f32,
}

impl Draw for Normal {
    #[inline(always)]
    fn draw(&self, k: u64) -> f32 {
        let u = 1.0 - self.stream.uniform(2 * k);
        let turn = std::f32::consts::TAU * self.stream.uniform(2 * k + 1);
        self.std * ((-2.0 * math::log(u)).sqrt() * math::cos(turn))
    }
}

struct Fill<'a, D> {
    draw: D,
    first: usize,
    out: &'a mut [f32],
}

impl<D: Draw> Task for Fill<'_, D> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (k, x) in self.out.iter_mut().enumerate() {
            *x = self.draw.draw((self.first + k) as u64);
        }
    }
}

fn fill(shape: Shape, draw: impl Draw) -> Array {
    let cpu = Cpu::current();
    let mut array = Array::uninitialized(shape);
    let len = array.data().len();
    cpu.for_slices(len, 4096, &mut [Some(array.data_mut())], |first, parts| {
        for out in parts.iter_mut().flatten() {
            cpu.vectorize(Fill { draw, first, out });
        }
    });
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance within five standard errors of what is claimed.
    fn moments(values: &[f32], variance: f64) {
        let n = values.len() as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for x in values {
            sum += f64::from(*x);
            squares += f64::from(*x) * f64::from(*x);
        }
        assert!((sum / n).abs() < 5.0 * (variance / n).sqrt());
        // The variance of a square is at most 2σ⁴ for a normal, less for a uniform variable.
        assert!((squares / n - variance).abs() < 5.0 * variance * (2.0 / n).sqrt());
    }

    #[test]
    fn the_variances_are_those_of_the_papers() {
        let init = Init::new(3).at("layer1").at(0).at("weight");
        let shape = [64, 32, 3, 3];
        moments(init.kaiming_normal(shape, Fan::Out).data(), 2.0 / (64.0 * 9.0));
        moments(init.kaiming_uniform(shape, Fan::In).data(), 2.0 / (32.0 * 9.0));
        moments(init.xavier_normal(shape).data(), 2.0 / (96.0 * 9.0));
        moments(init.xavier_uniform(shape).data(), 2.0 / (96.0 * 9.0));
    }

    #[test]
    fn names_and_seeds_separate_the_draws() {
        let draw = |seed, name: &str| Init::new(seed).at(name).normal([8], 1.0).data().to_vec();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}

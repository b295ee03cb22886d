//! What the checks run an operator on: its attributes, and inputs drawn from Philox.

use crate::rng::Stream;
use crate::shape::Shape;

/// One operator value with its inputs.
#[derive(Clone, Debug)]
pub struct Case<O> {
    /// What is special about it.
    pub name: &'static str,
    /// The operator with its attributes.
    pub operator: O,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Large cases compare bits alone: derivatives are proved on small ones.
    pub bits_only: bool,
}

impl<O> Case<O> {
    /// A case for every check.
    pub fn new(name: &'static str, operator: O, inputs: impl Into<Vec<Input>>) -> Case<O> {
        Case { name, operator, inputs: inputs.into(), bits_only: false }
    }

    /// The same case for the comparison of bits alone.
    pub fn bits_only(self) -> Case<O> {
        Case { bits_only: true, ..self }
    }
}

/// How to draw one input. Every value is exact in f32.
#[derive(Clone, Debug)]
pub struct Input {
    /// The shape.
    pub shape: Shape,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Uniform { low: f32, high: f32, avoid: Vec<f32> },
    Distinct,
    Classes(u32),
}

/// How far a value stays from a kink: beyond the reach of the central difference (h = 10⁻³) of an input.
const MARGIN: f32 = 0.02;

impl Input {
    /// Uniform in `[-2, 2)`.
    pub fn real(shape: impl Into<Shape>) -> Input {
        Input::uniform(shape, -2.0, 2.0)
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(shape: impl Into<Shape>, low: f32, high: f32) -> Input {
        Input { shape: shape.into(), kind: Kind::Uniform { low, high, avoid: Vec::new() } }
    }

    /// The same, kept away from these points, where the derivative jumps.
    pub fn avoiding(self, points: &[f32]) -> Input {
        match self.kind {
            Kind::Uniform { low, high, .. } => {
                Input { kind: Kind::Uniform { low, high, avoid: points.to_vec() }, ..self }
            }
            Kind::Distinct | Kind::Classes(_) => self,
        }
    }

    /// Values of which no two are closer than 1/64: a random order of multiples of 1/64 about zero.
    pub fn distinct(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), kind: Kind::Distinct }
    }

    /// Integers in `0..classes`: labels and masks.
    pub fn classes(shape: impl Into<Shape>, classes: u32) -> Input {
        Input { shape: shape.into(), kind: Kind::Classes(classes) }
    }

    /// Whether NaN, infinities and the like may stand in for its values.
    pub fn admits_special_values(&self) -> bool {
        !matches!(self.kind, Kind::Classes(_))
    }

    /// The values: a pure function of the stream.
    pub fn draw(&self, stream: &Stream) -> Vec<f32> {
        let size = self.shape.size();
        match &self.kind {
            Kind::Uniform { low, high, avoid } => (0..size as u64)
                .map(|k| {
                    let mut x = low + (high - low) * stream.uniform(k);
                    for point in avoid {
                        if (x - point).abs() < MARGIN {
                            x = if x < *point { point - MARGIN } else { point + MARGIN };
                        }
                    }
                    x
                })
                .collect(),
            Kind::Distinct => {
                stream.permutation(size).iter().map(|&k| (k as f32 - (size / 2) as f32) / 64.0).collect()
            }
            Kind::Classes(classes) => (0..size as u64).map(|k| stream.below(k, *classes) as f32).collect(),
        }
    }
}

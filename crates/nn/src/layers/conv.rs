//! Convolution as a layer.

use super::BatchNorm2d;
use crate::init::{Fan, Init};
use crate::module::Module;
use crate::pass::Pass;
use crate::state::{Parameter, Visitor};
use kinone_core::ops::{Conv2d as Operator, Conv2dWinograd, Convolution};
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_kernels::conv::winograd::Tile;

/// By which definition convolutions are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvAlgorithm {
    /// The plain sum, everywhere.
    #[default]
    Direct,
    /// Winograd's minimal filtering where [`winograd_tile`] finds it worth while, the plain sum elsewhere.
    Winograd,
}

/// The tile by which a 3×3 convolution of stride 1 is computed, of `channels` input channels and `filters` filters
/// and with `positions` of output; `None` for the plain sum.
///
/// A tile at the edge is computed whole, so the larger one is taken where it still needs fewer products: for images of
/// 2×2 it would need those of the plain sum. With few channels the transforms cost more than the products they save.
pub fn winograd_tile(channels: usize, filters: usize, positions: (usize, usize)) -> Option<Tile> {
    if channels < FEWEST || filters < FEWEST {
        return None;
    }
    let products = |tile: Tile| {
        let (m, n) = (tile.side(), tile.side() + 2);
        positions.0.div_ceil(m) * positions.1.div_ceil(m) * n * n
    };
    let best = if products(Tile::Four) < products(Tile::Two) { Tile::Four } else { Tile::Two };
    (products(best) < 9 * positions.0 * positions.1).then_some(best)
}

/// The fewest channels, and filters, for which minimal filtering is worth while.
const FEWEST: usize = 32;

/// The geometry of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct ConvConfig {
    /// Pixels of a side of the square kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Channel groups that do not see each other.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// By which definition it is computed.
    pub algorithm: ConvAlgorithm,
}

impl ConvConfig {
    /// A square kernel that keeps the image's size at stride 1 (an odd `kernel`), without a bias.
    pub fn same(kernel: usize, stride: usize) -> ConvConfig {
        let algorithm = ConvAlgorithm::Direct;
        ConvConfig { kernel, stride, padding: kernel / 2, groups: 1, bias: false, algorithm }
    }

    /// The same, computed by another definition.
    pub fn by(self, algorithm: ConvAlgorithm) -> ConvConfig {
        ConvConfig { algorithm, ..self }
    }
}

/// `x [n, in, h, w] -> [n, out, i, j]`; parameters `weight [out, in/groups, k, k]` and, if asked for,
/// `bias [out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    operator: Operator,
    algorithm: ConvAlgorithm,
}

impl Conv2d {
    /// Weights drawn from He's normal with the fan-out, as torchvision's ResNets have it; a bias of zero.
    pub fn new(init: &Init, inputs: usize, outputs: usize, config: ConvConfig) -> Conv2d {
        let ConvConfig { kernel, stride, padding, groups, bias, algorithm } = config;
        let shape = [outputs, inputs / groups, kernel, kernel];
        let weight = Parameter::new(init.at("weight").kaiming_normal(shape, Fan::Out));
        let bias = bias.then(|| Parameter::new(init.at("bias").uniform([outputs], 0.0)));
        let operator =
            Operator { stride: (stride, stride), padding: (padding, padding), dilation: (1, 1), groups };
        Conv2d { weight, bias, operator, algorithm }
    }

    /// How minimal filtering computes the layer for these images, if it does.
    fn winograd(&self, x: &Tensor) -> Option<Conv2dWinograd> {
        let Operator { stride, padding, groups, .. } = self.operator;
        let (weight, shape) = (self.weight.tensor(), x.shape());
        let fits = self.algorithm == ConvAlgorithm::Winograd
            && weight.shape()[2..] == [3, 3]
            && (stride, groups) == ((1, 1), 1)
            && padding.0 <= 2
            && shape.len() == 4;
        if !fits {
            return None;
        }
        let positions = |size: usize, padding: usize| (size + 2 * padding).saturating_sub(2);
        let positions = (positions(shape[2], padding.0), positions(shape[3], padding.1));
        let tile = winograd_tile(shape[1], weight.shape()[0], positions)?;
        Some(Conv2dWinograd { tile, padding })
    }
}

impl Conv2d {
    /// `relu(norm(forward(x)) + residual)`, the residual and relu where they are wanted: by as few operators as the
    /// pass allows, with the same bits.
    ///
    /// # Errors
    /// The extents do not fit.
    pub fn forward_norm(
        &self,
        pass: &Pass,
        norm: &BatchNorm2d,
        x: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor, ShapeError> {
        if pass.infers() && self.bias.is_none() {
            let weight = pass.parameter(&self.weight);
            let conv = match self.winograd(x) {
                Some(operator) => Convolution::Winograd(operator),
                None => Convolution::Direct(self.operator.clone()),
            };
            return norm.infer(pass, (x, &weight), conv, residual, relu);
        }
        let y = self.forward(pass, x)?;
        match (relu, residual) {
            (true, residual) => norm.forward_relu(pass, &y, residual),
            (false, Some(residual)) => norm.forward(pass, &y)?.add(residual),
            (false, None) => norm.forward(pass, &y),
        }
    }
}

impl Module for Conv2d {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let bias = self.bias.as_ref().map(|bias| pass.parameter(bias));
        let weight = pass.parameter(&self.weight);
        match self.winograd(x) {
            Some(operator) => x.conv2d_winograd(&weight, bias.as_ref(), operator),
            None => x.conv2d(&weight, bias.as_ref(), self.operator.clone()),
        }
    }

    fn visit(&self, visitor: &mut Visitor) {
        visitor.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            visitor.parameter("bias", bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::array::Array;

    #[test]
    fn the_tile_is_the_one_of_fewest_products() {
        let tile = |side| winograd_tile(64, 64, (side, side));
        assert_eq!([56, 28, 14, 7, 4, 3].map(tile), [Some(Tile::Four); 6]);
        assert_eq!([tile(2), tile(1), tile(0)], [Some(Tile::Two), None, None]);
        assert_eq!([winograd_tile(1, 64, (56, 56)), winograd_tile(64, 15, (56, 56))], [None, None]);
    }

    #[test]
    fn a_layer_is_computed_as_it_is_configured_where_the_shape_allows() {
        let x = Tensor::constant(Array::full([2, 32, 5, 4], 0.3));
        let layer = |config: ConvConfig| Conv2d::new(&Init::new(5), 32, 33, config);
        let config = ConvConfig::same(3, 1);
        let weight = layer(config).weight.tensor();
        let bits = |y: Tensor| y.data().iter().map(|y| y.to_bits()).collect::<Vec<_>>();
        let run = |config| bits(layer(config).forward(&Pass::evaluation(), &x).unwrap());
        let direct = x.conv2d(&weight, None, Operator { padding: (1, 1), ..Operator::default() }).unwrap();
        let operator = Conv2dWinograd { tile: Tile::Four, padding: (1, 1) };
        let minimal = x.conv2d_winograd(&weight, None, operator).unwrap();
        let (direct, minimal) = (bits(direct), bits(minimal));
        assert_ne!(direct, minimal, "values that show the difference");
        assert_eq!(run(config), direct);
        assert_eq!(run(config.by(ConvAlgorithm::Winograd)), minimal);
        for other in [ConvConfig::same(3, 2), ConvConfig::same(1, 1), ConvConfig { padding: 3, ..config }] {
            assert_eq!(run(other.by(ConvAlgorithm::Winograd)), run(other));
        }
    }
}

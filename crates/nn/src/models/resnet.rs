//! Deep residual networks (He, Zhang, Ren and Sun, CVPR 2016), as torchvision has them: the same tensors
//! under the same names, the stride of a bottleneck in its 3×3 convolution.

use crate::init::Init;
use crate::layers::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, ConvAlgorithm, ConvConfig, Flatten, Linear, MaxPool2d, Sequential,
};
use crate::module::Module;
use crate::pass::Pass;
use crate::state::{Visitor, parameters};
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use std::fmt;
use std::str::FromStr;

/// Which of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// ResNet-10, blocks 1 1 1 1 of two 3×3 convolutions, an eighth as wide: for trying things out.
    N10,
    /// ResNet-18: blocks 2 2 2 2 of two 3×3 convolutions.
    D18,
    /// ResNet-34: blocks 3 4 6 3 of two 3×3 convolutions.
    D34,
    /// ResNet-50: bottlenecks 3 4 6 3.
    D50,
    /// ResNet-101: bottlenecks 3 4 23 3.
    D101,
    /// ResNet-152: bottlenecks 3 8 36 3.
    D152,
}

impl Depth {
    /// All six, shallow first.
    pub const ALL: [Depth; 6] = [Depth::N10, Depth::D18, Depth::D34, Depth::D50, Depth::D101, Depth::D152];

    /// The name: `resnet18`.
    pub fn name(self) -> &'static str {
        match self {
            Depth::N10 => "resnet10w8",
            Depth::D18 => "resnet18",
            Depth::D34 => "resnet34",
            Depth::D50 => "resnet50",
            Depth::D101 => "resnet101",
            Depth::D152 => "resnet152",
        }
    }

    fn blocks(self) -> [usize; 4] {
        match self {
            Depth::N10 => [1, 1, 1, 1],
            Depth::D18 => [2, 2, 2, 2],
            Depth::D34 | Depth::D50 => [3, 4, 6, 3],
            Depth::D101 => [3, 4, 23, 3],
            Depth::D152 => [3, 8, 36, 3],
        }
    }

    fn has_bottlenecks(self) -> bool {
        !matches!(self, Depth::N10 | Depth::D18 | Depth::D34)
    }

    /// The channels of the stem; each stage after the first has twice those of the one before.
    fn width(self) -> usize {
        if self == Depth::N10 { 8 } else { 64 }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No model has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model `{0}`; known are resnet10w8, resnet18, resnet34, resnet50, resnet101 and resnet152")]
pub struct UnknownModel(pub String);

impl FromStr for Depth {
    type Err = UnknownModel;
    fn from_str(name: &str) -> Result<Depth, UnknownModel> {
        Depth::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| UnknownModel(name.to_owned()))
    }
}

/// Images `x [n, channels, h, w]` to logits `[n, classes]`.
#[derive(Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    maxpool: MaxPool2d,
    layers: [Sequential; 4],
    avgpool: AdaptiveAvgPool2d,
    fc: Linear,
    recomputing: bool,
    /// The pixels of the images that a thread infers together.
    together: usize,
}

impl ResNet {
    /// A network of fresh weights, a pure function of the seed.
    pub fn new(depth: Depth, channels: usize, classes: usize, seed: u64) -> ResNet {
        ResNet::computed_by(ConvAlgorithm::Direct, depth, channels, classes, seed)
    }

    /// The same network, its convolutions computed by another definition.
    pub fn computed_by(
        algorithm: ConvAlgorithm,
        depth: Depth,
        channels: usize,
        classes: usize,
        seed: u64,
    ) -> ResNet {
        let init = Init::new(seed);
        let stem = ConvConfig::same(7, 2);
        let mut inputs = depth.width();
        let layers = [0, 1, 2, 3].map(|stage| {
            let init = init.at(format!("layer{}", stage + 1));
            let width = depth.width() << stage;
            let block = |index: usize| -> Box<dyn Module> {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let init = init.at(index);
                let block = if depth.has_bottlenecks() {
                    Block::bottleneck(&init, algorithm, inputs, width, stride, stage < 2)
                } else {
                    Block::basic(&init, algorithm, inputs, width, stride)
                };
                inputs = if depth.has_bottlenecks() { 4 * width } else { width };
                Box::new(block)
            };
            Sequential::new((0..depth.blocks()[stage]).map(block).collect())
        });
        ResNet {
            conv1: Conv2d::new(&init.at("conv1"), channels, depth.width(), stem),
            bn1: BatchNorm2d::new(depth.width()),
            maxpool: MaxPool2d::new(3, 2, 1),
            layers,
            avgpool: AdaptiveAvgPool2d(1, 1),
            fc: Linear::new(&init.at("fc"), inputs, classes),
            recomputing: false,
            together: match algorithm {
                ConvAlgorithm::Direct => 1 << 16,
                // Minimal filtering transforms its filters for each call.
                ConvAlgorithm::Winograd => 1 << 18,
            },
        }
    }

    /// The same network, the last scale γ of every residual branch 0, so that at first each block passes on its shortcut
    /// alone: what torchvision calls `zero_init_residual` (Goyal et al., "Accurate, Large Minibatch SGD", 2017,
    /// section 5.1).
    pub fn zero_residuals(self) -> ResNet {
        let parameters = parameters(&self);
        let has = |name: &str| parameters.iter().any(|(found, _)| found.ends_with(name));
        let last = if has(".bn3.weight") { ".bn3.weight" } else { ".bn2.weight" };
        for (_, gamma) in parameters.iter().filter(|(name, _)| name.ends_with(last)) {
            gamma.modify(|gamma| gamma.fill(0.0));
        }
        self
    }

    /// The same network with less memory in training: what the first convolution and, in each block, normalizations
    /// and 1×1 convolutions that widen return is computed again instead of kept.
    pub fn recomputing(self) -> ResNet {
        ResNet { recomputing: true, ..self }
    }

    /// `maxpool(relu(bn1(conv1(x))))`, between them the largest values of all, from the smallest.
    fn stem(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        if pass.infers() {
            return self.maxpool.forward(pass, &self.conv1.forward_norm(pass, &self.bn1, x, None, true)?);
        }
        self.bn1.forward_relu_pool(pass, pass.spare(self.conv1.forward(pass, x)?), &self.maxpool)
    }
}

impl Module for ResNet {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let pass = &if self.recomputing { pass.clone().recomputing() } else { pass.clone() };
        // In the first layers images are large and filters small, in the others the reverse.
        let (first, others) = self.layers.split_at(2);
        // Nothing large has a name here: what no gradient reads is freed before the blocks begin.
        let x = pass.by_images(self.together, x, |x| through(first, pass, self.stem(pass, x)?))?;
        let x = through(others, pass, x)?;
        let x = self.avgpool.forward(pass, &x)?;
        self.fc.forward(pass, &Flatten.forward(pass, &x)?)
    }

    fn visit(&self, visitor: &mut Visitor) {
        visitor.module("conv1", &self.conv1);
        visitor.module("bn1", &self.bn1);
        for (index, layer) in self.layers.iter().enumerate() {
            visitor.module(&format!("layer{}", index + 1), layer);
        }
        visitor.module("fc", &self.fc);
    }
}

/// `x` through layers one after the other.
fn through(layers: &[Sequential], pass: &Pass, x: Tensor) -> Result<Tensor, ShapeError> {
    layers.iter().try_fold(x, |x, layer| layer.forward(pass, &x))
}

/// `relu(branch(x) + shortcut(x))`: convolutions each with their normalization, a ReLU between them; the
/// shortcut is the identity, or a 1×1 convolution where the shape changes.
#[derive(Debug)]
struct Block {
    branch: Vec<(Conv2d, BatchNorm2d)>,
    shortcut: Option<(Conv2d, BatchNorm2d)>,
    /// Whether the images are so large that a recomputing pass keeps no 1×1 convolution's output at all.
    large: bool,
}

impl Block {
    /// Two 3×3 convolutions, the stride in the first.
    fn basic(init: &Init, by: ConvAlgorithm, inputs: usize, width: usize, stride: usize) -> Block {
        let plan = [
            (inputs, width, ConvConfig::same(3, stride).by(by)),
            (width, width, ConvConfig::same(3, 1).by(by)),
        ];
        Block::new(init, &plan, stride, false)
    }

    /// 1×1 down, 3×3 with the stride, 1×1 up to four times the width.
    fn bottleneck(
        init: &Init,
        by: ConvAlgorithm,
        inputs: usize,
        width: usize,
        stride: usize,
        large: bool,
    ) -> Block {
        let plan = [
            (inputs, width, ConvConfig::same(1, 1)),
            (width, width, ConvConfig::same(3, stride).by(by)),
            (width, 4 * width, ConvConfig::same(1, 1)),
        ];
        Block::new(init, &plan, stride, large)
    }

    fn new(init: &Init, plan: &[(usize, usize, ConvConfig)], stride: usize, large: bool) -> Block {
        let inputs = plan[0].0;
        let outputs = plan[plan.len() - 1].1;
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            let conv =
                Conv2d::new(&init.at("downsample").at(0), inputs, outputs, ConvConfig::same(1, stride));
            (conv, BatchNorm2d::new(outputs))
        });
        let layer = |(index, &(from, to, config)): (usize, &(usize, usize, ConvConfig))| {
            let init = init.at(format!("conv{}", index + 1));
            (Conv2d::new(&init, from, to, config), BatchNorm2d::new(to))
        };
        Block { branch: plan.iter().enumerate().map(layer).collect(), shortcut, large }
    }
}

impl Module for Block {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        if pass.infers() {
            return self.infer(pass, x);
        }
        let Some(((last, last_norm), others)) = self.branch.split_last() else { return x.relu() };
        let inner = others.iter().enumerate().try_fold(x.clone(), |y, (index, (conv, norm))| {
            let y = conv.forward(pass, &y)?;
            let y = if self.large && index == 0 { pass.spare(y) } else { y };
            norm.forward_relu(pass, &y, None).map(|y| pass.spare(y))
        });
        let y = last.forward(pass, &inner?)?;
        // A 1×1 convolution costs little, and one that widens returns much.
        let y = if self.branch.len() > 2 { pass.spare(y) } else { y };
        let shortcut = match &self.shortcut {
            Some((conv, norm)) => &norm.forward(pass, &pass.spare(conv.forward(pass, x)?))?,
            None => x,
        };
        last_norm.forward_relu(pass, &y, Some(shortcut))
    }

    fn visit(&self, visitor: &mut Visitor) {
        for (index, (conv, norm)) in self.branch.iter().enumerate() {
            visitor.module(&format!("conv{}", index + 1), conv);
            visitor.module(&format!("bn{}", index + 1), norm);
        }
        if let Some((conv, norm)) = &self.shortcut {
            visitor.module("downsample.0", conv);
            visitor.module("downsample.1", norm);
        }
    }
}

impl Block {
    /// The same where values alone are wanted: one operator a convolution.
    fn infer(&self, pass: &Pass, x: &Tensor) -> Result<Tensor, ShapeError> {
        let shortcut = self.shortcut.as_ref();
        let shortcut =
            shortcut.map(|(conv, norm)| conv.forward_norm(pass, norm, x, None, false)).transpose()?;
        let residual = shortcut.as_ref().unwrap_or(x);
        let last = self.branch.len() - 1;
        self.branch.iter().enumerate().try_fold(x.clone(), |y, (index, (conv, norm))| {
            conv.forward_norm(pass, norm, &y, (index == last).then_some(residual), true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{State, named};
    use kinone_core::array::Array;
    use kinone_kernels::Cpu;

    /// Parameters of torchvision's models with 1000 classes and three channels, as its documentation states.
    #[test]
    fn sizes_are_those_of_torchvision() {
        let published = [11_689_512, 21_797_672, 25_557_032, 44_549_160, 60_192_808];
        for (depth, published) in Depth::ALL[1..].iter().copied().zip(published) {
            let model = ResNet::new(depth, 3, 1000, 0);
            let size = |(_, state): (String, State)| match state {
                State::Parameter(parameter) => parameter.tensor().shape().size(),
                State::Statistic(_) | State::Counter(_) => 0,
            };
            assert_eq!(named(&model).into_iter().map(size).sum::<usize>(), published, "{depth}");
        }
    }

    #[test]
    fn zero_residuals_leave_the_branches_alone_but_for_their_last_scale() {
        for (depth, last, blocks) in [(Depth::D18, "bn2.weight", 8), (Depth::D50, "bn3.weight", 16)] {
            let (plain, zero) = (ResNet::new(depth, 1, 14, 1), ResNet::new(depth, 1, 14, 1).zero_residuals());
            let mut changed = 0;
            for ((name, plain), (_, zero)) in parameters(&plain).into_iter().zip(parameters(&zero)) {
                if name.starts_with("layer") && name.ends_with(last) {
                    assert!(zero.tensor().data().iter().all(|gamma| *gamma == 0.0), "{name}");
                    changed += 1;
                } else {
                    assert_eq!(plain.tensor().data(), zero.tensor().data(), "{name}");
                }
            }
            assert_eq!(changed, blocks);
        }
    }

    #[test]
    fn names_are_those_of_torchvision() {
        let names: Vec<String> =
            named(&ResNet::new(Depth::D50, 3, 1000, 0)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 320);
        for name in [
            "conv1.weight",
            "bn1.running_var",
            "bn1.num_batches_tracked",
            "layer1.0.downsample.0.weight",
            "layer1.0.downsample.1.bias",
            "layer4.2.bn3.running_mean",
            "fc.bias",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn every_depth_gives_one_logit_a_class_and_halves_as_it_should() {
        for depth in Depth::ALL {
            let model = ResNet::new(depth, 1, 14, 1);
            let x = Tensor::constant(Array::full([1, 1, 33, 40], 0.5));
            let y = model.forward(&Pass::evaluation(), &x).unwrap();
            assert_eq!(y.shape()[..], [1, 14]);
            assert!(y.data().iter().all(|logit| logit.is_finite()));
        }
    }

    /// The bits of the logits.
    fn logits(cpu: Cpu, model: &ResNet, x: &Tensor) -> Vec<u32> {
        let y = cpu.scope(|| model.forward(&Pass::evaluation(), x).unwrap());
        y.data().iter().map(|y| y.to_bits()).collect()
    }

    /// The fused operators of inference are those of an evaluation one after the other.
    #[test]
    fn inference_has_the_bits_of_one_operator_after_another() {
        let x: Vec<f32> = (0..2 * 33 * 40).map(|k| (k * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::constant(Array::new([2, 1, 33, 40], &x).unwrap());
        for depth in [Depth::D18, Depth::D50] {
            for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
                let model = ResNet::computed_by(algorithm, depth, 1, 14, 1);
                let logits = |cpu| logits(cpu, &model, &x);
                let cpu = Cpu::current();
                assert_eq!(logits(cpu.clone()), logits(cpu.unfused()), "{depth}, {algorithm:?}");
            }
        }
    }

    /// Images that are inferred a few at a time have the bits of all together.
    #[test]
    fn groups_of_images_have_the_bits_of_all() {
        let x: Vec<f32> = (0..7 * 200 * 200).map(|k| (k * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::constant(Array::new([7, 1, 200, 200], &x).unwrap());
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
            let model = ResNet::computed_by(algorithm, Depth::D18, 1, 14, 1);
            let logits = |cpu| logits(cpu, &model, &x);
            let all = logits(Cpu::current().unfused());
            for threads in [1, 2] {
                let cpu = Cpu::new(Cpu::current().isa(), threads).unwrap();
                assert_eq!(logits(cpu), all, "{threads} threads, {algorithm:?}");
            }
        }
    }

    #[test]
    fn an_unknown_model_is_refused_by_name() {
        assert!("resnet19".parse::<Depth>().unwrap_err().to_string().contains("resnet152"));
    }
}

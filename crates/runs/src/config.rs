//! The configuration of a run: everything that decides its bits, and nothing else.

use kinone_nn::layers::ConvAlgorithm;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a run was asked to do. With the seed and the data this decides every bit of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The network: `resnet18`.
    pub model: String,
    /// Pixels of a side of the square images.
    pub image_size: usize,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images a batch: what batch normalization takes its statistics over.
    pub batch_size: usize,
    /// Batches a step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The base learning rate.
    pub lr: f64,
    /// How the learning rate changes.
    pub schedule: ScheduleName,
    /// Steps over which the learning rate rises at the start.
    pub warmup_steps: u64,
    /// The optimizer.
    pub optimizer: OptimizerName,
    /// The momentum of SGD.
    pub momentum: f64,
    /// The decay of the weights.
    pub weight_decay: f64,
    /// The largest gradient norm; larger gradients are scaled down. 0 for no limit.
    pub clip_norm: f64,
    /// The share of itself that the moving average of the weights keeps a step; 0 for no average.
    #[serde(default)]
    pub ema: f64,
    /// Epochs without a better validation score after which the run ends; 0 for no such end.
    #[serde(default)]
    pub patience: u32,
    /// Steps between two links of the chain that hold a hash of the whole state; 0 for none but the last of
    /// each epoch.
    #[serde(default = "hundred")]
    pub hash_every: u64,
    /// The seed of everything random.
    pub seed: u64,
    /// Whether "No Finding" is a class of its own, the fifteenth.
    pub no_finding: bool,
    /// By which definition convolutions are computed.
    #[serde(default)]
    pub conv_algo: ConvAlgo,
    /// Whether inner values are recomputed instead of kept: less memory, equal bits.
    pub recompute: bool,
    /// Where the images come from.
    pub data: Data,
    /// Weights to start from, instead of fresh ones.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::path::optional")]
    pub load_checkpoint: Option<PathBuf>,
}

fn one() -> usize {
    1
}

fn hundred() -> u64 {
    100
}

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Data {
    /// The procedural set.
    BuiltIn {
        /// How many images.
        images: usize,
    },
    /// A directory laid out as NIH publishes it.
    Directory {
        /// The directory.
        #[serde(with = "crate::path")]
        data_dir: PathBuf,
        /// Whether rows without an image are left out instead of refused.
        allow_missing: bool,
    },
    /// A folder of images and a table.
    Files {
        /// The folder of images.
        #[serde(with = "crate::path")]
        image_dir: PathBuf,
        /// The table, in NIH's form.
        #[serde(with = "crate::path")]
        csv_file: PathBuf,
        /// Whether rows without an image are left out instead of refused.
        allow_missing: bool,
    },
}

/// By which definition convolutions are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvAlgo {
    /// The plain sum.
    #[default]
    Direct,
    /// Winograd's minimal filtering where the layer's shape makes it worth while.
    Winograd,
}

impl From<ConvAlgo> for ConvAlgorithm {
    fn from(name: ConvAlgo) -> ConvAlgorithm {
        match name {
            ConvAlgo::Direct => ConvAlgorithm::Direct,
            ConvAlgo::Winograd => ConvAlgorithm::Winograd,
        }
    }
}

/// What a file in TOML says, or where it is wrong: line and column, both from 1, and why.
///
/// # Errors
/// It is no TOML, or says something else than a `T`.
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let place = |before: &[u8]| {
        let line = before.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
        let column = String::from_utf8_lossy(line).chars().count() + 1;
        format!("line {}, column {column}", before.iter().filter(|byte| **byte == b'\n').count() + 1)
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("{}: not UTF-8", place(&bytes[..error.valid_up_to()])))?;
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(bytes.len()));
        let message: Vec<&str> = error.message().split_whitespace().collect();
        format!("{}: {}", place(&bytes[..start]), message.join(" "))
    })
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// The same, looking ahead.
    Nesterov,
    /// Adam; weight decay is added to the gradient.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// RMSProp.
    RmsProp,
}

/// The schedules of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// Always the same.
    Constant,
    /// A tenth after every third of the epochs.
    Step,
    /// Half a cosine wave down to a hundredth.
    Cosine,
    /// A tenth when the validation loss has not improved for two epochs.
    Plateau,
}

/// A value that no run can have: which, what came, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: {expected}")]
pub struct ConfigError {
    /// The setting, as its flag is called.
    pub field: &'static str,
    /// What came.
    pub found: String,
    /// What is possible.
    pub expected: &'static str,
}

/// Why the settings of a chain are none of a run.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A setting that one side has and the other has not.
    #[error("`{0}` is missing, or a stranger")]
    Names(String),
    /// A value of another kind.
    #[error(transparent)]
    Kind(#[from] serde_json::Error),
    /// A value that no run can have.
    #[error(transparent)]
    Value(#[from] ConfigError),
}

/// A setting that two configurations do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which, as its flag is called.
    pub setting: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

impl Difference {
    /// The entries that two objects do not share, in the order of their names.
    pub fn between(
        from: &serde_json::Map<String, serde_json::Value>,
        to: &serde_json::Map<String, serde_json::Value>,
    ) -> Vec<Difference> {
        let names: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        let text = |value: Option<&serde_json::Value>| match value {
            None => "none".to_owned(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let difference = |name: &String| Difference {
            setting: name.clone(),
            from: text(from.get(name)),
            to: text(to.get(name)),
        };
        names.into_iter().filter(|name| from.get(*name) != to.get(*name)).map(difference).collect()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} -> {}", self.setting, self.from, self.to)
    }
}

/// Settings that `--override` can change in the middle of a run: the others would need other tensors, other
/// images or another order of them.
const CHANGEABLE: &[&str] =
    &["epochs", "lr", "schedule", "warmup-steps", "momentum", "weight-decay", "clip-norm", "patience"];

impl Config {
    /// The settings that decide the bits, under the names of their flags. Where the images lie is none of
    /// them (their hash stands beside the configuration), nor is the file of the first weights (the hash of
    /// these does), nor whether values are recomputed.
    pub fn identity(&self) -> serde_json::Map<String, serde_json::Value> {
        let serde_json::Value::Object(map) = serde_json::json!(self) else {
            unreachable!("a configuration is an object")
        };
        let mut identity = serde_json::Map::new();
        for (name, value) in map {
            match (name.as_str(), &value) {
                ("recompute" | "load_checkpoint", _) => {}
                ("data", data) => {
                    for name in ["images", "allow_missing"] {
                        identity.extend(data.get(name).map(|value| (name.replace('_', "-"), value.clone())));
                    }
                }
                _ => {
                    identity.insert(name.replace('_', "-"), value);
                }
            }
        }
        identity
    }

    /// This configuration with other settings where they decide the bits: those of a chain.
    ///
    /// # Errors
    /// A setting is missing or unknown, or has a value that no run can have.
    pub fn with_identity(
        &self,
        identity: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Config, IdentityError> {
        let own = self.identity();
        let differs = |name: &&String| own.contains_key(*name) != identity.contains_key(*name);
        if let Some(name) = own.keys().chain(identity.keys()).find(differs) {
            return Err(IdentityError::Names(name.clone()));
        }
        let mut json = serde_json::json!(self);
        for (name, value) in identity {
            let name = name.replace('-', "_");
            let place = if matches!(name.as_str(), "images" | "allow_missing") {
                &mut json["data"]
            } else {
                &mut json
            };
            place[name] = value.clone();
        }
        let config: Config = serde_json::from_value(json)?;
        config.validate()?;
        Ok(config)
    }

    /// The settings that decide the bits and differ in `to`.
    pub fn differences(&self, to: &Config) -> Vec<Difference> {
        Difference::between(&self.identity(), &to.identity())
    }

    /// Whether a run under way can take on this other value.
    pub fn is_changeable(difference: &Difference) -> bool {
        CHANGEABLE.contains(&difference.setting.as_str())
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that no run can have.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let images = if let Data::BuiltIn { images } = self.data { Some(images) } else { None };
        let checks = [
            (
                "epochs",
                (1..=1_000_000).contains(&self.epochs),
                self.epochs.to_string(),
                "at least 1 epoch is needed, and at most 1000000 are possible",
            ),
            (
                "batch-size",
                self.batch_size >= 2,
                self.batch_size.to_string(),
                "at least 2 images a step are needed (batch normalization)",
            ),
            (
                "lr",
                positive(f64::from(self.lr as f32)),
                shown(self.lr),
                "the learning rate must be above 0 and below 3.4e38, as a number of single precision",
            ),
            (
                "momentum",
                not_negative(self.momentum) && self.momentum < 1.0,
                self.momentum.to_string(),
                "the momentum must be at least 0 and below 1",
            ),
            (
                "weight-decay",
                not_negative(f64::from(self.weight_decay as f32)),
                shown(self.weight_decay),
                "the weight decay must be a number, at least 0 and below 3.4e38",
            ),
            (
                "clip-norm",
                not_negative(self.clip_norm),
                self.clip_norm.to_string(),
                "the largest gradient norm must be a number, at least 0 (0 for no limit)",
            ),
            (
                "accumulate",
                self.accumulate >= 1,
                self.accumulate.to_string(),
                "at least 1 batch a step is needed",
            ),
            (
                "ema",
                not_negative(self.ema) && self.ema < 1.0,
                self.ema.to_string(),
                "the share that an average keeps must be at least 0 (for no average) and below 1",
            ),
            (
                "image-size",
                (32..=1024).contains(&self.image_size),
                self.image_size.to_string(),
                "images may have 32 to 1024 pixels a side",
            ),
            (
                "images",
                images.is_none_or(|images| (100..=1_000_000).contains(&images)),
                images.unwrap_or_default().to_string(),
                "the built-in set needs at least 100 images, and has at most 1000000",
            ),
        ];
        for (field, holds, found, expected) in checks {
            if !holds {
                return Err(ConfigError { field, found, expected });
            }
        }
        Ok(())
    }
}

/// A number in few digits, however large or small.
fn shown(x: f64) -> String {
    if x == 0.0 || (1e-6..1e9).contains(&x.abs()) { x.to_string() } else { format!("{x:e}") }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration of few steps.
    pub(crate) fn example() -> Config {
        Config {
            contract: crate::CONTRACT,
            model: "resnet18".to_owned(),
            image_size: 32,
            epochs: 2,
            batch_size: 8,
            accumulate: 1,
            lr: 1e-3,
            schedule: ScheduleName::Constant,
            warmup_steps: 0,
            optimizer: OptimizerName::Adam,
            momentum: 0.9,
            weight_decay: 0.0,
            clip_norm: 0.0,
            ema: 0.0,
            patience: 0,
            hash_every: 100,
            seed: 42,
            no_finding: false,
            conv_algo: ConvAlgo::Direct,
            recompute: false,
            data: Data::BuiltIn { images: 100 },
            load_checkpoint: None,
        }
    }

    #[test]
    fn what_decides_the_bits_is_compared_and_nothing_else() {
        let a = example();
        let moved = |data_dir: &str| Config {
            data: Data::Directory { data_dir: data_dir.into(), allow_missing: false },
            ..a.clone()
        };
        assert_eq!(a.differences(&Config { recompute: true, ..a.clone() }), []);
        assert_eq!(moved("/a").differences(&moved("/b")), []);
        assert_eq!(moved("/a").with_identity(&moved("/b").identity()).unwrap(), moved("/a"));
        let b = Config { lr: 0.5, epochs: 3, data: Data::BuiltIn { images: 200 }, ..a.clone() };
        let said: Vec<String> = a.differences(&b).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["epochs 2 -> 3", "images 100 -> 200", "lr 0.001 -> 0.5"]);
        assert_eq!(a.with_identity(&b.identity()).unwrap(), b);
        let strange = |name: &str, value: serde_json::Value| {
            let mut identity = b.identity();
            identity.insert(name.to_owned(), value);
            a.with_identity(&identity).unwrap_err().to_string()
        };
        assert_eq!(strange("data", "x".into()), "`data` is missing, or a stranger");
        assert_eq!(strange("accumulate", 0.into()), "accumulate = 0: at least 1 batch a step is needed");
        assert!(strange("lr", "x".into()).contains("invalid type"));
        assert!(a.with_identity(&serde_json::Map::new()).is_err());
        let changeable: Vec<bool> = a.differences(&b).iter().map(Config::is_changeable).collect();
        assert_eq!(changeable, [true, false, true]);
    }
}

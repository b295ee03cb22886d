//! How far a run has come: with the tensors of a checkpoint, all that its next step depends on.

use serde::{Deserialize, Serialize};

/// Where a run stands between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// The epoch under way, from 1; one more than the epochs of the run when all are done.
    pub epoch: u32,
    /// Steps made of it.
    pub epoch_steps: u64,
    /// The sum of the losses of its images.
    #[serde(with = "bits")]
    pub loss_sum: f64,
    /// Its images so far.
    pub loss_images: u64,
    /// The learning rate of the last step.
    pub lr: f32,
    /// What a plateau schedule remembers: the lowest loss.
    #[serde(with = "bits")]
    pub plateau_best: f64,
    /// Epochs since then.
    pub plateau_waited: u32,
    /// The product of its cuts.
    #[serde(with = "bits")]
    pub plateau_scale: f64,
    /// The mean loss of the last epoch that ended.
    pub train_loss: Option<f64>,
    /// Its mean area under the curve on the validation part.
    pub val_auroc_macro: Option<f64>,
    /// The thresholds chosen there, see [`Best::thresholds`].
    #[serde(default)]
    pub thresholds: Vec<Option<f32>>,
    /// The best epoch so far.
    pub best: Option<Best>,
    /// Whether early stopping ended the run.
    pub stopped_early: bool,
}

/// The best epoch so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Which, from 1.
    pub epoch: u32,
    /// The steps made at its end, which name its checkpoint.
    pub step: u64,
    /// The mean area under the curve on the validation part.
    pub val_auroc_macro: Option<f64>,
    /// For each class the logit from which on its finding is stated, chosen on the validation part; none for a
    /// class that has not both labels there, and for every class where there is no validation part.
    #[serde(default)]
    pub thresholds: Vec<Option<f32>>,
    /// The hash of its weights ([`crate::weights::digest`]).
    pub weights_sha256: String,
}

impl Progress {
    /// Before the first step.
    pub fn start() -> Progress {
        Progress {
            step: 0,
            epoch: 1,
            epoch_steps: 0,
            loss_sum: 0.0,
            loss_images: 0,
            lr: 0.0,
            plateau_best: f64::INFINITY,
            plateau_waited: 0,
            plateau_scale: 1.0,
            train_loss: None,
            val_auroc_macro: None,
            thresholds: Vec::new(),
            best: None,
            stopped_early: false,
        }
    }

    /// What no run can come to, where these figures say so.
    pub fn impossible(&self) -> Option<&'static str> {
        let best = self.best.as_ref();
        let whole = [
            (self.epoch == 0, "epochs count from 1"),
            (u64::from(self.epoch) > self.step + 1, "it has more epochs than steps"),
            (self.epoch_steps > self.step, "its epoch has more steps than all its epochs"),
            (self.loss_images >> 48 > 0, "its epoch has more images than there can be"),
            (
                best.is_some_and(|best| best.epoch == 0 || best.epoch >= self.epoch),
                "its best epoch has not ended",
            ),
            (best.is_some_and(|best| best.step > self.step), "its best epoch is yet to come"),
            (
                best.is_none() && self.epoch_steps == 0 && self.epoch > 1,
                "of the epochs that ended none is the best",
            ),
        ];
        whole.into_iter().find_map(|(is_so, reason)| is_so.then_some(reason))
    }

    /// Whether a run of so many epochs has nothing left to train.
    pub fn is_finished(&self, epochs: u32) -> bool {
        self.stopped_early || self.epoch > epochs
    }

    /// Epochs that ended since the best.
    pub fn epochs_since_best(&self) -> u32 {
        self.best.as_ref().map_or(0, |best| self.epoch.saturating_sub(1 + best.epoch))
    }

    /// Whether so many epochs ended since the best as patience allows; 0 allows any number.
    pub fn is_out_of_patience(&self, patience: u32) -> bool {
        patience > 0 && self.epochs_since_best() >= patience
    }
}

/// An f64 as the hexadecimal digits of its bits: exact, and infinities have a form.
pub mod bits {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Sixteen digits.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:016x}", x.to_bits()))
    }

    /// From sixteen digits.
    ///
    /// # Errors
    /// The text is something else.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bits = u64::from_str_radix(&text, 16).ok().filter(|_| text.len() == 16);
        bits.map(f64::from_bits)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not 16 hexadecimal digits")))
    }
}

//! Scores of images, and what they are worth.

use kinone_core::array::Array;
use kinone_core::shape::ShapeError;
use kinone_core::tensor::Tensor;
use kinone_kernels::math::sigmoid;
use kinone_metrics::report::{Report, Scored, auroc_macro};
use kinone_metrics::{OperatingPoint, ScoreError};
use kinone_nn::{Module, Pass};
use kinone_xray::{DataError, Dataset, Loader, Part, Preprocessing};

/// Images a forward pass at a time; the scores of an image do not depend on it.
const BATCH: usize = 64;

/// The scores of one part of the images.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Which images, as indices into the data set.
    pub indices: Vec<usize>,
    /// The patient of each.
    pub patients: Vec<u32>,
    /// `[images, classes]`
    pub logits: Array,
    /// `[images, classes]`, 0 or 1
    pub targets: Array,
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The part has no images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The images do not fit the model.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A score is not a number.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

/// The logits `[n, classes]` of prepared images `[n, 1, size, size]`.
///
/// # Errors
/// The images do not fit the model.
pub fn logits(model: &dyn Module, images: &[f32], size: usize) -> Result<Array, ShapeError> {
    let n = images.len() / (size * size).max(1);
    let images = Array::new([n, 1, size, size], images).ok_or_else(|| {
        ShapeError::new("images", format!("{} numbers are no images of {size}x{size}", images.len()))
    })?;
    let logits = model.forward(&Pass::evaluation(), &Tensor::constant(images))?;
    Ok(Array::clone(logits.value()))
}

/// Scores every image of a part.
///
/// # Errors
/// The part has no images, or they do not fit.
pub fn score(
    model: &dyn Module,
    data: &Dataset,
    part: Part,
    preprocessing: &Preprocessing,
) -> Result<Scores, EvaluateError> {
    match score_until(model, data, part, preprocessing, &|| false)? {
        Some(scores) => Ok(scores),
        None => unreachable!("nobody stops it"),
    }
}

/// The same; `None` as soon as `is_stopped` says so.
///
/// # Errors
/// As [`score`].
pub fn score_until(
    model: &dyn Module,
    data: &Dataset,
    part: Part,
    preprocessing: &Preprocessing,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<Scores>, EvaluateError> {
    let loader = Loader::new(data, part, preprocessing, BATCH)?;
    let (mut indices, mut all, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for batch in loader.eval() {
        if is_stopped() {
            return Ok(None);
        }
        all.extend_from_slice(logits(model, &batch.images, preprocessing.size)?.data());
        targets.extend_from_slice(&batch.targets);
        indices.extend(batch.indices);
    }
    let shape = [indices.len(), data.classes().count()];
    let array = |values: &[f32]| {
        let reason = || ShapeError::new("scores", format!("{} numbers do not fill {shape:?}", values.len()));
        Array::new(shape, values).ok_or_else(reason)
    };
    let patients = indices.iter().map(|index| data.entries()[*index].patient).collect();
    Ok(Some(Scores { logits: array(&all)?, targets: array(&targets)?, indices, patients }))
}

impl Scores {
    fn scored(&self) -> Scored<'_> {
        Scored { scores: self.logits.data(), targets: self.targets.data(), patients: &self.patients }
    }

    /// The mean binary cross entropy.
    ///
    /// # Errors
    /// None: the shapes were made together.
    pub fn loss(&self) -> Result<f32, ShapeError> {
        let (logits, targets) =
            (Tensor::constant(self.logits.clone()), Tensor::constant(self.targets.clone()));
        Ok(logits.binary_cross_entropy_with_logits(&targets, None, None)?.data()[0])
    }

    /// The mean area under the receiver operating characteristic over the classes that have both labels.
    ///
    /// # Errors
    /// A score is NaN.
    pub fn auroc_macro(&self) -> Result<Option<f64>, ScoreError> {
        auroc_macro(self.scored(), self.logits.shape()[1])
    }

    /// For each class the logit from which on its finding is best stated: of the largest sensitivity + specificity
    /// − 1 ([`OperatingPoint::youden`]). None for a class without both labels.
    ///
    /// # Errors
    /// A score is NaN.
    pub fn thresholds(&self) -> Result<Vec<Option<f32>>, ScoreError> {
        let classes = self.logits.shape()[1];
        let column = |array: &Array, class: usize| -> Vec<f32> {
            array.data().iter().skip(class).step_by(classes).copied().collect()
        };
        let threshold = |class: usize| {
            let labels: Vec<bool> =
                column(&self.targets, class).iter().map(|target| *target == 1.0).collect();
            let point = OperatingPoint::youden(&column(&self.logits, class), &labels)?;
            Ok(point.map(|point| point.threshold))
        };
        (0..classes).map(threshold).collect()
    }

    /// Everything about every class.
    ///
    /// # Errors
    /// A score is NaN.
    pub fn report(&self, names: &[&str]) -> Result<Report, ScoreError> {
        Report::new(names, self.scored())
    }

    /// The scores as probabilities.
    pub fn probabilities(&self) -> Array {
        probabilities(&self.logits)
    }
}

/// Logits as probabilities: σ of each.
pub fn probabilities(logits: &Array) -> Array {
    let mut scores = logits.clone();
    for score in scores.data_mut() {
        *score = sigmoid(*score);
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_the_threshold_that_separates_it_best() {
        // Three classes: separable at 0.5, separable but for one image, without a positive.
        let logits = [-1.0, 0.5, 2.0, 0.5, -2.0, 1.0, 3.0, 0.25, 0.0, -0.5, 4.0, 1.0];
        let targets = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let array = |values: &[f32]| Array::new([4, 3], values).unwrap();
        let scores = Scores {
            indices: vec![0, 1, 2, 3],
            patients: vec![1, 2, 3, 4],
            logits: array(&logits),
            targets: array(&targets),
        };
        assert_eq!(scores.thresholds().unwrap(), [Some(0.5), Some(0.25), None]);
    }
}

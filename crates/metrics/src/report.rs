//! The worth of the scores of every class.

use crate::auc::{Ranking, auroc};
use crate::error::ScoreError;
use crate::interval::Resamples;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is known about one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Images that have it.
    pub positives: usize,
    /// Images that do not.
    pub negatives: usize,
    /// The area under the receiver operating characteristic; none without both labels.
    pub auroc: Option<f64>,
    /// Its 95 % interval over resampled patients.
    pub auroc_interval: Option<[f64; 2]>,
    /// Average precision; none without both labels.
    pub auprc: Option<f64>,
    /// Its 95 % interval over resampled patients.
    pub auprc_interval: Option<[f64; 2]>,
}

/// What is known about all classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Images.
    pub images: usize,
    /// Patients.
    pub patients: usize,
    /// Each class, in the order of the scores.
    pub classes: Vec<ClassReport>,
    /// The mean area over the classes that have one.
    pub auroc_macro: Option<f64>,
    /// The mean average precision over the classes that have one.
    pub auprc_macro: Option<f64>,
}

/// Scores `[images, classes]`, labels alike, and the patient of each image.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// Image after image; the order alone matters, so logits do as well as probabilities.
    pub scores: &'a [f32],
    /// Image after image; above 1/2 is positive.
    pub targets: &'a [f32],
    /// One an image.
    pub patients: &'a [u32],
}

impl Scored<'_> {
    fn check(&self, classes: usize) -> Result<(), ScoreError> {
        let labels = self.patients.len() * classes;
        for scores in [self.scores.len(), self.targets.len()] {
            if scores != labels {
                return Err(ScoreError::Lengths { scores, labels });
            }
        }
        Ok(())
    }

    fn column(&self, class: usize, classes: usize) -> (Vec<f32>, Vec<bool>) {
        let every =
            |values: &[f32]| values.iter().copied().skip(class).step_by(classes).collect::<Vec<f32>>();
        (every(self.scores), every(self.targets).into_iter().map(|target| target > 0.5).collect())
    }
}

/// The mean of those that are there.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values.flatten() {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// The mean area under the receiver operating characteristic over the classes that have one.
///
/// # Errors
/// A score is NaN, or the lengths differ.
pub fn auroc_macro(scored: Scored, classes: usize) -> Result<Option<f64>, ScoreError> {
    scored.check(classes)?;
    let mut areas = Vec::new();
    for class in 0..classes {
        let (scores, labels) = scored.column(class, classes);
        areas.push(auroc(&scores, &labels)?);
    }
    Ok(mean(areas.into_iter()))
}

impl Report {
    /// Everything, intervals included.
    ///
    /// # Errors
    /// A score is NaN, or the lengths differ.
    pub fn new(names: &[&str], scored: Scored) -> Result<Report, ScoreError> {
        scored.check(names.len())?;
        let resamples = Resamples::new(scored.patients);
        let mut classes = Vec::new();
        for (class, name) in names.iter().enumerate() {
            let (scores, labels) = scored.column(class, names.len());
            let positives = labels.iter().filter(|label| **label).count();
            let ranking = Ranking::new(&scores, &labels)?;
            let (area, precision) = (ranking.auroc(|_| 1), ranking.auprc(|_| 1));
            classes.push(ClassReport {
                name: (*name).to_owned(),
                positives,
                negatives: labels.len() - positives,
                auroc: area,
                auroc_interval: area
                    .and_then(|_| resamples.interval(|draw| ranking.auroc(|image| draw.copies(image)))),
                auprc: precision,
                auprc_interval: precision
                    .and_then(|_| resamples.interval(|draw| ranking.auprc(|image| draw.copies(image)))),
            });
        }
        Ok(Report {
            images: scored.patients.len(),
            patients: scored.patients.iter().collect::<BTreeSet<_>>().len(),
            auroc_macro: mean(classes.iter().map(|class| class.auroc)),
            auprc_macro: mean(classes.iter().map(|class| class.auprc)),
            classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_without_both_labels_take_no_part_in_the_mean() {
        let scored = Scored {
            scores: &[0.9, 0.1, 0.2, 0.3, 0.8, 0.5],
            targets: &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            patients: &[1, 2, 2],
        };
        let report = Report::new(&["a", "b"], scored).unwrap();
        assert_eq!(report.patients, 2);
        assert_eq!(report.classes[0].auroc, Some(1.0));
        assert_eq!(report.classes[1].auroc, None);
        assert_eq!(report.auroc_macro, Some(1.0));
        assert_eq!(auroc_macro(scored, 2).unwrap(), Some(1.0));
        assert_eq!(report.classes[0].auprc, Some(1.0));
        assert_eq!((report.classes[1].auprc_interval, report.auprc_macro), (None, Some(1.0)));
        let lengths = ScoreError::Lengths { scores: 6, labels: 9 };
        assert_eq!(Report::new(&["a", "b", "c"], scored), Err(lengths));
        assert_eq!(auroc_macro(scored, 3), Err(lengths));
    }
}

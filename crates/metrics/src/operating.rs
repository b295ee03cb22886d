//! Thresholds: where a score becomes a statement, and how often that statement is right.
//!
//! A threshold is chosen on the validation part and applied to the test part. At a probability of 1/2 a network
//! trained on rare findings states none.

use crate::auc::Ranking;
use crate::error::ScoreError;
use serde::{Deserialize, Serialize};

/// A threshold, and what it makes of images: a finding is stated where the score is at least the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The threshold, in units of the scores.
    pub threshold: f32,
    /// Positives stated.
    pub true_positives: u64,
    /// Negatives stated.
    pub false_positives: u64,
    /// Negatives not stated.
    pub true_negatives: u64,
    /// Positives not stated.
    pub false_negatives: u64,
}

impl OperatingPoint {
    /// What `threshold` makes of these images.
    ///
    /// # Errors
    /// A score is NaN, or the lengths differ.
    pub fn at(threshold: f32, scores: &[f32], labels: &[bool]) -> Result<OperatingPoint, ScoreError> {
        let mut point = OperatingPoint::nothing_stated(threshold);
        for tie in Ranking::new(scores, labels)?.ties(|_| 1) {
            let (positives, negatives) = (tie.positives, tie.negatives);
            if tie.score >= threshold {
                point.true_positives += positives;
                point.false_positives += negatives;
            } else {
                point.false_negatives += positives;
                point.true_negatives += negatives;
            }
        }
        Ok(point)
    }

    /// The threshold, among the scores, with the largest sensitivity + specificity − 1 (Youden, 1950); the
    /// highest of those that are equal. `None` without both labels.
    ///
    /// # Errors
    /// A score is NaN, or the lengths differ.
    pub fn youden(scores: &[f32], labels: &[bool]) -> Result<Option<OperatingPoint>, ScoreError> {
        let ranking = Ranking::new(scores, labels)?;
        let positives = labels.iter().filter(|label| **label).count() as u64;
        let negatives = labels.len() as u64 - positives;
        if positives == 0 || negatives == 0 {
            return Ok(None);
        }
        let mut point = OperatingPoint {
            false_negatives: positives,
            true_negatives: negatives,
            ..OperatingPoint::nothing_stated(f32::INFINITY)
        };
        let mut best: Option<(i128, OperatingPoint)> = None;
        for tie in ranking.ties(|_| 1) {
            point.threshold = tie.score;
            point.true_positives += tie.positives;
            point.false_negatives -= tie.positives;
            point.false_positives += tie.negatives;
            point.true_negatives -= tie.negatives;
            // (sensitivity − (1 − specificity)) · positives · negatives, in whole numbers.
            let index = i128::from(point.true_positives) * i128::from(negatives)
                - i128::from(point.false_positives) * i128::from(positives);
            if best.is_none_or(|(largest, _)| index > largest) {
                best = Some((index, point));
            }
        }
        Ok(best.map(|(_, point)| point))
    }

    fn nothing_stated(threshold: f32) -> OperatingPoint {
        OperatingPoint {
            threshold,
            true_positives: 0,
            false_positives: 0,
            true_negatives: 0,
            false_negatives: 0,
        }
    }

    /// The share of positives that is stated; `None` without positives.
    pub fn sensitivity(&self) -> Option<f64> {
        share(self.true_positives, self.false_negatives)
    }

    /// The share of negatives that is not stated; `None` without negatives.
    pub fn specificity(&self) -> Option<f64> {
        share(self.true_negatives, self.false_positives)
    }

    /// The share of statements that is right; `None` where nothing is stated.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.false_positives)
    }
}

fn share(part: u64, rest: u64) -> Option<f64> {
    (part + rest > 0).then(|| part as f64 / (part + rest) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::rng::Stream;

    #[test]
    fn a_worked_example() {
        let (scores, labels) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        let point = OperatingPoint::at(0.35, &scores, &labels).unwrap();
        assert_eq!((point.sensitivity(), point.specificity()), (Some(1.0), Some(0.5)));
        assert_eq!(point.precision(), Some(2.0 / 3.0));
        let none = OperatingPoint::at(0.9, &scores, &labels).unwrap();
        assert_eq!((none.sensitivity(), none.specificity(), none.precision()), (Some(0.0), Some(1.0), None));
        // At 0.8 sensitivity 1/2 and specificity 1, at 0.35 the other way round: the higher threshold.
        let best = OperatingPoint::youden(&scores, &labels).unwrap().unwrap();
        assert_eq!((best.threshold, best.true_positives, best.true_negatives), (0.8, 1, 2));
    }

    #[test]
    fn the_best_threshold_is_the_best_of_all() {
        for sample in 0..200 {
            let stream = Stream::new(4, "youden").at(0, sample);
            let n = 2 + u64::from(stream.below(9999, 40));
            let scores: Vec<f32> = (0..n).map(|k| stream.below(k, 11) as f32 - 5.0).collect();
            let labels: Vec<bool> = (0..n).map(|k| stream.below(1000 + k, 3) == 0).collect();
            let best = OperatingPoint::youden(&scores, &labels).unwrap();
            let (p, q) = (labels.iter().filter(|l| **l).count(), labels.iter().filter(|l| !**l).count());
            if p == 0 || q == 0 {
                assert_eq!(best, None);
                continue;
            }
            let mut cuts = scores.clone();
            cuts.sort_by(f32::total_cmp);
            let index = |cut: f32| {
                let stated = |label: bool| {
                    scores.iter().zip(&labels).filter(|(s, l)| **s >= cut && **l == label).count() as i64
                };
                stated(true) * q as i64 - stated(false) * p as i64
            };
            // The last of the largest, in ascending order.
            let cut = cuts.into_iter().max_by_key(|cut| index(*cut)).unwrap();
            let best = best.unwrap();
            assert_eq!(best.threshold, cut);
            assert_eq!(best, OperatingPoint::at(cut, &scores, &labels).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_ranked_is_refused() {
        assert_eq!(OperatingPoint::youden(&[f32::NAN], &[true]), Err(ScoreError::NotANumber(0)));
        assert!(OperatingPoint::at(0.5, &[1.0], &[]).is_err());
        let labels = [true, false];
        let point = OperatingPoint::youden(&[0.0, f32::NEG_INFINITY], &labels).unwrap().unwrap();
        assert_eq!(point.threshold, 0.0);
    }
}

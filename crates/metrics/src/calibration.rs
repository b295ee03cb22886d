//! Whether a probability means what it says.

use crate::error::ScoreError;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// How far probabilities are from frequencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// `Σ (p_k − y_k)² / n` (Brier, 1950); 0 is perfect.
    pub brier: f64,
    /// The expected calibration error, `Σ_b n_b/n · |frequency_b − mean probability_b|` (Naeini et al., 2015).
    pub expected_error: f64,
    /// Bins of equal width: bin b of B holds `b/B ≤ p < (b + 1)/B`, the last also p = 1.
    pub bins: Vec<Bin>,
}

/// The images whose probability lies in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Images.
    pub count: u64,
    /// Positives among them.
    pub positives: u64,
    /// The sum of their probabilities, in the order of the images.
    pub probability: f64,
}

impl Calibration {
    /// Measures probabilities against labels; `None` without images. Sums run in the order of the images, in f64.
    ///
    /// # Errors
    /// A score is not in [0, 1], or the lengths differ.
    pub fn new(
        probabilities: &[f32],
        labels: &[bool],
        bins: NonZeroUsize,
    ) -> Result<Option<Calibration>, ScoreError> {
        if probabilities.len() != labels.len() {
            return Err(ScoreError::Lengths { scores: probabilities.len(), labels: labels.len() });
        }
        if let Some(at) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
            return Err(ScoreError::NotAProbability(at));
        }
        let mut found = vec![Bin::default(); bins.get()];
        let mut squares = 0.0;
        for (p, label) in probabilities.iter().zip(labels) {
            let p = f64::from(*p);
            let error = p - f64::from(u8::from(*label));
            squares += error * error;
            let bin = &mut found[((p * bins.get() as f64) as usize).min(bins.get() - 1)];
            bin.count += 1;
            bin.positives += u64::from(*label);
            bin.probability += p;
        }
        let mut distance = 0.0;
        for bin in &found {
            distance += (bin.positives as f64 - bin.probability).abs();
        }
        let n = labels.len() as f64;
        Ok((n > 0.0).then(|| Calibration { brier: squares / n, expected_error: distance / n, bins: found }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(probabilities: &[f32], labels: &[bool], bins: usize) -> Result<Option<Calibration>, ScoreError> {
        Calibration::new(probabilities, labels, NonZeroUsize::new(bins).unwrap())
    }

    #[test]
    fn a_worked_example() {
        let labels = [false, true, true, false];
        let found = go(&[0.0, 0.25, 1.0, 0.75], &labels, 2).unwrap().unwrap();
        assert_eq!(found.brier, (0.5625 + 0.5625) / 4.0);
        // Below 1/2: one of two, at a mean of 1/8. Above: one of two, at a mean of 7/8.
        assert_eq!(found.expected_error, 0.375);
        assert_eq!(found.bins[0], Bin { count: 2, positives: 1, probability: 0.25 });
        assert_eq!(found.bins[1], Bin { count: 2, positives: 1, probability: 1.75 });
    }

    #[test]
    fn a_boundary_belongs_to_the_bin_above_and_one_to_the_last() {
        let counts = |probabilities: &[f32], bins: usize| -> Vec<u64> {
            let labels = vec![false; probabilities.len()];
            go(probabilities, &labels, bins).unwrap().unwrap().bins.iter().map(|bin| bin.count).collect()
        };
        let below = f32::from_bits(0.5_f32.to_bits() - 1);
        assert_eq!(counts(&[0.0, below, 0.5, 1.0], 2), [2, 2]);
        assert_eq!(counts(&[1.0], 15)[14], 1);
        // The f32 nearest to 1/3 lies above it.
        assert_eq!(counts(&[1.0 / 3.0], 3), [0, 1, 0]);
    }

    #[test]
    fn frequencies_that_are_met_have_no_error() {
        let labels: Vec<bool> = (0..8).map(|k| k % 4 == 0).collect();
        assert_eq!(go(&[0.25; 8], &labels, 10).unwrap().unwrap().expected_error, 0.0);
        assert_eq!(go(&[1.0, 0.0], &[true, false], 10).unwrap().unwrap().brier, 0.0);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for bad in [f32::NAN, -0.1, 1.5] {
            assert_eq!(go(&[0.5, bad], &[true, true], 10), Err(ScoreError::NotAProbability(1)));
        }
        assert!(go(&[0.5], &[], 10).is_err());
        assert_eq!(go(&[], &[], 10), Ok(None));
    }
}

//! Confidence intervals by resampling patients (Efron, 1979): the images of one patient are not independent, so
//! an interval that resamples images is too narrow.

use crate::auc::ScoreError;
use kinone_core::rng::Stream;
use std::collections::BTreeMap;

/// Resamples of a bootstrap.
const RESAMPLES: u32 = 1000;

/// The images of each patient, patients in ascending order.
#[derive(Clone, Debug)]
pub struct Clusters(Vec<Vec<usize>>);

impl Clusters {
    /// Groups images by their patient.
    pub fn new(patients: &[u32]) -> Clusters {
        let mut images: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (image, patient) in patients.iter().enumerate() {
            images.entry(*patient).or_default().push(image);
        }
        Clusters(images.into_values().collect())
    }

    /// The number of patients.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// As many patients as there are, drawn with replacement; their images.
    fn resample(&self, stream: &Stream) -> Vec<usize> {
        let count = self.0.len() as u32;
        (0..u64::from(count)).flat_map(|k| self.0[stream.below(k, count) as usize].iter().copied()).collect()
    }
}

/// The 95 % percentile interval of `statistic` over resampled patients; `None` where fewer than half of the
/// resamples have a value.
///
/// # Errors
/// Those of `statistic`.
pub fn interval(
    clusters: &Clusters,
    statistic: impl Fn(&[usize]) -> Result<Option<f64>, ScoreError>,
) -> Result<Option<[f64; 2]>, ScoreError> {
    let stream = Stream::new(0, "bootstrap");
    let mut values = Vec::new();
    for resample in 0..RESAMPLES {
        values.extend(statistic(&clusters.resample(&stream.at(resample, 0)))?);
    }
    if values.len() < RESAMPLES as usize / 2 {
        return Ok(None);
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    Ok(Some([at(0.025), at(0.975)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_drawn_whole() {
        let clusters = Clusters::new(&[7, 7, 3, 7]);
        assert_eq!(clusters.count(), 2);
        let drawn = clusters.resample(&Stream::new(1, "x"));
        for image in [0, 1, 3] {
            let count = |k: usize| drawn.iter().filter(|image| **image == k).count();
            assert_eq!(count(image), count(0));
        }
    }

    /// Four images a patient, all alike: the interval is that of the patients, twice as wide as that of the
    /// images would be.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_patients() {
        let values: Vec<f64> = (0..400).map(|image| f64::from(image / 4 % 2)).collect();
        let mean = |images: &[usize]| {
            let sum = images.iter().fold(0.0, |sum, image| sum + values[*image]);
            Ok(Some(sum / images.len() as f64))
        };
        let width = |patients: Vec<u32>| {
            let [low, high] = interval(&Clusters::new(&patients), mean).unwrap().unwrap();
            assert!(low < 0.5 && 0.5 < high);
            high - low
        };
        let by_patient = width((0..400).map(|image| image / 4).collect());
        let by_image = width((0..400).collect());
        // 2·1.96·√(0.25/100) and half of it; 1000 resamples know a quantile to a few percent.
        assert!((by_patient / by_image - 2.0).abs() < 0.4, "{by_patient} {by_image}");
    }
}

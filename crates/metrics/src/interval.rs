//! Confidence intervals by resampling patients (Efron, 1979): the images of one patient are not independent, so
//! an interval that resamples images is too narrow.

use kinone_core::rng::Stream;
use std::collections::BTreeMap;

/// How many times the patients are resampled.
const COUNT: u32 = 1000;

/// Draws of as many patients as there are, with replacement; a patient is drawn with all images.
#[derive(Clone, Debug)]
pub struct Resamples {
    /// The patient of each image, as a place in the ascending order of the patients.
    patient: Vec<usize>,
    /// Of each draw: how many times each patient was drawn.
    times: Vec<Vec<u32>>,
}

impl Resamples {
    /// The draws for images of these patients: always the same.
    pub fn new(patients: &[u32]) -> Resamples {
        let mut places: BTreeMap<u32, usize> = patients.iter().map(|patient| (*patient, 0)).collect();
        for (place, (_, found)) in places.iter_mut().enumerate() {
            *found = place;
        }
        let count = places.len();
        let draw = |resample: u32| {
            let stream = Stream::new(0, "bootstrap").at(resample, 0);
            let mut times = vec![0; count];
            for k in 0..count as u64 {
                times[stream.below(k, count as u32) as usize] += 1;
            }
            times
        };
        Resamples {
            patient: patients.iter().map(|patient| places[patient]).collect(),
            times: (0..COUNT).map(draw).collect(),
        }
    }

    /// The 95 % percentile interval of a statistic that counts each image as often as the draw holds it; `None`
    /// where fewer than half of the draws have a value.
    pub fn interval(&self, statistic: impl Fn(Draw) -> Option<f64>) -> Option<[f64; 2]> {
        let draws = self.times.iter().map(|times| Draw { patient: &self.patient, times });
        let mut values: Vec<f64> = draws.filter_map(statistic).collect();
        if values.len() < self.times.len() / 2 {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        Some([at(0.025), at(0.975)])
    }
}

/// One draw of patients.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    patient: &'a [usize],
    times: &'a [u32],
}

impl Draw<'_> {
    /// How often the draw holds this image: as often as its patient.
    pub fn copies(&self, image: usize) -> u64 {
        u64::from(self.times[self.patient[image]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_are_drawn_whole_and_as_many_as_there_are() {
        let resamples = Resamples::new(&[7, 7, 3, 7]);
        assert_eq!(resamples.patient, [1, 1, 0, 1]);
        assert_eq!(resamples.times.len(), 1000);
        assert!(resamples.times.iter().all(|times| times.iter().sum::<u32>() == 2));
        // One patient twice, the other twice, each once: a quarter, a quarter, a half of 1000, within five
        // standard deviations.
        let twice = |place: usize| resamples.times.iter().filter(|times| times[place] == 2).count() as f64;
        for place in [0, 1] {
            assert!(
                (twice(place) - 250.0).abs() < 5.0 * (1000.0_f64 * 0.25 * 0.75).sqrt(),
                "{}",
                twice(place)
            );
        }
    }

    /// Patients 0 … 99, one image each; the statistic is the sum of those drawn.
    #[test]
    fn the_interval_is_made_of_the_draws_25th_from_either_end() {
        let patients: Vec<u32> = (0..100).collect();
        let resamples = Resamples::new(&patients);
        let sum = |draw: Draw| (0..100).map(|image| draw.copies(image) * image as u64).sum::<u64>();
        let [low, high] = resamples.interval(|draw| Some(sum(draw) as f64)).unwrap();
        let by_hand = |times: &Vec<u32>| times.iter().zip(0..).map(|(times, patient)| times * patient).sum();
        let mut sums: Vec<u32> = resamples.times.iter().map(by_hand).collect();
        sums.sort_unstable();
        assert_eq!([low, high], [f64::from(sums[25]), f64::from(sums[974])]);
        assert!(sums[24] < sums[25] && sums[974] < sums[975], "neighbours would pass unseen");
    }

    #[test]
    fn a_statistic_that_is_mostly_missing_has_no_interval() {
        let resamples = Resamples::new(&[1, 2, 3]);
        // Patient 1 is drawn three times in 1 of 27 draws.
        assert_eq!(resamples.interval(|draw| (draw.copies(0) == 3).then_some(1.0)), None);
        assert_eq!(resamples.interval(|draw| (draw.copies(0) < 3).then_some(1.0)), Some([1.0, 1.0]));
        assert_eq!(Resamples::new(&[]).interval(|_| None), None);
    }

    /// Four images a patient, all alike: the interval is that of the patients, twice as wide as that of the
    /// images would be.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_patients() {
        let mean = |draw: Draw| {
            let (mut sum, mut count) = (0, 0);
            for image in 0..400 {
                sum += draw.copies(image) * (image as u64 / 4 % 2);
                count += draw.copies(image);
            }
            Some(sum as f64 / count as f64)
        };
        let width = |patients: Vec<u32>| {
            let [low, high] = Resamples::new(&patients).interval(mean).unwrap();
            assert!(low < 0.5 && 0.5 < high);
            high - low
        };
        let by_patient = width((0..400).map(|image| image / 4).collect());
        let by_image = width((0..400).collect());
        // 2·1.96·√(0.25/100) and half of it; 1000 resamples know a quantile to a few percent.
        assert!((by_patient / by_image - 2.0).abs() < 0.4, "{by_patient} {by_image}");
    }
}

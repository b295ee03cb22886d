//! Radiographs that are made rather than read: what the built-in set offers.

use crate::error::DataError;
use crate::labels::Findings;
use crate::table::{Sex, View};

/// What is known of one radiograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub patient: u32,
    /// The number of the visit, from 0, different for each radiograph of a patient.
    pub follow_up: u32,
    /// The age in years.
    pub age: u16,
    /// The sex.
    pub sex: Sex,
    /// The view.
    pub view: View,
    /// What it shows.
    pub findings: Findings,
}

impl Record {
    /// The name as in the NIH set: `NNNNNNNN_NNN.png` from patient and visit.
    pub fn image(&self) -> String {
        format!("{:08}_{:03}.png", self.patient, self.follow_up)
    }
}

/// A numbered set of radiographs, each a pure function of its number.
pub trait Source: Sync {
    /// What the set is, with everything that decides its content, for the record of a run.
    fn description(&self) -> String;
    /// How many radiographs there are.
    fn count(&self) -> usize;
    /// The side of each in pixels.
    fn size(&self) -> usize;
    /// What is known of radiograph `index`, below `count`. Cheap: it is asked for before the pixels.
    fn record(&self, index: usize) -> Record;
    /// The gray values of radiograph `index`: `size` rows of `size`, the top row first.
    fn pixels(&self, index: usize) -> Vec<u8>;
}

/// The records in the order of the image names, each with its number.
///
/// # Errors
/// Two radiographs have the same name.
pub(crate) fn sorted_records(source: &dyn Source) -> Result<Vec<(Record, usize)>, DataError> {
    let mut records: Vec<(Record, usize)> = (0..source.count()).map(|k| (source.record(k), k)).collect();
    records.sort_by_cached_key(|(record, _)| record.image());
    for pair in records.windows(2) {
        let name = pair[0].0.image();
        if name == pair[1].0.image() {
            return Err(DataError::TwoImages { first: name.clone().into(), second: name.into() });
        }
    }
    Ok(records)
}

//! Who comes, how often, and with what.

use crate::labels::Findings;
use crate::source::Record;
use crate::table::{Sex, View};
use kinone_core::rng::Stream;

/// One radiograph of one patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) patient: u32,
    pub(super) follow_up: u32,
}

impl Visit {
    /// Random numbers of this visit alone.
    pub(super) fn stream(self, seed: u64, purpose: &str) -> Stream {
        Stream::new(seed, purpose).at(self.follow_up, u64::from(self.patient))
    }
}

/// Random numbers of a patient, the same at every visit.
pub(super) fn patient_stream(seed: u64, patient: u32, purpose: &str) -> Stream {
    Stream::new(seed, purpose).at(0, u64::from(patient))
}

/// The first `count` visits: patients in order, one to five visits each.
pub(super) fn visits(seed: u64, count: usize) -> Vec<Visit> {
    let mut visits = Vec::with_capacity(count);
    let mut patient = 1;
    while visits.len() < count {
        let draw = patient_stream(seed, patient, "synth/visits").below(0, 16);
        let number = [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 5][draw as usize];
        visits.extend((0..number).map(|follow_up| Visit { patient, follow_up }));
        patient += 1;
    }
    visits.truncate(count);
    visits
}

/// Of 1000 patients with a finding, how many have each one to begin with, in the order of
/// [`FINDINGS`](crate::FINDINGS).
const OFTEN: [u32; 14] = [170, 130, 170, 170, 130, 140, 80, 120, 110, 80, 90, 90, 110, 70];

/// Finding, finding that comes with it, of 100 how often.
const TOGETHER: [(usize, usize, u32); 9] = [
    (EFFUSION, ATELECTASIS, 35),
    (EDEMA, EFFUSION, 45),
    (EDEMA, CARDIOMEGALY, 40),
    (CARDIOMEGALY, EFFUSION, 20),
    (PNEUMONIA, INFILTRATION, 40),
    (PNEUMONIA, CONSOLIDATION, 20),
    (EMPHYSEMA, PNEUMOTHORAX, 25),
    (FIBROSIS, PLEURAL_THICKENING, 25),
    (MASS, NODULE, 20),
];

pub(super) const ATELECTASIS: usize = 0;
pub(super) const CARDIOMEGALY: usize = 1;
pub(super) const EFFUSION: usize = 2;
pub(super) const INFILTRATION: usize = 3;
pub(super) const MASS: usize = 4;
pub(super) const NODULE: usize = 5;
pub(super) const PNEUMONIA: usize = 6;
pub(super) const PNEUMOTHORAX: usize = 7;
pub(super) const CONSOLIDATION: usize = 8;
pub(super) const EDEMA: usize = 9;
pub(super) const EMPHYSEMA: usize = 10;
pub(super) const FIBROSIS: usize = 11;
pub(super) const PLEURAL_THICKENING: usize = 12;
pub(super) const HERNIA: usize = 13;

/// What a patient has, before a visit changes it: of 100 patients 42 have nothing.
fn chronic(seed: u64, patient: u32) -> [bool; 14] {
    let stream = patient_stream(seed, patient, "synth/findings");
    let mut has = [false; 14];
    if stream.below(0, 100) < 42 {
        return has;
    }
    // One for certain, the others by chance.
    let mut at = stream.below(1, OFTEN.iter().sum());
    for (finding, often) in OFTEN.iter().enumerate() {
        if at < *often {
            has[finding] = true;
            break;
        }
        at -= often;
    }
    for (finding, often) in OFTEN.iter().enumerate() {
        has[finding] |= stream.below(10 + finding as u64, 1000) < often / 3;
    }
    for (k, (cause, effect, percent)) in TOGETHER.into_iter().enumerate() {
        has[effect] |= has[cause] && stream.below(100 + k as u64, 100) < percent;
    }
    has
}

/// Everything known about a radiograph but its pixels.
pub(super) fn record(seed: u64, visit: Visit) -> Record {
    let patient = patient_stream(seed, visit.patient, "synth/patient");
    let stream = visit.stream(seed, "synth/visit");
    let chronic = chronic(seed, visit.patient);
    let mut bits = 0_u16;
    for (finding, has) in chronic.into_iter().enumerate() {
        // Most findings stay from visit to visit, a few come.
        let draw = stream.below(finding as u64, 1000);
        let shown = if has { draw < 880 } else { chronic.contains(&true) && draw < 15 };
        if shown {
            bits |= 1 << finding;
        }
    }
    Record {
        patient: visit.patient,
        follow_up: visit.follow_up,
        age: (18 + patient.below(0, 70) + visit.follow_up) as u16,
        sex: if patient.below(1, 2) == 0 { Sex::Male } else { Sex::Female },
        view: if stream.below(50, 100) < 40 { View::AnteroPosterior } else { View::PosteroAnterior },
        findings: Findings::from_bits(bits).unwrap_or_default(),
    }
}

//! What a chest looks like: densities from 0 (air) to about 1000 (bone), a function of the place.

use super::noise::{SIDE, Texture, ellipse, inside};
use super::patients::{self, Visit};
use crate::source::Record;
use crate::table::{Sex, View};
use kinone_core::rng::Stream;

/// A random number in `low..=high`.
pub(super) fn between(stream: &Stream, index: u64, low: i64, high: i64) -> i64 {
    low + i64::from(stream.below(index, (high - low + 1) as u32))
}

/// One lung: an ellipse cut by the diaphragm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lung {
    /// −1 on the left of the image (the patient's right), 1 on the right.
    pub(super) side: i64,
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) rx: i64,
    pub(super) ry: i64,
    /// Where the dome of the diaphragm has its top, and how far it falls to the side.
    pub(super) floor: i64,
    pub(super) fall: i64,
}

impl Lung {
    /// How far (x, y) lies outside the lung; negative inside.
    pub(super) fn distance(&self, x: i64, y: i64) -> i64 {
        ellipse(x - self.x, y - self.y, self.rx, self.ry).max(y - self.bottom(x))
    }

    /// The height of the diaphragm under x: a dome, deepest at the chest wall.
    pub(super) fn bottom(&self, x: i64) -> i64 {
        let off = (x - self.x + self.side * self.rx / 4) * 1024 / self.rx;
        self.floor + self.fall * off * off / (1024 * 1024)
    }
}

/// A chest as it stands in one radiograph.
#[derive(Clone, Debug)]
pub(super) struct Chest {
    pub(super) lungs: [Lung; 2],
    /// Centre and radii of the heart.
    pub(super) heart: [i64; 4],
    /// The middle of the spine.
    pub(super) middle: i64,
    /// The density of air-filled lung.
    pub(super) lung_density: i64,
    pub(super) fine: Texture,
    pub(super) coarse: Texture,
    rib_period: i64,
    rib_phase: i64,
    rib_density: i64,
    body: i64,
    shoulder: i64,
    breasts: i64,
    vessels: Texture,
    tilt: i64,
}

impl Chest {
    /// The healthy chest of a patient, as he stands at this visit.
    pub(super) fn new(seed: u64, visit: Visit, record: &Record) -> Chest {
        let p = patients::patient_stream(seed, visit.patient, "synth/anatomy");
        let v = visit.stream(seed, "synth/pose");
        let frontal = record.view == View::PosteroAnterior;
        let scale = between(&p, 0, 920, 1060) + between(&v, 0, -25, 25);
        let length = |x: i64| x * scale / 1000;
        let middle = SIDE / 2 + between(&v, 1, -150, 150);
        let height = between(&v, 2, -130, 130);
        let breath = between(&v, 3, -170, 170) - if frontal { 0 } else { 120 };
        let lung = |side: i64| {
            let k = 10 + (side + 1) as u64;
            Lung {
                side,
                x: middle + side * length(between(&p, k, 830, 930)),
                y: 1950 + height,
                rx: length(between(&p, k + 4, 620, 720)),
                ry: length(between(&p, k + 8, 1380, 1540)),
                floor: 2950 + height + breath - side * between(&p, 30, 0, 90),
                fall: between(&p, k + 12, 170, 300),
            }
        };
        let broad = if frontal { 1000 } else { 1130 };
        let rx = length(between(&p, 40, 500, 650)) * broad / 1000;
        let heart = [
            middle + rx * between(&p, 41, 28, 44) / 100,
            2560 + height,
            rx,
            length(between(&p, 42, 640, 760)),
        ];
        let texture = |purpose: &str, cell| Texture::new(&visit.stream(seed, purpose), cell);
        Chest {
            lungs: [lung(-1), lung(1)],
            heart,
            middle,
            lung_density: 200 + between(&v, 4, -70, 70),
            fine: texture("synth/fine", 128),
            coarse: texture("synth/coarse", 420),
            rib_period: length(between(&p, 43, 330, 390)),
            rib_phase: between(&v, 5, 0, 390),
            rib_density: between(&p, 44, 60, 120),
            body: length(between(&p, 45, 1780, 1960)),
            shoulder: between(&p, 46, 500, 800) + height,
            breasts: if record.sex == Sex::Female { between(&p, 47, 30, 110) } else { 0 },
            vessels: Texture::new(&patients::patient_stream(seed, visit.patient, "synth/vessels"), 210),
            tilt: between(&v, 6, -90, 90),
        }
    }

    /// The place in the upright chest that is seen at (x, y) of a tilted one.
    pub(super) fn upright(&self, x: i64, y: i64) -> (i64, i64) {
        let (dx, dy) = (x - SIDE / 2, y - SIDE / 2);
        (x + dy * self.tilt / 1024, y - dx * self.tilt / 1024)
    }

    /// The lung at x.
    pub(super) fn lung_at(&self, x: i64) -> &Lung {
        &self.lungs[usize::from(x > self.middle)]
    }

    /// How far inside a lung (x, y) is, of 1000.
    pub(super) fn aeration(&self, x: i64, y: i64) -> i64 {
        inside(self.lung_at(x).distance(x, y), 55)
    }

    /// How far inside the heart, of 1000.
    pub(super) fn in_heart(&self, x: i64, y: i64) -> i64 {
        let [cx, cy, rx, ry] = self.heart;
        // The axis of a heart leans to the patient's left.
        inside(ellipse(x - cx - (y - cy) / 4, y - cy, rx, ry), 60)
    }

    /// The vessels that leave the hilum and thin out to the side, of 1000.
    pub(super) fn vessels(&self, x: i64, y: i64) -> i64 {
        let lung = self.lung_at(x);
        let hilum = (x - (lung.x - lung.side * lung.rx / 2)).abs() + (y - lung.y - 150).abs();
        let strength = (1500 - hilum).clamp(0, 1500);
        self.vessels.at(x, y).max(0) * strength / 1500
    }

    /// Bone before or behind the lungs: ribs, clavicles, spine.
    pub(super) fn bone(&self, x: i64, y: i64) -> i64 {
        let off = (x - self.middle).abs();
        // Ribs fall away from the spine, and more the farther out.
        let along = y - off * off / 3200 + self.rib_phase;
        let place = along.rem_euclid(self.rib_period);
        let ribs = if (150..self.body - 150).contains(&off) && y > 500 {
            inside((place - self.rib_period / 2).abs() - self.rib_period / 6, 40) * self.rib_density / 1000
        } else {
            0
        };
        let clavicle = (y - (self.shoulder + 330 - off / 5)).abs();
        let clavicles = if (170..1350).contains(&off) { inside(clavicle - 50, 30) * 150 / 1000 } else { 0 };
        let discs = if y.rem_euclid(310) < 60 { 40 } else { 0 };
        let spine = inside(off - 210, 60) * (230 - discs) / 1000;
        ribs + clavicles + spine
    }

    /// Skin, muscle and fat: the outline of the body, of 1000.
    pub(super) fn tissue(&self, x: i64, y: i64) -> i64 {
        let off = (x - self.middle).abs();
        let neck = if y < self.shoulder { 560 + (y * 1400 / self.shoulder.max(1)) } else { self.body };
        let trunk = inside(off - neck.min(self.body), 50);
        let lung = self.lung_at(x);
        let breast = inside(ellipse(x - lung.x, y - 2750, 620, 560), 250) * self.breasts / 1000;
        trunk * (560 + (y - 1000).clamp(0, 2600) / 40 + breast) / 1000
    }
}

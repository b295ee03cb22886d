//! From densities to gray values: exposure, scatter, noise, and the marks of a radiographer.

use super::anatomy::{Chest, between};
use super::disease::lesions;
use super::noise::{SIDE, Texture, inside};
use super::patients::Visit;
use crate::source::Record;

/// The radiograph of a visit, `size` rows of `size` gray values.
pub(super) fn radiograph(seed: u64, visit: Visit, record: &Record, size: usize) -> Vec<u8> {
    let mut chest = Chest::new(seed, visit, record);
    let lesions = lesions(seed, visit, record.findings, &mut chest);
    let film = visit.stream(seed, "synth/film");
    let gain = between(&film, 0, 185, 275);
    let fog = between(&film, 1, 0, 50);
    let (across, down) = (between(&film, 2, -22, 22), between(&film, 3, -18, 18));
    let grain = between(&film, 4, 5, 9);
    let clouds = Texture::new(&visit.stream(seed, "synth/clouds"), 900);
    let noise = visit.stream(seed, "synth/noise");
    let mark = Mark::new(&film);
    let mut pixels = vec![0; size * size];
    for (at, pixel) in pixels.iter_mut().enumerate() {
        let place = |index: usize| (2 * index as i64 + 1) * SIDE / (2 * size as i64);
        let (px, py) = (place(at % size), place(at / size));
        let (x, y) = chest.upright(px, py);
        let mut density = tissue(&chest, x, y);
        for lesion in &lesions {
            density += shaded(lesion.density(&chest, x, y), density);
        }
        density += clouds.at(px, py) / 40;
        let slant = across * (px - SIDE / 2) / SIDE + down * (py - SIDE / 2) / SIDE;
        // The film saturates: dense parts differ less than thin ones.
        let shown = density.clamp(0, 1400);
        let shown = shown - shown * shown / 4200;
        let mut gray = fog + slant + shown * gain / 934;
        gray = mark.over(px, py, gray);
        // The sum of four random bytes is nearly normal.
        let bytes =
            noise.bits(at as u64).to_le_bytes().iter().map(|byte| i64::from(*byte)).sum::<i64>() - 510;
        *pixel = (gray + bytes * grain / 148).clamp(0, 255) as u8;
    }
    pixels
}

/// What a lesion adds where there is `density` already: less behind what is dense.
fn shaded(lesion: i64, density: i64) -> i64 {
    if lesion > 0 { lesion * (1150 - density).clamp(100, 1000) / 850 } else { lesion }
}

/// The density of the chest itself.
fn tissue(chest: &Chest, x: i64, y: i64) -> i64 {
    let soft = chest.tissue(x, y);
    let heart = chest.in_heart(x, y);
    let air = chest.aeration(x, y) * (1000 - heart * 85 / 100) / 1000;
    let lung = chest.lung_density + chest.vessels(x, y) / 5 + chest.fine.at(x, y) / 45;
    let filled = soft * (1000 - air) / 1000 + lung * air / 1000;
    // The mediastinum is as dense as the heart.
    let between_lungs = inside((x - chest.middle).abs() - 300, 90) * 90 / 1000;
    filled + (heart * 110 / 1000) + chest.bone(x, y) + between_lungs * soft / 1000
}

/// A letter-like mark or a tube: seen in many radiographs, with no meaning.
struct Mark {
    x: i64,
    y: i64,
    lead: bool,
    tube: Option<i64>,
}

impl Mark {
    fn new(film: &kinone_core::rng::Stream) -> Mark {
        let left = film.below(10, 2) == 0;
        Mark {
            x: if left { between(film, 11, 180, 420) } else { SIDE - between(film, 11, 180, 420) },
            y: between(film, 12, 180, 500),
            lead: film.below(13, 3) > 0,
            tube: (film.below(14, 5) == 0).then(|| between(film, 15, 1500, 2600)),
        }
    }

    fn over(&self, x: i64, y: i64, gray: i64) -> i64 {
        if self.lead && (x - self.x).abs() < 110 && (y - self.y).abs() < 110 {
            return 245;
        }
        match self.tube {
            Some(tube) if y < 2600 && (x - tube - (y - 1300) * (y - 1300) / 9000).abs() < 28 => gray + 45,
            _ => gray,
        }
    }
}

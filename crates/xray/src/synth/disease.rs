//! What findings do to a chest: each adds or takes density where it lies.

use super::anatomy::{Chest, Lung, between};
use super::noise::{ellipse, inside};
use super::patients::{
    ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION, EMPHYSEMA, FIBROSIS, HERNIA, INFILTRATION,
    MASS, NODULE, PLEURAL_THICKENING, PNEUMONIA, PNEUMOTHORAX, Visit,
};
use crate::labels::Findings;
use kinone_core::rng::Stream;

/// One change of density.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lesion {
    /// A plate of collapsed lung: a band that slopes.
    Plate { lung: Lung, x: i64, y: i64, slope: i64, length: i64, width: i64, density: i64 },
    /// Fluid: what is below a meniscus that climbs at the chest wall.
    Fluid { lung: Lung, level: i64 },
    /// Soft patches, cloudy.
    Cloud { lung: Lung, x: i64, y: i64, rx: i64, ry: i64, density: i64 },
    /// A dense part of a lung with a sharp border, the air in its bronchi still dark.
    Lobe { lung: Lung, border: i64, upper: bool, density: i64 },
    /// A round, sharp shadow.
    Round { x: i64, y: i64, radius: i64, density: i64 },
    /// Air outside the lung: a dark rim without vessels, and the fine line of the pleura.
    Rim { lung: Lung, width: i64 },
    /// Fluid about the hila of both lungs, like the wings of a bat.
    Wings { density: i64 },
    /// Fine strands at the bases of both lungs.
    Strands { density: i64, top: i64 },
    /// A thick pleura along the chest wall.
    Pleura { lung: Lung, width: i64, top: i64, bottom: i64, density: i64 },
    /// A stomach in the chest: a round shadow behind the heart with air in it.
    Stomach { x: i64, y: i64, radius: i64, density: i64 },
}

/// A place well inside a lung, between two heights of 1000.
fn place(stream: &Stream, index: u64, lung: &Lung, top: i64, bottom: i64) -> (i64, i64) {
    let height = between(stream, index, top, bottom);
    let y = lung.y - lung.ry + height * (lung.floor - lung.y + lung.ry) / 1000;
    let x = lung.x + lung.rx * between(stream, index + 1, -420, 420) / 1000;
    (x, y)
}

/// Draws the findings of a visit; the large ones change the chest itself.
pub(super) fn lesions(seed: u64, visit: Visit, findings: Findings, chest: &mut Chest) -> Vec<Lesion> {
    let stream = |finding: usize| visit.stream(seed, &format!("synth/finding/{finding}"));
    let has = |finding: usize| findings.has(finding);
    if has(CARDIOMEGALY) {
        let s = stream(CARDIOMEGALY);
        let wider = between(&s, 0, 1230, 1430);
        chest.heart[0] += chest.heart[2] * (wider - 1000) / 2600;
        chest.heart[2] = chest.heart[2] * wider / 1000;
        chest.heart[3] = chest.heart[3] * between(&s, 1, 1080, 1200) / 1000;
    }
    if has(EMPHYSEMA) {
        let s = stream(EMPHYSEMA);
        chest.lung_density -= between(&s, 0, 40, 75);
        for lung in &mut chest.lungs {
            lung.floor += between(&s, 1, 130, 250);
            lung.fall /= 6;
            lung.ry += 150;
        }
        chest.heart[2] = chest.heart[2] * 780 / 1000;
    }
    let lungs = chest.lungs;
    let side = |s: &Stream, index: u64| lungs[s.below(index, 2) as usize];
    let mut lesions = Vec::new();
    if has(ATELECTASIS) {
        let s = stream(ATELECTASIS);
        for k in 0..u64::from(1 + s.below(0, 2)) {
            let lung = side(&s, 10 * k + 1);
            let (x, y) = place(&s, 10 * k + 2, &lung, 520, 860);
            lesions.push(Lesion::Plate {
                lung,
                x,
                y,
                slope: between(&s, 10 * k + 4, -300, 300),
                length: between(&s, 10 * k + 5, 420, 640),
                width: between(&s, 10 * k + 6, 55, 95),
                density: between(&s, 10 * k + 7, 300, 420),
            });
        }
    }
    if has(EFFUSION) {
        let s = stream(EFFUSION);
        let both = s.below(0, 3) == 0;
        let one = side(&s, 1);
        for lung in lungs.into_iter().filter(|lung| both || lung.side == one.side) {
            lesions.push(Lesion::Fluid { lung, level: lung.floor - between(&s, 4, 40, 420) });
        }
    }
    if has(INFILTRATION) {
        let s = stream(INFILTRATION);
        for k in 0..u64::from(2 + s.below(0, 2)) {
            let lung = side(&s, 10 * k + 1);
            let (x, y) = place(&s, 10 * k + 2, &lung, 250, 850);
            let (rx, ry) = (between(&s, 10 * k + 4, 260, 420), between(&s, 10 * k + 5, 260, 460));
            lesions.push(Lesion::Cloud { lung, x, y, rx, ry, density: between(&s, 10 * k + 6, 190, 270) });
        }
    }
    if has(MASS) {
        let s = stream(MASS);
        let (x, y) = place(&s, 2, &side(&s, 1), 220, 800);
        let radius = between(&s, 4, 250, 400);
        lesions.push(Lesion::Round { x, y, radius, density: between(&s, 5, 330, 460) });
    }
    if has(NODULE) {
        let s = stream(NODULE);
        for k in 0..u64::from(1 + s.below(0, 3)) {
            let (x, y) = place(&s, 10 * k + 2, &side(&s, 10 * k + 1), 160, 850);
            let radius = between(&s, 10 * k + 4, 95, 140);
            lesions.push(Lesion::Round { x, y, radius, density: between(&s, 10 * k + 5, 360, 480) });
        }
    }
    if has(PNEUMONIA) {
        let s = stream(PNEUMONIA);
        let lung = side(&s, 1);
        let (x, y) = place(&s, 2, &lung, 600, 850);
        let (rx, ry) = (between(&s, 4, 480, 620), between(&s, 5, 380, 520));
        lesions.push(Lesion::Cloud { lung, x, y, rx, ry, density: between(&s, 6, 340, 430) });
    }
    if has(PNEUMOTHORAX) {
        let s = stream(PNEUMOTHORAX);
        lesions.push(Lesion::Rim { lung: side(&s, 1), width: between(&s, 2, 220, 380) });
    }
    if has(CONSOLIDATION) {
        let s = stream(CONSOLIDATION);
        let lung = side(&s, 1);
        let upper = s.below(2, 2) == 0;
        let share = if upper { between(&s, 3, 330, 460) } else { between(&s, 3, 620, 740) };
        let border = lung.y - lung.ry + share * (lung.floor - lung.y + lung.ry) / 1000;
        lesions.push(Lesion::Lobe { lung, border, upper, density: between(&s, 4, 230, 330) });
    }
    if has(EDEMA) {
        lesions.push(Lesion::Wings { density: between(&stream(EDEMA), 0, 150, 250) });
    }
    if has(FIBROSIS) {
        let s = stream(FIBROSIS);
        lesions.push(Lesion::Strands { density: between(&s, 0, 300, 400), top: between(&s, 1, 480, 620) });
    }
    if has(PLEURAL_THICKENING) {
        let s = stream(PLEURAL_THICKENING);
        let top = between(&s, 3, 50, 350);
        lesions.push(Lesion::Pleura {
            lung: side(&s, 1),
            width: between(&s, 2, 130, 200),
            top,
            bottom: top + between(&s, 4, 350, 550),
            density: between(&s, 5, 320, 430),
        });
    }
    if has(HERNIA) {
        let s = stream(HERNIA);
        let (x, y) =
            (chest.middle + between(&s, 0, -150, 350), chest.lungs[1].floor - between(&s, 1, 150, 420));
        let radius = between(&s, 2, 340, 460);
        lesions.push(Lesion::Stomach { x, y, radius, density: between(&s, 3, 260, 340) });
    }
    lesions
}

impl Lesion {
    /// The density it adds at (x, y).
    pub(super) fn density(&self, chest: &Chest, x: i64, y: i64) -> i64 {
        // Only in this lung, inside its border.
        let within = |lung: &Lung| inside(lung.distance(x, y), 40);
        // The height in a lung, of 1000.
        let height = |lung: &Lung| (y - lung.y + lung.ry) * 1000 / (lung.floor - lung.y + lung.ry);
        match *self {
            Lesion::Plate { lung, x: cx, y: cy, slope, length, width, density } => {
                let (dx, dy) = (x - cx, y - cy);
                let band =
                    inside((dy - dx * slope / 1000).abs() - width, 25) * inside(dx.abs() - length, 60) / 1000;
                band * density / 1000 * within(&lung) / 1000
            }
            Lesion::Fluid { lung, level } => {
                let outward = (x - lung.x) * lung.side;
                let climb = (outward + lung.rx / 2).max(0);
                let surface = level - climb * climb / 2600;
                // Down to the diaphragm, and a little into its edge.
                let here = inside(lung.distance(x, y) - 60, 60);
                inside(surface - y, 50) * 400 / 1000 * here / 1000
            }
            Lesion::Cloud { lung, x: cx, y: cy, rx, ry, density } => {
                let soft = inside(ellipse(x - cx, y - cy, rx, ry), rx / 2);
                let cloudy = 700 + chest.fine.at(x, y) * 45 / 100;
                soft * density / 1000 * cloudy / 1000 * within(&lung) / 1000
            }
            Lesion::Lobe { lung, border, upper, density } => {
                let side = if upper { y - border } else { border - y };
                let part = inside(side + (x - lung.x) / 6, 30);
                let bronchi = (chest.fine.at(x, y).abs() < 160) as i64;
                part * (density - 140 * bronchi) / 1000 * within(&lung) / 1000
            }
            Lesion::Round { x: cx, y: cy, radius, density } => {
                inside(ellipse(x - cx, y - cy, radius, radius), 35) * density / 1000
            }
            Lesion::Rim { lung, width } => {
                let depth = -lung.distance(x, y);
                let outer = (x - lung.x) * lung.side > -lung.rx / 3 && height(&lung) < 800;
                if depth < 0 || !outer {
                    return 0;
                }
                let air = inside(depth - width, 20) * (95 + chest.vessels(x, y) / 5);
                let line = inside((depth - width).abs() - 40, 20) * 330;
                (line - air) / 1000
            }
            Lesion::Wings { density } => {
                let lung = chest.lung_at(x);
                let hilum = lung.x - lung.side * lung.rx / 3;
                let wing = inside(ellipse(x - hilum, y - lung.y - 200, 560, 860), 360);
                let grain = 820 + chest.fine.at(x, y) / 4;
                wing * density / 1000 * grain / 1000 * within(lung) / 1000
            }
            Lesion::Strands { density, top } => {
                let lung = chest.lung_at(x);
                let low = (height(lung) - top).clamp(0, 250) * 4;
                let mesh = (330 - chest.fine.at(x, y).abs()).clamp(0, 330) * 3;
                low * density / 1000 * mesh / 1000 * within(lung) / 1000
            }
            Lesion::Pleura { lung, width, top, bottom, density } => {
                let depth = -lung.distance(x, y);
                let outer = (x - lung.x) * lung.side > 0;
                let wavy = width + chest.coarse.at(x, y) * width / 3000;
                let part = inside((height(&lung) - (top + bottom) / 2).abs() - (bottom - top) / 2, 60);
                if outer {
                    inside(depth - wavy, 30) * part / 1000 * density / 1000 * within(&lung) / 1000
                } else {
                    0
                }
            }
            Lesion::Stomach { x: cx, y: cy, radius, density } => {
                let wall = inside(ellipse(x - cx, y - cy, radius, radius), 35);
                let air = inside(ellipse(x - cx, y - cy + radius / 4, radius * 2 / 3, radius / 2), 40);
                (wall * density - air * (density + 190)) / 1000
            }
        }
    }
}

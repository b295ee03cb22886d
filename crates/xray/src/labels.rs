//! The 14 findings of NIH ChestX-ray14 and sets of them.

use std::fmt;

/// The findings in the order of Wang et al. (2017), which is the order of classes everywhere.
pub const FINDINGS: [&str; 14] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];

/// The label of a radiograph with none of the findings. It is not a claim of health.
pub const NO_FINDING: &str = "No Finding";

/// The findings and, as an optional fifteenth class, "No Finding".
const NAMES: [&str; 15] = {
    let mut names = [NO_FINDING; 15];
    let mut k = 0;
    while k < 14 {
        names[k] = FINDINGS[k];
        k += 1;
    }
    names
};

/// Which classes a model predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub enum Classes {
    /// The 14 findings.
    #[default]
    Findings,
    /// The 14 findings, then "No Finding".
    WithNoFinding,
}

impl Classes {
    /// The names in the order of the model's outputs.
    pub fn names(self) -> &'static [&'static str] {
        &NAMES[..self.count()]
    }

    /// How many: 14 or 15.
    pub fn count(self) -> usize {
        match self {
            Classes::Findings => 14,
            Classes::WithNoFinding => 15,
        }
    }
}

impl From<Classes> for usize {
    fn from(classes: Classes) -> usize {
        classes.count()
    }
}

impl TryFrom<usize> for Classes {
    type Error = String;
    fn try_from(count: usize) -> Result<Classes, String> {
        match count {
            14 => Ok(Classes::Findings),
            15 => Ok(Classes::WithNoFinding),
            _ => Err(format!(
                "there are no {count} classes; give 14 (the findings) or 15 (with \"No Finding\")"
            )),
        }
    }
}

/// A set of findings; bit `k` stands for `FINDINGS[k]`. The empty set is "No Finding".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Findings(u16);

impl Findings {
    /// The empty set, "No Finding".
    pub const NONE: Findings = Findings(0);

    /// The set of these bits, or none when a bit beyond the 14 is set.
    pub fn from_bits(bits: u16) -> Option<Findings> {
        (bits < 1 << FINDINGS.len()).then_some(Findings(bits))
    }

    /// The bits, bit `k` for `FINDINGS[k]`.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether the set holds finding `k`; class 14 is "No Finding", held by the empty set alone.
    pub fn has(self, class: usize) -> bool {
        if class == FINDINGS.len() { self.0 == 0 } else { class < FINDINGS.len() && self.0 >> class & 1 == 1 }
    }

    /// Whether there is no finding.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Writes one 0 or 1 a class.
    pub fn write_targets(self, targets: &mut [f32]) {
        for (class, target) in targets.iter_mut().enumerate() {
            *target = if self.has(class) { 1.0 } else { 0.0 };
        }
    }

    /// Reads `A|B|C` or `No Finding`, in any order.
    ///
    /// Spaces around a label and the case of letters do not matter. An empty label, also one made by a `|`
    /// at the end, is an error, because a sample must not lose a finding silently.
    ///
    /// # Errors
    /// An unknown or empty label, or "No Finding" together with another label; the message says which
    /// labels there are.
    pub fn parse(text: &str) -> Result<Findings, LabelError> {
        let mut bits = 0_u16;
        let mut none = false;
        for label in text.split('|').map(str::trim) {
            if label.is_empty() {
                return Err(LabelError::Empty);
            }
            match NAMES.iter().position(|name| name.eq_ignore_ascii_case(label)) {
                Some(14) => none = true,
                Some(finding) => bits |= 1 << finding,
                None => {
                    return Err(LabelError::Unknown {
                        label: label.chars().take(60).collect(),
                        nearest: nearest(label),
                    });
                }
            }
        }
        if none && bits != 0 { Err(LabelError::Contradiction) } else { Ok(Findings(bits)) }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NO_FINDING);
        }
        let names = FINDINGS.iter().enumerate().filter(|&(k, _)| self.has(k)).map(|(_, name)| *name);
        f.write_str(&names.collect::<Vec<_>>().join("|"))
    }
}

impl fmt::Debug for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Findings({self})")
    }
}

/// Why a cell of labels cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No such label.
    #[error("unknown label '{}'; write one of {} ('{nearest}' is the nearest)", .label.escape_debug(), NAMES.join(", "))]
    Unknown {
        /// What the file says.
        label: String,
        /// What it may mean.
        nearest: &'static str,
    },
    /// A label is empty.
    #[error("an empty label; write '{NO_FINDING}' where there is none, and no '|' at the end")]
    Empty,
    /// "No Finding" stands with a finding.
    #[error("'{NO_FINDING}' stands with another label; keep one of them")]
    Contradiction,
}

/// The known label with the fewest edits to `label`, the first of several.
fn nearest(label: &str) -> &'static str {
    let mut best = (usize::MAX, NO_FINDING);
    for name in NAMES {
        let edits = edits(&label.to_ascii_lowercase(), &name.to_ascii_lowercase());
        if edits < best.0 {
            best = (edits, name);
        }
    }
    best.1
}

/// The edit distance of Levenshtein (1966) between the bytes of `a` (its first 60) and `b`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(60).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_in_any_order() {
        let set = Findings::parse("Hernia|Atelectasis").unwrap();
        assert_eq!(set.bits(), 1 << 13 | 1);
        assert_eq!(set.to_string(), "Atelectasis|Hernia");
        assert_eq!(Findings::parse(" no finding ").unwrap(), Findings::NONE);
        for bits in 0..1 << 14 {
            let set = Findings::from_bits(bits).unwrap();
            assert_eq!(Findings::parse(&set.to_string()).unwrap(), set);
        }
        assert_eq!(Findings::from_bits(1 << 14), None);
    }

    #[test]
    fn a_label_is_never_lost_silently() {
        let unknown = Findings::parse("Mass|Infiltrate").unwrap_err();
        assert_eq!(unknown, LabelError::Unknown { label: "Infiltrate".into(), nearest: "Infiltration" });
        assert!(unknown.to_string().contains("Hernia"));
        for text in ["", " ", "Mass|", "|Mass", "Mass||Nodule"] {
            assert_eq!(Findings::parse(text), Err(LabelError::Empty), "{text:?}");
        }
        assert_eq!(Findings::parse("No Finding|Mass"), Err(LabelError::Contradiction));
    }

    #[test]
    fn targets_follow_the_order_of_the_classes() {
        let mut targets = [9.0_f32; 15];
        Findings::parse("Effusion").unwrap().write_targets(&mut targets);
        assert_eq!(targets.iter().position(|&t| t == 1.0), Some(2));
        assert_eq!(targets.iter().filter(|&&t| t == 0.0).count(), 14);
        Findings::NONE.write_targets(&mut targets);
        assert_eq!(targets[14], 1.0);
        assert_eq!(Classes::WithNoFinding.names()[14], NO_FINDING);
        assert_eq!(Classes::Findings.names(), FINDINGS);
    }
}

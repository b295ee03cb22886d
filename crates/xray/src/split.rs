//! Which radiographs train, choose and test a model: always by patient, so that no patient is in two parts.

use crate::error::DataError;
use crate::sha256_hex;
use crate::table::{Table, check_image_name, shortened};
use kinone_core::rng::Stream;
use std::path::{Path, PathBuf};

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// For fitting the weights.
    Train,
    /// For choosing the epoch and thresholds.
    Validation,
    /// For the numbers that are reported.
    Test,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 3] = [Part::Train, Part::Validation, Part::Test];

    /// `train`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
        }
    }
}

impl std::str::FromStr for Part {
    type Err = DataError;
    fn from_str(name: &str) -> Result<Part, DataError> {
        match name {
            "train" => Ok(Part::Train),
            "validation" | "val" => Ok(Part::Validation),
            "test" => Ok(Part::Test),
            _ => Err(DataError::Value {
                what: "the part of the data",
                value: format!("'{}'", shortened(name)),
                need: "give train, validation or test",
            }),
        }
    }
}

/// The two official lists, read from `train_val_list.txt` and `test_list.txt`.
#[derive(Clone, Debug)]
pub struct Lists {
    train_val: List,
    test: List,
}

#[derive(Clone, Debug)]
struct List {
    path: PathBuf,
    names: Vec<String>,
    sha256: String,
}

const TRAIN_VAL_LIST: &str = "train_val_list.txt";
const TEST_LIST: &str = "test_list.txt";
/// The hashes of the files that NIH publishes.
const OFFICIAL: [&str; 2] = [
    "61fbe896321c1c1c8b75f3e4f3a08e4fef6486d95ef8a667c31d4d60dca6cb81",
    "38ca5ef7f756092946f57c1a59faca882ed589a1ab1f72590b45dc06c6d5e1cc",
];
/// A list of all images has 2.3 MB.
const MAX_LIST: u64 = 64 << 20;

impl Lists {
    /// The lists of a directory, or none when it has neither.
    ///
    /// # Errors
    /// Only one of them is there, or one cannot be read, is empty or names an image twice.
    pub fn find(directory: &Path) -> Result<Option<Lists>, DataError> {
        let paths = [TRAIN_VAL_LIST, TEST_LIST].map(|name| directory.join(name));
        match [paths[0].exists(), paths[1].exists()] {
            [false, false] => Ok(None),
            [true, true] => {
                Ok(Some(Lists { train_val: List::read(&paths[0])?, test: List::read(&paths[1])? }))
            }
            [first, _] => Err(DataError::File {
                path: paths[usize::from(first)].clone(),
                problem:
                    "missing, though the other list is there; fetch it, or remove the other for a split \
                          by patient"
                        .to_owned(),
            }),
        }
    }

    /// Whether both are, byte for byte, the lists that NIH publishes.
    pub fn are_official(&self) -> bool {
        [&self.train_val.sha256, &self.test.sha256] == OFFICIAL
    }
}

impl List {
    fn read(path: &Path) -> Result<List, DataError> {
        let bytes = crate::read_file(path, MAX_LIST)?;
        let wrong = |problem: String| DataError::File { path: path.to_owned(), problem };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| wrong("not UTF-8 text; fetch the list again".to_owned()))?;
        let mut names = Vec::new();
        for (line, name) in text.trim_start_matches('\u{feff}').lines().map(str::trim).enumerate() {
            if !name.is_empty() {
                check_image_name(name).map_err(|problem| wrong(format!("line {}: {problem}", line + 1)))?;
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(wrong(format!("names {} twice; fetch the list again", twice[0])));
        }
        if names.is_empty() {
            return Err(wrong("names no image; fetch the list again".to_owned()));
        }
        Ok(List { path: path.to_owned(), names, sha256: sha256_hex(&bytes) })
    }
}

/// The part of each row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// How the parts came about, for the record of a run.
    pub description: String,
    /// The part of each row; none for a row that the lists leave out.
    pub parts: Vec<Option<Part>>,
}

impl Split {
    /// The split of a table: by the lists where there are any, otherwise by patient.
    ///
    /// With lists, an eighth of the patients of `train_val_list.txt` become the validation part. Without,
    /// 20 % of the patients become the test part, 10 % the validation part and 70 % the training part.
    /// Patients are drawn by ranking (Philox(seed, patient), patient): the lowest go to the test part, the
    /// next to the validation part. Numbers of patients are rounded down, but at least 1 where there are
    /// enough patients for every part.
    ///
    /// # Errors
    /// A list names an image that the table lacks, or a patient is in both lists.
    pub fn of(table: &Table, lists: Option<&Lists>, seed: u64) -> Result<Split, DataError> {
        match lists {
            Some(lists) => Split::by_lists(table, lists, seed),
            None => {
                Ok(Split::by_patient(&table.rows.iter().map(|row| row.patient).collect::<Vec<_>>(), seed))
            }
        }
    }

    /// The split by patient of rows with these patients, 70 % to 10 % to 20 %; see [`Split::of`].
    pub fn by_patient(patients: &[u32], seed: u64) -> Split {
        let ranked = ranked(patients.iter().copied(), seed);
        let test = share(ranked.len(), 5, 3);
        let validation = share(ranked.len(), 10, 3);
        let assigned = assignment(&ranked, test, validation);
        Split {
            description: format!("by patient, 70 % train, 10 % validation, 20 % test, seed {seed}"),
            parts: patients.iter().map(|&patient| Some(part_of(&assigned, patient))).collect(),
        }
    }

    fn by_lists(table: &Table, lists: &Lists, seed: u64) -> Result<Split, DataError> {
        let mut parts = vec![None; table.rows.len()];
        for (list, part) in [(&lists.train_val, Part::Train), (&lists.test, Part::Test)] {
            for name in &list.names {
                let wrong = |problem| DataError::File { path: list.path.clone(), problem };
                let Some(row) = table.find(name) else {
                    let problem = format!(
                        "names {name}, which {} lacks; use the lists and the label file of one release",
                        table.path.display()
                    );
                    return Err(wrong(problem));
                };
                if parts[row].replace(part).is_some() {
                    return Err(wrong(format!("names {name}, as {TRAIN_VAL_LIST} does; remove it from one")));
                }
            }
        }
        let of_part = |wanted: Part| {
            let rows = table.rows.iter().zip(&parts);
            rows.filter(move |(_, part)| **part == Some(wanted)).map(|(row, _)| row.patient)
        };
        let train_val = ranked(of_part(Part::Train), seed);
        let mut test: Vec<u32> = of_part(Part::Test).collect();
        test.sort_unstable();
        if let Some(both) = train_val.iter().find(|patient| test.binary_search(patient).is_ok()) {
            return Err(DataError::File {
                path: lists.test.path.clone(),
                problem: format!("patient {both} is in {TRAIN_VAL_LIST} too; a patient belongs to one list"),
            });
        }
        let assigned = assignment(&train_val, 0, share(train_val.len(), 8, 2));
        for (row, part) in table.rows.iter().zip(&mut parts) {
            if *part == Some(Part::Train) {
                *part = Some(part_of(&assigned, row.patient));
            }
        }
        let kind = if lists.are_official() {
            "official lists".to_owned()
        } else {
            format!(
                "lists beside the label file (sha256 {} and {})",
                &lists.train_val.sha256[..16],
                &lists.test.sha256[..16]
            )
        };
        let description = format!("{kind}; validation: 1/8 of the train_val patients, seed {seed}");
        Ok(Split { description, parts })
    }

    /// The rows of a part.
    pub fn rows(&self, part: Part) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().enumerate().filter(move |&(_, &p)| p == Some(part)).map(|(row, _)| row)
    }
}

/// The patients, each once, by (Philox(seed, patient), patient).
fn ranked(patients: impl Iterator<Item = u32>, seed: u64) -> Vec<u32> {
    let stream = Stream::new(seed, "split");
    let mut patients: Vec<u32> = patients.collect();
    patients.sort_unstable();
    patients.dedup();
    patients.sort_by_cached_key(|&patient| (stream.at(0, u64::from(patient)).bits(0), patient));
    patients
}

/// One `divisor`-th of `count`, at least 1 where `count` reaches `parts`.
fn share(count: usize, divisor: usize, parts: usize) -> usize {
    let least = usize::from(count >= parts);
    (count / divisor).max(least)
}

/// The patients in ascending order with their parts.
fn assignment(ranked: &[u32], test: usize, validation: usize) -> Vec<(u32, Part)> {
    let part = |rank: usize| match rank {
        _ if rank < test => Part::Test,
        _ if rank < test + validation => Part::Validation,
        _ => Part::Train,
    };
    let mut assigned: Vec<(u32, Part)> = ranked.iter().enumerate().map(|(k, &p)| (p, part(k))).collect();
    assigned.sort_unstable();
    assigned
}

fn part_of(assigned: &[(u32, Part)], patient: u32) -> Part {
    match assigned.binary_search_by_key(&patient, |&(patient, _)| patient) {
        Ok(k) => assigned[k].1,
        Err(_) => Part::Train,
    }
}

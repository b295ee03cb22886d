//! All radiographs of a run, decoded to gray values of 8 bits in memory.

use crate::decode::{Gray, read_png};
use crate::directory::{Images, find_csv};
use crate::error::DataError;
use crate::fill::fill;
use crate::labels::{Classes, Findings};
use crate::preprocess::Preprocessing;
use crate::sha256_hex;
use crate::source::{Source, sorted_records};
use crate::split::{Lists, Part, Split};
use crate::table::Table;
use kinone_kernels::Cpu;
use std::path::{Path, PathBuf};

/// What to load, and how.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    /// The side of the square images in pixels, 1 to 4096.
    pub size: usize,
    /// The classes.
    pub classes: Classes,
    /// Draws the patients of the parts. Keep it when the training seed changes, so that runs compare.
    pub split_seed: u64,
    /// Go on without the images that are missing; they are counted in the [`Report`].
    pub allow_missing: bool,
    /// Go on without the images that cannot be decoded; they are counted in the [`Report`].
    pub skip_bad: bool,
    /// The parts to load; the split is the same whatever is loaded.
    pub parts: Vec<Part>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: 64,
            classes: Classes::Findings,
            split_seed: 42,
            allow_missing: false,
            skip_bad: false,
            parts: Part::ALL.to_vec(),
        }
    }
}

/// Called from any thread with the number of images done and of all.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Images that a run goes without.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// The first ten by name.
    pub first: Vec<String>,
    /// The hash of all names, a line each; empty when there are none.
    pub sha256: String,
}

impl Skipped {
    /// Of names in ascending order.
    fn of(names: &[&str]) -> Skipped {
        let first = names.iter().take(10).map(|&name| name.to_owned()).collect();
        let all: String = names.iter().flat_map(|name| [name, "\n"]).collect();
        let sha256 = if names.is_empty() { String::new() } else { sha256_hex(all.as_bytes()) };
        Skipped { count: names.len(), first, sha256 }
    }
}

/// What was loaded, for the record of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The label file's name, or the description of the built-in set.
    pub origin: String,
    /// The hash of the label file; empty for the built-in set.
    pub csv_sha256: String,
    /// The rows of the label file.
    pub rows: usize,
    /// Rows dropped because they repeat another.
    pub repeated_rows: usize,
    /// How the parts came about.
    pub split: String,
    /// Rows that the lists leave out.
    pub unlisted: usize,
    /// Images without a row; ignored.
    pub without_row: usize,
    /// Rows of the loaded parts without an image.
    pub missing: Skipped,
    /// Images that could not be decoded.
    pub bad: Skipped,
    /// The message of the first of these.
    pub first_bad: Option<String>,
    /// The loaded images of train, validation and test.
    pub images: [usize; 3],
    /// Their patients.
    pub patients: [usize; 3],
}

/// One loaded radiograph, without its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file name.
    pub image: String,
    /// Whose it is.
    pub patient: u32,
    /// What it shows.
    pub findings: Findings,
    /// Its part.
    pub part: Part,
}

/// The radiographs of a run, ordered by the bytes of their names.
#[derive(Clone, Debug)]
pub struct Dataset {
    size: usize,
    classes: Classes,
    entries: Vec<Entry>,
    pixels: Vec<u8>,
    parts: [Vec<usize>; 3],
    report: Report,
}

impl Dataset {
    /// Loads an NIH directory: label file, images and lists lie in `directory` (see [`find_csv`],
    /// [`Images::find`], [`Lists::find`]).
    ///
    /// # Errors
    /// Anything missing, unreadable or contradictory.
    pub fn from_directory(
        directory: &Path,
        options: &Options,
        cpu: &Cpu,
        progress: Progress,
    ) -> Result<Dataset, DataError> {
        Dataset::from_files(directory, &find_csv(directory)?, options, cpu, progress)
    }

    /// Loads images below `image_dir` with the labels of `csv_file`; the lists, where there are any, lie
    /// beside `csv_file`.
    ///
    /// # Errors
    /// As [`Dataset::from_directory`].
    pub fn from_files(
        image_dir: &Path,
        csv_file: &Path,
        options: &Options,
        cpu: &Cpu,
        progress: Progress,
    ) -> Result<Dataset, DataError> {
        check_size(options.size)?;
        let images = Images::find(image_dir)?;
        let table = Table::read(csv_file)?;
        let lists = Lists::find(csv_file.parent().unwrap_or(Path::new(".")))?;
        let split = Split::of(&table, lists.as_ref(), options.split_seed)?;

        let mut entries = Vec::new();
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut missing = Vec::new();
        for (row, &part) in table.rows.iter().zip(&split.parts) {
            let Some(part) = part.filter(|part| options.parts.contains(part)) else { continue };
            if let Some(path) = images.get(&row.image) {
                let (image, patient, findings) = (row.image.clone(), row.patient, row.findings);
                entries.push(Entry { image, patient, findings, part });
                paths.push(path.to_owned());
            } else {
                missing.push(row.image.as_str());
            }
        }
        let missing_report = Skipped::of(&missing);
        if missing_report.count > 0 && !options.allow_missing {
            return Err(DataError::Missing {
                path: image_dir.to_owned(),
                count: missing_report.count,
                rows: missing_report.count + entries.len(),
                first: missing_report.first,
            });
        }
        let report = Report {
            origin: csv_file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            csv_sha256: table.sha256.clone(),
            rows: table.rows.len(),
            repeated_rows: table.repeated,
            split: split.description,
            unlisted: split.parts.iter().filter(|part| part.is_none()).count(),
            without_row: images.names().filter(|name| table.find(name).is_none()).count(),
            missing: missing_report,
            ..Report::default()
        };
        Dataset::build(entries, report, options, cpu, progress, |k| read_png(&paths[k]))
    }

    /// Makes the radiographs of a source, split by patient ([`Split::by_patient`]).
    ///
    /// # Errors
    /// The source is empty, makes two radiographs of the same name, or does not fit in memory.
    pub fn from_source(
        source: &dyn Source,
        options: &Options,
        cpu: &Cpu,
        progress: Progress,
    ) -> Result<Dataset, DataError> {
        check_size(options.size)?;
        let records = sorted_records(source)?;
        let patients: Vec<u32> = records.iter().map(|(record, _)| record.patient).collect();
        let split = Split::by_patient(&patients, options.split_seed);
        let (mut entries, mut numbers) = (Vec::new(), Vec::new());
        for ((record, number), part) in records.iter().zip(&split.parts) {
            let Some(part) = part.filter(|part| options.parts.contains(part)) else { continue };
            let (image, patient, findings) = (record.image(), record.patient, record.findings);
            entries.push(Entry { image, patient, findings, part });
            numbers.push(*number);
        }
        let report = Report {
            origin: source.description(),
            rows: records.len(),
            split: split.description,
            ..Report::default()
        };
        let side = source.size();
        Dataset::build(entries, report, options, cpu, progress, |k| {
            Ok(Gray { width: side, height: side, pixels: source.pixels(numbers[k]) })
        })
    }

    /// Decodes and resizes each entry; the result does not depend on the threads.
    fn build(
        mut entries: Vec<Entry>,
        mut report: Report,
        options: &Options,
        cpu: &Cpu,
        progress: Progress,
        image: impl Fn(usize) -> Result<Gray, DataError> + Sync,
    ) -> Result<Dataset, DataError> {
        let (mut pixels, bad) = fill(entries.len(), options.size, options.skip_bad, cpu, progress, image)?;
        if !bad.is_empty() {
            let names: Vec<&str> = bad.iter().map(|(k, _)| entries[*k].image.as_str()).collect();
            report.bad = Skipped::of(&names);
            report.first_bad = bad.first().map(|(_, message)| message.clone());
            let is_good = |k: &usize| bad.binary_search_by_key(k, |&(bad, _)| bad).is_err();
            let kept: Vec<usize> = (0..entries.len()).filter(is_good).collect();
            let area = options.size * options.size;
            for (to, &from) in kept.iter().enumerate() {
                pixels.copy_within(from * area..(from + 1) * area, to * area);
            }
            pixels.truncate(kept.len() * area);
            entries = kept.iter().map(|&k| entries[k].clone()).collect();
        }
        let parts = Part::ALL.map(|part| {
            let indices = (0..entries.len()).filter(|&k| entries[k].part == part);
            indices.collect::<Vec<usize>>()
        });
        for (k, part) in parts.iter().enumerate() {
            let mut patients: Vec<u32> = part.iter().map(|&index| entries[index].patient).collect();
            patients.sort_unstable();
            patients.dedup();
            report.images[k] = part.len();
            report.patients[k] = patients.len();
        }
        Ok(Dataset { size: options.size, classes: options.classes, entries, pixels, parts, report })
    }

    /// The side of the images in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The classes of the targets.
    pub fn classes(&self) -> Classes {
        self.classes
    }

    /// Every radiograph, ordered by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The indices of a part in [`Dataset::entries`], ascending.
    pub fn part(&self, part: Part) -> &[usize] {
        &self.parts[part as usize]
    }

    /// The gray values of radiograph `index`, `size` rows of `size`.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let area = self.size * self.size;
        &self.pixels[index * area..(index + 1) * area]
    }

    /// What was loaded.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The preprocessing measured on the training part.
    ///
    /// # Errors
    /// The training part is empty or blank.
    pub fn preprocessing(&self) -> Result<Preprocessing, DataError> {
        Preprocessing::of_pixels(self.size, self.part(Part::Train).iter().map(|&k| self.pixels(k)))
    }

    /// How many radiographs of a part show each class.
    pub fn positives(&self, part: Part) -> Vec<usize> {
        let shows = |class| self.part(part).iter().filter(|&&k| self.entries[k].findings.has(class)).count();
        (0..self.classes.count()).map(shows).collect()
    }
}

fn check_size(size: usize) -> Result<(), DataError> {
    if (1..=4096).contains(&size) {
        return Ok(());
    }
    Err(DataError::Value { what: "the image size", value: size.to_string(), need: "give 1 to 4096 pixels" })
}

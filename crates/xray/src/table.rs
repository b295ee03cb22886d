//! The label table: `Data_Entry_2017.csv` of NIH in both its versions.
//!
//! Columns are found by name, so their order and further columns do not matter. The 2017 file ends each
//! row with a comma and writes some ages as `058Y`; the header of the 2020 file has commas inside brackets,
//! which a CSV reader sees as fields of their own, in the header as in the rows.

use crate::error::DataError;
use crate::labels::Findings;
use crate::sha256_hex;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A patient's sex as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sex {
    /// `F`
    Female,
    /// `M`
    Male,
}

/// From where the X-rays came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From behind, standing.
    PosteroAnterior,
    /// From the front, often lying in bed.
    AnteroPosterior,
}

/// One row: one radiograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The image's file name.
    pub image: String,
    /// What the radiograph shows.
    pub findings: Findings,
    /// Whose it is.
    pub patient: u32,
    /// The number of the visit.
    pub follow_up: Option<u32>,
    /// The age in years; none where it is absent, unreadable or above 120.
    pub age: Option<u16>,
    /// The sex; none where it is neither `M` nor `F`.
    pub sex: Option<Sex>,
    /// The view; none where it is neither `PA` nor `AP`.
    pub view: Option<View>,
    /// The row's number in the file, the header being row 1.
    pub number: usize,
}

/// A label file, its rows sorted by the bytes of the image's name.
#[derive(Clone, Debug)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// The hash of the file.
    pub sha256: String,
    /// The rows, no image twice.
    pub rows: Vec<Row>,
    /// How many rows were dropped because they repeat another word for word in what is read here.
    pub repeated: usize,
}

const IMAGE: &str = "Image Index";
const LABELS: &str = "Finding Labels";
const FOLLOW_UP: &str = "Follow-up #";
const PATIENT: &str = "Patient ID";
const AGE: &str = "Patient Age";
const SEX: [&str; 2] = ["Patient Gender", "Patient Sex"];
const VIEW: &str = "View Position";

/// No label file is larger; the real one has 9 MB.
const MAX_FILE: u64 = 256 << 20;
/// No row is longer; one that is has a quote that never closes.
const MAX_ROW: usize = 64 << 10;

impl Table {
    /// Reads the file, compressed by gzip where its name ends in `.gz`.
    ///
    /// # Errors
    /// The file cannot be read or is no CSV, a needed column is missing, a row has too few fields, an
    /// unknown label, an unreadable patient or an unsafe image name, or two rows contradict each other.
    pub fn read(path: &Path) -> Result<Table, DataError> {
        let bytes = crate::read_file(path, MAX_FILE)?;
        if path.extension().is_none_or(|extension| extension != "gz") {
            return Table::parse(path, &bytes);
        }
        let mut text = Vec::new();
        let unpacked =
            flate2::read::MultiGzDecoder::new(&bytes[..]).take(MAX_FILE + 1).read_to_end(&mut text);
        unpacked
            .map_err(|error| file_error(path, &format!("cannot be unpacked ({error}); fetch it again")))?;
        if text.len() as u64 > MAX_FILE {
            return Err(file_error(
                path,
                "unpacks to more than 256 MiB, which no label file has; give another",
            ));
        }
        Table::parse(path, &text)
    }

    /// Reads the file's content; `path` is for messages.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Table, DataError> {
        // The reader takes off a byte order mark itself.
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut record = csv::ByteRecord::new();
        let mut next = |record: &mut csv::ByteRecord, row: usize| {
            let more =
                reader.read_byte_record(record).map_err(|error| file_error(path, &error.to_string()))?;
            if record.as_slice().len() > MAX_ROW {
                let problem = "longer than 65536 bytes; is a quote not closed?".to_owned();
                return Err(DataError::Row { path: path.into(), row, problem });
            }
            Ok(more)
        };
        if !next(&mut record, 1)? {
            return Err(file_error(path, "the file is empty; give the label file of NIH"));
        }
        let columns = Columns::find(path, &record)?;
        let mut rows = Vec::new();
        let mut number = 2;
        while next(&mut record, number)? {
            let row = columns.row(&record, number);
            rows.push(row.map_err(|problem| DataError::Row { path: path.into(), row: number, problem })?);
            number += 1;
        }
        // An open quote swallows the rest of the file, so it stands in the last record.
        if bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1 {
            let problem = "a quote is not closed".to_owned();
            return Err(DataError::Row { path: path.into(), row: number - 1, problem });
        }
        if rows.is_empty() {
            return Err(file_error(path, "there is a header and no row; give the complete label file"));
        }
        let repeated = without_repeats(path, &mut rows)?;
        Ok(Table { path: path.to_owned(), sha256: sha256_hex(bytes), rows, repeated })
    }

    /// The row of an image.
    pub fn find(&self, image: &str) -> Option<usize> {
        self.rows.binary_search_by(|row| row.image.as_str().cmp(image)).ok()
    }
}

fn file_error(path: &Path, problem: &str) -> DataError {
    DataError::File { path: path.to_owned(), problem: problem.to_owned() }
}

/// Where each column stands.
struct Columns {
    image: usize,
    labels: usize,
    patient: usize,
    follow_up: Option<usize>,
    age: Option<usize>,
    sex: Option<usize>,
    view: Option<usize>,
    count: usize,
}

impl Columns {
    fn find(path: &Path, header: &csv::ByteRecord) -> Result<Columns, DataError> {
        let mut found: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        while found.last().is_some_and(String::is_empty) {
            found.pop();
        }
        let find = |column: &str| found.iter().position(|name| name.eq_ignore_ascii_case(column));
        let need = |column: &'static str| {
            find(column).ok_or_else(|| DataError::Column {
                path: path.to_owned(),
                column,
                needed: [IMAGE, LABELS, PATIENT].map(str::to_owned).to_vec(),
                found: found.iter().take(30).map(|name| name.chars().take(60).collect()).collect(),
            })
        };
        Ok(Columns {
            image: need(IMAGE)?,
            labels: need(LABELS)?,
            patient: need(PATIENT)?,
            follow_up: find(FOLLOW_UP),
            age: find(AGE),
            sex: SEX.iter().find_map(|column| find(column)),
            view: find(VIEW),
            count: found.len(),
        })
    }

    fn row(&self, record: &csv::ByteRecord, number: usize) -> Result<Row, String> {
        let surplus = record.iter().skip(self.count).any(|field| !field.trim_ascii().is_empty());
        if record.len() < self.count || surplus {
            return Err(format!(
                "{} fields where the header has {}; write one for each column",
                record.len(),
                self.count
            ));
        }
        let field = |column: usize, name: &str| {
            std::str::from_utf8(&record[column])
                .map(str::trim)
                .map_err(|_| format!("column '{name}' is not UTF-8; save the file as UTF-8"))
        };
        let optional = |column: Option<usize>, name: &str| column.map_or(Ok(""), |k| field(k, name));
        let image = field(self.image, IMAGE)?;
        check_image_name(image)?;
        let patient = field(self.patient, PATIENT)?;
        Ok(Row {
            image: image.to_owned(),
            findings: Findings::parse(field(self.labels, LABELS)?).map_err(|error| error.to_string())?,
            patient: patient
                .parse()
                .map_err(|_| format!("column '{PATIENT}' holds '{}', no whole number", shortened(patient)))?,
            follow_up: optional(self.follow_up, FOLLOW_UP)?.parse().ok(),
            age: age(optional(self.age, AGE)?),
            sex: match optional(self.sex, SEX[0])? {
                "F" => Some(Sex::Female),
                "M" => Some(Sex::Male),
                _ => None,
            },
            view: match optional(self.view, VIEW)? {
                "PA" => Some(View::PosteroAnterior),
                "AP" => Some(View::AnteroPosterior),
                _ => None,
            },
            number,
        })
    }
}

/// Years, from `58`, `058Y`, `011M` (months) or `003D` (days), rounded down.
fn age(text: &str) -> Option<u16> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'Y' | b'M' | b'D') => text.split_at(text.len() - 1),
        _ => (text, "Y"),
    };
    let number: u16 = digits.parse().ok()?;
    let years = match unit {
        "M" => number / 12,
        "D" => number / 365,
        _ => number,
    };
    (years <= 120).then_some(years)
}

/// A name that stays inside the folder it is looked up in.
pub(crate) fn check_image_name(name: &str) -> Result<(), String> {
    let bad = name.is_empty()
        || name.len() > 255
        || name.starts_with('.')
        || name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
    if !bad {
        return Ok(());
    }
    Err(format!(
        "'{}' is no plain file name; an image is named without folders, 1 to 255 bytes",
        shortened(name)
    ))
}

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

/// Sorts by image and drops rows that repeat another; returns how many.
fn without_repeats(path: &Path, rows: &mut Vec<Row>) -> Result<usize, DataError> {
    rows.sort_unstable_by(|a, b| (a.image.as_str(), a.number).cmp(&(b.image.as_str(), b.number)));
    for pair in rows.windows(2) {
        let same = (pair[0].findings, pair[0].patient) == (pair[1].findings, pair[1].patient);
        if pair[0].image == pair[1].image && !same {
            return Err(DataError::Row {
                path: path.to_owned(),
                row: pair[1].number,
                problem: format!(
                    "{} stands in row {} too, with other labels or another patient; keep one of them",
                    pair[0].image, pair[0].number
                ),
            });
        }
    }
    let before = rows.len();
    rows.dedup_by(|b, a| a.image == b.image);
    Ok(before - rows.len())
}

//! Everything that can be wrong with the data: what, where, and what to do.

use std::io;
use std::path::PathBuf;

/// Why data cannot be read or written. Each message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}; check the permissions and the free space, then give the same command again", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The data directory does not exist or is something else.
    #[error("{} is not a directory; give the folder that holds the radiographs and their CSV file; where a run's data have moved, train --resume RUN --data-dir D records the new place", .path.display())]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// Files would be written among others.
    #[error("{} is not empty; give a new or an empty directory", .path.display())]
    NotEmpty {
        /// The directory given.
        path: PathBuf,
    },
    /// A directory holds no CSV file of a known name.
    #[error("{} holds no label file; expected one of {} (or with .gz behind it), or name table and images with --csv-file and --image-dir", .path.display(), .known.join(", "))]
    NoCsv {
        /// The directory searched.
        path: PathBuf,
        /// The names tried.
        known: &'static [&'static str],
    },
    /// A directory holds both versions of NIH's table.
    #[error("{} and {} are two versions of the table; name one with --csv-file, and the images with --image-dir", .first.display(), .second.display())]
    TwoTables {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A directory holds no PNG file.
    #[error("{} holds no PNG image, neither itself nor in images or images_*; put the radiographs there", .path.display())]
    NoImages {
        /// The directory searched.
        path: PathBuf,
    },
    /// The same image name lies in two folders.
    #[error("{} and {} have the same name; remove one of them", .first.display(), .second.display())]
    TwoImages {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A file that should hold text or rows does not.
    #[error("{}: {problem}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The CSV file lacks a column.
    #[error(
        "{}: no column '{column}'; needed are {}, found are {}; rename the column as in the NIH file",
        .path.display(), quoted(.needed), quoted(.found)
    )]
    Column {
        /// The CSV file.
        path: PathBuf,
        /// The column that is missing.
        column: &'static str,
        /// All columns that must be there.
        needed: Vec<String>,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A row of the CSV file is wrong.
    #[error("{}, row {row} (the header is row 1): {problem}", .path.display())]
    Row {
        /// The CSV file.
        path: PathBuf,
        /// The number of the row, the header being row 1.
        row: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An image file cannot be used.
    #[error("{}: {problem}", .path.display())]
    Image {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Rows of the CSV file have no image.
    #[error(
        "{count} of {rows} images of the CSV file are missing from {} (the first: {}); fetch them or pass \
         --allow-missing", .path.display(), .first.join(", ")
    )]
    Missing {
        /// The directory searched.
        path: PathBuf,
        /// How many are missing.
        count: usize,
        /// Of how many.
        rows: usize,
        /// The first ten, in the order of their names.
        first: Vec<String>,
    },
    /// A part of the data is too small for what is asked.
    #[error("the {part} part has {count} images, {need} are needed; use more data or another split")]
    TooFew {
        /// The name of the part.
        part: &'static str,
        /// Its images.
        count: usize,
        /// How many it must have.
        need: usize,
    },
    /// A number or name given by the caller is out of range.
    #[error("{what} is {value}; {need}")]
    Value {
        /// What the number is.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        need: &'static str,
    },
    /// All training pixels are equal, so they cannot be normalized.
    #[error(
        "every pixel of the training images has the value {value}; these are no radiographs, check the files"
    )]
    Blank {
        /// The one gray value.
        value: u8,
    },
    /// The decoded images do not fit in memory.
    #[error(
        "{images} images at {size}x{size} need {bytes} bytes of memory, more than there is; use a smaller --image-size"
    )]
    Memory {
        /// How many images.
        images: usize,
        /// Their side.
        size: usize,
        /// The bytes asked for.
        bytes: u128,
    },
}

/// `'a', 'b', 'c'`
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{}'", name.escape_debug())).collect::<Vec<_>>().join(", ")
}

//! Where the images and the label file of an NIH directory lie.

use crate::error::DataError;
use std::fs;
use std::path::{Path, PathBuf};

/// The names of the label file, in the order they are tried; then each with `.gz` behind it. The first two are
/// versions of one table, whose labels differ.
pub const CSV_NAMES: [&str; 3] = ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "metadata.csv"];

/// The label file of a directory: the first of [`CSV_NAMES`], plain or compressed.
///
/// # Errors
/// There is no such directory, it has none of the files, or both versions of NIH's table.
pub fn find_csv(directory: &Path) -> Result<PathBuf, DataError> {
    check_directory(directory)?;
    let places = ["", ".gz"].into_iter().flat_map(|end| {
        CSV_NAMES.into_iter().map(move |name| (name, directory.join(format!("{name}{end}"))))
    });
    let mut found = places.filter(|(_, path)| path.exists()).collect::<Vec<_>>().into_iter();
    let version = |version: &str| found.clone().find(|(name, _)| *name == version);
    if let (Some((_, first)), Some((_, second))) = (version(CSV_NAMES[0]), version(CSV_NAMES[1])) {
        return Err(DataError::TwoTables { first, second });
    }
    let missing = || DataError::NoCsv { path: directory.to_owned(), known: &CSV_NAMES };
    found.next().map(|(_, path)| path).ok_or_else(missing)
}

/// The PNG files of a directory, sorted by the bytes of their name.
#[derive(Clone, Debug)]
pub struct Images {
    found: Vec<(String, PathBuf)>,
}

impl Images {
    /// Looks in the directory itself, in `images` and `images_*`, and in the folder `images` of each of
    /// those: the ways in which NIH's archives are commonly unpacked.
    ///
    /// # Errors
    /// A folder cannot be read, two folders hold an image of the same name, or there is no image.
    pub fn find(directory: &Path) -> Result<Images, DataError> {
        check_directory(directory)?;
        let mut found = Vec::new();
        for name in list(directory, &mut found)? {
            if name == "images" || name.starts_with("images_") {
                let folder = directory.join(name);
                for inner in list(&folder, &mut found)? {
                    if inner == "images" {
                        list(&folder.join(inner), &mut found)?;
                    }
                }
            }
        }
        found.sort_unstable();
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(DataError::TwoImages { first: pair[0].1.clone(), second: pair[1].1.clone() });
        }
        if found.is_empty() {
            return Err(DataError::NoImages { path: directory.to_owned() });
        }
        Ok(Images { found })
    }

    /// The path of the image called `name`.
    pub fn get(&self, name: &str) -> Option<&Path> {
        let at = self.found.binary_search_by(|(found, _)| found.as_str().cmp(name)).ok()?;
        Some(&self.found[at].1)
    }

    /// The names in ascending order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(name, _)| name.as_str())
    }
}

pub(crate) fn check_directory(path: &Path) -> Result<(), DataError> {
    if path.is_dir() { Ok(()) } else { Err(DataError::NotADirectory { path: path.to_owned() }) }
}

/// Adds the PNG files of a folder and returns its other entries that could be folders, sorted.
fn list(folder: &Path, found: &mut Vec<(String, PathBuf)>) -> Result<Vec<String>, DataError> {
    let failed = |source| DataError::Read { path: folder.to_owned(), source };
    let mut others = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // No row of a UTF-8 label file can name a file whose name is not UTF-8.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.len() >= 4 && name.as_bytes()[name.len() - 4..].eq_ignore_ascii_case(b".png") {
            found.push((name, entry.path()));
        } else if entry.path().is_dir() {
            others.push(name);
        }
    }
    others.sort_unstable();
    Ok(others)
}

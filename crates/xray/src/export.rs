//! Writing radiographs as an NIH directory, so that every command reads them like the real set.

use crate::dataset::Progress;
use crate::error::DataError;
use crate::fill::lock;
use crate::source::{Record, Source, sorted_records};
use crate::split::{Part, Split};
use crate::table::{Sex, View};
use kinone_kernels::Cpu;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View \
                      Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n";

/// Lies in a directory as long as its set is not whole.
const MARK: &str = "UNFINISHED";
const MARK_TEXT: &[u8] =
    b"This set is not whole. The command that was writing it begins it anew and ends it.\n";

/// Writes `images/NNNNNNNN_NNN.png`, `Data_Entry_2017.csv`, `train_val_list.txt` and `test_list.txt`.
///
/// Each file appears whole or not at all; the label file comes last, so a directory that has it is
/// complete. Until then a file `UNFINISHED` lies there, and a set that was left so is made anew in its place. The parts are those of [`Split::by_patient`] under `split_seed`, train and validation
/// together in `train_val_list.txt`. The pixel spacing is written as 1: nothing was measured.
///
/// # Errors
/// `out` exists and is not empty, cannot be written, or the source makes two radiographs of one name.
pub fn write_nih_directory(
    out: &Path,
    source: &dyn Source,
    split_seed: u64,
    cpu: &Cpu,
    progress: Progress,
) -> Result<(), DataError> {
    let records = sorted_records(source)?;
    let failed = |source| DataError::Write { path: out.to_owned(), source };
    fs::create_dir_all(out).map_err(failed)?;
    let (images, mark) = (out.join("images"), out.join(MARK));
    if fs::read(&mark).is_ok_and(|text| text == MARK_TEXT) {
        // What lies there is ours.
        match fs::remove_dir_all(&images) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    } else if fs::read_dir(out).map_err(failed)?.next().is_some() {
        return Err(DataError::NotEmpty { path: out.to_owned() });
    } else {
        write_file(&mark, MARK_TEXT, true)?;
    }
    fs::create_dir(&images).map_err(failed)?;
    write_images(&images, source, &records, cpu, progress)?;

    let patients: Vec<u32> = records.iter().map(|(record, _)| record.patient).collect();
    let split = Split::by_patient(&patients, split_seed);
    let lists = [("train_val_list.txt", false), ("test_list.txt", true)];
    for (file, test) in lists {
        let listed =
            records.iter().zip(&split.parts).filter(|(_, part)| (**part == Some(Part::Test)) == test);
        // As in the official files, the last line has no end.
        let names: Vec<String> = listed.map(|((record, _), _)| record.image()).collect();
        write_file(&out.join(file), names.join("\n").as_bytes(), true)?;
    }
    let mut csv = HEADER.to_owned();
    for (record, _) in &records {
        let sex = if record.sex == Sex::Female { "F" } else { "M" };
        let view = if record.view == View::PosteroAnterior { "PA" } else { "AP" };
        let Record { patient, follow_up, age, findings, .. } = record;
        let (image, size) = (record.image(), source.size());
        writeln!(csv, "{image},{findings},{follow_up},{patient},{age},{sex},{view},{size},{size},1,1")
            .unwrap_or_default();
    }
    write_file(&out.join("Data_Entry_2017.csv"), csv.as_bytes(), true)?;
    fs::remove_file(&mark).map_err(failed)
}

/// Writes the PNG files, the threads taking one record after the other.
fn write_images(
    folder: &Path,
    source: &dyn Source,
    records: &[(Record, usize)],
    cpu: &Cpu,
    progress: Progress,
) -> Result<(), DataError> {
    let size = source.size();
    let queue = Mutex::new((records.iter(), 0, None));
    cpu.on_every_thread(|_| {
        loop {
            let next = {
                let mut queue = lock(&queue);
                if queue.2.is_some() { None } else { queue.0.next() }
            };
            let Some((record, number)) = next else { break };
            let path = folder.join(record.image());
            let written = encode_png(size, &source.pixels(*number))
                .map_err(|source| DataError::Write { path: path.clone(), source })
                .and_then(|png| write_file(&path, &png, false));
            let mut queue = lock(&queue);
            match written {
                Ok(()) => {
                    queue.1 += 1;
                    progress(queue.1, records.len());
                }
                Err(error) => queue.2 = Some(error),
            }
        }
    });
    let (_, _, error) = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(()), Err)
}

/// An 8-bit gray PNG of `size`×`size`.
fn encode_png(size: usize, pixels: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, size as u32, size as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(png)
}

/// Writes a file under another name first, so that it appears whole or not at all.
fn write_file(path: &Path, bytes: &[u8], durable: bool) -> Result<(), DataError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    let temporary = path.with_file_name(name);
    let write = || {
        // A killed process may have left it.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The write has failed already; what remains of it is only removed where possible.
        let _ = fs::remove_file(&temporary);
        DataError::Write { path: path.to_owned(), source }
    })
}

//! NumPy's archive of arrays (`numpy.lib.format`, version 1.0, in a zip archive without compression): what
//! `numpy.load` opens. Names, order and times are fixed, so equal weights give equal files.

use crate::weights::WeightsError;
use kinone_files as files;
use kinone_nn::state::{Dictionary, Value};
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Writes every value as a member `NAME.npy`, whole or not at all.
///
/// # Errors
/// The system refused.
pub fn save(path: &Path, dictionary: &Dictionary) -> Result<(), WeightsError> {
    let bytes = archive(dictionary)
        .map_err(|error| WeightsError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    Ok(files::write(path, &bytes)?)
}

/// Whether a file is what [`save`] writes of these values.
pub fn holds(path: &Path, dictionary: &Dictionary) -> bool {
    archive(dictionary).is_ok_and(|bytes| {
        files::read_regular(path, bytes.len() as u64).is_ok_and(|found| found[..] == bytes[..])
    })
}

fn archive(dictionary: &Dictionary) -> zip::result::ZipResult<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, value) in dictionary {
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&header(value))?;
        zip.write_all(&value.bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

/// The magic, the version, the length of the description, and the description: a Python dictionary, padded
/// with spaces so that the numbers begin at a multiple of 64 bytes.
fn header(value: &Value) -> Vec<u8> {
    let kind = if matches!(value, Value::F32(_)) { "<f4" } else { "<i8" };
    let shape = match &value.shape()[..] {
        [one] => format!("({one},)"),
        all => format!("({})", all.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let before = 10;
    let length = (before + text.len() + 1).next_multiple_of(64) - before;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinone_core::array::Array;
    use std::io::Read;
    use std::sync::Arc;

    #[test]
    fn members_are_what_numpy_writes() {
        let array = Array::new([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let dictionary = Dictionary::from([
            ("fc.weight".to_owned(), Value::F32(Arc::new(array))),
            ("n".to_owned(), Value::I64(-2)),
        ]);
        let bytes = archive(&dictionary).unwrap();
        assert_eq!(bytes, archive(&dictionary).unwrap());
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut member = Vec::new();
        zip.by_name("fc.weight.npy").unwrap().read_to_end(&mut member).unwrap();
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(&member[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(&member[10..10 + text.len()], text.as_bytes());
        assert_eq!((member[127], member.len()), (b'\n', 128 + 24));
        assert_eq!(member[128..132], 1f32.to_le_bytes());
        let mut member = Vec::new();
        zip.by_name("n.npy").unwrap().read_to_end(&mut member).unwrap();
        assert!(String::from_utf8_lossy(&member).contains("'<i8'"));
        assert!(member.ends_with(&(-2_i64).to_le_bytes()));
    }
}

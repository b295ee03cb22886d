//! A file that grows line by line and is flushed now and then.

use crate::{FileError, flush_folder, folder_of, with_space};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file that grows by whole lines.
///
/// What was appended since the last flush that succeeded is held in memory too. When a write fails, or a flush
/// (after which the system may have dropped what it could not write), the next append or flush cuts the file to
/// what is surely there and writes the rest anew: no line is ever torn, lost or doubled by an error that passed.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    flushed: u64,
    unflushed: Vec<u8>,
    is_doubtful: bool,
}

impl Journal {
    /// Opens the file, or makes it, and leaves its first `length` bytes; all where that is `None`.
    ///
    /// # Errors
    /// The system refused.
    pub fn open(path: &Path, length: Option<u64>) -> Result<Journal, FileError> {
        let open = || -> io::Result<(File, u64)> {
            let is_new = !path.exists();
            let file = File::options().create(true).read(true).append(true).open(path)?;
            if is_new {
                // Flushing what is in a file does not keep its name.
                flush_folder(folder_of(path))?;
            }
            if let Some(length) = length {
                file.set_len(length)?;
                file.sync_all()?;
            }
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, flushed) = open().map_err(|source| FileError::new("open", path, source))?;
        Ok(Journal { file, path: path.to_owned(), flushed, unflushed: Vec::new(), is_doubtful: false })
    }

    /// Appends a line, in one write.
    ///
    /// # Errors
    /// The system refused. The line is not lost: the next call writes it.
    pub fn append(&mut self, line: &[u8]) -> Result<(), FileError> {
        self.unflushed.extend_from_slice(line);
        let written = if self.is_doubtful { self.write_again() } else { self.file.write_all(line) };
        self.is_doubtful = written.is_err();
        written.map_err(|source| {
            let source = with_space(source, folder_of(&self.path), self.unflushed.len() as u64);
            FileError::new("write", &self.path, source)
        })
    }

    /// Flushes to the disk what was appended.
    ///
    /// # Errors
    /// The system refused: what was appended may not be on the disk. The next call writes it again.
    pub fn flush(&mut self) -> Result<(), FileError> {
        if self.is_doubtful {
            self.append(&[])?;
        }
        let flushed = self.file.sync_data();
        self.is_doubtful = flushed.is_err();
        flushed.map_err(|source| FileError::new("flush", &self.path, source))?;
        self.flushed += self.unflushed.len() as u64;
        self.unflushed.clear();
        Ok(())
    }

    /// What is in the file, also where its name is gone.
    ///
    /// # Errors
    /// The system refused.
    pub fn content(&mut self) -> Result<Vec<u8>, FileError> {
        let mut content = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| Read::by_ref(&mut self.file).take(self.flushed).read_to_end(&mut content));
        read.map_err(|source| FileError::new("read", &self.path, source))?;
        content.extend_from_slice(&self.unflushed);
        Ok(content)
    }

    fn write_again(&mut self) -> io::Result<()> {
        self.file.set_len(self.flushed)?;
        self.file.write_all(&self.unflushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_to_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntorn").unwrap();
        let mut journal = Journal::open(&path, Some(4)).unwrap();
        journal.append(b"two\n").unwrap();
        journal.flush().unwrap();
        journal.append(b"three\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        drop(journal);
        let mut journal = Journal::open(&path, None).unwrap();
        journal.append(b"four\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(journal.content().unwrap(), b"one\ntwo\nthree\nfour\n");
    }

    /// After an error everything since the last flush is written anew, whatever part of it was there.
    #[test]
    fn what_is_in_doubt_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut journal = Journal::open(&path, Some(0)).unwrap();
        journal.append(b"one\n").unwrap();
        journal.flush().unwrap();
        for (part, line) in [(&b"two\nth"[..], &b"three\n"[..]), (b"", b"four\n")] {
            // As if the write of this line had failed in its middle.
            journal.unflushed.extend_from_slice(if line == b"three\n" { b"two\n" } else { b"" });
            std::fs::write(&path, [b"one\n", part].concat()).unwrap();
            journal.is_doubtful = true;
            journal.append(line).unwrap();
        }
        journal.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn a_full_device_is_said_and_forgets_nothing() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let mut journal = Journal::open(full, None).unwrap();
        let error = journal.append(b"line\n").unwrap_err().to_string();
        assert!(error.contains("/dev/full") && error.contains("5 bytes are needed"), "{error}");
        assert!(journal.is_doubtful && journal.unflushed == b"line\n");
    }
}

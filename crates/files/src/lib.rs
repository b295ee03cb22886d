//! Files that are written whole or not at all.
//!
//! A reader, and a machine that loses power, sees the old content or the new, never a part: the content goes
//! to a temporary file beside the target, is flushed to the disk, renamed over the target, and the folder is
//! flushed too. What grows line by line is a [`Journal`].

mod journal;

pub use journal::Journal;

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

/// Why a file could not be read or written: which, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
pub struct FileError {
    /// What was tried: "write", "read".
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What to do, where the system says nothing of it.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        _ if source.raw_os_error().is_none() => "",
        io::ErrorKind::NotFound => "; check the path, or restore what is missing from a copy",
        io::ErrorKind::PermissionDenied => "; check the permissions",
        io::ErrorKind::ReadOnlyFilesystem => "; name a place that can be written",
        _ => "",
    }
}

impl FileError {
    /// An error of `action` on `path`.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> FileError {
        FileError { action, path: path.to_owned(), source }
    }
}

/// Writes `content` to `path`, replacing what was there.
///
/// A flush that failed is never tried again: the system may have dropped what it could not write, and would
/// report success (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
///
/// # Errors
/// The system refused; the old content is still there, unless it was the last flush, of the folder, that
/// failed: then the new content is there, and may not survive a loss of power.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let folder = folder_of(path);
    write_in(folder, path, content)
        .map_err(|source| FileError::new("write", path, with_space(source, folder, content.len() as u64)))
}

/// The folder in which a file of this path lies.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a temporary file ends in.
const LEFTOVER: &str = ".part";

fn write_in(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(LEFTOVER);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder).map_err(plain)?;
    file.as_file_mut().write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    flush_folder(folder)
}

/// What the system said, without the name of the temporary file, which nobody knows.
fn plain(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((said, _)) => io::Error::new(error.kind(), said),
        None => error,
    }
}

/// Replaces a file that is only a hint, such as a sign of life: readers see the old content or the new, and
/// nothing waits for the disk.
///
/// # Errors
/// The system refused; the old content is still there.
pub fn write_hint(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(LEFTOVER);
    let part = path.with_file_name(name);
    // What lies there was left by a killed process, or put there: a link is not written through.
    let _ = std::fs::remove_file(&part);
    let write = || File::create_new(&part)?.write_all(content);
    let written = write().and_then(|()| std::fs::rename(&part, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&part);
        FileError::new("write", path, source)
    })
}

/// Opens a file to which lines are appended, or makes it. A link, a pipe or a device is replaced, and what it leads to
/// left as it is.
///
/// # Errors
/// The system refused.
pub fn open_to_append(path: &Path) -> Result<File, FileError> {
    let open = || {
        if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
            std::fs::remove_file(path)?;
        }
        let mut options = File::options();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32,
        );
        options.open(path)
    };
    open().map_err(|source| FileError::new("open", path, source))
}

/// Removes the temporary files that a killed process left in `folder`. Nobody else may be writing there.
pub fn remove_leftovers(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(LEFTOVER) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Flushes a folder's entries to the disk, where the system can.
fn flush_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The bytes that may still be written below `folder`; `None` where the system does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(folder).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Where the disk is full, how full.
fn with_space(source: io::Error, folder: &Path, needed: u64) -> io::Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match (source.kind(), free_space(folder)) {
        (kind @ (StorageFull | QuotaExceeded | FileTooLarge), Some(free)) => {
            io::Error::new(kind, format!("{source}; {needed} bytes are needed, {free} are free"))
        }
        _ => source,
    }
}

/// Reads a whole file.
///
/// # Errors
/// The system refused.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::new("read", path, source))
}

/// Reads a whole file of at most `limit` bytes, of any kind.
///
/// # Errors
/// The system refused, or the file is larger.
pub fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let read = || File::open(path).and_then(|file| read_at_most(file, limit));
    read().map_err(|source| FileError::new("read", path, source))
}

fn read_at_most(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a whole regular file of at most `limit` bytes. A link is not followed; a pipe, a device or a folder
/// is refused without waiting for it.
///
/// # Errors
/// The system refused, the path is something else, or the file is larger.
pub fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    open_and_read(path, limit).map_err(|source| FileError::new("read", path, source))
}

/// The same of a file that somebody named: links are followed.
///
/// # Errors
/// As [`read_regular`], but for links.
pub fn read_named(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let read = || open_and_read(&path.canonicalize()?, limit);
    read().map_err(|source| FileError::new("read", path, source))
}

fn open_and_read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, limit)
}

/// The lines of a regular file, one at a time: of a file that claims to be huge no more is in memory than a line.
#[derive(Debug)]
pub struct Lines {
    reader: io::BufReader<File>,
    path: PathBuf,
}

/// The most bytes of a line.
const LONGEST_LINE: u64 = 64 << 20;

impl Lines {
    /// Opens a file. A link is not followed; a pipe, a device or a folder is refused.
    ///
    /// # Errors
    /// The system refused, or the path is something else.
    pub fn of(path: &Path) -> Result<Lines, FileError> {
        let file = open_regular(path).map_err(|source| FileError::new("read", path, source))?;
        Ok(Lines { reader: io::BufReader::new(file), path: path.to_owned() })
    }

    /// The next line with its end, if it has one; `None` after the last.
    ///
    /// # Errors
    /// The system refused, or the line is longer than 64 MiB.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        let mut line = Vec::new();
        let read = Read::by_ref(&mut self.reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        read.map_err(|source| FileError::new("read", &self.path, source))?;
        if line.len() as u64 > LONGEST_LINE {
            let what = format!("a line of more than {LONGEST_LINE} bytes: the file is damaged");
            let source = io::Error::new(io::ErrorKind::FileTooLarge, what);
            return Err(FileError::new("read", &self.path, source));
        }
        Ok(if line.is_empty() { None } else { Some(line) })
    }
}

fn open_regular(path: &Path) -> io::Result<File> {
    let other = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(other("a symbolic link, which is not followed"));
    }
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        // What was put there since the look above is not followed, and a pipe is not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    let file = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(other("not a regular file"));
    }
    Ok(file)
}

/// Says why no folder can be made at `path`, or nothing written in the one that is there; creates nothing.
///
/// # Errors
/// Something else is there, the name is too long, a link leads nowhere, or the system would refuse.
pub fn refuse_unusable(path: &Path) -> Result<(), FileError> {
    let wrong = |source| FileError::new("write in", path, source);
    let other = |kind, what: &str| wrong(io::Error::new(kind, what));
    // The nearest that is there: the folder itself, or one in which the missing ones would be made.
    let mut place = path;
    let found = loop {
        match std::fs::symlink_metadata(place) {
            Ok(meta) => break meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => place = folder_of(place),
            Err(error) => return Err(wrong(error)),
        }
    };
    let is_folder = match std::fs::metadata(place) {
        Ok(meta) => meta.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && found.is_symlink() => {
            return Err(other(error.kind(), "a symbolic link that leads nowhere"));
        }
        Err(error) => return Err(wrong(error)),
    };
    if !is_folder {
        return Err(other(io::ErrorKind::NotADirectory, "not a directory"));
    }
    // Names that no folder can have are found by looking for them in one that is there.
    let rest = path.strip_prefix(place).unwrap_or(path);
    if let Some(name) = rest.iter().find(|name| name.len() > LONGEST_NAME) {
        let what = format!("a name of {} bytes, more than {LONGEST_NAME}", name.len());
        return Err(other(io::ErrorKind::InvalidFilename, &what));
    }
    #[cfg(unix)]
    rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| wrong(error.into()))?;
    Ok(())
}

/// Says, before any work, why no file can be written at `path`: its folder is missing, or something that is no regular
/// file is there, which the new one would replace.
///
/// # Errors
/// It is so.
pub fn refuse_folder(path: &Path) -> Result<(), FileError> {
    let wrong = |kind, what: &str| Err(FileError::new("write", path, io::Error::new(kind, what)));
    match path {
        _ if path.is_dir() => wrong(io::ErrorKind::IsADirectory, "a folder; name a file"),
        _ if !folder_of(path).is_dir() => wrong(io::ErrorKind::NotFound, "no such folder; make it first"),
        _ if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) => {
            wrong(io::ErrorKind::AlreadyExists, "a link, a device or a pipe is there; name a file")
        }
        _ => Ok(()),
    }
}

/// The most bytes of a name in a folder on every common file system.
const LONGEST_NAME: usize = 255;

/// Makes a folder and those above it, so that they outlast a loss of power.
///
/// # Errors
/// The system refused.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    let missing: Vec<&Path> =
        path.ancestors().filter(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    std::fs::create_dir_all(path)
        .and_then(|()| missing.iter().try_for_each(|new| flush_folder(folder_of(new))))
        .map_err(|source| FileError::new("create the folder", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, b"old").unwrap();
        write(&path, b"new content").unwrap();
        assert_eq!(read(&path).unwrap(), b"new content");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file_and_keeps_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(&folder.path().join("absent/a.txt"), b"x").unwrap_err();
        assert!(error.to_string().contains("a.txt") && !error.to_string().contains(".part"), "{error}");
        let occupied = folder.path().join("occupied");
        std::fs::create_dir(&occupied).unwrap();
        assert!(write(&occupied, b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".abc.part", ".hint.part", "kept.part", ".kept"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        remove_leftovers(folder.path());
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".kept", "kept.part"]);
        write_hint(&folder.path().join("kept.part"), b"new").unwrap();
        assert_eq!(read(&folder.path().join("kept.part")).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("others"), b"kept").unwrap();
        for link in [".hint.part", "console"] {
            std::os::unix::fs::symlink(path("others"), path(link)).unwrap();
        }
        write_hint(&path("hint"), b"new").unwrap();
        open_to_append(&path("console")).unwrap().write_all(b"line").unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        open_to_append(&path("pipe")).unwrap().write_all(b"line").unwrap();
        open_to_append(&path("pipe")).unwrap().write_all(b"line").unwrap();
        for (name, content) in
            [("others", "kept"), ("hint", "new"), ("console", "line"), ("pipe", "lineline")]
        {
            assert_eq!(read_regular(&path(name), 99).unwrap(), content.as_bytes(), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_of_a_fair_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), b"12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_regular(&path("file"), 5).unwrap(), b"12345");
        assert!(read_regular(&path("file"), 4).unwrap_err().to_string().contains("larger than 4"));
        assert!(read_regular(&path("link"), 5).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(read_named(&path("link"), 5).unwrap(), b"12345");
        assert!(read_regular(folder.path(), 5).unwrap_err().to_string().contains("regular"));
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        assert!(read_regular(&path("pipe"), 5).unwrap_err().to_string().contains("regular"));
        assert!(read_named(&path("pipe"), 5).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn lines_are_read_one_by_one_and_none_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        write(&path, b"one\n\nthree").unwrap();
        let mut lines = Lines::of(&path).unwrap();
        for line in [&b"one\n"[..], b"\n", b"three"] {
            assert_eq!(lines.next_line().unwrap().as_deref(), Some(line));
        }
        assert_eq!(lines.next_line().unwrap(), None);
        File::options().write(true).open(&path).unwrap().set_len(LONGEST_LINE + 9).unwrap();
        let mut lines = Lines::of(&path).unwrap();
        let read = |lines: &mut Lines| lines.next_line().map(|line| line.map(|line| line.len()));
        assert_eq!((read(&mut lines).unwrap(), read(&mut lines).unwrap()), (Some(4), Some(1)));
        assert!(lines.next_line().unwrap_err().to_string().contains("damaged"));
    }
}

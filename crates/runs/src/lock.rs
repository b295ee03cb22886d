//! One training a run directory.
//!
//! The lock is the system's, on the file `lock`: it falls away with the process that holds it, however that
//! ends, so the lock of a dead owner need not be recognised and broken. What stands in the file only names
//! the holder.

use kinone_files::{self as files, FileError};
use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a run directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else trains there.
    #[error("{} is in use by {holder}; wait for it or stop it", path.display())]
    Held {
        /// The run directory.
        path: PathBuf,
        /// Who holds it, as far as the file says.
        holder: String,
    },
    /// The file could not be opened or locked.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The file in a run directory.
fn file_in(run: &Path) -> PathBuf {
    run.join("lock")
}

/// The name of this machine, as far as it is known.
pub fn host() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    {
        "this machine".to_owned()
    }
}

impl Lock {
    /// Takes the lock of a run directory.
    ///
    /// # Errors
    /// Somebody else holds it, or the system refused.
    pub fn take(run: &Path) -> Result<Lock, LockError> {
        let path = file_in(run);
        let wrong = |source| FileError::new("lock", &path, source);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
        }
        let mut file = options.open(&path).map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { path: run.to_owned(), holder: holder(&path) });
            }
            Err(TryLockError::Error(source)) => return Err(wrong(source).into()),
        }
        // That the name cannot be written, on a full disk, does not loosen the lock.
        let line = format!("process {} on {}\n", std::process::id(), host());
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(line.as_bytes()));
        Ok(Lock { _file: file })
    }

    /// Says whether somebody else holds the lock, without creating anything.
    ///
    /// # Errors
    /// Somebody does.
    pub fn refuse_held(run: &Path) -> Result<(), LockError> {
        if file_in(run).exists() { Lock::take(run).map(drop) } else { Ok(()) }
    }
}

fn holder(path: &Path) -> String {
    let text = files::read_regular(path, 4096).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.map(|text| text.trim().escape_debug().to_string()).filter(|text| !text.is_empty());
    text.unwrap_or_else(|| "another process".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_names_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        Lock::refuse_held(folder.path()).unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        for error in [Lock::take(folder.path()).unwrap_err(), Lock::refuse_held(folder.path()).unwrap_err()] {
            let said = error.to_string();
            assert!(said.contains(&format!("process {} on ", std::process::id())), "{said}");
        }
        drop(lock);
        // What a dead owner left behind is no lock.
        Lock::take(folder.path()).unwrap();
    }
}

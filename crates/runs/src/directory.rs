//! The run directory.

use crate::CONTRACT;
use crate::config::{self, Config};
use crate::lock::{Lock, LockError};
use crate::store::Store;
use kinone_files::{self as files, FileError};
use std::path::{Path, PathBuf};

/// A directory that holds everything about one run.
#[derive(Clone, Debug)]
pub struct RunDirectory(PathBuf);

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be made or written.
    #[error("{0}; name another with --run-dir")]
    Place(FileError),
    /// Somebody trains there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is a run already.
    #[error("{} already holds a run; go on with it by --resume, name another with --run-dir, or remove it", .0.display())]
    Occupied(PathBuf),
    /// There are other things.
    #[error("{} holds other files than a run's; name a new or an empty directory with --run-dir", .0.display())]
    Foreign(PathBuf),
    /// There is no run.
    #[error("{} is not a run directory: it has no config.toml; give one that train made", .0.display())]
    NotARun(PathBuf),
    /// It was made under another contract.
    #[error("{}: made under contract {found}, this program keeps contract {CONTRACT}; use the version that made it", path.display())]
    Contract {
        /// The configuration.
        path: PathBuf,
        /// Its contract.
        found: u32,
    },
    /// The configuration cannot be read.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What may lie where a run begins: folders without a file, which one leaves that was killed while its directory was
/// made, and what a file system has in it from the start.
const NAMES: &[&str] = &["checkpoints", "lock", "lost+found", "transcripts"];

/// Whether nothing that could be lost lies in a folder.
fn is_as_good_as_empty(path: &Path) -> bool {
    // One folder open at a time, which an entry keeps open: a process may have few descriptors.
    let entry = |entry: std::fs::DirEntry| {
        (entry.path(), entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir()))
    };
    let entries: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().map(entry).collect();
    entries.into_iter().all(|(path, name, is_folder)| {
        let name = name.to_string_lossy();
        let is_part = name.starts_with('.') && name.ends_with(".part");
        let is_known = NAMES.contains(&&*name) && is_folder == (name != "lock");
        let is_bare = !is_folder
            || name == "lost+found"
            || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        (is_part || is_known) && is_bare
    })
}

/// The most bytes of a configuration: a thousand times what every setting needs.
const LARGEST: u64 = 1 << 20;

/// `YYYYMMDD_HHMMSS` by the local clock.
pub fn now() -> String {
    jiff::ZonedDateTime::now().strftime("%Y%m%d_%H%M%S").to_string()
}

impl RunDirectory {
    /// Makes the directory of a new run, locks it and writes its configuration.
    ///
    /// # Errors
    /// The directory holds a run already, somebody else makes one there, or it cannot be written.
    pub fn create(path: &Path, config: &Config) -> Result<(RunDirectory, Lock), RunError> {
        let run = RunDirectory(path.to_owned());
        let is_new = !path.exists();
        run.make_folders()?;
        let lock = Lock::take(path)?;
        if run.config_file().exists() {
            return Err(RunError::Occupied(path.to_owned()));
        }
        if !is_as_good_as_empty(path) {
            return Err(RunError::Foreign(path.to_owned()));
        }
        if let Err(error) = run.write_config(config) {
            run.abandon(is_new);
            return Err(error);
        }
        Ok((run, lock))
    }

    /// Makes the folders in it, where they are not there.
    ///
    /// # Errors
    /// The system refused.
    pub fn make_folders(&self) -> Result<(), RunError> {
        files::make_folder(&self.0.join("checkpoints"))?;
        Ok(files::make_folder(&self.0.join("transcripts"))?)
    }

    /// Whether its first step was to be made: what is before it is written.
    pub fn has_begun(&self) -> bool {
        std::fs::metadata(self.log_file()).is_ok_and(|meta| meta.len() > 0)
    }

    /// Removes a run that could not begin, so that the same command can make it when the cause is gone. The caller
    /// made it with [`RunDirectory::create`], and holds the lock; `is_new` where the directory itself was not there.
    pub fn abandon(&self, is_new: bool) {
        self.remove_leftovers();
        let files = [
            self.chain_file(),
            self.console_file(),
            self.index_file(),
            self.log_file(),
            self.0.join("heartbeat.json"),
            self.config_file(),
            self.0.join("lock"),
        ];
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        // Only where nothing else is in them.
        for folder in ["checkpoints", "transcripts"] {
            let _ = std::fs::remove_dir(self.0.join(folder));
        }
        if is_new {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// The system refused.
    pub fn write_config(&self, config: &Config) -> Result<(), RunError> {
        let text = toml::to_string(config)
            .map_err(|error| RunError::Config { path: self.config_file(), reason: error.to_string() })?;
        Ok(files::write(&self.config_file(), text.as_bytes())?)
    }

    /// Says early what [`RunDirectory::create`] would say, and creates nothing.
    ///
    /// # Errors
    /// The directory holds a run already, or other files; or it cannot be made or written.
    pub fn refuse_occupied(path: &Path) -> Result<(), RunError> {
        files::refuse_unusable(path).map_err(RunError::Place)?;
        Lock::refuse_held(path)?;
        if RunDirectory(path.to_owned()).config_file().exists() {
            return Err(RunError::Occupied(path.to_owned()));
        }
        if is_as_good_as_empty(path) { Ok(()) } else { Err(RunError::Foreign(path.to_owned())) }
    }

    /// Makes the directory of a new run as [`RunDirectory::create`] does: `parent/YYYYMMDD_HHMMSS` by the local clock,
    /// with `_2`, `_3`, … where that is taken, also by a run that begins at the same moment.
    ///
    /// # Errors
    /// The system refused.
    pub fn create_fresh(parent: &Path, config: &Config) -> Result<(RunDirectory, Lock), RunError> {
        let name = now();
        files::make_folder(parent)?;
        let names = (1..).map(|count| if count == 1 { name.clone() } else { format!("{name}_{count}") });
        for path in names.map(|name| parent.join(name)) {
            // Of those who try at once, one makes it.
            match std::fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(FileError::new("create the folder", &path, error).into()),
            }
            let made = RunDirectory::create(&path, config);
            if made.is_err() {
                RunDirectory(path).abandon(true);
            }
            return made;
        }
        unreachable!("names without end")
    }

    /// Opens the directory of a run that was made before.
    ///
    /// # Errors
    /// There is no run, or its configuration cannot be read.
    pub fn open(path: &Path) -> Result<(RunDirectory, Config), RunError> {
        let run = RunDirectory(path.to_owned());
        let file = run.config_file();
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(FileError::new("read", &file, error).into());
            }
            _ => return Err(RunError::NotARun(path.to_owned())),
        }
        let bytes = files::read_named(&file, LARGEST)?;
        let wrong = |reason: String| RunError::Config { path: file.clone(), reason };
        let config: Config = config::parse(&bytes).map_err(wrong)?;
        if config.contract != CONTRACT {
            return Err(RunError::Contract { path: file, found: config.contract });
        }
        Ok((run, config))
    }

    /// Removes the temporary files of a process that was killed. The caller holds the lock.
    pub fn remove_leftovers(&self) {
        for folder in ["", "checkpoints", "transcripts"] {
            files::remove_leftovers(&self.0.join(folder));
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration as used.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The log of one JSON object a line.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("log.jsonl")
    }

    /// The chain of links ([`crate::chain`]).
    pub fn chain_file(&self) -> PathBuf {
        self.0.join("chain.jsonl")
    }

    /// One line an image: what the data were made of.
    pub fn index_file(&self) -> PathBuf {
        self.0.join("data.index")
    }

    /// The checkpoints.
    pub fn store(&self) -> Store {
        Store::new(&self.0.join("checkpoints"))
    }

    /// What was printed.
    pub fn console_file(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// The weights of the best validation score.
    pub fn best_weights(&self) -> PathBuf {
        self.0.join("checkpoints/best.safetensors")
    }

    /// The weights of the last epoch.
    pub fn last_weights(&self) -> PathBuf {
        self.0.join("checkpoints/last.safetensors")
    }

    /// The summary, written at the end.
    pub fn summary_file(&self) -> PathBuf {
        self.0.join("summary.json")
    }

    /// The metrics of the test part, or of another.
    pub fn metrics_file(&self, part: &str) -> PathBuf {
        if part == "test" { self.0.join("metrics.json") } else { self.0.join(format!("metrics_{part}.json")) }
    }

    /// The scores of every image of a part.
    pub fn scores_file(&self, part: &str) -> PathBuf {
        self.0.join(format!("scores_{part}.csv"))
    }
}

//! Stop, pause and resume by way of the run directory, and the sign of life beside it.
//!
//! Whoever wants a run to stop writes `stop` into the file `control` of its directory; `pause` holds it after
//! the step under way, `resume` lets it go on. Nothing is ever sent to a process by its number, which may
//! long be a stranger's. `heartbeat.json` says every second how far the run is; without a fresh one it is
//! not running.

use kinone_files::{self as files, FileError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// What a run was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Save and end.
    Stop,
    /// Wait after this step.
    Pause,
    /// Go on.
    Resume,
}

impl Request {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Request::Stop => "stop",
            Request::Pause => "pause",
            Request::Resume => "resume",
        }
    }
}

/// The file `control` of a run directory.
#[derive(Clone, Debug)]
pub struct Control(PathBuf);

impl Control {
    /// In this run directory.
    pub fn new(run: &Path) -> Control {
        Control(run.join("control"))
    }

    /// What stands in the file; `None` where it is absent or says none of the three words.
    pub fn request(&self) -> Option<Request> {
        let word = self.word()?;
        [Request::Stop, Request::Pause, Request::Resume].into_iter().find(|known| known.word() == word)
    }

    /// What stands in the file and is none of the three words, made fit to be printed.
    pub fn unknown(&self) -> Option<String> {
        let word = self.word().filter(|word| !word.is_empty())?;
        self.request().is_none().then(|| word.escape_debug().to_string())
    }

    fn word(&self) -> Option<String> {
        if !self.0.exists() {
            return None;
        }
        let bytes = files::read_regular(&self.0, 64).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The system refused.
    pub fn ask(&self, request: Request) -> Result<(), FileError> {
        files::write_hint(&self.0, format!("{}\n", request.word()).as_bytes())
    }

    /// Removes a request that was met.
    pub fn clear(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// Making steps.
    Training,
    /// Waiting for `resume`.
    Paused,
    /// Scoring images.
    Evaluating,
    /// Ended early, to be resumed.
    Stopped,
    /// Ended.
    Finished,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// What it is doing.
    pub doing: Doing,
    /// The epoch under way, from 1.
    pub epoch: u32,
    /// Steps made.
    pub step: u64,
    /// Seconds since 1970 by this machine's clock.
    pub time: u64,
}

/// Gives signs of life, at most one a second.
#[derive(Debug)]
pub struct Pulse {
    path: PathBuf,
    host: String,
    last: Option<(Instant, Doing)>,
}

impl Pulse {
    /// In this run directory.
    pub fn new(run: &Path) -> Pulse {
        Pulse { path: run.join("heartbeat.json"), host: crate::lock::host(), last: None }
    }

    /// Says so, if the last time was a second ago or something else was being done. That it cannot be
    /// written stops nothing: the next save says what is wrong with the disk.
    pub fn beat(&mut self, doing: Doing, epoch: u32, step: u64) {
        let is_fresh =
            |(when, what): (Instant, Doing)| what == doing && when.elapsed() < Duration::from_secs(1);
        if self.last.is_some_and(is_fresh) {
            return;
        }
        self.last = Some((Instant::now(), doing));
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |past| past.as_secs());
        let (host, pid) = (self.host.clone(), std::process::id());
        if let Ok(text) = serde_json::to_vec(&Heartbeat { host, pid, doing, epoch, step, time }) {
            let _ = files::write_hint(&self.path, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_of_three_words() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        assert_eq!(control.request(), None);
        for request in [Request::Stop, Request::Pause, Request::Resume] {
            control.ask(request).unwrap();
            assert_eq!(control.request(), Some(request));
        }
        for other in [&b""[..], b"halt", b"stop now", &[b's'; 1000], b"\xff"] {
            std::fs::write(folder.path().join("control"), other).unwrap();
            assert_eq!(control.request(), None);
        }
        control.clear();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_heartbeat_says_who_and_how_far() {
        let folder = tempfile::tempdir().unwrap();
        let mut pulse = Pulse::new(folder.path());
        let read = || -> Heartbeat {
            serde_json::from_slice(&std::fs::read(folder.path().join("heartbeat.json")).unwrap()).unwrap()
        };
        pulse.beat(Doing::Training, 1, 7);
        pulse.beat(Doing::Training, 1, 8);
        assert_eq!((read().step, read().pid, read().doing), (7, std::process::id(), Doing::Training));
        pulse.beat(Doing::Stopped, 1, 9);
        assert_eq!((read().step, read().doing), (9, Doing::Stopped));
    }
}

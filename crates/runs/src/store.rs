//! The folder of checkpoints: names by step, which to keep, which is the newest that is sound.

use crate::checkpoint::{Checkpoint, CheckpointError};
use kinone_files as files;
use kinone_kernels::Cpu;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Checkpoints under `step_00000012.safetensors`, the number of steps made.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// The newest checkpoint that is sound.
#[derive(Debug)]
pub struct Newest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// What to say aloud: newer ones that are damaged or gone.
    pub remarks: Vec<String>,
}

/// The hint that names the newest checkpoint. What is true is the folder.
const POINTER: &str = "newest";

impl Store {
    /// The checkpoints in `folder`.
    pub fn new(folder: &Path) -> Store {
        Store { folder: folder.to_owned() }
    }

    /// Where the checkpoint after so many steps lies.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step_{step:08}.safetensors"))
    }

    /// The steps of which there are files, ascending. What they hold is not looked at.
    pub fn steps(&self) -> Vec<u64> {
        let mut steps = BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let digits =
                name.to_str().and_then(|name| name.strip_prefix("step_")?.strip_suffix(".safetensors"));
            let step = digits.and_then(|digits| digits.parse().ok());
            // One name a step: `step_12` and `step_00000012` would be two.
            steps.extend(step.filter(|step| self.path(*step).file_name() == Some(&name)));
        }
        steps.into_iter().collect()
    }

    /// Writes a checkpoint, then removes those that need not be kept: all but the last two, those of the
    /// steps `best`, and every one whose step is a multiple of `keep_every` (0 for none).
    ///
    /// # Errors
    /// It could not be written; the older ones are all there.
    pub fn save(
        &self,
        cpu: &Cpu,
        checkpoint: &mut Checkpoint,
        best: &[u64],
        keep_every: u64,
    ) -> Result<PathBuf, CheckpointError> {
        files::remove_leftovers(&self.folder);
        let step = checkpoint.header.progress.step;
        let path = self.path(step);
        checkpoint.save(cpu, &path)?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Only a hint: without it the folder is read.
        let _ = files::write_hint(&self.folder.join(POINTER), name);
        self.prune(step, best, keep_every);
        Ok(path)
    }

    /// Removes checkpoints that need not be kept. Later ones than the newest are of a stretch that was cut
    /// off: damaged ones that a resumed run passed over.
    fn prune(&self, newest: u64, best: &[u64], keep_every: u64) {
        let steps = self.steps();
        let previous = steps.iter().copied().rfind(|step| *step < newest);
        for step in steps {
            let is_kept = step == newest || Some(step) == previous || best.contains(&step);
            let is_nth = keep_every != 0 && step % keep_every == 0 && step < newest;
            if !is_kept && !is_nth {
                let _ = std::fs::remove_file(self.path(step));
            }
        }
    }

    /// Removes the checkpoints after a step: what a resumed run passed over, because it is damaged or of a
    /// stretch that will be made again. A folder of such a name is somebody's, and goes out of the way.
    pub fn discard_after(&self, step: u64) {
        for later in self.steps().into_iter().filter(|later| *later > step) {
            let path = self.path(later);
            if std::fs::remove_file(&path).is_err() {
                let _ = std::fs::rename(&path, path.with_extension("aside"));
            }
        }
    }

    /// The newest checkpoint that is sound.
    ///
    /// # Errors
    /// One was made under other rules, or there are some and none is sound: the newest's error. `None` where
    /// there is none.
    pub fn newest(&self, cpu: &Cpu) -> Result<Option<Newest>, CheckpointError> {
        let (mut remarks, mut first) = (Vec::new(), None);
        let mut steps = self.steps();
        if let Some(named) = self.pointed_at().filter(|named| steps.last().is_none_or(|last| last < named)) {
            let path = self.path(named);
            remarks.push(format!("{} is gone; looking for the one before", path.display()));
        }
        while let Some(step) = steps.pop() {
            let path = self.path(step);
            match Checkpoint::load(cpu, &path) {
                Ok(checkpoint) if checkpoint.header.progress.step == step => {
                    return Ok(Some(Newest { checkpoint, path, remarks }));
                }
                Ok(checkpoint) => {
                    let found = checkpoint.header.progress.step;
                    let reason = format!("the checkpoint of step {found} under the name of step {step}");
                    let error = CheckpointError::Damaged { path, reason };
                    remarks.push(format!("{error}; falling back to the one before"));
                    first.get_or_insert(error);
                }
                Err(error @ CheckpointError::Version { .. }) => return Err(error),
                Err(error) => {
                    remarks.push(format!("{error}; falling back to the one before"));
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// The step that the pointer names; `None` where it is absent or says nothing of the kind.
    fn pointed_at(&self) -> Option<u64> {
        let bytes = files::read_regular(&self.folder.join(POINTER), 256).ok()?;
        let name = String::from_utf8(bytes).ok()?;
        name.trim().strip_prefix("step_")?.strip_suffix(".safetensors")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::example;
    use crate::progress::Best;
    use std::fs;

    /// A folder in which checkpoints of these steps were saved, step 20 being the best from then on.
    fn folder(steps: &[u64], keep_every: u64) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut best = Vec::new();
        for step in steps {
            let mut checkpoint = example();
            checkpoint.header.progress.step = *step;
            if *step >= 20 {
                best = vec![20];
                let weights_sha256 = String::new();
                let thresholds = vec![None, Some(-1.25)];
                let best = Best { epoch: 1, step: 20, val_auroc_macro: None, thresholds, weights_sha256 };
                let progress = &mut checkpoint.header.progress;
                (progress.epoch, progress.best) = (2, Some(best));
            }
            store.save(&Cpu::current(), &mut checkpoint, &best, keep_every).unwrap();
        }
        (folder, store)
    }

    fn newest(store: &Store) -> (u64, Vec<String>) {
        let newest = store.newest(&Cpu::current()).unwrap().unwrap();
        (newest.checkpoint.header.progress.step, newest.remarks)
    }

    #[test]
    fn the_last_two_the_best_and_every_nth_are_kept() {
        let steps: Vec<u64> = (1..=9).map(|k| 10 * k).collect();
        assert_eq!(folder(&steps, 0).1.steps(), [20, 80, 90]);
        assert_eq!(folder(&steps, 30).1.steps(), [20, 30, 60, 80, 90]);
        assert_eq!(folder(&steps[..1], 0).1.steps(), [10]);
    }

    #[test]
    fn the_newest_goes_by_its_step_and_not_by_its_time() {
        let (folder, store) = folder(&[10, 20, 30], 0);
        assert_eq!(newest(&store), (30, vec![]));
        let old = fs::File::options().write(true).open(store.path(30)).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        // A pointer is only a hint, whatever it says; strange names are no checkpoints.
        for hint in [&b""[..], b"garbage", b"step_00000020.safetensors", b"\xff"] {
            fs::write(folder.path().join("newest"), hint).unwrap();
            fs::write(folder.path().join("step_99.safetensors"), b"x").unwrap();
            assert_eq!(newest(&store), (30, vec![]));
        }
    }

    #[test]
    fn a_damaged_or_absent_newest_gives_way_to_the_one_before_aloud() {
        let (folder, store) = folder(&[10, 20, 30], 0);
        let good = fs::read(store.path(30)).unwrap();
        fs::write(store.path(30), &good[..100]).unwrap();
        let (step, remarks) = newest(&store);
        assert_eq!((step, remarks.len()), (20, 1));
        assert!(remarks[0].contains("step_00000030") && remarks[0].contains("damaged"), "{remarks:?}");
        fs::remove_file(store.path(30)).unwrap();
        let (step, remarks) = newest(&store);
        assert_eq!((step, remarks.len()), (20, 1));
        assert!(remarks[0].contains("step_00000030") && remarks[0].contains("gone"), "{remarks:?}");
        // One under another's name is not taken for it.
        fs::write(store.path(40), fs::read(store.path(20)).unwrap()).unwrap();
        assert_eq!(newest(&store).0, 20);
        for step in store.steps() {
            fs::write(store.path(step), b"").unwrap();
        }
        assert!(store.newest(&Cpu::current()).is_err());
        drop(folder);
        assert!(store.newest(&Cpu::current()).unwrap().is_none());
    }

    #[test]
    fn leftovers_go_with_the_next_save() {
        let (folder, store) = folder(&[10], 0);
        fs::write(folder.path().join(".killed.part"), b"x").unwrap();
        let mut checkpoint = example();
        store.save(&Cpu::current(), &mut checkpoint, &[], 0).unwrap();
        assert!(!folder.path().join(".killed.part").exists());
    }
}

//! What the data of a run are made of: one line an image, and the hash of all lines.
//!
//! A line holds the SHA-256 of the image's gray values as the network gets them, its part, its patient, its
//! findings as the digits of a bit set, and its name. Where the files lie, in which order they were found and
//! when they were changed does not matter; what they show, and what the table says of them, does.

use kinone_files::FileError;
use kinone_kernels::Cpu;
use kinone_runs::hash;
use kinone_xray::{Dataset, Part};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The index of a run's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    text: String,
    /// The hash of the text.
    pub sha256: String,
}

/// The data are not those of the run.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// They differ.
    #[error("the data have changed since the run began: {difference}; restore them, or train anew")]
    Changed {
        /// The first image that differs, and how.
        difference: String,
    },
    /// The index could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Index {
    /// The index of what was loaded.
    pub fn of(data: &Dataset, cpu: &Cpu) -> Index {
        let entries = data.entries();
        let lines = Mutex::new(vec![String::new(); entries.len()]);
        let next = AtomicUsize::new(0);
        cpu.on_every_thread(|_| {
            loop {
                let k = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = entries.get(k) else { break };
                let line = format!(
                    "{} {} {} {:04x} {}\n",
                    hash::bytes(data.pixels(k)),
                    entry.part.name(),
                    entry.patient,
                    bits(entry.findings),
                    entry.image
                );
                lines.lock().unwrap_or_else(PoisonError::into_inner)[k] = line;
            }
        });
        let text = lines.into_inner().unwrap_or_else(PoisonError::into_inner).concat();
        let sha256 = hash::bytes(text.as_bytes());
        Index { text, sha256 }
    }

    /// Keeps it in a file.
    ///
    /// # Errors
    /// The system refused.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        kinone_files::write(path, self.text.as_bytes())
    }

    /// Says whether these are the data of a run whose index, in the file `kept`, has the hash `sha256`.
    ///
    /// # Errors
    /// They are not; the first image that differs.
    pub fn matches(&self, sha256: &str, kept: &Path) -> Result<(), IndexError> {
        if self.sha256 == sha256 {
            return Ok(());
        }
        let difference = match sound(sha256, kept) {
            Some(before) => first_difference(&before, &self.text),
            None => format!("which image cannot be said, since {} is damaged or gone", kept.display()),
        };
        Err(IndexError::Changed { difference })
    }

    /// Says whether these are the data of one part of such a run; `false` where the kept index is damaged or gone, so
    /// that only the index of all parts could tell.
    ///
    /// # Errors
    /// They are not; the first image that differs.
    pub fn matches_part(&self, part: Part, sha256: &str, kept: &Path) -> Result<bool, IndexError> {
        let Some(before) = sound(sha256, kept) else { return Ok(false) };
        let of_part = |line: &&str| line.split(' ').nth(1) == Some(part.name());
        let before: String = before.lines().filter(of_part).flat_map(|line| [line, "\n"]).collect();
        if before == self.text {
            return Ok(true);
        }
        Err(IndexError::Changed { difference: first_difference(&before, &self.text) })
    }
}

/// The text of a kept index, if it has this hash.
fn sound(sha256: &str, kept: &Path) -> Option<String> {
    let text = kinone_files::read_regular(kept, 1 << 30).ok().filter(|text| hash::bytes(text) == sha256)?;
    String::from_utf8(text).ok()
}

fn first_difference(before: &str, now: &str) -> String {
    let mut pairs = before.lines().zip(now.lines());
    let name = |line: &str| line.splitn(5, ' ').last().unwrap_or_default().to_owned();
    match pairs.find(|(before, now)| before != now) {
        Some((before, now)) if name(before) == name(now) => {
            let what = if before[..64] == now[..64] { "label, patient or part" } else { "picture" };
            format!("{} has another {what}", name(now))
        }
        Some((before, now)) if name(before) < name(now) => format!("{} is gone", name(before)),
        Some((_, now)) => format!("{} is new", name(now)),
        None => {
            let (before, now) = (before.lines().count(), now.lines().count());
            format!("there were {before} images, there are {now}")
        }
    }
}

/// The findings as a number, bit k for class k.
fn bits(findings: kinone_xray::Findings) -> u16 {
    (0..14).filter(|class| findings.has(*class)).map(|class| 1 << class).sum()
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_image_that_differs_is_named() {
        let line = |hash: char, label: &str, name: &str| {
            format!("{} train 1 {label} {name}\n", hash.to_string().repeat(64))
        };
        let before = line('a', "0000", "1.png") + &line('b', "0001", "3 x.png");
        let cases = [
            (line('a', "0000", "1.png") + &line('c', "0001", "3 x.png"), "3 x.png has another picture"),
            (line('a', "0002", "1.png") + &line('b', "0001", "3 x.png"), "1.png has another label"),
            (line('a', "0000", "1.png"), "there were 2 images, there are 1"),
            (line('b', "0001", "3 x.png"), "1.png is gone"),
            (line('a', "0000", "1.png") + &line('b', "0001", "2.png"), "2.png is new"),
        ];
        for (now, said) in cases {
            let found = first_difference(&before, &now);
            assert!(found.starts_with(said), "{found}");
        }
    }
}

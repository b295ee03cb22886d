//! The log: one JSON object a line, appended as things happen.

use crate::chain::StepLink;
use kinone_files::{FileError, Journal};
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The most bytes of a log: sixteen million steps.
const LARGEST: u64 = 4 << 30;

/// A file of JSON lines.
#[derive(Debug)]
pub struct Log(Journal, PathBuf);

impl Log {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// The system refused.
    pub fn open(path: &Path) -> Result<Log, FileError> {
        Ok(Log(Journal::open(path, None)?, path.to_owned()))
    }

    /// Opens it and leaves nothing of what was there: of a run that was ended before its first checkpoint.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin(path: &Path) -> Result<Log, FileError> {
        Ok(Log(Journal::open(path, Some(0))?, path.to_owned()))
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    /// The system refused; the next call writes the line.
    pub fn append(&mut self, event: &impl Serialize) -> Result<(), FileError> {
        let wrong = |error: serde_json::Error| FileError::new("write", &self.1, error.into());
        let mut line = serde_json::to_vec(event).map_err(wrong)?;
        line.push(b'\n');
        self.0.append(&line)
    }

    /// Flushes to the disk what was appended.
    ///
    /// # Errors
    /// The system refused.
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.0.flush()
    }

    /// All lines, also where the file's name is gone.
    ///
    /// # Errors
    /// The system refused.
    pub fn content(&mut self) -> Result<Vec<u8>, FileError> {
        self.0.content()
    }
}

/// Cuts a log to what belongs to a run after `step` steps of which `epochs` epochs ended: without rows of later
/// steps and epochs, which the resumed run will make again, and without a line that was not finished.
///
/// # Errors
/// The system refused.
pub fn cut(path: &Path, step: u64, epochs: u32) -> Result<(), FileError> {
    if !path.exists() {
        return Ok(());
    }
    let bytes = kinone_files::read_regular(path, LARGEST)?;
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let event: Option<serde_json::Value> =
            serde_json::from_slice(line).ok().filter(|_| line.ends_with(b"\n"));
        let Some(event) = event else { break };
        let number = |name: &str| event[name].as_u64();
        let belongs = match event["event"].as_str() {
            Some("start") => true,
            Some("step" | "resume" | "error") => number("step").is_some_and(|found| found <= step),
            Some("epoch") => number("epoch").is_some_and(|found| found <= u64::from(epochs)),
            _ => false,
        };
        if !belongs {
            break;
        }
        end += line.len() as u64;
    }
    let file = File::options().write(true).open(path);
    let file = file.and_then(|file| file.set_len(end).and_then(|()| file.sync_all()));
    file.map_err(|source| FileError::new("cut", path, source))
}

/// Writes a log anew where it lacks rows of the steps of `links`, the first steps of a run, or has damaged ones: what is
/// missing is made from the links, without its times. How many rows were made so.
///
/// # Errors
/// The system refused.
pub fn mend(path: &Path, links: &[&StepLink]) -> Result<usize, FileError> {
    let agrees =
        |rows: &[Row]| rows.len() >= links.len() && rows.iter().zip(links).all(|(row, link)| row.is_of(link));
    if rows(path).is_ok_and(|rows| agrees(&rows.steps)) {
        return Ok(0);
    }
    let bytes = match kinone_files::read_regular(path, LARGEST) {
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    let (mut start, mut steps, mut ends) = (None, BTreeMap::new(), BTreeMap::new());
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let Ok(event) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        match event["event"].as_str() {
            Some("start") => start = start.or(Some(line)),
            Some("epoch") => {
                ends.entry(event["epoch"].as_u64()).or_insert(line);
            }
            Some("step") => {
                let Ok(row) = serde_json::from_value::<Row>(event) else { continue };
                // The links are those of steps 1, 2, …
                let place = usize::try_from(row.step).ok().and_then(|step| step.checked_sub(1));
                if place.and_then(|place| links.get(place)).is_some_and(|link| row.is_of(link)) {
                    steps.entry(row.step).or_insert(line);
                }
            }
            _ => {}
        }
    }
    let mut text = start.unwrap_or_default().to_vec();
    for (k, link) in links.iter().enumerate() {
        match steps.get(&link.step) {
            Some(line) => text.extend_from_slice(line),
            None => text.extend(format!("{}\n", Row::of(link)?.json()).into_bytes()),
        }
        let is_last = links.get(k + 1).is_none_or(|next| next.epoch > link.epoch);
        if let Some(line) = ends.get(&Some(u64::from(link.epoch))).filter(|_| is_last) {
            text.extend_from_slice(line);
        }
    }
    kinone_files::write(path, &text)?;
    Ok(links.len() - steps.len())
}

/// A step as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Row {
    /// The epoch, from 1.
    pub epoch: u32,
    /// The step, from 1.
    pub step: u64,
    /// The loss.
    pub loss: f32,
    /// The norm of the gradient.
    pub gradient_norm: f64,
    /// The learning rate.
    pub lr: f32,
}

impl Row {
    /// The link as the row has it; what a row does not say is taken from the link.
    pub fn as_link(&self, link: &StepLink) -> StepLink {
        StepLink {
            step: self.step,
            epoch: self.epoch,
            lr: format!("{:08x}", self.lr.to_bits()),
            loss: format!("{:08x}", self.loss.to_bits()),
            gradient_norm: format!("{:016x}", self.gradient_norm.to_bits()),
            ..link.clone()
        }
    }

    /// Whether it says what the link says.
    fn is_of(&self, link: &StepLink) -> bool {
        self.as_link(link) == *link
    }

    /// What the link says.
    fn of(link: &StepLink) -> Result<Row, FileError> {
        let wrong = || {
            let source = std::io::Error::other(format!("the link of step {} has no bits", link.step));
            FileError::new("read", Path::new("chain.jsonl"), source)
        };
        let single = |bits: &str| u32::from_str_radix(bits, 16).map(f32::from_bits).map_err(|_| wrong());
        let double = |bits: &str| u64::from_str_radix(bits, 16).map(f64::from_bits).map_err(|_| wrong());
        let (epoch, step) = (link.epoch, link.step);
        let gradient_norm = double(&link.gradient_norm)?;
        Ok(Row { epoch, step, loss: single(&link.loss)?, gradient_norm, lr: single(&link.lr)? })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "step", "epoch": self.epoch, "step": self.step, "loss": self.loss,
            "gradient_norm": self.gradient_norm, "lr": self.lr, "from": "chain.jsonl",
        })
    }
}

/// An epoch's end as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The epoch, from 1.
    pub epoch: u32,
    /// The mean loss of its steps.
    pub train_loss: f64,
    /// The loss on the validation part.
    pub val_loss: Option<f64>,
    /// The mean area under the curve there.
    pub val_auroc_macro: Option<f64>,
    /// The learning rate of its last step.
    pub lr: f32,
}

/// The beginning of a run as the log has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRow {
    /// The version of the numeric contract.
    pub contract: u32,
    /// The network.
    pub model: String,
    /// How images were divided.
    pub split: String,
    /// Images to train on, to choose on, to test on.
    pub images: [usize; 3],
}

/// What a log says of a run's course.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The beginning; none where the log was made anew.
    pub start: Option<StartRow>,
    /// The steps, in the order of the file.
    pub steps: Vec<Row>,
    /// The ends of epochs, in the order of the file.
    pub epochs: Vec<EpochRow>,
    /// The hash of the last weights that the end states, if there is one.
    pub end: Option<String>,
    /// Whether some steps are made from the chain: then the log was lost, and with it what the chain does not say.
    pub is_mended: bool,
}

/// The entries of a JSON object, no name twice: what we and others read must be one.
struct Entries(serde_json::Map<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entries, A::Error> {
                let mut entries = serde_json::Map::new();
                while let Some((name, value)) = object.next_entry::<String, serde_json::Value>()? {
                    if entries.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("`{name}` stands twice")));
                    }
                    entries.insert(name, value);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The steps and the ends of epochs of a log. Events of other kinds are passed over, and a last line that was not
/// finished.
///
/// # Errors
/// The file cannot be read, or a line is no event: which, and why.
pub fn rows(path: &Path) -> Result<Rows, String> {
    let bytes = kinone_files::read_regular(path, LARGEST).map_err(|error| error.to_string())?;
    let mut rows = Rows::default();
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let wrong = |reason: String| format!("{}, line {}: {reason}", path.display(), number + 1);
        if !line.ends_with(b"\n") {
            break;
        }
        let Entries(event) =
            serde_json::from_slice(line).map_err(|error| wrong(format!("no JSON object: {error}")))?;
        let text = |name: &str| event.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        let kind = text("event");
        rows.is_mended |= kind.as_deref() == Some("step") && event.contains_key("from");
        match kind.as_deref() {
            Some("start") if rows.start.is_some() => return Err(wrong("a run begins once".to_owned())),
            Some("start") => rows.start = Some(of(event).map_err(wrong)?),
            Some("step") => rows.steps.push(of(event).map_err(wrong)?),
            Some("epoch") => rows.epochs.push(of(event).map_err(wrong)?),
            Some("end") => rows.end = text("weights_sha256"),
            Some("resume" | "error") => {}
            _ => return Err(wrong("no event of a run".to_owned())),
        }
    }
    Ok(rows)
}

/// An event as a row; what the row has no name for is passed over.
fn of<T: DeserializeOwned>(event: serde_json::Map<String, serde_json::Value>) -> Result<T, String> {
    serde_json::from_value(event.into()).map_err(|error| error.to_string())
}

/// The seconds that the last row of a log states; 0 where none does.
pub fn seconds(path: &Path) -> f64 {
    let bytes = kinone_files::read_regular(path, LARGEST).unwrap_or_default();
    let seconds = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).ok()?["seconds"].as_f64();
    bytes.rsplit(|byte| *byte == b'\n').find_map(seconds).unwrap_or_default()
}

/// What happens in a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The run begins.
    Start {
        /// The version of the numeric contract.
        contract: u32,
        /// The network.
        model: &'a str,
        /// The number of its parameters.
        parameters: usize,
        /// How images were divided.
        split: &'a str,
        /// Where they came from.
        data: &'a str,
        /// Images to train on, to choose on, to test on.
        images: [usize; 3],
        /// The instruction set: decides the speed alone.
        isa: &'a str,
        /// The number of threads: decides the speed alone.
        threads: usize,
    },
    /// The run goes on where it was stopped.
    Resume {
        /// Steps made before.
        step: u64,
        /// The instruction set: decides the speed alone.
        isa: &'a str,
        /// The number of threads: decides the speed alone.
        threads: usize,
    },
    /// A step was made.
    Step {
        /// The epoch, from 1.
        epoch: u32,
        /// The step, from 1 over the whole run.
        step: u64,
        /// The loss of the batch.
        loss: f32,
        /// The norm of the gradient.
        gradient_norm: f64,
        /// The learning rate.
        lr: f32,
        /// Images a second in this step.
        images_per_second: f64,
        /// Seconds since the run began, without those while it was stopped.
        seconds: f64,
    },
    /// An epoch ended.
    Epoch {
        /// The epoch, from 1.
        epoch: u32,
        /// The mean loss of its steps.
        train_loss: f64,
        /// The loss on the validation part.
        val_loss: Option<f64>,
        /// The mean area under the curve on the validation part.
        val_auroc_macro: Option<f64>,
        /// The learning rate of its last step.
        lr: f32,
        /// Images a second, training alone.
        images_per_second: f64,
        /// Seconds since the run began, without those while it was stopped.
        seconds: f64,
    },
    /// The run ended early.
    Error {
        /// Steps made.
        step: u64,
        /// Why.
        reason: &'a str,
    },
    /// The run ended.
    End {
        /// The hash of the weights.
        weights_sha256: &'a str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_where_the_checkpoint_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let line = |text: &str| format!("{{\"event\":{text}}}\n");
        let lines = [
            line("\"start\""),
            line("\"step\",\"step\":1"),
            line("\"step\",\"step\":2"),
            line("\"epoch\",\"epoch\":1"),
            line("\"resume\",\"step\":2"),
            line("\"step\",\"step\":3"),
            line("\"end\""),
        ];
        let torn = "{\"event\":\"st";
        for (step, epochs, kept) in [(0, 0, 1), (1, 0, 2), (2, 0, 3), (2, 1, 5), (3, 1, 6)] {
            std::fs::write(&path, lines.concat() + torn).unwrap();
            cut(&path, step, epochs).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..kept].concat(), "{step} {epochs}");
        }
        std::fs::write(&path, lines[..2].concat() + torn).unwrap();
        cut(&path, 3, 1).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..2].concat());
    }

    #[test]
    fn missing_and_damaged_rows_are_made_from_the_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let row = |step: u64| Row {
            epoch: 1 + (step > 2) as u32,
            step,
            loss: 0.1 * step as f32,
            gradient_norm: 1.0 / 3.0,
            lr: 1e-3,
        };
        let link = |row: Row| StepLink {
            step: row.step,
            epoch: row.epoch,
            samples: Vec::new(),
            lr: format!("{:08x}", row.lr.to_bits()),
            loss: format!("{:08x}", row.loss.to_bits()),
            gradient_norm: format!("{:016x}", row.gradient_norm.to_bits()),
            state: None,
        };
        let links: Vec<StepLink> = (1..=4).map(|step| link(row(step))).collect();
        let links: Vec<&StepLink> = links.iter().collect();
        let logged = |step: u64| format!("{}\n", row(step).json());
        let start =
            "{\"event\":\"start\",\"contract\":1,\"model\":\"m\",\"split\":\"s\",\"images\":[1,1,1]}\n";
        let end = "{\"event\":\"epoch\",\"epoch\":1,\"train_loss\":0.1,\"lr\":0.1}\n";
        let whole = [start, &logged(1), &logged(2), end, &logged(3), &logged(4)].concat();
        for (text, made) in [
            (whole.clone(), 0),
            (whole.clone() + "{\"event\":\"end\"}\n", 0),
            (whole.replace(&logged(2), ""), 1),
            (whole.replace(&logged(3), "garbage\n"), 1),
            (whole.clone() + &logged(4), 0),
            (whole.replace("0.33", "0.34"), 4),
            (whole[..whole.len() - 3].to_owned(), 1),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(mend(&path, &links).unwrap(), made, "{text}");
            assert!(
                rows(&path).unwrap().steps.iter().zip(&links).all(|(row, link)| row.is_of(link)),
                "{text}"
            );
            assert!(std::fs::read_to_string(&path).unwrap().starts_with(&whole), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mend(&path, &links).unwrap(), 4);
        assert_eq!(rows(&path).unwrap().steps, (1..=4).map(row).collect::<Vec<_>>());
    }
}

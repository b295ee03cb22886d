//! `kinone predict`.

use crate::Failure;
use crate::best;
use crate::console::{out, out_json};
use crate::failure::PARTIAL;
use kinone_kernels::Cpu;
use kinone_kernels::math::sigmoid;
use kinone_nn::models::ResNet;
use kinone_runs::directory::RunDirectory;
use kinone_runs::weights::Header;
use kinone_train::{evaluate, prepare};
use kinone_xray::DataError;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,

    /// Image files (PNG). Those that cannot be used are named, the others scored, and the exit code is 1;
    /// where none can be used it is 3
    #[arg(long, value_name = "F", required = true, num_args = 1..)]
    image_path: Vec<PathBuf>,

    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

/// Images a forward pass at a time; the scores of an image do not depend on it.
const BATCH: usize = 64;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (run, config) = RunDirectory::open(&arguments.run_dir)?;
    let (model, header) = best::load(&run, &config)?;
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    // Of a single image the failure of the command says all there is to say.
    let alone = arguments.image_path.len() == 1;
    for paths in arguments.image_path.chunks(BATCH) {
        for (path, scored) in score(paths, &model, &header)? {
            match &scored {
                _ if arguments.json => objects.push(object(path, &scored, &header)),
                Ok(logits) => print(path, logits, &header)?,
                Err(_) if alone => {}
                Err(error) => out(format_args!("not scored: {error}"))?,
            }
            bad.extend(scored.err());
        }
    }
    let (count, all) = (bad.len(), arguments.image_path.len());
    if arguments.json {
        out_json(&objects)?;
    } else if count < all {
        let note = "Not a diagnosis: probabilities of a model, calibrated on nothing but its training.";
        out(format_args!("{note}"))?;
    }
    match bad.into_iter().next() {
        None => Ok(ExitCode::SUCCESS),
        Some(first) if count == all => Err(first.into()),
        Some(first) => {
            let message = format_args!("{count} of {all} images were not scored; the first: {first}");
            Failure::new(message).report();
            Ok(ExitCode::from(PARTIAL))
        }
    }
}

/// The logits of one image, or why there are none.
type Scored = Result<Vec<f32>, DataError>;

/// Scores some images, each with its path.
fn score<'a>(
    paths: &'a [PathBuf],
    model: &ResNet,
    header: &Header,
) -> Result<Vec<(&'a Path, Scored)>, Failure> {
    let (preprocessing, cpu) = (prepare::preprocessing(header), Cpu::current());
    let mut images = Vec::new();
    let read: Vec<(&Path, Result<(), DataError>)> = paths
        .iter()
        .map(|path| (path.as_path(), preprocessing.read(path, &cpu).map(|image| images.extend(image))))
        .collect();
    let logits = if images.is_empty() {
        Vec::new()
    } else {
        evaluate::logits(model, &images, preprocessing.size)?.data().to_vec()
    };
    let mut rows = logits.chunks_exact(header.classes.len());
    let mut row = |read: Result<(), DataError>| read.map(|()| rows.next().unwrap_or_default().to_vec());
    Ok(read.into_iter().map(|(path, read)| (path, row(read))).collect())
}

fn object(path: &Path, scored: &Scored, header: &Header) -> serde_json::Value {
    let image = path.to_string_lossy();
    match scored {
        Ok(logits) => {
            let map =
                |value: &dyn Fn(usize) -> serde_json::Value| -> serde_json::Map<String, serde_json::Value> {
                    header
                        .classes
                        .iter()
                        .cloned()
                        .enumerate()
                        .map(|(class, name)| (name, value(class)))
                        .collect()
                };
            let probabilities = map(&|class| json!(sigmoid(logits[class])));
            let positive = map(&|class| json!(is_positive(header, class, logits[class])));
            json!({ "image": image, "probabilities": probabilities, "positive": positive })
        }
        Err(error) => json!({ "image": image, "error": error.to_string() }),
    }
}

/// Whether a finding is stated: its logit is at least the threshold that was chosen on the validation part. `None`
/// where none could be chosen.
fn is_positive(header: &Header, class: usize, logit: f32) -> Option<bool> {
    header.thresholds.get(class).copied().flatten().map(|threshold| logit >= threshold)
}

fn print(path: &Path, logits: &[f32], header: &Header) -> Result<(), Failure> {
    out(format_args!("{}", path.display()))?;
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    classes.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    for class in classes {
        let stated = match is_positive(header, class, logits[class]) {
            Some(true) => "  positive",
            Some(false) => "  negative",
            None => "",
        };
        let (name, probability) = (&header.classes[class], sigmoid(logits[class]));
        out(format_args!("  {name:<20} {probability:.3}{stated}"))?;
    }
    Ok(())
}

//! The best weights of a run, held against what the run says of them.

use crate::Failure;
use kinone_kernels::Cpu;
use kinone_nn::models::ResNet;
use kinone_runs::config::Config;
use kinone_runs::directory::RunDirectory;
use kinone_runs::summary::Summary;
use kinone_runs::weights::Header;
use kinone_train::prepare::{self, PrepareError};

/// The network with the best weights of a run, and what their header says. They must be of the run's model, and those
/// that its summary names, or before its end its newest checkpoint.
pub(crate) fn load(run: &RunDirectory, config: &Config) -> Result<(ResNet, Header), Failure> {
    let path = run.best_weights();
    let (model, header) = prepare::trained(&path)?;
    let names = prepare::classes(config).names();
    if header.model != config.model || header.classes != names {
        return Err(PrepareError::OtherModel {
            path,
            found: header.model,
            found_classes: header.classes.len(),
            model: config.model.clone(),
            classes: names.len(),
        }
        .into());
    }
    if header.image_size != config.image_size {
        return Err(Failure::model(format_args!(
            "{}: weights for images of {} px; this run has {} px",
            path.display(),
            header.image_size,
            config.image_size
        )));
    }
    match stated(run)? {
        Some((stated, place)) if stated != header.weights_sha256 => Err(Failure::model(format_args!(
            "{}: the weights hash to {}, {place} states {stated} of the best; restore them, or train --resume the run",
            path.display(),
            header.weights_sha256
        ))),
        _ => Ok((model, header)),
    }
}

/// The hash of the best weights, and what states it; `None` where nothing does.
fn stated(run: &RunDirectory) -> Result<Option<(String, String)>, Failure> {
    let file = run.summary_file();
    if std::fs::symlink_metadata(&file).is_ok() {
        let summary = Summary::read(&file).map_err(Failure::model)?;
        return Ok(Some((summary.best_weights_sha256, file.display().to_string())));
    }
    // Of a damaged checkpoint nothing is asked here.
    let newest = run.store().newest(&Cpu::current()).ok().flatten();
    Ok(newest.and_then(|newest| {
        let best = newest.checkpoint.header.progress.best?;
        Some((best.weights_sha256, newest.path.display().to_string()))
    }))
}

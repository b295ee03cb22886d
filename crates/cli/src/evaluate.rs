//! `kinone evaluate`.

use crate::Failure;
use crate::best;
use crate::console::{out, out_json, table};
use kinone_kernels::Cpu;
use kinone_metrics::Report;
use kinone_runs::chain::{self, Body, Link};
use kinone_runs::directory::RunDirectory;
use kinone_train::index::Index;
use kinone_train::{evaluate, prepare};
use kinone_xray::{Dataset, Part};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run
    #[arg(long, value_name = "R")]
    run_dir: PathBuf,

    /// train, validation or test
    #[arg(long, value_name = "PART", default_value = "test")]
    split: String,

    /// Print the metrics as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Metrics<'a> {
    part: &'a str,
    split: &'a str,
    weights_sha256: &'a str,
    loss: f32,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let part: Part = arguments.split.parse().map_err(Failure::usage)?;
    let (run, config) = RunDirectory::open(&arguments.run_dir)?;
    let (model, header) = best::load(&run, &config)?;
    let preprocessing = prepare::preprocessing(&header);
    let cpu = Cpu::current();
    let data = prepare::dataset(&config, &[part], &cpu, &|_, _| {})?;
    let (recorded, kept) = (recorded_data(&run)?, run.index_file());
    if !Index::of(&data, &cpu).matches_part(part, &recorded, &kept)? {
        // Without a sound index only all the data together can be told from others.
        let all = prepare::dataset(&config, &Part::ALL, &cpu, &|_, _| {})?;
        Index::of(&all, &cpu).matches(&recorded, &kept)?;
    }
    let scores = evaluate::score(&model, &data, part, &preprocessing)?;
    let names = data.classes().names();
    let report = scores.report(names)?;
    let metrics = Metrics {
        part: part.name(),
        split: &data.report().split,
        weights_sha256: &header.weights_sha256,
        loss: scores.loss()?,
        report: &report,
    };
    // Said before it is written: the run may be where nothing can be.
    if arguments.json {
        out_json(&metrics)?;
    } else {
        out(format_args!("{} part; {}", part.name(), data.report().split))?;
        out(format_args!("weights of epoch {}, loss {:.4}", header.epoch, metrics.loss))?;
        for line in table(&report) {
            out(format_args!("{line}"))?;
        }
    }
    let (metrics_file, scores_file) = (run.metrics_file(part.name()), run.scores_file(part.name()));
    let json = serde_json::to_string_pretty(&metrics)?;
    kinone_files::write(&metrics_file, format!("{json}\n").as_bytes())?;
    kinone_files::write(&scores_file, csv(&data, &scores).as_bytes())?;
    if !arguments.json {
        out(format_args!("written: {}, {}", metrics_file.display(), scores_file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The hash of the data with which the run began.
fn recorded_data(run: &RunDirectory) -> Result<String, Failure> {
    let chain = run.chain_file();
    let read = chain::read(&chain).map_err(Failure::model)?;
    match read.links.into_iter().next() {
        Some(Link { body: Body::Header(header), .. }) => Ok(header.data_sha256),
        _ => Err(Failure::model(format_args!("{}: its first link is damaged or missing", chain.display()))),
    }
}

/// One line an image: its name, its patient, the probability of each class, the label of each.
fn csv(data: &Dataset, scores: &evaluate::Scores) -> String {
    let names = data.classes().names();
    let mut text = "image,patient".to_owned();
    for name in names {
        let _ = write!(text, ",{name}");
    }
    for name in names {
        let _ = write!(text, ",label {name}");
    }
    text.push('\n');
    let probabilities = scores.probabilities();
    let rows = probabilities.data().chunks_exact(names.len());
    let labels = scores.targets.data().chunks_exact(names.len());
    for ((index, row), labels) in scores.indices.iter().zip(rows).zip(labels) {
        let entry = &data.entries()[*index];
        let _ = write!(text, "{},{}", entry.image, entry.patient);
        for probability in row {
            let _ = write!(text, ",{probability}");
        }
        for label in labels {
            let _ = write!(text, ",{label}");
        }
        text.push('\n');
    }
    text
}

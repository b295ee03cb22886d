//! `kinone train`.

use crate::Failure;
use crate::console::{Console, out, table};
use crate::progress::Progress;
use crate::settings::Settings;
use kinone_kernels::Cpu;
use kinone_runs::config::Config;
use kinone_runs::directory::RunDirectory;
use kinone_train::fit::{Outcome, Plan, fit};
use kinone_train::prepare;
use kinone_xray::{Dataset, Part};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Where to keep the run [default: runs/YYYYMMDD_HHMMSS]
    #[arg(long, value_name = "R")]
    run_dir: Option<PathBuf>,

    /// Settings in TOML, under the names of the flags with _ for -; flags go before them
    #[arg(long, value_name = "kinone.toml")]
    config: Option<PathBuf>,

    /// Print the summary as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let settings = match &arguments.config {
        Some(path) => arguments.settings.over(Settings::from_file(path)?),
        None => arguments.settings,
    };
    let config = settings.resolve()?;
    let path = arguments.run_dir.unwrap_or_else(|| RunDirectory::fresh_path(Path::new("runs")));
    // What could fail is tried before a directory is made, what takes long after what does not.
    RunDirectory::refuse_occupied(&path)?;
    let model = prepare::model(&config)?;
    let cpu = Cpu::current();
    let data = prepare::dataset(&config, &Part::ALL, &cpu, &|_, _| {})?;
    let plan = Plan::new(&config, &data)?;
    let run = RunDirectory::create(&path, &config)?;
    let mut progress = Progress::new(Console::keeping(&run.console_file())?, config.epochs, arguments.json);
    for line in introduction(&config, &data, &cpu, run.path()) {
        progress.line(&line);
    }
    let outcome = fit(plan, model, &run, &mut progress)?;
    for line in conclusion(&outcome, run.path()) {
        progress.line(&line);
    }
    if arguments.json {
        out(format_args!("{}", serde_json::to_string_pretty(&outcome.summary)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn introduction(config: &Config, data: &Dataset, cpu: &Cpu, run: &Path) -> Vec<String> {
    let report = data.report();
    let [train, validation, test] = report.images;
    let mut lines = vec![
        format!("run {}", run.display()),
        format!("data: {}; {} px", report.origin, config.image_size),
        format!("split: {}: {train} to train, {validation} to validate, {test} to test", report.split),
    ];
    if report.missing.count > 0 {
        let first = report.missing.first.join(", ");
        lines.push(format!(
            "{} images of the table are missing and left out: {first} ...",
            report.missing.count
        ));
    }
    if report.without_row > 0 {
        lines.push(format!("{} images have no row in the table and are left out", report.without_row));
    }
    lines.push(format!(
        "{}, batch {}, {:?} at {}, seed {}; {} on {} threads",
        config.model,
        config.batch_size,
        config.optimizer,
        config.lr,
        config.seed,
        cpu.isa(),
        cpu.threads()
    ));
    lines
}

fn conclusion(outcome: &Outcome, run: &Path) -> Vec<String> {
    let summary = &outcome.summary;
    let mut lines = Vec::new();
    if let Some(report) = &outcome.test {
        lines.push(format!("test, with the weights of epoch {}:", summary.best_epoch));
        lines.extend(table(report));
    }
    lines.push(format!(
        "weights {} after {} epochs; {:.0} img/s, {:.0} s; all in {}",
        &summary.weights_sha256[..16],
        summary.epochs,
        summary.images_per_second,
        summary.wall_seconds,
        run.display()
    ));
    lines
}

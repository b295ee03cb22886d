//! `kinone train`.

use crate::Failure;
use crate::console::{Console, counted, out, out_json, table, written};
use crate::failure::PARTIAL;
use crate::progress::Progress;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::values::{place, whole};
use kinone_kernels::Cpu;
use kinone_runs::config::Config;
use kinone_runs::directory::{RunDirectory, RunError};
use kinone_runs::lock::Lock;
use kinone_train::Saving;
use kinone_train::course::Plan;
use kinone_train::fit::{End, Outcome, Start, fit};
use kinone_train::index::Index;
use kinone_train::prepare;
use kinone_train::resume::Left;
use kinone_train::room;
use kinone_xray::{Dataset, Part};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Where to keep the run [default: runs/YYYYMMDD_HHMMSS]
    #[arg(long, value_name = "R", conflicts_with = "resume", value_parser = place())]
    run_dir: Option<PathBuf>,

    /// Go on with this run where it was stopped; it ends with the same bits as if it never had been
    #[arg(long, value_name = "R", conflicts_with = "load_checkpoint")]
    resume: Option<PathBuf>,

    /// With --resume: go on under other settings than the run was made with, and record them in the chain
    #[arg(long = "override", requires = "resume")]
    overriding: bool,

    /// Write a checkpoint every N steps, besides those at the end of each epoch and at signals; 0 for none
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = whole::<u64>)]
    checkpoint_every: u64,

    /// Of old checkpoints keep those of every N-th step, besides the last two and the best; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>)]
    keep_every: u64,

    /// When a save fails while the run goes on: stop, or continue and let the next save try again. At the end
    /// of the run, and when it was asked to stop, a save that fails is an error
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnSaveError::Stop)]
    on_save_error: OnSaveError,

    /// Settings in TOML, under the names of the flags with _ for -; flags go before them
    #[arg(long, value_name = "kinone.toml")]
    config: Option<PathBuf>,

    /// Print the summary as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnSaveError {
    Stop,
    Continue,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let saving = Saving {
        checkpoint_every: arguments.checkpoint_every,
        keep_every: arguments.keep_every,
        on_error: match arguments.on_save_error {
            OnSaveError::Stop => kinone_train::OnSaveError::Stop,
            OnSaveError::Continue => kinone_train::OnSaveError::Continue,
        },
        version: env!("CARGO_PKG_VERSION"),
    };
    let settings = match &arguments.config {
        Some(path) => arguments.settings.over(Settings::from_file(path)?),
        None => arguments.settings,
    };
    if let Some(path) = arguments.resume {
        settings.refuse_weights()?;
        return resume(settings, &path, arguments.overriding, saving, arguments.json);
    }
    if arguments.overriding {
        return Err(Failure::usage(
            "--override changes the settings of a run that goes on: give it with --resume",
        ));
    }
    let config = settings.resolve()?;
    let parent = Path::new("runs");
    // What could fail is tried before a directory is made, what takes long after what does not.
    match &arguments.run_dir {
        Some(path) => RunDirectory::refuse_occupied(path)?,
        None => kinone_files::refuse_unusable(parent).map_err(RunError::Place)?,
    }
    prepare::model(&config)?;
    let cpu = Cpu::current();
    let data = prepare::dataset(&config, &Part::ALL, &cpu, &|_, _| {})?;
    let plan = Plan::new(&config, &data)?;
    room::fits(&plan)?;
    let is_new = arguments.run_dir.as_ref().is_none_or(|path| !path.exists());
    let (run, _lock) = match &arguments.run_dir {
        Some(path) => RunDirectory::create(path, &config)?,
        None => RunDirectory::create_fresh(parent, &config)?,
    };
    let lines = introduction(&config, &data, &cpu, run.path());
    let ended = go(&plan, Start::Fresh, &run, saving, arguments.json, lines);
    if ended.is_err() && !run.has_begun() {
        run.abandon(is_new);
    }
    keep_reason(&run, ended)
}

/// Keeps beside the run why it ended early.
fn keep_reason(run: &RunDirectory, ended: Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    if let Err(failure) = &ended
        && run.config_file().is_file()
        && let Ok(mut console) = Console::keeping(&run.console_file())
    {
        console.keep(&format!("kinone: {failure}"));
    }
    ended
}

/// Goes on with the run in `path`.
fn resume(
    settings: Settings,
    path: &Path,
    overriding: bool,
    saving: Saving,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (run, recorded) = RunDirectory::open(path)?;
    let _lock = Lock::take(path)?;
    run.remove_leftovers();
    let ended = go_on(settings, &run, recorded, overriding, saving, json);
    keep_reason(&run, ended)
}

/// Goes on with a run that is locked.
fn go_on(
    settings: Settings,
    run: &RunDirectory,
    recorded: Config,
    overriding: bool,
    saving: Saving,
    json: bool,
) -> Result<ExitCode, Failure> {
    let cpu = Cpu::current();
    let left = Left::find(run, &recorded, &cpu)?;
    let place_of_data = recorded.data.clone();
    // Where the file says others than the checkpoint, it is of an override that was never committed.
    let unsaved = left.config.differences(&recorded);
    let base = match unsaved.iter().all(Config::is_changeable) {
        true => Config { data: recorded.data, ..left.config.clone() },
        false => recorded,
    };
    let config = settings.over(Settings::of(base)).resolve()?;
    let changes = left.changes(&config, overriding)?;
    let mut remarks = left.newest.as_ref().map_or(Vec::new(), |newest| newest.remarks.clone());
    let is_finished = changes.is_empty() && left.is_finished(&config);
    if let Some(newest) = left.newest.as_ref().filter(|_| is_finished && left.has_its_results(run)) {
        let header = &newest.checkpoint.header;
        if config.data != place_of_data {
            let data = prepare::dataset(&config, &Part::ALL, &cpu, &|_, _| {})?;
            Index::of(&data, &cpu).matches(&header.data_sha256, &run.index_file())?;
            run.write_config(&config)?;
            remarks.push(format!("the place of the data is recorded anew: {}", data.report().origin));
        }
        let text = kinone_files::read(&run.summary_file())?;
        if json {
            written(String::from_utf8_lossy(&text).trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        for line in &remarks {
            out(format_args!("{line}"))?;
        }
        let (path, epochs) = (run.path().display(), header.progress.epoch - 1);
        let way_on = left.way_on(&config);
        out(format_args!(
            "{path} is finished after {epochs} epochs: nothing is left to do; give {way_on} with --override to go on"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let data = prepare::dataset(&config, &Part::ALL, &cpu, &|_, _| {})?;
    let plan = Plan::new(&config, &data)?;
    room::fits(&plan)?;
    let mut lines = introduction(&config, &data, &cpu, run.path());
    lines.extend(remarks);
    if is_finished {
        lines.push("summary or weights are missing, damaged or not its own; they are made again".to_owned());
    }
    let start = match left.newest {
        Some(newest) => {
            let progress = &newest.checkpoint.header.progress;
            lines.push(format!("resumed after step {}, in epoch {}", progress.step, progress.epoch));
            lines.extend(changes.iter().map(|change| format!("override: {change}")));
            Start::Resumed { newest: Box::new(newest), changes }
        }
        None => {
            lines.push("it was ended before its first checkpoint and begins anew".to_owned());
            run.make_folders()?;
            run.write_config(&config)?;
            Start::Fresh
        }
    };
    go(&plan, start, run, saving, json, lines)
}

/// Trains, and says what came of it.
fn go(
    plan: &Plan,
    start: Start,
    run: &RunDirectory,
    saving: Saving,
    json: bool,
    introduction: Vec<String>,
) -> Result<ExitCode, Failure> {
    let signals = Signals::catch()?;
    let console = Console::keeping(&run.console_file())?;
    let mut progress = Progress::new(console, introduction, plan.config.epochs, json, signals);
    match fit(plan, start, run, saving, &mut progress)? {
        End::Finished(outcome) => {
            for line in conclusion(&outcome, run.path()) {
                progress.line(&line);
            }
            if json {
                out_json(&outcome.summary)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        End::Stopped { step, signal } => {
            let path = run.path().display();
            progress.line(&format!("stopped after step {step} and saved; go on with --resume {path}"));
            Ok(ExitCode::from(signal.map_or(PARTIAL, |signal| 128 + signal as u8)))
        }
    }
}

fn introduction(config: &Config, data: &Dataset, cpu: &Cpu, run: &Path) -> Vec<String> {
    let report = data.report();
    let [train, validation, test] = report.images;
    let mut lines = vec![
        format!("run {}", run.display()),
        format!("data: {}; {} px", report.origin, config.image_size),
        format!("split: {}: {train} to train, {validation} to validate, {test} to test", report.split),
    ];
    // What is not used is said; of one thing and of many.
    let mut unused = |count: usize, one: &str, many: &str, first: &[String]| {
        let what = if count == 1 { one } else { many };
        let names = if first.is_empty() { String::new() } else { format!(": {}", first.join(", ")) };
        let more = if first.is_empty() || first.len() == count { "" } else { " ..." };
        if count > 0 {
            lines.push(format!("{count} {what} left out{names}{more}"));
        }
    };
    let missing = &report.missing;
    unused(
        missing.count,
        "image of the table is missing and",
        "images of the table are missing and",
        &missing.first,
    );
    unused(
        report.without_row,
        "image has no row in the table and is",
        "images have no row in the table and are",
        &[],
    );
    unused(
        report.repeated_rows,
        "row of the table repeats another and is",
        "rows of the table repeat others and are",
        &[],
    );
    unused(
        report.unlisted,
        "row of the table is in neither list and is",
        "rows of the table are in neither list and are",
        &[],
    );
    if config.patience > 0 && validation == 0 {
        lines.push("no images to validate: val AUROC is n/a, and --patience cannot end the run".to_owned());
    }
    lines.push(format!(
        "{}, batch {}, {:?} at {}, seed {}; {} on {}",
        config.model,
        config.batch_size,
        config.optimizer,
        config.lr,
        config.seed,
        cpu.isa(),
        counted(cpu.threads(), "thread")
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

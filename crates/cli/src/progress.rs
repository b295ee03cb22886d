//! Progress: a bar where somebody watches, plain lines where nobody does.

use crate::console::Console;
use crate::failure::one_line;
use crate::signals::Signals;
use indicatif::{ProgressBar, ProgressStyle};
use kinone_train::fit::{Epoch, Observer};
use kinone_train::trainer::Step;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Shows a run.
pub(crate) struct Progress {
    console: Console,
    introduction: Vec<String>,
    epochs: u32,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// Images of the whole run, those done, and when it began: for the time that is left.
    all: u64,
    done: u64,
    start: Instant,
    signals: Signals,
}

impl Progress {
    /// For a run of so many epochs, which begins by saying the introduction; `quiet` keeps lines without printing
    /// them.
    pub(crate) fn new(
        console: Console,
        introduction: Vec<String>,
        epochs: u32,
        quiet: bool,
        signals: Signals,
    ) -> Progress {
        let start = Instant::now();
        Progress { console, introduction, epochs, bar: None, quiet, all: 0, done: 0, start, signals }
    }

    /// Prints and keeps a line.
    pub(crate) fn line(&mut self, line: &str) {
        self.console.keep(line);
        if self.quiet {
            return;
        }
        let line = one_line(line);
        match &self.bar {
            Some(bar) => bar.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{line}");
            }),
            None => {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }

    /// Seconds that are left at the speed so far.
    fn left(&self) -> f64 {
        let speed = self.done as f64 / self.start.elapsed().as_secs_f64();
        if speed > 0.0 { (self.all - self.done) as f64 / speed } else { 0.0 }
    }
}

impl Observer for Progress {
    fn begins(&mut self) {
        for line in std::mem::take(&mut self.introduction) {
            self.line(&line);
        }
    }

    fn epoch_begins(&mut self, epoch: u32, images: usize, done: usize) {
        if self.all == 0 {
            // Of a resumed run, what is left of it.
            let all = images as u64 * u64::from((self.epochs + 1).saturating_sub(epoch));
            self.all = all.saturating_sub(done as u64);
            self.start = Instant::now();
        }
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        let style = "epoch {prefix} {bar:30} {pos}/{len} images  {msg}";
        let bar = ProgressBar::new(images as u64).with_prefix(format!("{epoch}/{}", self.epochs));
        bar.set_position(done as u64);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    fn step(&mut self, step: &Step, images: usize) {
        self.done += images as u64;
        let speed = self.done as f64 / self.start.elapsed().as_secs_f64();
        let left = self.left();
        if let Some(bar) = &self.bar {
            bar.inc(images as u64);
            bar.set_message(format!("{speed:.0} img/s  loss {:.4}  {} left", step.loss, duration(left)));
        }
    }

    fn alarm(&mut self, line: &str) {
        self.console.keep(line);
        let line = one_line(line);
        let say = || {
            let _ = writeln!(std::io::stderr(), "kinone: {line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn signal(&self) -> Option<i32> {
        self.signals.came()
    }

    fn epoch_ends(&mut self, epoch: &Epoch) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let figure = |x: Option<f64>, digits: usize| x.map_or("n/a".to_owned(), |x| format!("{x:.digits$}"));
        let line = format!(
            "epoch {:>2}/{}  loss {:.4}  val loss {}  val AUROC {}{}  {:.0} img/s  {} left",
            epoch.epoch,
            self.epochs,
            epoch.train_loss,
            figure(epoch.val_loss, 4),
            figure(epoch.val_auroc_macro, 3),
            if epoch.is_best { " (best)" } else { "       " },
            epoch.images_per_second,
            duration(self.left()),
        );
        self.line(&line);
    }
}

/// Seconds as a person says them: `2 min 05 s`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

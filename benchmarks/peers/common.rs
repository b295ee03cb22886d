//! What the Rust peers share: their arguments, the network's plan and the line they print.
//!
//! Each compiles it as a module of its own, so that neither needs a third package.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) const CLASSES: usize = 15;

/// The first convolution: one channel of images becomes 64.
pub(crate) const STEM: Convolution = Convolution { inputs: 1, outputs: 64, kernel: 7, stride: 2 };

const THREADS: &str = "RAYON_NUM_THREADS";

const USAGE: &str = "train|infer MODEL BATCH SIZE REPEATS THREADS";

/// A convolution without bias, padded by half its kernel, and the batch norm behind it.
#[derive(Clone, Copy)]
pub(crate) struct Convolution {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Convolution {
    pub(crate) fn padding(self) -> usize {
        self.kernel / 2
    }
}

/// A residual block: convolutions in a row, and one beside them where the shape changes.
pub(crate) struct Block {
    pub(crate) row: Vec<Convolution>,
    pub(crate) shortcut: Option<Convolution>,
}

/// What to measure.
pub(crate) struct Work {
    pub(crate) train: bool,
    pub(crate) batch: usize,
    pub(crate) size: usize,
    model: String,
    stages: [usize; 4],
    bottlenecks: bool,
    repeats: usize,
    threads: usize,
}

/// The time of every repetition, and what shows that the work was the right one.
pub(crate) struct Measured {
    pub(crate) times: Vec<Duration>,
    pub(crate) parameters: usize,
    /// The last loss or the last repetition's first logit.
    pub(crate) check: f32,
    /// Where the work differs from the other peers'.
    pub(crate) note: Option<&'static str>,
}

impl Work {
    fn read() -> Result<Work, String> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [work, model, batch, size, repeats, threads] = words.as_slice() else {
            return Err(format!("usage: {USAGE}"));
        };
        let train = match work.as_str() {
            "train" => true,
            "infer" => false,
            other => return Err(format!("unknown work `{other}`; usage: {USAGE}")),
        };
        let (stages, bottlenecks) = match model.as_str() {
            "resnet18" => ([2, 2, 2, 2], false),
            "resnet34" => ([3, 4, 6, 3], false),
            "resnet50" => ([3, 4, 6, 3], true),
            "resnet101" => ([3, 4, 23, 3], true),
            "resnet152" => ([3, 8, 36, 3], true),
            other => return Err(format!("unknown model `{other}`; known are resnet18, 34, 50, 101 and 152")),
        };
        Ok(Work {
            train,
            batch: number("BATCH", batch)?,
            size: number("SIZE", size)?,
            model: model.clone(),
            stages,
            bottlenecks,
            repeats: number("REPEATS", repeats)?,
            threads: number("THREADS", threads)?,
        })
    }

    /// The residual blocks, as torchvision has them: a bottleneck's stride is in its 3×3 convolution.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut inputs = STEM.outputs;
        for (stage, &count) in self.stages.iter().enumerate() {
            let width = 64 << stage;
            let outputs = if self.bottlenecks { 4 * width } else { width };
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let conv = |inputs, outputs, kernel, stride| Convolution { inputs, outputs, kernel, stride };
                let row = if self.bottlenecks {
                    vec![conv(inputs, width, 1, 1), conv(width, width, 3, stride), conv(width, outputs, 1, 1)]
                } else {
                    vec![conv(inputs, width, 3, stride), conv(width, width, 3, 1)]
                };
                let shortcut = (stride > 1 || inputs != outputs).then(|| conv(inputs, outputs, 1, stride));
                blocks.push(Block { row, shortcut });
                inputs = outputs;
            }
        }
        blocks
    }

    /// The channels before the fully connected layer.
    pub(crate) fn features(&self) -> usize {
        if self.bottlenecks { 2048 } else { 512 }
    }

    /// How often to do the work, unmeasured repetitions included.
    pub(crate) fn repetitions(&self) -> usize {
        self.warm() + self.repeats
    }

    /// The first repetitions allocate, and are not counted.
    fn warm(&self) -> usize {
        if self.train { 2 } else { 3 }
    }

    fn describe(&self, measured: Measured, versions: serde_json::Value) -> serde_json::Value {
        let mut seconds: Vec<f64> =
            measured.times.iter().skip(self.warm()).map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (middle, last) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
        let rounded = |x: f64, unit: f64| (x * unit).round() / unit;
        let speed = |seconds: f64| rounded(self.batch as f64 / seconds, 100.0);
        let mut object = serde_json::json!({
            "model": self.model,
            "size": self.size,
            "threads": self.threads,
            "versions": versions,
            "parameters": measured.parameters,
            (if self.train { "loss" } else { "logit" }): measured.check,
            "batch": self.batch,
            "repeats": seconds.len(),
            "img_s": speed(middle),
            "low": speed(last),
            "high": speed(seconds[0]),
            "ms": rounded(1e3 * middle, 1e3),
            "peak_mib": peak_mib(),
            "allocator": allocator(),
        });
        if let Some(note) = measured.note {
            object["note"] = note.into();
        }
        object
    }
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{name} must be a number above 0, not `{text}`")),
    }
}

/// Reads the arguments, measures, and prints one JSON object. `lock` is the package's Cargo.lock, which knows the
/// versions of `packages`.
pub(crate) fn report(
    lock: &str,
    packages: &[&str],
    measure: impl FnOnce(&Work) -> Result<Measured, Box<dyn Error>>,
) -> ExitCode {
    let name = env!("CARGO_CRATE_NAME");
    let work = match Work::read() {
        Ok(work) => work,
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::from(2);
        }
    };
    // Of this variable alone do both frameworks take their number of threads.
    let said = std::env::var(THREADS).unwrap_or_default();
    if said != work.threads.to_string() {
        eprintln!("{name}: {THREADS} is `{said}`; it must be {} like the argument THREADS", work.threads);
        return ExitCode::from(2);
    }
    match measure(&work) {
        Ok(measured) => {
            let versions = packages.iter().map(|&package| (package, version(lock, package)));
            println!("{}", work.describe(measured, versions.collect()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The version of a package, of what Cargo.lock says.
fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = ").map(|text| text.trim_matches('"'))
}

/// The largest resident memory of this process so far; nothing where the system does not say.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

/// Whether the allocator was replaced.
fn allocator() -> Option<&'static str> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    Some(if maps.contains("libjemalloc") { "jemalloc" } else { "system" })
}

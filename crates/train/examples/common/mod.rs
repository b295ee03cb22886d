//! What the measuring examples share.
#![allow(dead_code, reason = "each example uses a part of it")]

use kinone_kernels::{Cpu, Isa};
use kinone_nn::layers::ConvAlgorithm;
use kinone_nn::models::{Depth, ResNet};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

const WINOGRAD: &str = "--conv-algo=winograd";
const DIRECT: &str = "--conv-algo=direct";
const UNFUSED: &str = "--unfused";

/// What to measure: `[MODEL [BATCH [SIZE [REPEATS [THREADS]]]]]` and flags, in any order.
pub(crate) struct Work {
    pub(crate) depth: Depth,
    pub(crate) batch: usize,
    pub(crate) size: usize,
    pub(crate) repeats: usize,
    pub(crate) cpu: Cpu,
    /// The flags given, of those known.
    flags: Vec<String>,
}

impl Work {
    /// The arguments of this process; all cores are used unless they say otherwise.
    fn read(repeats: usize, known: &[&'static str]) -> Result<Work, Box<dyn Error>> {
        let (flags, words): (Vec<String>, Vec<String>) =
            std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
        let known = [known, &[WINOGRAD, DIRECT, UNFUSED]].concat();
        if let Some(flag) = flags.iter().find(|flag| !known.contains(&flag.as_str())) {
            return Err(format!("no such option: {flag}").into());
        }
        if let Some(word) = words.get(5) {
            return Err(format!("too many arguments: {word}").into());
        }
        let number = |index: usize, name: &str, usual: usize| match words.get(index) {
            None => Ok(usual),
            Some(text) => match text.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{name} must be a number above 0, not `{text}`")),
            },
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = Cpu::new(Isa::selected()?, number(4, "THREADS", cores)?)?;
        Ok(Work {
            depth: words.first().map_or("resnet18", String::as_str).parse()?,
            batch: number(1, "BATCH", 32)?,
            size: number(2, "SIZE", 224)?,
            repeats: number(3, "REPEATS", repeats)?,
            cpu: if flags.iter().any(|flag| flag == UNFUSED) { cpu.unfused() } else { cpu },
            flags,
        })
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// A network of fresh weights.
    pub(crate) fn model(&self) -> ResNet {
        let algorithm = if self.has(WINOGRAD) { ConvAlgorithm::Winograd } else { ConvAlgorithm::Direct };
        ResNet::computed_by(algorithm, self.depth, 1, 15, 1)
    }

    /// Reads the arguments and prints what `measure` returns of them: one JSON object.
    pub(crate) fn report(
        repeats: usize,
        known: &[&'static str],
        measure: impl FnOnce(&Work) -> Result<Measured, Box<dyn Error>>,
    ) -> ExitCode {
        let result = Work::read(repeats, known).and_then(|work| {
            work.cpu.clone().install();
            let measured = measure(&work)?;
            println!("{}", work.describe(measured)?);
            Ok(())
        });
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", env!("CARGO_CRATE_NAME"));
                ExitCode::from(2)
            }
        }
    }

    fn describe(&self, measured: Measured) -> Result<serde_json::Value, Box<dyn Error>> {
        let mut seconds: Vec<f64> = measured.times.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (Some(shortest), Some(longest)) = (seconds.first(), seconds.last()) else {
            return Err("nothing was measured".into());
        };
        let middle = seconds[seconds.len() / 2];
        let rounded = |x: f64, unit: f64| (x * unit).round() / unit;
        let speed = |seconds: f64| rounded(self.batch as f64 / seconds, 100.0);
        Ok(serde_json::json!({
            "model": self.depth.name(),
            "batch": self.batch,
            "size": self.size,
            "isa": self.cpu.isa().name(),
            "threads": self.cpu.threads(),
            "flags": self.flags,
            "repeats": seconds.len(),
            "img_s": speed(middle),
            "low": speed(*longest),
            "high": speed(*shortest),
            "ms": rounded(1e3 * middle, 1e3),
            "peak_mib": peak_mib(),
            measured.check.0: measured.check.1,
        }))
    }
}

/// The time of each repetition, and a number that the work must get right.
pub(crate) struct Measured {
    pub(crate) times: Vec<Duration>,
    pub(crate) check: (&'static str, f32),
}

/// The largest resident memory of this process so far, in MiB; nothing where the system does not say.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

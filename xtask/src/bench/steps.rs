//! Whole training steps and whole batches of inference.

use super::Sitting;
use super::program::{INFER, Program, Run, STEP};

const WINOGRAD: &str = "--conv-algo=winograd";

/// Every depth: as it is, with Winograd's convolutions, and recomputing what a block keeps.
pub(super) fn training(sitting: &Sitting) -> Result<Vec<Run>, String> {
    let depths = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"];
    let mut table = Table::new();
    for depth in depths {
        for flags in [&[][..], &[WINOGRAD], &["--recompute"]] {
            let deep = !matches!(depth, "resnet18" | "resnet34");
            let work = match sitting.quick {
                true => [8, 64, 2],
                false => [if deep { 16 } else { 32 }, 224, 5],
            };
            table.row(&STEP, depth, work, flags)?;
        }
    }
    Ok(table.runs)
}

/// ResNet-18 and ResNet-50, many images and one.
pub(super) fn inference(sitting: &Sitting) -> Result<Vec<Run>, String> {
    let mut table = Table::new();
    for depth in ["resnet18", "resnet50"] {
        for (batch, repeats) in [(32, 9), (1, 51)] {
            let (size, repeats) = if sitting.quick { (64, 3) } else { (224, repeats) };
            for flags in [&[][..], &[WINOGRAD]] {
                table.row(&INFER, depth, [batch, size, repeats], flags)?;
            }
        }
    }
    Ok(table.runs)
}

/// The rows printed so far.
struct Table {
    runs: Vec<Run>,
}

impl Table {
    fn new() -> Table {
        println!(
            "{:<10} {:>6} {:>5} {:>12} {:>16} {:>10} {:>10}",
            "", "batch", "px", "images/s", "lowest-highest", "ms", "peak MiB"
        );
        Table { runs: Vec::new() }
    }

    /// Measures and prints: batch, pixels of a side, repetitions.
    fn row(
        &mut self,
        program: &Program,
        depth: &str,
        work: [usize; 3],
        flags: &[&str],
    ) -> Result<(), String> {
        let mut arguments = vec![depth.to_owned()];
        arguments.extend(work.map(|number| number.to_string()));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let run = program.measure(&arguments)?;
        let number = |name: &str| run.number(0, name);
        let [batch, size, _] = work;
        println!(
            "{depth:<10} {batch:>6} {size:>5} {:>12.2} {:>16} {:>10.1} {:>10} {}",
            number("img_s")?,
            format!("{:.2}-{:.2}", number("low")?, number("high")?),
            number("ms")?,
            number("peak_mib").map_or("unknown".to_owned(), |mib| format!("{mib:.0}")),
            flags.join(" ")
        );
        self.runs.push(run);
        Ok(())
    }
}

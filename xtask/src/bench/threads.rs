//! What more threads bring: convolutions and whole steps.

use super::Sitting;
use super::program::{CONV, Run, STEP};

/// The convolutions measured: the middle of the networks.
const LAYERS: &str = "layer3";

pub(super) fn measure(sitting: &Sitting) -> Result<Vec<Run>, String> {
    println!("times one thread (share of perfect); convolutions of {LAYERS}, steps of training");
    println!(
        "{:>7} {:>14} {:>14} {:>14} {:>14} {:>14} {:>14}",
        "threads", "peak", "forward", "input grad.", "weight grad.", "ResNet-18", "ResNet-50"
    );
    let mut runs = Vec::new();
    let mut first: Option<[f64; 6]> = None;
    for threads in counts(sitting) {
        let arguments = [threads.to_string(), "224".to_owned(), LAYERS.to_owned(), "--quick".to_owned()];
        let kernels = CONV.tabulate(&arguments, false)?;
        let step = |model: &str, batch: usize| {
            let work = if sitting.quick { [8, 64, 2] } else { [batch, 224, 3] };
            let mut arguments = vec![model.to_owned()];
            arguments.extend(work.map(|number| number.to_string()));
            arguments.push(threads.to_string());
            STEP.measure(&arguments)
        };
        let (shallow, deep) = (step("resnet18", 32)?, step("resnet50", 16)?);
        let [peak, forward, input, weight] = convolutions(&kernels)?;
        let speeds = [peak, forward, input, weight, shallow.number(0, "img_s")?, deep.number(0, "img_s")?];
        let one = *first.get_or_insert(speeds);
        print!("{threads:>7}");
        for (speed, one) in speeds.into_iter().zip(one) {
            let times = speed / one;
            print!(" {:>14}", format!("{times:.2} ({:.0} %)", 100.0 * times / threads as f64));
        }
        println!();
        runs.extend([kernels, shallow, deep]);
    }
    Ok(runs)
}

/// Every number of threads; for a quick look the powers of two.
fn counts(sitting: &Sitting) -> Vec<usize> {
    (1..=sitting.cores)
        .filter(|count| !sitting.quick || count.is_power_of_two() || *count == sitting.cores)
        .collect()
}

/// GFLOP/s of all layers together, convolved directly: the peak beside them, forward pass, input gradient, weight gradient.
fn convolutions(run: &Run) -> Result<[f64; 4], String> {
    let names = ["peak_gflops", "forward_gflops", "input_gradient_gflops", "weight_gradient_gflops"];
    let (mut work, mut seconds) = (0.0, [0.0; 4]);
    // The first figure says what was run.
    for index in 1..run.figures.len() {
        if run.figures[index]["algorithm"] != "direct" {
            continue;
        }
        let gflop = run.number(index, "gflop")?;
        work += gflop;
        for (seconds, name) in seconds.iter_mut().zip(names) {
            *seconds += gflop / run.number(index, name)?;
        }
    }
    Ok(seconds.map(|seconds| work / seconds))
}

//! The speed of every distinct convolution of ResNet-18 and ResNet-50, and its share of the measured peak.
//!
//! `conv_speed [THREADS [SIZE [LAYER]]] [--quick] [--record FILE]`: SIZE is the side of the network's input, LAYER a
//! part of the names of the rows wanted. Each is followed by the same with pixels that are half zero, as they are behind
//! a relu, its speed counted as if no term were left out; and where Winograd's minimal filtering applies by F(2×2) and
//! F(4×4), their speed counted in the multiplications of the plain sum. `--quick` spends a tenth of the time. `--record`
//! writes the rows to FILE, one JSON object a line: what was run, the layers, the networks.

mod layer;
mod peak;

use kinone_kernels::{Cpu, Isa};
use layer::{Algorithm, BATCH, Layer, layers};
use peak::peak;
use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conv_speed: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Arguments { threads, size, wanted, seconds, record } = Arguments::read()?;
    let cpu = Cpu::new(Isa::selected()?, threads)?;
    let isa = cpu.isa();
    println!(
        "{threads} threads, {isa}, images of {size} px, batch {BATCH}; the peak: multiply-adds in registers"
    );
    println!(
        "GFLOP/s, share of peak   {:>6} {:>16} {:>16} {:>16}",
        "peak", "forward", "input grad.", "weight grad."
    );
    let mut lines =
        format!("{{\"isa\": \"{isa}\", \"threads\": {threads}, \"batch\": {BATCH}, \"size\": {size}}}\n");
    let row = |name: &str, peak: f64, speeds: [f64; 3]| {
        let [forward, input, weight] =
            speeds.map(|speed| format!("{speed:.1} {:>5.0} %", 100.0 * speed / peak));
        println!("{name:<24} {peak:>6.0} {forward:>16} {input:>16} {weight:>16}");
    };
    let mut networks: Vec<Network> =
        // No network has zeros before all its layers.
        Algorithm::ALL.into_iter().filter(|a| *a != Algorithm::HalfZero).flat_map(|a| [Network::new(a, 0), Network::new(a, 1)]).collect();
    let layers: Vec<Layer> =
        layers(size).into_iter().filter(|layer| layer.name().contains(&wanted)).collect();
    if layers.is_empty() {
        return Err(format!("no layer has `{wanted}` in its name").into());
    }
    let mut before = peak(&cpu, seconds / 2.0);
    for layer in layers {
        let measured: Vec<_> = Algorithm::ALL
            .into_iter()
            .filter_map(|algorithm| Some((algorithm, layer.speeds(algorithm, &cpu, seconds)?)))
            .collect();
        // The machine drifts: a row is compared with the better of the peaks just before and just after it.
        let after = peak(&cpu, seconds / 2.0);
        let peak = if before > after { before } else { after };
        before = after;
        let name = layer.name();
        for (algorithm, speeds) in &measured {
            row(&algorithm.indented(&name), peak, *speeds);
            let [forward, input, weight] = speeds;
            let counts = layer.counts;
            writeln!(
                lines,
                "{{\"layer\": \"{name}\", \"algorithm\": \"{algorithm}\", \"in_resnet18\": {}, \"in_resnet50\": {}, \
                 \"gflop\": {:.3}, \"peak_gflops\": {peak:.1}, \"forward_gflops\": {forward:.1}, \
                 \"input_gradient_gflops\": {input:.1}, \"weight_gradient_gflops\": {weight:.1}}}",
                counts[0],
                counts[1],
                layer.work() / 1e9,
            )?;
        }
        for network in &mut networks {
            let direct = measured[0].1;
            let of = measured.iter().find(|(algorithm, _)| *algorithm == network.algorithm);
            network.add(&layer, of.map_or(direct, |(_, speeds)| *speeds), peak);
        }
    }
    if wanted.is_empty() {
        println!();
        for network in &networks {
            let ([forward, input, weight], peak) = (network.speeds(), network.peak());
            let (name, algorithm) = (network.name(), network.algorithm);
            row(&format!("{name} {algorithm}"), peak, [forward, input, weight]);
            writeln!(
                lines,
                "{{\"network\": \"{name}\", \"algorithm\": \"{algorithm}\", \"peak_gflops\": {peak:.1}, \
                 \"forward_gflops\": {forward:.1}, \"input_gradient_gflops\": {input:.1}, \
                 \"weight_gradient_gflops\": {weight:.1}}}",
            )?;
        }
    }
    if let Some(path) = record {
        std::fs::write(&path, lines).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

struct Arguments {
    threads: usize,
    size: usize,
    wanted: String,
    /// Spent on each figure, at least.
    seconds: f64,
    record: Option<String>,
}

impl Arguments {
    fn read() -> Result<Arguments, Box<dyn Error>> {
        let mut read = Arguments { threads: 1, size: 224, wanted: String::new(), seconds: 0.5, record: None };
        let mut place = 0;
        let mut arguments = std::env::args().skip(1);
        while let Some(text) = arguments.next() {
            let number = || text.parse().map_err(|_| format!("`{text}` is no number"));
            match text.as_str() {
                "--quick" => read.seconds = 0.05,
                "--record" => read.record = Some(arguments.next().ok_or("--record needs a file")?),
                flag if flag.starts_with('-') => return Err(format!("no such option: {flag}").into()),
                _ => {
                    match place {
                        0 => read.threads = number()?,
                        1 => read.size = number()?,
                        2 => read.wanted = text,
                        _ => return Err(format!("too many arguments: {text}").into()),
                    }
                    place += 1;
                }
            }
        }
        Ok(read)
    }
}

/// All convolutions of a network, by an algorithm where it applies.
struct Network {
    algorithm: Algorithm,
    /// Which of [`Layer::counts`].
    index: usize,
    work: [f64; 3],
    seconds: [f64; 3],
    /// What all would take at the peak beside each, and their work.
    at_peak: (f64, f64),
}

impl Network {
    fn new(algorithm: Algorithm, index: usize) -> Network {
        Network { algorithm, index, work: [0.0; 3], seconds: [0.0; 3], at_peak: (0.0, 0.0) }
    }

    fn name(&self) -> &'static str {
        ["ResNet-18", "ResNet-50"][self.index]
    }

    fn add(&mut self, layer: &Layer, speeds: [f64; 3], peak: f64) {
        let work = layer.counts[self.index] as f64 * layer.work();
        self.at_peak = (self.at_peak.0 + work / (peak * 1e9), self.at_peak.1 + work);
        for (index, speed) in speeds.into_iter().enumerate() {
            // Nobody asks for the gradient of the images.
            if index == 1 && layer.stage == "stem" {
                continue;
            }
            self.work[index] += work;
            self.seconds[index] += work / (speed * 1e9);
        }
    }

    fn peak(&self) -> f64 {
        self.at_peak.1 / self.at_peak.0 / 1e9
    }

    fn speeds(&self) -> [f64; 3] {
        std::array::from_fn(|index| self.work[index] / self.seconds[index] / 1e9)
    }
}

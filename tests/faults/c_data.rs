//! Data of which little can be learned: one class, one image, no variance.

use crate::harness::{Fault, Place, sample, small};
use kinone::core::array::Array;
use kinone::core::tensor::Tensor;
use kinone::kernels::{Cpu, Isa};
use kinone::xray::{Part, Split};
use serde_json::Value;
use std::fs;

/// A set of 100 images of 32 pixels in `d`, its table changed line by line.
fn set(change: impl Fn(usize, &str) -> Option<String>) -> Place {
    let place = Place::new();
    place.run(&["synth", "--images=100", "--size=32", "--out-dir=d"]).succeeded();
    for list in ["train_val_list.txt", "test_list.txt"] {
        fs::remove_file(place.path("d").join(list)).unwrap();
    }
    let text = place.text("d/Data_Entry_2017.csv");
    let lines = text.lines().enumerate().filter_map(|(number, line)| match number {
        0 => Some(line.to_owned()),
        _ => change(number, line),
    });
    let text: String = lines.map(|line| line + "\n").collect();
    place.write("d/Data_Entry_2017.csv", text.as_bytes());
    place
}

/// A row with other findings.
fn relabelled(line: &str, change: impl Fn(&str) -> String) -> String {
    let mut cells: Vec<String> = line.split(',').map(str::to_owned).collect();
    cells[1] = change(&cells[1]);
    cells.join(",")
}

const TRAIN: [&str; 8] = [
    "train",
    "--json",
    "--model=resnet10w8",
    "--image-size=32",
    "--batch-size=8",
    "--epochs=2",
    "--data-dir=d",
    "--run-dir=run",
];

fn rows(place: &Place, event: &str) -> Vec<Value> {
    let text = place.text("run/log.jsonl");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["event"] == event).collect()
}

#[test]
fn fault_c04_one_class_to_validate_on() {
    let fault = Fault::new("C04");
    // Nobody has anything, or everybody has everything: no area anywhere, so the last epoch counts as the best.
    let everything = kinone::xray::FINDINGS.join("|");
    for label in ["No Finding", &everything] {
        let place = set(|_, line| Some(relabelled(line, |_| label.to_owned())));
        let summary = place.json(&[&TRAIN[..], &["--patience=1"]].concat());
        assert_eq!((&summary["epochs"], &summary["best_epoch"]), (&2.into(), &2.into()), "{label}");
        assert_eq!(summary["best_weights_sha256"], summary["weights_sha256"]);
        assert!(summary["val_auroc_macro"].is_null() && summary["test_auroc_macro"].is_null(), "{summary}");
        assert!(rows(&place, "epoch").iter().all(|row| row["val_auroc_macro"].is_null()));
        let console = place.text("run/console.log");
        assert_eq!(console.matches("val AUROC n/a (best)").count(), 2, "{console}");
        let table = place.run(&["evaluate", "--run-dir=run"]).succeeded().stdout;
        assert_eq!(table.lines().filter(|line| line.contains("n/a")).count(), 14 + 1, "{table}");
        place.run(&["verify", "--run-dir=run"]).succeeded();
    }
    // Everybody has one finding: it has no area, and the mean is that of the others.
    let place = set(|number, line| {
        let with = |labels: &str| match labels {
            "No Finding" => if number % 2 == 0 { "Mass" } else { "Mass|Nodule" }.to_owned(),
            labels if labels.split('|').any(|label| label == "Mass") => labels.to_owned(),
            labels => format!("{labels}|Mass"),
        };
        Some(relabelled(line, with))
    });
    let summary = place.json(&TRAIN);
    let metrics = place.json(&["evaluate", "--run-dir=run", "--json", "--split=validation"]);
    let classes = metrics["classes"].as_array().unwrap();
    let mass = classes.iter().find(|class| class["name"] == "Mass").unwrap();
    assert!(mass["auroc"].is_null() && mass["auprc"].is_null() && mass["negatives"] == 0, "{mass}");
    let areas: Vec<f64> = classes.iter().filter_map(|class| class["auroc"].as_f64()).collect();
    assert!(!areas.is_empty(), "{metrics}");
    let mean = areas.iter().fold(0.0, |sum, area| sum + area) / areas.len() as f64;
    assert_eq!(metrics["auroc_macro"].as_f64(), Some(mean));
    assert_eq!(metrics["auroc_macro"], summary["val_auroc_macro"]);
    let epochs = rows(&place, "epoch");
    let areas = epochs.iter().map(|row| row["val_auroc_macro"].as_f64().unwrap());
    let best = areas.fold(0.0, |best, area| if area > best { area } else { best });
    assert_eq!(summary["val_auroc_macro"].as_f64(), Some(best));
    fault.survived(
        3,
        "no finding anywhere, every finding everywhere: n/a, the latest epoch is the best; one finding everywhere: left out of the mean",
    );
}

#[test]
fn fault_c05_one_image_in_the_last_batch() {
    let fault = Fault::new("C05");
    // So many images an epoch that the last batch would have one.
    let images = place_images();
    let size = (2..20).find(|size| images % size == 1).expect("a size that leaves one");
    let batch = format!("--batch-size={size}");
    let mut first: Option<(Value, Vec<u8>)> = None;
    let isas = Isa::present();
    for (isa, threads) in isas.iter().flat_map(|isa| ["1", "3"].map(|threads| (*isa, threads))) {
        let place = Place::new();
        let settings = small(&["--run-dir=run"]);
        let arguments: Vec<&str> = settings
            .into_iter()
            .filter(|a| !a.starts_with("--batch-size") && !a.starts_with("--threads"))
            .chain([batch.as_str(), "--threads", threads])
            .collect();
        let mut command = place.command(&arguments);
        let ended = crate::harness::Ended::of(command.env("KINONE_ISA", isa.name())).succeeded();
        let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
        let chain = place.read("run/chain.jsonl");
        let (hash, links) = first.get_or_insert((summary["weights_sha256"].clone(), chain.clone()));
        assert_eq!(summary["weights_sha256"], *hash, "{isa} on {threads} threads");
        assert!(*links == chain, "{isa} on {threads} threads: another chain");
    }
    // The rule: it is left out, another one in each epoch.
    let (_, chain) = first.unwrap();
    let text = String::from_utf8(chain).unwrap();
    let links: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut left_out = Vec::new();
    for epoch in [1, 2] {
        let of_epoch = links.iter().filter(|link| link["epoch"] == epoch);
        let samples: Vec<u64> = of_epoch
            .flat_map(|link| link["samples"].as_array().unwrap())
            .map(|sample| sample.as_u64().unwrap())
            .collect();
        let distinct: std::collections::BTreeSet<u64> = samples.iter().copied().collect();
        assert_eq!((samples.len(), distinct.len()), (images - 1, images - 1));
        left_out.push(distinct);
    }
    assert_ne!(left_out[0], left_out[1]);
    fault.survived(2 * isas.len(), "batches that leave one image: it is left out, another one each epoch; equal bits on every instruction set");
}

/// Images to train on of the harness's run.
fn place_images() -> usize {
    let summary: Value =
        serde_json::from_slice(&crate::harness::Whole::get().place.read("run/summary.json")).unwrap();
    summary["images"][0].as_u64().unwrap() as usize
}

#[test]
fn fault_c06_few_images() {
    let fault = Fault::new("C06");
    // The first k rows of the table; the others have none, and are left out.
    let counts = sample((0..=12).chain([40]), 9);
    for count in &counts {
        let place = set(|number, line| (number <= *count).then(|| line.to_owned()));
        let text = place.text("d/Data_Entry_2017.csv");
        let patients: Vec<u32> =
            text.lines().skip(1).map(|line| line.split(',').nth(3).unwrap().parse().unwrap()).collect();
        let train = Split::by_patient(&patients, 42).rows(Part::Train).count();
        let batch = ["--batch-size=32", "--epochs=1"];
        let arguments: Vec<&str> = TRAIN
            .into_iter()
            .filter(|a| !a.starts_with("--batch") && !a.starts_with("--ep"))
            .chain(batch)
            .collect();
        let ended = place.run(&arguments);
        if train < 2 {
            let words: &[&str] = match (count, train) {
                (0, _) => &["Data_Entry_2017.csv"],
                (_, 0) => &["train part has 0 images", "are needed"],
                _ => &["train part has 1 image", "2 are needed"],
            };
            ended.failed(3, words);
            assert!(!place.path("run").exists(), "{count} rows");
        } else {
            ended.succeeded();
            let steps = rows(&place, "step");
            // Fewer than a batch are one batch of their own; of 33 the last one alone would be left out.
            assert_eq!(steps.len(), train / 32 + usize::from(train % 32 > 1), "{train} images");
            assert!(steps.iter().all(|row| row["loss"].as_f64().unwrap().is_finite()));
            assert_eq!(rows(&place, "start")[0]["images"][0], train);
        }
    }
    fault.survived(
        counts.len(),
        "tables of 0 to 40 rows: refused below two images to train on, otherwise one smaller batch",
    );
}

#[test]
fn fault_c07_no_variance() {
    let fault = Fault::new("C07");
    // A channel without variance among others: its output is beta, its gradients are finite, on every machine.
    let mut tried = 0;
    let value = |k: usize| if k / 16 % 3 == 1 { 0.7 } else { (k * 37 % 101) as f32 / 50.0 - 1.0 };
    let values: Vec<f32> = (0..2 * 3 * 16).map(value).collect();
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::present() {
        for threads in [1, 3] {
            let cpu = Cpu::new(isa, threads).unwrap();
            let bits = cpu.scope(|| {
                let x = Tensor::variable(Array::new([2, 3, 4, 4], &values).unwrap());
                let gamma = Tensor::variable(Array::new([3], &[1.0, 2.0, 0.5]).unwrap());
                let beta = Tensor::variable(Array::new([3], &[0.0, 0.25, 1.0]).unwrap());
                let (y, statistics) = x.batch_norm2d(&gamma, &beta, 1e-5).unwrap();
                assert!(statistics.var.data()[1] <= 1e-7, "{:?}", statistics.var);
                let mut cotangent = Array::full([2, 3, 4, 4], 0.0);
                for (k, d) in cotangent.data_mut().iter_mut().enumerate() {
                    *d = (k % 7) as f32 - 3.0;
                }
                let adjoints = y.backward_from(cotangent, &[]).unwrap();
                let mut all = y.data().to_vec();
                for tensor in [&x, &gamma, &beta] {
                    all.extend_from_slice(adjoints.of(tensor).unwrap().data());
                }
                assert!(all.iter().all(|x| x.is_finite()), "{isa}, {threads} threads: {all:?}");
                // 0.7 is no sum of few powers of two, so its mean may be a rounding away.
                let channel = &y.data()[16..32];
                assert!(channel.iter().all(|x| x.to_bits() == channel[0].to_bits()));
                all.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            });
            assert!(*first.get_or_insert(bits.clone()) == bits, "{isa}, {threads} threads: other bits");
            tried += 1;
        }
    }
    // Images of one gray value among others train; nothing but such images is refused.
    let png = |place: &Place, name: &str, twin: &str| {
        fs::copy(place.path("d/images").join(twin), place.path("d/images").join(name)).unwrap();
    };
    for all in [false, true] {
        let place = set(|_, line| Some(line.to_owned()));
        let mut names: Vec<String> = fs::read_dir(place.path("d/images"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let blank = blank_png(&place);
        for name in names.iter().skip(usize::from(!all) * 10) {
            png(&place, name, &blank);
        }
        fs::remove_file(place.path("d/images").join(&blank)).unwrap();
        let ended = place.run(&TRAIN);
        if all {
            ended.failed(3, &["every pixel of the training images has the value"]);
        } else {
            ended.succeeded();
            let losses = rows(&place, "step");
            assert!(losses.iter().all(|row| row["loss"].as_f64().unwrap().is_finite()));
        }
        tried += 1;
    }
    fault.survived(tried, "a constant channel in batch normalization on every instruction set; constant images among others, and alone");
}

/// Writes a picture of one gray value beside the others; its name.
fn blank_png(place: &Place) -> String {
    // Eight bits, gray, 32 by 32, every byte zero: stored, not compressed.
    let mut raw = vec![0x78, 0x01, 0x01];
    let body = vec![0_u8; 32 * 33];
    raw.extend((body.len() as u16).to_le_bytes());
    raw.extend((!(body.len() as u16)).to_le_bytes());
    raw.extend(&body);
    // Adler-32 of so many zeros.
    raw.extend((((body.len() as u32 % 65_521) << 16) | 1).to_be_bytes());
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        // CRC-32, bit by bit.
        let crc = !kind.iter().chain(data).fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], kind, data, &crc.to_be_bytes()].concat()
    };
    let header = [&32_u32.to_be_bytes()[..], &32_u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let file =
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &raw), chunk(b"IEND", &[])]
            .concat();
    place.write("d/images/blank.png", &file);
    "blank.png".to_owned()
}

//! Checkpoints that are sound to the eye: one bit, exchanged tensors, other rules, another network.

use crate::harness::{Fault, Place, is_full, small};
use kinone::kernels::Cpu;
use kinone::runs::checkpoint::Checkpoint;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The newest checkpoint of a run after step 18, its file, and where its header ends.
fn newest() -> (Place, PathBuf, Vec<u8>, usize) {
    let place = Place::after_step(18);
    let path = place.store().path(18);
    let good = std::fs::read(&path).unwrap();
    let end = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    (place, path, good, end)
}

fn refusal(path: &Path) -> Option<String> {
    Checkpoint::load(&Cpu::current(), path).err().map(|error| error.to_string())
}

#[test]
fn fault_a09_flipped_bits() {
    let fault = Fault::new("A09");
    let (place, path, good, end) = newest();
    let every = if is_full() { 1 } else { 101 };
    let header = (0..8 * end).step_by(every);
    // One bit in every 4 KiB of the data, of another place and rank each time.
    let data = (end..good.len()).step_by(4096).enumerate();
    let data =
        data.map(|(k, start)| 8 * (start + (k * 2_654_435_761 % 4096).min(good.len() - 1 - start)) + k % 8);
    let bits: Vec<usize> = header.chain(data).chain([8 * good.len() - 1]).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (own, next, bits, good) = (place.path(&format!("{thread}.safetensors")), &next, &bits, &good);
            std::fs::copy(&path, &own).unwrap();
            scope.spawn(move || {
                let file = File::options().write(true).open(&own).unwrap();
                while let Some(&bit) = bits.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let byte = good[bit / 8];
                    file.write_at(&[byte ^ (1 << (bit % 8))], bit as u64 / 8).unwrap();
                    let said = refusal(&own).unwrap_or_else(|| panic!("bit {bit} was not noticed"));
                    assert!(said.contains(".safetensors: "), "{said}");
                    file.write_at(&[byte], bit as u64 / 8).unwrap();
                }
                assert_eq!(refusal(&own), None);
            });
        }
    });
    fault.survived(
        bits.len(),
        "each bit of the header and one in every 4 KiB of the data flipped: never loaded",
    );
}

#[test]
fn fault_a10_exchanged_tensors() {
    let fault = Fault::new("A10");
    let (_place, path, good, end) = newest();
    let header: Value = serde_json::from_slice(&good[8..end]).unwrap();
    let place = |name: &str| {
        let [from, to] = [0, 1].map(|k| header[name]["data_offsets"][k].as_u64().unwrap() as usize + end);
        from..to
    };
    let names: Vec<&String> =
        header.as_object().unwrap().keys().filter(|name| *name != "__metadata__").collect();
    let mut cases = 0;
    for (k, a) in names.iter().enumerate() {
        // The next of its shape whose bytes are others.
        let is_alike = |b: &&&String| {
            ["shape", "dtype"].iter().all(|field| header[**b][field] == header[*a][field])
                && good[place(a)] != good[place(b)]
        };
        let Some(b) = names[k + 1..].iter().find(is_alike) else { continue };
        let mut bad = good.clone();
        bad[place(a)].copy_from_slice(&good[place(b)]);
        bad[place(b)].copy_from_slice(&good[place(a)]);
        std::fs::write(&path, bad).unwrap();
        let said = refusal(&path).unwrap_or_else(|| panic!("{a} and {b} were exchanged unnoticed"));
        assert!(said.contains(a.as_str()) || said.contains(b.as_str()), "{said}");
        cases += 1;
    }
    assert!(cases > 50, "{cases}");
    fault.survived(cases, "the bytes of each tensor exchanged with those of the next of its shape");
}

#[test]
fn fault_a12_other_rules() {
    let fault = Fault::new("A12");
    for (rule, from, to) in [("format", 1, 2), ("format", 1, 0), ("contract", 1, 2), ("contract", 1, 77)] {
        let (place, path, good, _) = newest();
        let pattern = format!("\\\"{rule}\\\":{from},").into_bytes();
        let at = good.windows(pattern.len()).position(|window| *window == pattern).unwrap();
        let other = format!("\\\"{rule}\\\":{to},").into_bytes();
        let mut bad = [&good[..at], &other[..], &good[at + pattern.len()..]].concat();
        let header = u64::from_le_bytes(*good.first_chunk().unwrap()) + (other.len() - pattern.len()) as u64;
        bad[..8].copy_from_slice(&header.to_le_bytes());
        std::fs::write(&path, &bad).unwrap();
        let words = [format!("made under {rule} {to}"), format!("keeps {rule} {from}")];
        let words = [&words[0], &words[1], "step_00000018.safetensors"];
        place.run(&["train", "--resume=run"]).failed(4, &words);
        assert!(std::fs::read(&path).unwrap() == bad);
    }
    fault.survived(
        4,
        "the number of the file's format or of the numeric contract is another: exit 4, naming both",
    );
}

#[test]
fn fault_a13_another_network() {
    let fault = Fault::new("A13");
    // A checkpoint of fifteen classes, made under its own settings: these differ.
    let (place, path, _, _) = newest();
    let other = Place::new();
    other.run(&small(&["--no-finding", "--run-dir=run", "--checkpoint-every=18"])).succeeded();
    let theirs = other.store().path(18);
    std::fs::copy(&theirs, &path).unwrap();
    place.run(&["train", "--resume=run"]).failed(2, &["no-finding true -> false"]);
    let words = ["does not lead to the checkpoint of step 18"];
    place.run(&["train", "--resume=run", "--no-finding"]).failed(4, &words);
    // The same tensors under our settings: the first that differ are named, with their shapes.
    let ours = Place::after_step(18);
    let mut mixed = Checkpoint::load(&Cpu::current(), &ours.store().path(18)).unwrap();
    mixed.tensors = Checkpoint::load(&Cpu::current(), &theirs).unwrap().tensors;
    mixed.save(&Cpu::current(), &ours.store().path(18)).unwrap();
    ours.run(&["train", "--resume=run"]).failed(4, &["does not fit", "fc.", "[15", "[14"]);
    // Weights of another network to begin from.
    let weights = other.path("run/checkpoints/best.safetensors");
    let load = format!("--load-checkpoint={}", weights.display());
    ours.run(&small(&[&load, "--run-dir=new"])).failed(4, &["best.safetensors", "15 classes", "14"]);
    ours.run(&small(&[&load, "--run-dir=new", "--model=resnet18", "--no-finding"]))
        .failed(4, &["resnet10w8", "resnet18"]);
    assert!(!ours.path("new").exists());
    fault.survived(5, "checkpoint and weights of fifteen classes and of another depth, resumed and loaded");
}

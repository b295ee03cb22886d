//! Checkpoint files that are damaged, of others, or no files.

use crate::harness::{Fault, Place, Whole, sample};
use kinone::kernels::Cpu;
use kinone::runs::checkpoint::Checkpoint;
use std::fs;

/// A finished run as if it had been killed after its newest checkpoint, to be resumed from there.
fn ended_early() -> Place {
    let place = Whole::get().place.copy();
    fs::remove_file(place.path("run/summary.json")).unwrap();
    place
}

/// The files of the two newest checkpoints, the newest last.
fn newest_two(place: &Place) -> [String; 2] {
    let steps = place.store().steps();
    let name = |step: u64| format!("run/checkpoints/step_{step:08}.safetensors");
    [name(steps[steps.len() - 2]), name(steps[steps.len() - 1])]
}

/// With this as its newest checkpoint a run falls back to the one before, says so, and ends as it should.
fn gives_way(newest: &[u8], words: &[&str]) {
    let place = ended_early();
    let [before, name] = newest_two(&place);
    let kept = place.read(&before);
    place.write(&name, newest);
    let file = name.rsplit('/').next().unwrap();
    let error = Checkpoint::load(&Cpu::current(), &place.path(&name)).unwrap_err().to_string();
    for word in [&[file], words].concat() {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    let ended = place.run(&["train", "--threads=1", "--resume", "run"]).succeeded();
    assert!(ended.stdout.contains(file) && ended.stdout.contains("falling back"), "{ended}");
    assert!(place.read(&before) == kept, "the older checkpoint was touched");
    let summary = serde_json::from_slice(&place.read("run/summary.json")).unwrap();
    Whole::get().is_equal(&place, &summary);
}

#[test]
fn fault_a08_cut_checkpoint() {
    let fault = Fault::new("A08");
    let place = ended_early();
    let good = place.read(&newest_two(&place)[1]);
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let mut lengths = vec![0, 1, 7, 8, header - 1, header, good.len() - 1];
    lengths.extend((4096..good.len()).step_by(4096));
    lengths.sort_unstable();
    // Every length is refused, naming file and byte; a sample goes through whole resumptions.
    let path = place.path("cut.safetensors");
    for length in &lengths {
        fs::write(&path, &good[..*length]).unwrap();
        let error = Checkpoint::load(&Cpu::current(), &path).unwrap_err().to_string();
        assert!(error.contains("cut.safetensors"), "{error}");
        assert!(error.contains(&length.to_string()), "length {length}: {error}");
    }
    let whole = sample(lengths.clone(), 4);
    for length in &whole {
        gives_way(&good[..*length], &["damaged"]);
    }
    fault.survived(
        lengths.len() + whole.len(),
        "the newest checkpoint cut; each length read, a sample resumed: the one before is taken, aloud, to equal bits",
    );
}

#[test]
fn fault_a11_bytes_after_the_end() {
    let fault = Fault::new("A11");
    let place = ended_early();
    let good = place.read(&newest_two(&place)[1]);
    for more in [&b"\0"[..], b"PK\x03\x04", &[0; 4096]] {
        gives_way(&[&good[..], more].concat(), &["damaged"]);
    }
    fault.survived(3, "one zero, a zip's first bytes, a page of zeros appended to the newest checkpoint");
}

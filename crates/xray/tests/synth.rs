//! The built-in set: pinned pixels, patients in one part, every finding in every part.

use kinone_kernels::Cpu;
use kinone_xray::synth::Synth;
use kinone_xray::{Dataset, FINDINGS, Options, Part, Source};
use std::collections::BTreeMap;

/// FNV-1a (64 bits).
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Drawn in integers: the same pixels on every machine.
#[test]
fn the_pixels_are_pinned() {
    for (size, expected) in [(64, 0x74bd_d958_4b15_a16b_u64), (96, 0xcd60_f125_e199_036f)] {
        let source = Synth::new(42, 24, size).unwrap();
        let hash = fnv((0..24).flat_map(|index| source.pixels(index)));
        assert_eq!(hash, expected, "{size} px: {hash:#018x}");
    }
}

#[test]
fn how_many_there_are_changes_none_of_them() {
    let (few, many) = (Synth::new(3, 5, 32).unwrap(), Synth::new(3, 50, 32).unwrap());
    for index in 0..5 {
        assert_eq!(few.record(index), many.record(index));
        assert_eq!(few.pixels(index), many.pixels(index));
    }
}

#[test]
fn every_finding_is_in_every_part_and_no_patient_in_two() {
    let source = Synth::new(42, 2400, 16).unwrap();
    let options = Options { size: 16, ..Options::default() };
    let cpu = Cpu::detect().unwrap();
    let data = Dataset::from_source(&source, &options, &cpu, &|_, _| {}).unwrap();
    for part in Part::ALL {
        for (finding, count) in FINDINGS.iter().zip(data.positives(part)) {
            assert!(count > 0, "no {finding} to {}", part.name());
        }
    }
    let mut parts: BTreeMap<u32, Part> = BTreeMap::new();
    for entry in data.entries() {
        assert_eq!(*parts.entry(entry.patient).or_insert(entry.part), entry.part);
    }
    let without = data.entries().iter().filter(|entry| entry.findings.is_empty()).count();
    assert_eq!(without, 1107, "radiographs without a finding");
}

#[test]
fn a_wrong_size_or_number_is_refused() {
    for (images, size) in [(0, 64), (10, 15), (10, 4096)] {
        assert!(Synth::new(1, images, size).is_err());
    }
}

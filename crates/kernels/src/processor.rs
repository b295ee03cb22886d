//! What the processor says of itself. It decides how much work is done at a time and by which of two ways, and no bit.
//! To ask is slow in a virtual machine, so it is asked once.

use crate::perturb;
use std::sync::OnceLock;

/// Bytes of the second-level cache of a core: as the processor says, between half and two mebibytes; one where it
/// does not say. A larger one is mostly shared by several cores.
pub(crate) fn second_level() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    perturb::cache(*SIZE.get_or_init(|| told().unwrap_or(MIB).clamp(MIB / 2, 2 * MIB)))
}

const MIB: usize = 1 << 20;

/// Whether Intel made it.
pub(crate) fn is_intel() -> bool {
    static IS_INTEL: OnceLock<bool> = OnceLock::new();
    *IS_INTEL.get_or_init(maker_is_intel)
}

#[cfg(target_arch = "x86_64")]
fn maker_is_intel() -> bool {
    let vendor = raw_cpuid::CpuId::new().get_vendor_info();
    vendor.is_some_and(|vendor| vendor.as_str() == "GenuineIntel")
}

#[cfg(not(target_arch = "x86_64"))]
fn maker_is_intel() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn told() -> Option<usize> {
    use raw_cpuid::{CacheType, CpuId};
    CpuId::new()
        .get_cache_parameters()?
        .find(|cache| {
            cache.level() == 2 && matches!(cache.cache_type(), CacheType::Data | CacheType::Unified)
        })
        .map(|cache| {
            cache.associativity()
                * cache.physical_line_partitions()
                * cache.coherency_line_size()
                * cache.sets()
        })
}

#[cfg(not(target_arch = "x86_64"))]
fn told() -> Option<usize> {
    None
}

//! The sizes of this machine's caches. They decide how much work is done at a time, and no bit.

use crate::perturb;
use std::sync::OnceLock;

/// Bytes of the second-level cache of a core: as the processor says, between half and two mebibytes; one where it
/// does not say. A larger one is mostly shared by several cores.
pub(crate) fn second_level() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    perturb::cache(*SIZE.get_or_init(|| told().unwrap_or(MIB).clamp(MIB / 2, 2 * MIB)))
}

const MIB: usize = 1 << 20;

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

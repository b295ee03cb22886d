//! What may change no bit, changed on purpose: the sizes of tiles and blocks, where memory begins and what it holds
//! when it is handed out, when a thread begins its share. For tests; nothing else sets it.
//!
//! It holds for the whole process, and is set while no kernel runs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is changed; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Perturbation {
    /// Rows of a tile of outputs at most.
    pub rows: Option<usize>,
    /// Registers across a tile at most.
    pub registers: Option<usize>,
    /// Terms of a block of k at most.
    pub block: Option<usize>,
    /// Values of an operand from which on it counts as too large for a near cache.
    pub far: Option<usize>,
    /// Bytes of the second-level cache, as if it were so large.
    pub cache: Option<usize>,
    /// Whether terms of zeros are left out wherever a third of the values are zero, though that may take longer.
    pub zeros: bool,
    /// f32 between a cache line and where a buffer begins, 0 to 15.
    pub offset: usize,
    /// The bits that fill every buffer handed out.
    pub fill: Option<u32>,
    /// Whether threads begin their shares late, each time by another while; the seed of these whiles.
    pub delays: Option<u64>,
}

/// What holds now.
struct State {
    rows: AtomicUsize,
    registers: AtomicUsize,
    block: AtomicUsize,
    far: AtomicUsize,
    /// 0 for what there is.
    cache: AtomicUsize,
    zeros: AtomicBool,
    offset: AtomicUsize,
    /// The bits, below a bit that says whether there are any.
    fill: AtomicU64,
    delays: AtomicU64,
}

static STATE: State = State::new();
static DRAWN: AtomicU32 = AtomicU32::new(0);

impl State {
    const fn new() -> State {
        State {
            rows: AtomicUsize::new(usize::MAX),
            registers: AtomicUsize::new(usize::MAX),
            block: AtomicUsize::new(usize::MAX),
            far: AtomicUsize::new(usize::MAX),
            cache: AtomicUsize::new(0),
            zeros: AtomicBool::new(false),
            offset: AtomicUsize::new(0),
            fill: AtomicU64::new(0),
            delays: AtomicU64::new(0),
        }
    }

    fn set(&self, to: &Perturbation) {
        let limit = |limit: Option<usize>| limit.map_or(usize::MAX, |limit| limit.max(1));
        self.rows.store(limit(to.rows), Relaxed);
        self.registers.store(limit(to.registers), Relaxed);
        self.block.store(limit(to.block), Relaxed);
        self.far.store(limit(to.far), Relaxed);
        self.cache.store(to.cache.unwrap_or(0), Relaxed);
        self.zeros.store(to.zeros, Relaxed);
        self.offset.store(to.offset.min(15), Relaxed);
        self.fill_with(to.fill);
        self.delays.store(to.delays.map_or(0, |seed| seed | 1), Relaxed);
    }

    fn fill_with(&self, bits: Option<u32>) {
        self.fill.store(bits.map_or(0, |bits| u64::from(bits) | 1 << 32), Relaxed);
    }

    fn tile(&self, rows: usize, registers: usize) -> (usize, usize) {
        (rows.min(self.rows.load(Relaxed)), registers.min(self.registers.load(Relaxed)))
    }

    fn block(&self, terms: usize) -> usize {
        terms.min(self.block.load(Relaxed))
    }

    fn far(&self, values: usize) -> usize {
        values.min(self.far.load(Relaxed))
    }

    fn cache(&self, bytes: usize) -> usize {
        match self.cache.load(Relaxed) {
            0 => bytes,
            other => other,
        }
    }

    fn fill(&self) -> Option<u32> {
        let fill = self.fill.load(Relaxed);
        (fill != 0).then_some(fill as u32)
    }
}

impl Perturbation {
    /// Makes it so, instead of what was set before.
    pub fn set(&self) {
        STATE.set(self);
    }
}

/// Sets [`Perturbation::fill`] alone.
pub(crate) fn fill_with(bits: Option<u32>) {
    STATE.fill_with(bits);
}

/// `rows` and `registers` of a tile, as far as they are allowed.
pub(crate) fn tile(rows: usize, registers: usize) -> (usize, usize) {
    STATE.tile(rows, registers)
}

/// `terms` of a block, as far as they are allowed.
pub(crate) fn block(terms: usize) -> usize {
    STATE.block(terms)
}

/// `values` that are too many for a near cache, or fewer if so few count.
pub(crate) fn far(values: usize) -> usize {
    STATE.far(values)
}

/// `bytes` of a cache, or what counts instead.
pub(crate) fn cache(bytes: usize) -> usize {
    STATE.cache(bytes)
}

/// Whether terms of zeros are left out, of so many values the rest of which are not zero: as `pays` says, or always.
pub(crate) fn zeros(values: usize, other: usize, pays: bool) -> bool {
    pays || STATE.zeros.load(Relaxed) && 3 * other <= 2 * values
}

/// Where buffers begin, in f32 behind a cache line.
pub(crate) fn offset() -> usize {
    STATE.offset.load(Relaxed)
}

/// What buffers are filled with.
pub(crate) fn fill() -> Option<u32> {
    STATE.fill()
}

/// Waits for a while if that is wanted: nothing, or up to about a tenth of a millisecond, the thread's turn given
/// away now and then.
pub(crate) fn delay() {
    let seed = STATE.delays.load(Relaxed);
    if seed == 0 {
        return;
    }
    let mut draw = (seed ^ u64::from(DRAWN.fetch_add(1, Relaxed))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    draw ^= draw >> 29;
    if draw.is_multiple_of(4) {
        std::thread::yield_now();
    }
    for _ in 0..draw >> 20 & 0xfff {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a state of its own: other tests run kernels meanwhile.
    #[test]
    fn nothing_is_changed_but_what_is_asked_for() {
        let state = State::new();
        let now = || {
            let sizes = (state.tile(8, 3), state.block(256), state.far(9), state.cache(512));
            (sizes, state.offset.load(Relaxed), state.fill())
        };
        let nothing = (((8, 3), 256, 9, 512), 0, None);
        assert_eq!(now(), nothing);
        let odd = Perturbation {
            rows: Some(3),
            block: Some(0),
            far: Some(2),
            cache: Some(1024),
            offset: 99,
            fill: Some(0),
            ..Default::default()
        };
        state.set(&odd);
        assert_eq!(now(), (((3, 3), 1, 2, 1024), 15, Some(0)));
        state.set(&Perturbation::default());
        assert_eq!(now(), nothing);
    }
}

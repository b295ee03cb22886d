//! Whether a run fits into the memory that the process may have, said before its first step.

use crate::course::Plan;
use crate::prepare::{self, PrepareError};
use crate::trainer::Batch;
use kinone_core::array::Array;
use kinone_kernels::memory::{self, OutOfMemory};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A run does not fit.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// It needs more than is allowed.
    #[error(
        "the run needs about {needed} MiB of memory more, which the limit on the address space (ulimit -v) does not \
         allow; use a smaller --batch-size, --recompute or a smaller --image-size, or raise the limit"
    )]
    TooLittle {
        /// The estimate.
        needed: u64,
    },
    /// There is no model.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

const MIB: u64 = 1 << 20;
/// For all that is small: records, file buffers, what the allocator keeps.
const BESIDES: u64 = 32 * MIB;

/// Where the address space is limited, refuses a run that would meet the limit.
///
/// The estimate: the most that buffers hold in a step on two and on four images, drawn on as a line to the whole
/// batch, and half of that again for what lies between buffers; the images of a step twice, as they are loaded and
/// as the network gets them; the state twice, as a checkpoint is written; and `BESIDES`.
///
/// # Errors
/// The system would not give so much.
pub fn fits(plan: &Plan) -> Result<(), RoomError> {
    if !is_limited() {
        return Ok(());
    }
    let model = prepare::fresh(plan.config)?;
    let state = plan.state_bytes(&model);
    drop(model);
    let images = (plan.config.batch_size * plan.config.accumulate * plan.config.image_size.pow(2) * 4) as u64;
    // What is needed in any case: the state, its gradients and checkpoint, and as much for the trial.
    let least = 4 * state + images;
    reserve(least)?;
    let trial = || -> Result<[u64; 2], PrepareError> { Ok([peak_of(plan, 2)?, peak_of(plan, 4)?]) };
    let peaks = match catch_unwind(AssertUnwindSafe(trial)) {
        Ok(peaks) => peaks?,
        Err(panic) if panic.is::<OutOfMemory>() => return Err(too_little(2 * least)),
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let an_image = peaks[1].saturating_sub(peaks[0]) / 2;
    let batch = plan.config.batch_size.min(plan.epoch_images()) as u64;
    let step = peaks[0] + an_image * batch.saturating_sub(2);
    let buffers = (step + step / 2).saturating_sub(memory::unused_bytes() as u64);
    reserve(buffers + 2 * images + 2 * state + BESIDES)
}

fn too_little(bytes: u64) -> RoomError {
    RoomError::TooLittle { needed: bytes.div_ceil(MIB) }
}

/// Asks the system for so much at once, and gives it back.
fn reserve(bytes: u64) -> Result<(), RoomError> {
    let asked = usize::try_from(bytes).ok().and_then(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).ok());
    asked.ok_or_else(|| too_little(bytes))
}

/// The most that buffers hold in the first step of such a run on so many images.
fn peak_of(plan: &Plan, images: usize) -> Result<u64, PrepareError> {
    let model = prepare::fresh(plan.config)?;
    let size = plan.config.image_size;
    let classes = prepare::classes(plan.config).count();
    let fill = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|k: usize| (k % 101) as f32 / 101.0).collect();
        Array::new(shape, &values).unwrap_or_else(|| unreachable!("as many values as the shape has"))
    };
    let peak = memory::peak_during(|| {
        let mut course = crate::course::Course::begin(plan, model);
        let batch = Batch {
            images: fill(&[images, 1, size, size]),
            targets: fill(&[images, classes]),
            samples: (0..images as u64).collect(),
        };
        // A step that is refused has needed its memory too.
        let _ = course.trainer.step(0, batch);
    });
    memory::release_unused();
    Ok(peak as u64)
}

/// Whether the system limits the address space or the data of this process.
fn is_limited() -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        [Resource::As, Resource::Data].into_iter().any(|kind| getrlimit(kind).current.is_some())
    }
    #[cfg(not(unix))]
    {
        false
    }
}

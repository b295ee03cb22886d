//! The geometry of windows that slide over images: where a tap lies, and how many positions there are.
//!
//! Indices: n image, c channel, (h, v) pixel, o filter, (p, q) tap, (i, j) position.

use crate::shape::{Shape, ShapeError};

/// Along one axis: the size of the image, taps, and how they are laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Pixels.
    pub size: usize,
    /// Taps.
    pub taps: usize,
    /// Pixels from one position to the next.
    pub stride: usize,
    /// Zeros before the first pixel, and after the last.
    pub padding: usize,
    /// Pixels from one tap to the next.
    pub dilation: usize,
}

impl Axis {
    /// The pixel under tap `p` of position `i`; `None` on the padding.
    #[inline(always)]
    pub fn pixel(&self, i: usize, p: usize) -> Option<usize> {
        (i * self.stride + p * self.dilation).checked_sub(self.padding).filter(|h| *h < self.size)
    }

    /// The position whose tap `p` lies on pixel `h`: outer `None` where it falls between two positions, inner
    /// `None` where it falls beside all `positions`.
    #[inline(always)]
    pub fn position(&self, h: usize, p: usize, positions: usize) -> Option<Option<usize>> {
        let distance = (h + self.padding) as isize - (p * self.dilation) as isize;
        if distance.rem_euclid(self.stride as isize) != 0 {
            return None;
        }
        Some(usize::try_from(distance.div_euclid(self.stride as isize)).ok().filter(|i| *i < positions))
    }

    /// The number of positions: `⌊(size + 2·padding − dilation·(taps − 1) − 1)/stride⌋ + 1`.
    ///
    /// # Errors
    /// A stride, dilation or number of taps is 0, or the window is larger than the padded image.
    pub fn positions(&self, operator: &'static str) -> Result<usize, ShapeError> {
        if self.stride == 0 || self.dilation == 0 || self.taps == 0 {
            let reason = "kernel, stride and dilation must be at least 1".to_owned();
            return Err(ShapeError::new(operator, reason));
        }
        let span = self.dilation * (self.taps - 1) + 1;
        let room = (self.size + 2 * self.padding).checked_sub(span).ok_or_else(|| {
            let padded = self.size + 2 * self.padding;
            ShapeError::new(
                operator,
                format!("a window of {span} does not fit an image of {padded} (padded)"),
            )
        })?;
        Ok(room / self.stride + 1)
    }
}

/// The four extents of images `[n, c, h, w]`.
///
/// # Errors
/// Another number of dimensions.
pub fn images(operator: &'static str, shape: &Shape) -> Result<[usize; 4], ShapeError> {
    let dims: &[usize] = shape;
    <[usize; 4]>::try_from(dims)
        .map_err(|_| ShapeError::new(operator, format!("images are [n, c, h, w], not {shape}")))
}

/// Refuses another number of inputs.
///
/// # Errors
/// `found` is not among `expected`.
pub fn arity(operator: &'static str, expected: &[usize], found: usize) -> Result<(), ShapeError> {
    if expected.contains(&found) {
        return Ok(());
    }
    Err(ShapeError::new(operator, format!("takes {expected:?} inputs, not {found}")))
}

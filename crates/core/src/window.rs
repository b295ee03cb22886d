//! The geometry of windows that slide over images: where a tap lies, and how many positions there are.
//!
//! Indices: n image, c channel, (h, v) pixel, o filter, (p, q) tap, (i, j) position.

use crate::shape::{Shape, ShapeError};

/// Windows beyond this many pixels, steps or taps are mistakes; below it no sum of extents overflows.
const MOST: usize = 1 << 24;

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

    /// Refuses attributes without meaning.
    ///
    /// # Errors
    /// A stride, dilation or number of taps is 0, or one of them or the padding is above 2^24.
    pub fn check(&self, operator: &'static str) -> Result<(), ShapeError> {
        let Axis { taps, stride, padding, dilation, .. } = *self;
        if stride == 0 || dilation == 0 || taps == 0 {
            return Err(ShapeError::new(operator, "kernel, stride and dilation must be at least 1"));
        }
        if [taps, stride, padding, dilation].iter().any(|extent| *extent > MOST) {
            let reason = format!(
                "kernel {taps}, stride {stride}, padding {padding} and dilation {dilation} must be at most {MOST}"
            );
            return Err(ShapeError::new(operator, reason));
        }
        Ok(())
    }

    /// The number of positions: `⌊(size + 2·padding − dilation·(taps − 1) − 1)/stride⌋ + 1`.
    ///
    /// # Errors
    /// As [`Axis::check`], or the window is larger than the padded image.
    pub fn positions(&self, operator: &'static str) -> Result<usize, ShapeError> {
        self.check(operator)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every geometry of small extents.
    fn axes() -> impl Iterator<Item = Axis> {
        (0..7 * 4 * 3 * 3 * 3).map(|k| Axis {
            size: k % 7,
            taps: k / 7 % 4 + 1,
            stride: k / 28 % 3 + 1,
            padding: k / 84 % 3,
            dilation: k / 252 + 1,
        })
    }

    #[test]
    fn the_positions_are_those_whose_whole_window_lies_on_the_padded_image() {
        for axis in axes() {
            let fits =
                |i: usize| i * axis.stride + (axis.taps - 1) * axis.dilation < axis.size + 2 * axis.padding;
            let count = (0..20).take_while(|i| fits(*i)).count();
            assert_eq!(axis.positions("test").unwrap_or(0), count, "{axis:?}");
        }
    }

    /// A tap lies on a pixel exactly where that pixel says so of the tap.
    #[test]
    fn position_is_the_inverse_of_pixel() {
        for axis in axes() {
            let positions = axis.positions("test").unwrap_or(0);
            for p in 0..axis.taps {
                for h in 0..axis.size {
                    let expected = (0..positions).find(|i| axis.pixel(*i, p) == Some(h));
                    assert_eq!(axis.position(h, p, positions).flatten(), expected, "{axis:?}");
                    let between = !(h + axis.padding + axis.dilation * axis.taps * axis.stride)
                        .abs_diff(p * axis.dilation)
                        .is_multiple_of(axis.stride);
                    assert_eq!(axis.position(h, p, positions).is_none(), between, "{axis:?}");
                }
            }
        }
    }
}

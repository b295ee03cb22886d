//! Shapes, their errors, and the rule of broadcasting.

use std::fmt;
use std::ops::Deref;

/// The extent of each dimension, outermost first. Data are contiguous, the last dimension fastest.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape of one number.
    pub fn scalar() -> Shape {
        Shape(Vec::new())
    }

    /// The number of elements: 1 for a scalar.
    pub fn size(&self) -> usize {
        self.0.iter().product()
    }

    /// The distance, in elements, between neighbours along each dimension.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.len()];
        for axis in (1..self.len()).rev() {
            strides[axis - 1] = strides[axis] * self[axis];
        }
        strides
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(dims)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape(dims.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an operator does not accept its inputs: what was expected and what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operator}: {reason}")]
pub struct ShapeError {
    /// The operator's name.
    pub operator: &'static str,
    /// What was expected, and what came.
    pub reason: String,
}

impl ShapeError {
    /// An error of `operator`.
    pub fn new(operator: &'static str, reason: impl Into<String>) -> ShapeError {
        ShapeError { operator, reason: reason.into() }
    }
}

/// The shape that all `shapes` broadcast to: dimensions are aligned at the last, and a dimension of 1 (or a
/// missing one) repeats.
///
/// # Errors
/// Two extents differ and neither is 1.
pub fn broadcast(operator: &'static str, shapes: &[&Shape]) -> Result<Shape, ShapeError> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut dims = vec![1; rank];
    for shape in shapes {
        for (dim, &extent) in dims[rank - shape.len()..].iter_mut().zip(shape.iter()) {
            if *dim == 1 {
                *dim = extent;
            } else if extent != 1 && extent != *dim {
                let all: Vec<String> = shapes.iter().map(ToString::to_string).collect();
                let reason = format!("shapes {} do not broadcast: {extent} meets {dim}", all.join(" and "));
                return Err(ShapeError::new(operator, reason));
            }
        }
    }
    Ok(Shape(dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_the_rule() {
        let go = |a: &[usize], b: &[usize]| broadcast("test", &[&a.into(), &b.into()]).map(|s| s.to_vec());
        assert_eq!(go(&[2, 3], &[3]).unwrap(), [2, 3]);
        assert_eq!(go(&[2, 1, 4], &[3, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(go(&[], &[5]).unwrap(), [5]);
        assert_eq!(go(&[0], &[1]).unwrap(), [0]);
        assert!(go(&[2], &[3]).unwrap_err().to_string().contains("[2] and [3]"));
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(Shape::from([2, 3, 4]).strides(), [12, 4, 1]);
        assert_eq!(Shape::scalar().size(), 1);
    }
}

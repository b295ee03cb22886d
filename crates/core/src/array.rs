//! Values: a shape and its numbers, contiguous, the last dimension fastest.

use crate::operator::View;
use crate::shape::Shape;
use kinone_kernels::memory::{Buffer, Kept};

/// A dense array of f32.
#[derive(Clone, Debug)]
pub struct Array {
    shape: Shape,
    data: Buffer,
    /// What kernels made of the numbers; emptied where these may change.
    kept: Kept,
}

impl Array {
    /// The numbers of `data` in `shape`; `None` when their number differs from the shape's size.
    pub fn new(shape: impl Into<Shape>, data: &[f32]) -> Option<Array> {
        let shape = shape.into();
        (shape.size() == data.len()).then(|| Array::of(shape, Buffer::copy_of(data)))
    }

    /// An array whose contents are unspecified: the caller overwrites every element.
    pub fn uninitialized(shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let data = Buffer::take(shape.size());
        Array::of(shape, data)
    }

    fn of(shape: Shape, data: Buffer) -> Array {
        Array { shape, data, kept: Kept::default() }
    }

    /// `value` everywhere.
    pub fn full(shape: impl Into<Shape>, value: f32) -> Array {
        let mut array = Array::uninitialized(shape);
        array.data_mut().fill(value);
        array
    }

    /// One number.
    pub fn scalar(value: f32) -> Array {
        Array::full(Shape::scalar(), value)
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The numbers.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The numbers with their shape, to be read.
    pub fn view(&self) -> View<'_, f32> {
        View::new(&self.shape, &self.data).keeping(&self.kept)
    }

    /// The shape, and the numbers to be changed.
    pub fn parts_mut(&mut self) -> (&Shape, &mut [f32]) {
        self.kept = Kept::default();
        (&self.shape, &mut self.data)
    }

    /// The numbers, to be changed.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.parts_mut().1
    }

    /// The same numbers in another shape; `None` when the sizes differ.
    pub fn reshaped(mut self, shape: impl Into<Shape>) -> Option<Array> {
        let shape = shape.into();
        (shape.size() == self.shape.size()).then(|| {
            self.shape = shape;
            self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Array;
    use kinone_kernels::Cpu;
    use kinone_kernels::conv::{Conv, forward_finished};

    /// A sum over channels, by filters that may keep what is made of them.
    fn sums(filters: &Array) -> [f32; 2] {
        let one = (1, 1);
        let conv = Conv {
            n: 1,
            c: 2,
            input: one,
            o: 2,
            kernel: one,
            stride: one,
            padding: (0, 0),
            dilation: one,
            groups: 1,
        };
        let (view, mut y) = (filters.view(), [0.0; 2]);
        forward_finished(&Cpu::current(), &conv, &[1.0, 10.0], (view.data(), view.keep()), None, &mut y);
        y
    }

    #[test]
    fn what_was_made_of_numbers_goes_when_they_change() {
        let mut filters = Array::new([2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!([sums(&filters), sums(&filters)], [[21.0, 43.0]; 2]);
        filters.data_mut()[3] = 5.0;
        assert_eq!(sums(&filters), [21.0, 53.0]);
        filters.parts_mut().1[0] = 7.0;
        assert_eq!(sums(&filters), [27.0, 53.0]);
        let mut copy = filters.clone();
        copy.data_mut()[1] = 3.0;
        assert_eq!([sums(&filters), sums(&copy)], [[27.0, 53.0], [37.0, 53.0]]);
    }
}

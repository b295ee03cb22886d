//! Values: a shape and its numbers, contiguous, the last dimension fastest.

use crate::operator::View;
use crate::shape::Shape;
use kinone_kernels::memory::Buffer;

/// A dense array of f32.
#[derive(Clone, Debug)]
pub struct Array {
    shape: Shape,
    data: Buffer,
}

impl Array {
    /// The numbers of `data` in `shape`; `None` when their number differs from the shape's size.
    pub fn new(shape: impl Into<Shape>, data: &[f32]) -> Option<Array> {
        let shape = shape.into();
        (shape.size() == data.len()).then(|| Array { shape, data: Buffer::copy_of(data) })
    }

    /// An array whose contents are unspecified: the caller overwrites every element.
    pub fn uninitialized(shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let data = Buffer::take(shape.size());
        Array { shape, data }
    }

    /// `value` everywhere.
    pub fn full(shape: impl Into<Shape>, value: f32) -> Array {
        let mut array = Array::uninitialized(shape);
        array.data.fill(value);
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
        View::new(&self.shape, &self.data)
    }

    /// The shape, and the numbers to be changed.
    pub fn parts_mut(&mut self) -> (&Shape, &mut [f32]) {
        (&self.shape, &mut self.data)
    }

    /// The numbers, to be changed.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
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

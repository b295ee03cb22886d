//! Products whose operands lie packed in memory already: the many small products of Winograd's convolution.

use super::kernel::Kernel;
use super::tile::{Left, Tile};
use super::{Panel, even};
use crate::Cpu;

/// The tiles of this processor, to be used one panel at a time.
#[derive(Clone, Copy)]
pub(crate) struct Tiles(Kernel);

/// A left operand: value (i, k) is `data[i·row + k·term]`, with `row` or `term` 1.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) term: usize,
    /// How many rows and terms there are.
    pub(crate) extent: (usize, usize),
}

/// Where the outputs go, and how a sum ends.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    /// Row i at `to + i·stride`.
    pub(crate) to: *mut f32,
    pub(crate) stride: usize,
    /// What the sums begin with instead of +0, laid out as the outputs: it may be what lies there.
    pub(crate) from: Option<*const f32>,
    /// Sums of earlier leaves, laid out as the outputs, each added on the left of what is there, in this order.
    pub(crate) earlier: &'a [*const f32],
}

/// The operands of the product to come, if they lie as those of this one do: they arrive meanwhile.
#[derive(Clone, Copy, Default)]
pub(crate) struct Soon<'a> {
    pub(crate) left: Option<&'a [f32]>,
    pub(crate) right: Option<&'a [f32]>,
}

impl Tiles {
    pub(crate) fn of(cpu: &Cpu) -> Tiles {
        Tiles(Kernel::of(cpu))
    }

    /// Rows of a tile at most.
    pub(crate) fn height(&self) -> usize {
        self.0.rows
    }

    /// Registers across a tile at most, and lanes of a register.
    pub(crate) fn extent(&self) -> (usize, usize) {
        (self.0.wide, self.0.lanes)
    }

    /// The panels of part `part` of `parts` of the columns: whole registers, as even as they can be.
    pub(crate) fn panels(&self, columns: usize, parts: usize, part: usize) -> Vec<Panel> {
        let lanes = self.0.lanes;
        let registers = even(columns.div_ceil(lanes), parts, part);
        let all = registers.start * lanes..(registers.end * lanes).min(columns);
        let mut panels = Panel::cut(all.len(), &self.0);
        for panel in &mut panels {
            panel.columns = panel.columns.start + all.start..panel.columns.end + all.start;
        }
        panels
    }

    /// Registers across all columns: into more parts they cannot be cut.
    pub(crate) fn registers(&self, columns: usize) -> usize {
        columns.div_ceil(self.0.lanes)
    }

    /// `out[i][j] = Σ_k left(i, k)·right[k][j]` over ascending k, from +0 or from what `sums` names, for all rows and
    /// the `width` columns of a panel; then the sums of earlier leaves are added.
    ///
    /// # Safety
    /// The rows of the outputs, and those of the sums they begin with and of the earlier ones, can be written and read
    /// for `width` values each, and no one else touches them meanwhile.
    ///
    /// # Panics
    /// When an operand is short, or neither rows nor terms of the left one lie side by side.
    pub(crate) unsafe fn multiply(
        &self,
        left: Rows,
        (right, width): (&[f32], usize),
        sums: Sums,
        soon: Soon,
    ) {
        let Rows { data, row, term, extent: (rows, terms) } = left;
        let tile = Tile {
            left: Left::Even { data, row, term, next: soon.left },
            right,
            right_step: width,
            next: soon.right,
            asked: &[],
            terms,
            to: sums.to,
            stride: sums.stride,
            past: false,
            from: sums.from,
            earlier: sums.earlier,
            finish: None,
        };
        // SAFETY: the outputs are the caller's promise.
        unsafe { self.0.run(rows, width, &tile) };
    }
}

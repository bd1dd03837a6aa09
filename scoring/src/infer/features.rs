//! What the encoder's layers say of a frame, for statistics of good places.

use std::ops::Range;

/// Outputs of the encoder's second and third layer for a strip of a frame, behind their LeakyReLU.
/// A cell of the second layer stands for 4 × 4 pixels, one of the third for 8 × 8.
#[derive(Debug, Clone)]
pub struct EncoderOutputs {
    /// The second layer's. It has at least one row more than `rows` on either side, as far as the
    /// frame goes.
    pub second: LayerOutput,
    /// The third layer's, for all rows of the second.
    pub third: LayerOutput,
    /// The rows of the second layer that belong to this strip and to no other.
    pub rows: Range<usize>,
    /// Columns of the second layer.
    pub columns: usize,
    /// Rows of the second layer in the whole frame.
    pub height: usize,
}

/// Some rows of a layer's output.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerOutput {
    channels: usize,
    columns: usize,
    rows: Range<usize>,
    values: Vec<f32>,
}

impl LayerOutput {
    /// Values in the order channel, row, column; `rows` are counted from the frame's top.
    pub fn new(channels: usize, columns: usize, rows: Range<usize>, values: Vec<f32>) -> Self {
        Self {
            channels,
            columns,
            rows,
            values,
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows that there are, counted from the frame's top.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// A row of a channel; empty if the row is not among [`Self::rows`].
    pub fn row(&self, channel: usize, row: usize) -> &[f32] {
        if !self.rows.contains(&row) {
            return &[];
        }
        let line = channel * self.rows.len() + row - self.rows.start;
        let start = line * self.columns;
        self.values
            .get(start..start + self.columns)
            .unwrap_or_default()
    }
}

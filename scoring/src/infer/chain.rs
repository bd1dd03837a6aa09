//! Consecutive layers, run on one image. In: an image. Out: the last layer's output.

use std::ops::Range;

use tract_onnx::tract_core::internal::*;

use super::buffer_pool::BufferPool;
use super::image::{Image, Output};
use super::layer::Layer;
use super::pool::Pool;

/// Consecutive layers, with their threads and buffers.
#[derive(Debug)]
pub(super) struct Chain {
    layers: Vec<Layer>,
    pool: Pool,
    /// Outputs of the layers: one set for each image that is computed at the same time.
    buffers: BufferPool<Vec<Output>>,
}

/// Sees a layer's output: its index, the output, and the rows of it that were computed.
pub(super) type Observe<'a> = &'a mut dyn FnMut(usize, &Output, &Range<usize>) -> TractResult<()>;

/// Outputs with more values than this are freed after use instead of being kept for the next frame.
const KEPT_VALUES: usize = 8 << 20;

impl Chain {
    /// Layers in order, with the threads that share the work on an image.
    pub(super) fn new(layers: Vec<Layer>, pool: Pool) -> Self {
        Self {
            layers,
            pool,
            buffers: BufferPool::default(),
        }
    }

    /// The layers in order.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The threads that share the work on an image.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The rows of each layer's output that `rows` of the last layer's output depend on.
    fn rows_per_layer(&self, height: usize, rows: Range<usize>) -> Vec<Range<usize>> {
        let mut heights = vec![height];
        for layer in &self.layers {
            heights.push(layer.output_side(&heights[heights.len() - 1]));
        }
        let last = heights[heights.len() - 1];
        let mut wanted = rows.start.min(last)..rows.end.min(last);
        let mut all = vec![wanted.clone()];
        for (layer, height) in self.layers.iter().zip(&heights).skip(1).rev() {
            wanted = layer.input_rows(&wanted, *height);
            all.push(wanted.clone());
        }
        all.reverse();
        all
    }

    /// Runs all layers on an image, as far as `rows` of the last output need it, and passes that
    /// output to `take`. Its other rows hold stale values.
    pub(super) fn run<T>(
        &self,
        image: Image<'_, f32>,
        rows: Range<usize>,
        pool: &Pool,
        take: impl FnOnce(&Output) -> TractResult<T>,
    ) -> TractResult<T> {
        self.run_observed(image, rows, pool, &mut |_, _, _| Ok(()), take)
    }

    /// Like [`Self::run`], and passes each layer's output to `observe`, with the layer's index and
    /// the rows that were computed.
    pub(super) fn run_observed<T>(
        &self,
        image: Image<'_, f32>,
        rows: Range<usize>,
        pool: &Pool,
        observe: Observe<'_>,
        take: impl FnOnce(&Output) -> TractResult<T>,
    ) -> TractResult<T> {
        let kept = self.buffers.take();
        let mut outputs =
            kept.unwrap_or_else(|| self.layers.iter().map(|_| Output::default()).collect());
        let mut large = false;
        let rows = self.rows_per_layer(image.size()[1], rows);
        for (index, (layer, rows)) in self.layers.iter().zip(&rows).enumerate() {
            let (before, rest) = outputs.split_at_mut(index);
            let out = &mut rest[0];
            match before.last() {
                None => layer.run(&image, rows, pool, out)?,
                Some(output) if output.value() == Some(i8::datum_type()) => {
                    layer.run(&output.image::<i8>()?, rows, pool, out)?;
                }
                Some(output) if output.value() == Some(f16::datum_type()) => {
                    layer.run(&output.image::<f16>()?, rows, pool, out)?;
                }
                Some(output) => layer.run(&output.image::<f32>()?, rows, pool, out)?,
            }
            observe(index, &rest[0], rows)?;
            large |= rest[0].size().iter().product::<usize>() > KEPT_VALUES;
            if large && let Some(output) = before.last_mut() {
                *output = Output::default();
            }
        }
        let taken = take(outputs.last().context("there is no layer")?)?;
        if !large {
            self.buffers.put_back(outputs);
        }
        Ok(taken)
    }
}

//! Runs a segmentation network ([`proto::manifest::SegmentationNetwork`]) by tract's own operators:
//! it is small and its input has a fixed shape.

use std::io::Cursor;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::error::InferError;
use super::plan::{check_finite, run_plan};
use crate::inspect::grid::FINEST;
use crate::inspect::segmentation::CELLS;

/// A loaded segmentation network. It may be used by several threads at once.
#[derive(Debug, Clone)]
pub struct SegmentationEngine {
    plan: Arc<TypedRunnableModel>,
    planes: usize,
}

impl SegmentationEngine {
    /// Loads a graph that takes 1 × `planes` × [`CELLS`] × [`CELLS`] values and gives 1 × 1 ×
    /// [`FINEST`] × [`FINEST`] logits.
    pub fn new(onnx: &[u8], planes: usize) -> Result<Self, InferError> {
        let load = |error: TractError| InferError::Load(format!("{error:#}"));
        let plan = tract_onnx::onnx()
            .model_for_read(&mut Cursor::new(onnx))
            .and_then(|model| model.with_input_fact(0, f32::fact([1, planes, CELLS, CELLS]).into()))
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;
        Ok(Self { plan, planes })
    }

    /// The logits of all cells, row by row, for the input that
    /// [`crate::inspect::segmentation::input`] makes of a frame.
    pub fn logits(&self, input: &[f32]) -> Result<Vec<f32>, InferError> {
        let shape = [1, self.planes, CELLS, CELLS];
        let expected = [1, 1, FINEST, FINEST];
        check_finite(run_plan(&self.plan, input, shape, expected)?, expected)
    }
}

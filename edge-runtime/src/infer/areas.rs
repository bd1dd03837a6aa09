//! An area network at work ([`proto::manifest::AreaNetwork`]): by tract's own operators, for it is small and of one shape.

use std::io::Cursor;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::{InferError, all_finite, by_plan};
use crate::inspect::areas::CELLS;
use crate::inspect::variation::FINEST;

/// A loaded area network; usable from several threads at once.
#[derive(Debug, Clone)]
pub struct AreaEngine {
    plan: Arc<TypedRunnableModel>,
    planes: usize,
}

impl AreaEngine {
    /// Loads a graph that makes 1 × 1 × [`FINEST`] × [`FINEST`] logits of 1 × planes × [`CELLS`] × [`CELLS`] values.
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

    /// Logits of all cells, row by row, of what an area network sees of a frame ([`crate::inspect::areas::input`]).
    pub fn logits(&self, input: &[f32]) -> Result<Vec<f32>, InferError> {
        let shape = [1, self.planes, CELLS, CELLS];
        let expected = [1, 1, FINEST, FINEST];
        all_finite(by_plan(&self.plan, input, shape, expected)?, expected)
    }
}

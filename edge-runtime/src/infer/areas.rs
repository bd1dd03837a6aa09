//! An area network at work ([`proto::manifest::AreaNetwork`]): by tract's own operators, for it is small and of one shape.

use std::io::Cursor;
use std::sync::Arc;

use proto::manifest::AreaNetwork;
use tract_onnx::prelude::*;

use super::{InferError, all_finite, by_plan};

/// A loaded area network; usable from several threads at once.
#[derive(Debug, Clone)]
pub struct AreaEngine {
    plan: Arc<TypedRunnableModel>,
    features: usize,
    side: usize,
}

impl AreaEngine {
    /// Loads a graph that makes 1 × 1 × side × side logits of 1 × features × side × side values.
    pub fn new(onnx: &[u8], features: usize, side: usize) -> Result<Self, InferError> {
        let load = |error: TractError| InferError::Load(format!("{error:#}"));
        let plan = tract_onnx::onnx()
            .model_for_read(&mut Cursor::new(onnx))
            .and_then(|model| model.with_input_fact(0, f32::fact([1, features, side, side]).into()))
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;
        Ok(Self {
            plan,
            features,
            side,
        })
    }

    /// Logits of all cells, row by row, of so many planes of features.
    pub fn logits(&self, planes: &[f32]) -> Result<Vec<f32>, InferError> {
        let shape = [1, self.features, self.side, self.side];
        let expected = [1, 1, self.side, self.side];
        all_finite(by_plan(&self.plan, planes, shape, expected)?, expected)
    }

    /// How far its golden logits are off, at the worst cell.
    pub fn golden_off(&self, network: &AreaNetwork) -> Result<f32, InferError> {
        let found = self.logits(&network.golden_input)?;
        let pairs = found.iter().zip(&network.golden_logits);
        Ok(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
    }
}

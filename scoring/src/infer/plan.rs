//! Runs a graph by tract's own operators.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::error::InferError;

/// Runs a plan on values of a shape. The output must have the expected shape.
pub(super) fn run_plan(
    plan: &Arc<TypedRunnableModel>,
    values: &[f32],
    shape: [usize; 4],
    expected: [usize; 4],
) -> Result<Vec<f32>, InferError> {
    let input = Tensor::from_shape(&shape, values).map_err(run_failed)?;
    let output = plan.run(tvec!(input.into())).map_err(run_failed)?;
    let wrong = |found: String| InferError::Output {
        expected: expected.to_vec(),
        found,
    };
    let output = output.first().ok_or_else(|| wrong("nothing".to_owned()))?;
    if output.shape() != expected {
        return Err(wrong(format!("{:?}", output.shape())));
    }
    let values = output
        .try_as_plain_ram()
        .and_then(|ram| ram.as_slice::<f32>());
    Ok(values.map_err(run_failed)?.to_vec())
}

pub(super) fn run_failed(error: TractError) -> InferError {
    InferError::Run(format!("{error:#}"))
}

pub(super) fn check_finite(data: Vec<f32>, expected: [usize; 4]) -> Result<Vec<f32>, InferError> {
    let found = if data.len() != expected.iter().product::<usize>() {
        format!("{} values", data.len())
    } else if let Some(value) = data.iter().find(|value| !value.is_finite()) {
        format!("the value {value}")
    } else {
        return Ok(data);
    };
    Err(InferError::Output {
        expected: expected.to_vec(),
        found,
    })
}

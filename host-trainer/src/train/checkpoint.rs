//! A run's state on disk: weights, moments and progress, as a safetensors file. It is written under
//! a temporary name and renamed, so that a power cut leaves the previous checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};
use tch::{TchError, Tensor};

use super::adam::Adam;
use super::average::{Average, average_name};
use crate::arrays::{Array, encoded};
use crate::dataset::hex;
use crate::network::{
    Architecture, CHANNELS, LayerShape, LayerWeights, inference_layers, layer_shapes,
};
use crate::tensor::floats;
use scoring::io::atomic::{WriteError, write_atomic};

/// Key of [`Checkpoint::description`] in the file's metadata.
const DESCRIPTION: &str = "lesson";

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be read.
    #[error("cannot read checkpoint {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is damaged, or belongs to another network.
    #[error("checkpoint {}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be encoded.
    #[error("cannot encode the checkpoint")]
    Encode(#[from] safetensors::SafeTensorError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// How far a run has got. The default is a run that has not begun.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Iterations completed.
    pub iterations: usize,
    /// Seconds spent on them, in all sessions together.
    pub seconds: f64,
}

/// Saves the weights and moments in `adam`, the averages if there are any, and the progress.
pub fn save(
    path: &Path,
    adam: &Adam,
    average: Option<&Average>,
    progress: Progress,
) -> Result<(), CheckpointError> {
    let averages = average.map(Average::state).unwrap_or_default();
    save_tensors(path, adam.state().into_iter().chain(averages), progress, "")
}

/// Saves named tensors and the progress. `description` says what was trained, for
/// [`Checkpoint::description`].
pub fn save_tensors(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    progress: Progress,
    description: &str,
) -> Result<(), CheckpointError> {
    let mut arrays: Vec<Array<Vec<u8>>> = Vec::new();
    for (name, tensor) in tensors {
        let size = tensor.size().into_iter().map(|side| side as usize);
        let values = floats(&tensor)?.into_iter();
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        arrays.push((name, size.collect(), bytes));
    }
    let metadata = HashMap::from([
        ("iterations".to_owned(), progress.iterations.to_string()),
        ("seconds".to_owned(), progress.seconds.to_string()),
        (DESCRIPTION.to_owned(), description.to_owned()),
    ]);
    let bytes = encoded(&arrays, Dtype::F32, Some(metadata))?;
    Ok(write_atomic(path, &bytes)?)
}

/// A checkpoint that has been read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    /// How far the run got.
    pub progress: Progress,
    /// What was trained, as passed to [`save_tensors`].
    pub description: String,
}

impl Checkpoint {
    /// Reads a checkpoint.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let read = |source| CheckpointError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut File::open(path).map_err(read)?, &mut bytes)
            .map_err(read)?;
        let damaged = |reason: String| CheckpointError::Content {
            path: path.to_owned(),
            reason,
        };
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|error| damaged(format!("not a valid safetensors file ({error})")))?;
        let text = |name: &str| {
            let metadata = header.metadata().as_ref();
            metadata.and_then(|metadata| metadata.get(name))
        };
        let field = |name: &str| {
            text(name)
                .and_then(|text| text.parse::<f64>().ok())
                .ok_or_else(|| damaged(format!("it does not say its {name}")))
        };
        let progress = Progress {
            iterations: field("iterations")? as usize,
            seconds: field("seconds")?,
        };
        let description = text(DESCRIPTION).cloned().unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            bytes,
            progress,
            description,
        })
    }

    /// The values of one tensor, which must have the given size.
    pub fn values(&self, name: &str, size: &[i64]) -> Result<Vec<f32>, CheckpointError> {
        let wrong = |reason: String| CheckpointError::Content {
            path: self.path.clone(),
            reason,
        };
        let tensors = safetensors::SafeTensors::deserialize(&self.bytes)
            .map_err(|error| wrong(error.to_string()))?;
        let view = tensors
            .tensor(name)
            .map_err(|_| wrong(format!("tensor {name} is missing")))?;
        let expected: Vec<usize> = size.iter().map(|&side| side as usize).collect();
        if view.dtype() != Dtype::F32 || view.shape() != expected {
            return Err(wrong(format!(
                "expected {name} as f32 of shape {expected:?}, found {:?} {:?}",
                view.dtype(),
                view.shape()
            )));
        }
        let (values, _) = view.data().as_chunks::<4>();
        Ok(values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect())
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }

    /// The layers of a trained network with this architecture, as a package holds them.
    pub fn layers(
        &self,
        architecture: &Architecture,
    ) -> Result<Vec<LayerWeights>, CheckpointError> {
        let layer = |shape: LayerShape| {
            let bias = [shape.outputs];
            Ok(LayerWeights {
                weight: self.result(&format!("{}.weight", shape.name), &shape.weight_size())?,
                bias: self.result(&format!("{}.bias", shape.name), &bias)?,
                shape,
            })
        };
        let shapes = layer_shapes(CHANNELS, architecture.width).into_iter();
        let layers = shapes.map(layer).collect::<Result<_, CheckpointError>>()?;
        Ok(inference_layers(layers, architecture.upsampled)?)
    }

    /// The result of training a parameter: its average if the run kept one, or else its last value.
    fn result(&self, name: &str, size: &[i64]) -> Result<Vec<f32>, CheckpointError> {
        let average = average_name(name);
        let has = safetensors::SafeTensors::deserialize(&self.bytes)
            .is_ok_and(|tensors| tensors.tensor(&average).is_ok());
        self.values(if has { &average } else { name }, size)
    }

    /// Copies values into named tensors that do not require a gradient.
    pub fn restore_tensors(&self, tensors: Vec<(String, Tensor)>) -> Result<(), CheckpointError> {
        for (name, mut tensor) in tensors {
            tensor.f_copy_(&self.tensor(&name, &tensor.size())?)?;
        }
        Ok(())
    }

    /// Restores the state of an optimiser of the same network.
    pub fn restore(&self, adam: &mut Adam) -> Result<(), CheckpointError> {
        let steps = self.progress.iterations as i64;
        adam.restore(steps, |name, size| self.tensor(name, size))
    }

    fn tensor(&self, name: &str, size: &[i64]) -> Result<Tensor, CheckpointError> {
        Ok(Tensor::f_from_slice(&self.values(name, size)?)?.f_view(size)?)
    }
}

//! A run's state on disk: weights, moments and progress, as a safetensors file with a checksum. It
//! is written under a temporary name and renamed, so that a power cut leaves the previous
//! checkpoint. The one before is kept beside it, for when the disk damages the newest.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
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
/// Key of the checksum in the metadata: SHA-256 over everything else. Checkpoints of older versions
/// have none.
const CHECKSUM: &str = "sha256";
/// Key that says that there is a checksum, so that damage to the other key does not hide it.
const HAS_CHECKSUM: &str = "has_checksum";

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
    /// It is damaged.
    #[error("checkpoint {} is damaged: {reason}; {}", path.display(), hint(previous.as_deref()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        reason: String,
        /// The checkpoint before it, if that is whole.
        previous: Option<PathBuf>,
    },
    /// It belongs to another network.
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

/// What to do about a damaged checkpoint.
fn hint(previous: Option<&Path>) -> String {
    match previous {
        Some(path) => format!(
            "the one before it is whole: resume the training, or rename {} to use it as it is",
            path.display()
        ),
        None => "restore it from a copy, or train again".to_owned(),
    }
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
    let mut metadata = HashMap::from([
        ("iterations".to_owned(), progress.iterations.to_string()),
        ("seconds".to_owned(), progress.seconds.to_string()),
        (DESCRIPTION.to_owned(), description.to_owned()),
        (HAS_CHECKSUM.to_owned(), "yes".to_owned()),
    ]);
    let views = arrays.iter();
    let views = views.map(|(name, shape, bytes)| (name.as_str(), shape.clone(), &bytes[..]));
    metadata.insert(CHECKSUM.to_owned(), checksum(views.collect(), &metadata));
    let bytes = encoded(&arrays, Dtype::F32, Some(metadata))?;
    keep_previous(path);
    Ok(write_atomic(path, &bytes)?)
}

/// SHA-256 over all tensors (name, shape and values) and the metadata without the checksum itself,
/// in hexadecimal. The order in which they are given does not matter.
fn checksum(
    mut tensors: Vec<(&str, Vec<usize>, &[u8])>,
    metadata: &HashMap<String, String>,
) -> String {
    tensors.sort_unstable();
    let mut hasher = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, shape, values) in tensors {
        add(name.as_bytes());
        let sides = shape
            .into_iter()
            .flat_map(|side| (side as u64).to_le_bytes());
        add(&sides.collect::<Vec<u8>>());
        add(values);
    }
    for (key, value) in metadata.iter().collect::<BTreeMap<_, _>>() {
        if key != CHECKSUM {
            add(key.as_bytes());
            add(value.as_bytes());
        }
    }
    hex(&hasher.finalize())
}

/// Where the checkpoint before the one at `path` is kept.
fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.safetensors")
}

/// Keeps the checkpoint at `path`, which is about to be replaced. Its file is never without a name.
/// The new checkpoint is written whether this succeeds or not.
fn keep_previous(path: &Path) {
    let kept = previous(path);
    fs::remove_file(&kept).ok();
    // Some file systems have no hard links.
    if fs::hard_link(path, &kept).is_err() && path.exists() {
        fs::copy(path, &kept).ok();
    }
}

/// If the checkpoint at `path` is damaged and the one before it is whole, puts that in its place,
/// and keeps the damaged file under another name. Returns what was found damaged.
pub fn recover(path: &Path) -> Result<Option<CheckpointError>, CheckpointError> {
    let damage = match Checkpoint::open(path) {
        Err(damage @ CheckpointError::Damaged { .. }) => damage,
        _ => return Ok(None),
    };
    let CheckpointError::Damaged {
        previous: Some(previous),
        ..
    } = &damage
    else {
        return Err(damage);
    };
    let read = |source| CheckpointError::Read {
        path: previous.clone(),
        source,
    };
    let bytes = fs::read(previous).map_err(read)?;
    fs::rename(path, path.with_extension("damaged.safetensors")).map_err(read)?;
    write_atomic(path, &bytes)?;
    Ok(Some(damage))
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
    /// Reads a checkpoint and checks its checksum.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut bytes))
            .map_err(|source| CheckpointError::Read {
                path: path.to_owned(),
                source,
            })?;
        Self::decode(path, bytes).map_err(|reason| {
            let previous = previous(path);
            let whole = fs::read(&previous).is_ok_and(|bytes| Self::decode(path, bytes).is_ok());
            CheckpointError::Damaged {
                path: path.to_owned(),
                reason,
                previous: whole.then_some(previous),
            }
        })
    }

    /// Decodes a checkpoint; an error says how it is damaged.
    fn decode(path: &Path, bytes: Vec<u8>) -> Result<Self, String> {
        let invalid = |error| format!("not a valid safetensors file ({error})");
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(invalid)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(invalid)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let checked = [CHECKSUM, HAS_CHECKSUM].map(|key| metadata.contains_key(key));
        if checked != [false; 2] {
            let named = tensors.iter();
            let views = named.map(|(name, view)| (name, view.shape().to_vec(), view.data()));
            let found = checksum(views.collect(), &metadata);
            let expected = metadata.get(CHECKSUM).map_or("none", String::as_str);
            if found != expected {
                return Err(format!("expected SHA-256 {expected}, found {found}"));
            }
        }
        let field = |name: &str| {
            metadata
                .get(name)
                .and_then(|text| text.parse::<f64>().ok())
                .ok_or_else(|| format!("it does not say its {name}"))
        };
        let progress = Progress {
            iterations: field("iterations")? as usize,
            seconds: field("seconds")?,
        };
        let description = metadata.get(DESCRIPTION).cloned().unwrap_or_default();
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
        let tensors =
            SafeTensors::deserialize(&self.bytes).map_err(|error| wrong(error.to_string()))?;
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
        let has = SafeTensors::deserialize(&self.bytes)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saved(path: &Path, iterations: usize) {
        let values: Vec<f32> = (0..40).map(|k| k as f32 + iterations as f32).collect();
        let tensors = [
            ("b".to_owned(), Tensor::from_slice(&values).view([4, 10])),
            ("a".to_owned(), Tensor::from_slice(&values[..3])),
        ];
        let progress = Progress {
            iterations,
            seconds: 1.5,
        };
        save_tensors(path, tensors, progress, "what").unwrap();
    }

    #[test]
    fn a_checkpoint_without_a_checksum_is_one_of_an_older_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let values: Array<Vec<u8>> = ("a".to_owned(), vec![1], vec![0; 4]);
        let metadata = [("iterations", "7"), ("seconds", "2")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let bytes = encoded(&[values], Dtype::F32, Some(HashMap::from(metadata))).unwrap();
        fs::write(&path, bytes).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap().progress.iterations, 7);
    }

    #[test]
    fn a_damaged_checkpoint_is_refused_and_the_one_before_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        saved(&path, 10);
        assert!(recover(&path).unwrap().is_none());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let alone = recover(&path).unwrap_err().to_string();
        assert!(
            alone.contains("expected SHA-256") && alone.contains("train again"),
            "{alone}"
        );

        saved(&path, 10);
        saved(&path, 20);
        saved(&path, 30);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 100;
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let refused = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains("checkpoint.previous.safetensors"),
            "{refused}"
        );
        assert!(recover(&path).unwrap().is_some());
        assert_eq!(Checkpoint::open(&path).unwrap().progress.iterations, 20);
        let damaged = folder.path().join("checkpoint.damaged.safetensors");
        assert_eq!(fs::read(damaged).unwrap(), bytes);
    }

    proptest! {
        #[test]
        fn no_flipped_bit_passes(bit in any::<prop::sample::Index>()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoint.safetensors");
            saved(&path, 10);
            let mut bytes = fs::read(&path).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            prop_assert!(Checkpoint::open(&path).is_err());
        }
    }
}

//! The only place that knows tract: an ONNX graph in, a function from planes to planes out.
//!
//! tract loads and plans the graph; the network's layers are replaced by operators of our own ([`layer`], wired by
//! [`fuse`]) over tract's matrix kernels ([`gemm`]), of which [`kernels`] measures the fastest for each layer.

mod fuse;
mod gemm;
mod kernels;
mod layer;
mod pool;

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use proto::manifest::Network;
use tract_onnx::prelude::*;

use crate::inspect::preprocess::Planes;
use crate::inspect::score::Shift;
use kernels::Kernels;
use pool::Pool;

/// Why a graph cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// tract cannot make a plan of it.
    #[error("the ONNX graph cannot be loaded: {0}")]
    Load(String),
    /// Not one image in and one of the same shape out.
    #[error("expected an ONNX graph with 1 input and 1 output, found {inputs} and {outputs}")]
    Arity {
        /// Inputs.
        inputs: usize,
        /// Outputs.
        outputs: usize,
    },
    /// Planes that the network cannot take.
    #[error(
        "expected {channels} channels and sides of k·{align_px} + 1, at least {tile_px} px; found {found_channels} channels of {width_px}×{height_px} px"
    )]
    Shape {
        /// Channels of the network.
        channels: usize,
        /// Alignment of its sides.
        align_px: usize,
        /// Its smallest side.
        tile_px: usize,
        /// Channels given.
        found_channels: usize,
        /// Width given.
        width_px: usize,
        /// Height given.
        height_px: usize,
    },
    /// Threads cannot be had.
    #[error("cannot start threads for scoring: {0}")]
    Threads(String),
    /// It failed while running.
    #[error("inference failed: {0}")]
    Run(String),
    /// Its output is of another shape, or not finite: the weights are damaged or the graph is not ours.
    #[error("expected finite output of shape {expected:?}, found {found}")]
    Output {
        /// The input's shape.
        expected: Vec<usize>,
        /// What came.
        found: String,
    },
}

/// A loaded and optimised network, for frames of any size; usable from several threads at once.
#[derive(Debug, Clone)]
pub struct Engine {
    plan: Arc<TypedRunnableModel>,
    network: Network,
}

/// How to run a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Threads that share the work on one frame; 0 and 1: the caller's.
    pub threads: usize,
    /// Where the choice of matrix kernels is kept between starts; measured at every start unless given.
    pub kernel_file: Option<PathBuf>,
    /// The graph as tract runs it, without operators of ours: for comparison.
    pub stock: bool,
}

impl Engine {
    /// Loads an ONNX graph to be run on the caller's thread, see [`Engine::tuned`].
    pub fn from_onnx(onnx: &[u8], network: Network) -> Result<Self, InferError> {
        Self::tuned(onnx, network, &Tuning::default())
    }

    /// Loads an ONNX graph with one input N × C × H × W and one output of the same shape. Height and width stay
    /// symbolic: one plan serves every size.
    pub fn tuned(onnx: &[u8], network: Network, tuning: &Tuning) -> Result<Self, InferError> {
        let load = |error: TractError| InferError::Load(format!("{error:#}"));
        let model = tract_onnx::onnx()
            .model_for_read(&mut Cursor::new(onnx))
            .map_err(load)?;
        let (inputs, outputs) = (model.inputs.len(), model.outputs.len());
        if (inputs, outputs) != (1, 1) {
            return Err(InferError::Arity { inputs, outputs });
        }
        let (height, width) = (model.sym("H"), model.sym("W"));
        let shape = [
            1.to_dim(),
            usize::from(network.channels).to_dim(),
            height.to_dim(),
            width.to_dim(),
        ];
        let pool =
            Pool::new(tuning.threads).map_err(|error| InferError::Threads(error.to_string()))?;
        let mut kernels = Kernels::open(tuning.kernel_file.as_deref());
        let plan = model
            .with_input_fact(0, f32::fact(shape).into())
            .and_then(|model| model.into_typed())
            .and_then(|model| model.into_decluttered())
            .and_then(|model| match tuning.stock {
                true => Ok(model),
                false => fuse::fuse(&model, &pool, |shape| kernels.choose(shape)),
            })
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;
        kernels.keep();
        Ok(Self { plan, network })
    }

    /// The shape of the network.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

impl Shift for Engine {
    type Error = InferError;

    fn shift(&self, planes: &Planes) -> Result<Planes, InferError> {
        let (width_px, height_px) = (planes.width_px, planes.height_px);
        let channels = usize::from(self.network.channels);
        let align_px = usize::from(self.network.align_px);
        let tile_px = usize::from(self.network.tile_px);
        let fits = |side: usize| side >= tile_px && side % align_px == 1;
        if planes.channels != channels || !fits(width_px) || !fits(height_px) {
            return Err(InferError::Shape {
                channels,
                align_px,
                tile_px,
                found_channels: planes.channels,
                width_px,
                height_px,
            });
        }
        let shape = [1, channels, height_px, width_px];
        let failed = |error: TractError| InferError::Run(format!("{error:#}"));
        let input = Tensor::from_shape(&shape, &planes.data).map_err(failed)?;
        let output = self.plan.run(tvec!(input.into())).map_err(failed)?;
        let wrong = |found: String| InferError::Output {
            expected: shape.to_vec(),
            found,
        };
        let output = output.first().ok_or_else(|| wrong("nothing".to_owned()))?;
        if output.shape() != shape {
            return Err(wrong(format!("{:?}", output.shape())));
        }
        let values = output
            .try_as_plain_ram()
            .and_then(|ram| ram.as_slice::<f32>());
        let data = values.map_err(failed)?.to_vec();
        if let Some(value) = data.iter().find(|value| !value.is_finite()) {
            return Err(wrong(format!("the value {value}")));
        }
        Ok(Planes {
            channels,
            width_px,
            height_px,
            data,
        })
    }
}

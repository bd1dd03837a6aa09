//! The only place that knows tract: an ONNX graph in, a function from planes to planes out.
//!
//! tract loads and plans the graph; the network's layers are replaced by operators of our own ([`layer`], wired by
//! [`fuse`]), each either over tract's matrix kernels ([`gemm`]) or where the image lies ([`direct`]): what [`kernels`] measures to
//! be the fastest.

mod apart;
mod areas;
mod direct;
mod fuse;
mod gemm;
mod idle;
mod image;
mod kernels;
mod layer;
mod panels;
mod pool;
mod rescale;
mod vector;

use std::io::Cursor;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use proto::manifest::Network;
use tract_onnx::prelude::*;

use crate::inspect::map::ScoreMap;
use crate::inspect::preprocess::Planes;
use crate::inspect::score::{Shift, sum_of_magnitudes};
pub use areas::AreaEngine;
use fuse::{Chain, fuse};
use gemm::{Kernel, Operand};
use image::{Image, Output};
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
    /// Its output is of another shape, or not finite: the weights are damaged, the graph is not ours, or a value went beyond 65,504
    /// in half precision.
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
    /// Our layers, where they are the whole graph: no detour through tensors.
    layers: Option<Arc<Chain>>,
    strip_bytes: usize,
    half: bool,
    network: Network,
}

/// Whether to compute in half precision (f16) in all layers after the first: half the memory and, on processors that have such
/// arithmetic (ARMv8.2 with FP16, as a Jetson Orin's), more products at a time. What it does to scores is in ARCHITECTURE.md; a
/// package in 8 bits stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Half {
    /// In single precision.
    #[default]
    Off,
    /// Where the processor has kernels for it; else in single precision.
    WhereNative,
    /// Everywhere, where there are none by portable ones, slowly: to measure what half precision does to scores.
    Always,
}

/// Whether this processor has kernels for half precision.
pub fn half_is_native() -> bool {
    Kernel::native(Operand::F16)
}

/// How to run a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Threads that share the work on one frame; 0 and 1: the caller's.
    pub threads: usize,
    /// Where the choice of matrix kernels is kept between starts; measured at every start unless given.
    pub kernel_file: Option<PathBuf>,
    /// Nothing is measured: matrix kernels by tract's rules, layers of single precision without any; the same at every start,
    /// for counting instructions.
    pub by_rule: bool,
    /// Something else computes meanwhile: which kernels are fastest is measured, but not kept for the next start.
    pub disturbed: bool,
    /// Memory between two layers of a frame in bytes, beyond which the frame is done in strips; 70 MB unless given.
    pub strip_bytes: Option<usize>,
    /// Half precision.
    pub half: Half,
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
        let mut kernels = Kernels::open(tuning.kernel_file.as_deref(), tuning.by_rule);
        let half = match tuning.half {
            Half::Off => false,
            Half::WhereNative => half_is_native(),
            Half::Always => true,
        };
        if tuning.half == Half::WhereNative && !half {
            tracing::warn!(
                "there are no kernels of half precision for this processor: scoring in single precision"
            );
        }
        let mut layers = None;
        let mut halved = false;
        let plan = model
            .with_input_fact(0, f32::fact(shape).into())
            .and_then(|model| model.into_typed())
            .and_then(|model| model.into_decluttered())
            .and_then(|model| {
                if tuning.stock {
                    return Ok(model);
                }
                let fused = fuse(&model, &pool, &mut kernels, half)?;
                (layers, halved) = (fused.whole, fused.half);
                Ok(fused.model)
            })
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;
        if !tuning.disturbed {
            kernels.keep();
        }
        Ok(Self {
            plan,
            layers,
            strip_bytes: tuning.strip_bytes.unwrap_or(STRIP_BYTES),
            half: halved,
            network,
        })
    }

    /// Whether any of its layers computes in half precision.
    pub fn half(&self) -> bool {
        self.half
    }

    /// The shape of the network.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

/// Bytes between two layers of a frame; a larger frame is done in strips.
const STRIP_BYTES: usize = 70 << 20;

impl Engine {
    fn check(&self, planes: &Planes) -> Result<(), InferError> {
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
        Ok(())
    }

    /// Rows of a strip without what it sees above and below, and how much that is. A multiple of the alignment, so that
    /// a strip's pixels see the same as the frame's.
    fn strip_px(&self, width_px: usize) -> (usize, usize) {
        let align_px = usize::from(self.network.align_px);
        let halo_px = usize::from(self.network.halo_px).next_multiple_of(align_px);
        // The first layer's output and the second's, which are there at the same time: 1/4 and 2/16 of
        // width × rows × columns.
        let row_bytes = usize::from(self.network.width) * width_px * size_of::<f32>() * 3 / 8;
        let rows = (self.strip_bytes / row_bytes.max(1)).saturating_sub(2 * halo_px);
        let rows = rows.max(2 * halo_px).max(align_px);
        (rows / align_px * align_px, halo_px)
    }

    /// Does a frame in strips; `pass` gives so many planes of a strip's size, of which each pixel's value depends on what
    /// is within the halo only, and of which only the rows that it is told are looked at.
    fn in_strips(
        &self,
        planes: &Planes,
        channels: usize,
        pass: impl Fn(&Planes, Range<usize>) -> Result<Vec<f32>, InferError>,
    ) -> Result<Vec<f32>, InferError> {
        self.check(planes)?;
        let (width_px, height_px) = (planes.width_px, planes.height_px);
        let (strip_px, halo_px) = self.strip_px(width_px);
        if height_px <= strip_px + 2 * halo_px {
            return finite(pass(planes, 0..height_px)?, planes, channels);
        }
        // Of equal size.
        let strips = (height_px - 1).div_ceil(strip_px);
        let strip_px = (height_px - 1)
            .div_ceil(strips)
            .next_multiple_of(usize::from(self.network.align_px));
        let mut whole = vec![0.0; channels * height_px * width_px];
        for first in (0..height_px - 1).step_by(strip_px) {
            // The last row of all belongs to the last strip.
            let end = match first + strip_px {
                end if end >= height_px - 1 => height_px,
                end => end,
            };
            let top = first.saturating_sub(halo_px);
            let bottom = (first + strip_px + halo_px).min(height_px - 1);
            let rows = bottom - top + 1;
            let wanted = first - top..end - top;
            let strip = pass(&planes.crop(0, top, width_px, rows), wanted)?;
            for channel in 0..channels {
                let from = (channel * rows + first - top) * width_px;
                let to = (channel * height_px + first) * width_px;
                let length = (end - first) * width_px;
                let strip = strip.get(from..from + length);
                let strip = strip.ok_or_else(|| InferError::Output {
                    expected: vec![1, channels, rows, width_px],
                    found: "fewer values".to_owned(),
                })?;
                whole[to..to + length].copy_from_slice(strip);
            }
        }
        finite(whole, planes, channels)
    }

    /// A, of the shape of its input, by the whole graph at once.
    fn pass(&self, planes: &Planes, rows: Range<usize>) -> Result<Vec<f32>, InferError> {
        if let Some(layers) = &self.layers {
            return by_layers(layers, layers.pool(), planes, rows, Output::planes);
        }
        let shape = [1, planes.channels, planes.height_px, planes.width_px];
        by_plan(&self.plan, &planes.data, shape, shape)
    }
}

/// What a plan makes of values of a shape, which must be of the shape that is expected.
fn by_plan(
    plan: &Arc<TypedRunnableModel>,
    values: &[f32],
    shape: [usize; 4],
    expected: [usize; 4],
) -> Result<Vec<f32>, InferError> {
    let input = Tensor::from_shape(&shape, values).map_err(failed)?;
    let output = plan.run(tvec!(input.into())).map_err(failed)?;
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
    Ok(values.map_err(failed)?.to_vec())
}

fn failed(error: TractError) -> InferError {
    InferError::Run(format!("{error:#}"))
}

/// What our layers make of an image, which must be of its shape; only some rows of it count.
fn by_layers(
    layers: &Chain,
    pool: &Pool,
    planes: &Planes,
    rows: Range<usize>,
    take: impl FnOnce(&Output) -> TractResult<Vec<f32>>,
) -> Result<Vec<f32>, InferError> {
    let size = [planes.channels, planes.height_px, planes.width_px];
    let data = Image::of_planes(&planes.data, size).and_then(|image| {
        layers.run(image, rows, pool, |output| match output.size() {
            found if found == size => take(output),
            found => Err(TractError::msg(format!(
                "expected an output of {size:?}, found {found:?}"
            ))),
        })
    });
    data.map_err(failed)
}

fn map_of(planes: &Planes, data: Vec<f32>) -> ScoreMap {
    ScoreMap {
        width_px: planes.width_px,
        height_px: planes.height_px,
        data,
    }
}

fn finite(data: Vec<f32>, planes: &Planes, channels: usize) -> Result<Vec<f32>, InferError> {
    all_finite(data, [1, channels, planes.height_px, planes.width_px])
}

fn all_finite(data: Vec<f32>, expected: [usize; 4]) -> Result<Vec<f32>, InferError> {
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

impl Shift for Engine {
    type Error = InferError;

    fn shift(&self, planes: &Planes) -> Result<Planes, InferError> {
        let data = self.in_strips(planes, planes.channels, |strip, rows| {
            self.pass(strip, rows)
        })?;
        Ok(Planes {
            channels: planes.channels,
            width_px: planes.width_px,
            height_px: planes.height_px,
            data,
        })
    }

    /// The sum is taken where A comes from: A itself is nowhere as a whole.
    fn scores(&self, planes: &Planes) -> Result<ScoreMap, InferError> {
        let Some(layers) = &self.layers else {
            return Ok(sum_of_magnitudes(&self.shift(planes)?));
        };
        let data = self.in_strips(planes, 1, |strip, rows| {
            by_layers(layers, layers.pool(), strip, rows, Output::magnitudes)
        })?;
        Ok(map_of(planes, data))
    }

    /// Each tile by one thread: it is too little work to share.
    fn scores_of_tiles(&self, tiles: &[Planes]) -> Result<Vec<ScoreMap>, InferError> {
        let Some(layers) = &self.layers else {
            return tiles.iter().map(|tile| self.scores(tile)).collect();
        };
        let alone = Pool::default();
        let mut maps = vec![ScoreMap::zeros(0, 0); tiles.len()];
        layers
            .pool()
            .share(maps.iter_mut().zip(tiles), |(map, tile)| {
                self.check(tile)?;
                let rows = 0..tile.height_px;
                let data = by_layers(layers, &alone, tile, rows, Output::magnitudes)?;
                *map = map_of(tile, finite(data, tile, 1)?);
                Ok(())
            })?;
        Ok(maps)
    }
}

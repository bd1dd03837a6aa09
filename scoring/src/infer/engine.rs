//! The inference engine: a loaded ONNX graph as a function from planes to planes, for frames of any
//! size. Large frames are scored in strips.

use std::io::Cursor;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use proto::manifest::Network;
use tract_onnx::prelude::*;

use super::autotune::Autotuner;
use super::chain::Chain;
use super::error::InferError;
use super::fuse::fuse;
use super::gemm::Kernel;
use super::image::{Image, Output};
use super::operand::Operand;
use super::plan::{check_finite, run_failed, run_plan};
use super::pool::Pool;
use crate::inspect::map::ScoreMap;
use crate::inspect::preprocess::Planes;
use crate::inspect::score::{Shift, sum_of_magnitudes};

/// A loaded and optimised network for frames of any size. It may be used by several threads at
/// once.
#[derive(Debug, Clone)]
pub struct Engine {
    plan: Arc<TypedRunnableModel>,
    /// The compiled layers without tract around them, if the graph has nothing else.
    layers: Option<Arc<Chain>>,
    strip_bytes: usize,
    half: bool,
    network: Network,
}

/// Whether all layers after the first compute in half precision (f16). That takes half the memory
/// and is faster on processors with such arithmetic (ARMv8.2 with FP16, for example a Jetson Orin).
/// It changes scores slightly. 8-bit packages are left as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Half {
    /// Single precision.
    #[default]
    Off,
    /// Half precision if the processor has kernels for it, otherwise single precision.
    WhereNative,
    /// Half precision everywhere, by slow portable kernels if need be: to measure what it does to
    /// scores.
    Always,
}

/// Whether this processor has kernels for half precision.
pub fn half_is_native() -> bool {
    Kernel::has_native(Operand::F16)
}

/// How to run a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Threads that share the work on one frame, the caller's included; 0 counts as 1.
    pub threads: usize,
    /// Cache file for the choice of code paths and kernels. Without one they are benchmarked at
    /// every start.
    pub kernel_file: Option<PathBuf>,
    /// Choose by tract's rules and benchmark nothing, so that every start makes the same choices:
    /// for counting instructions.
    pub by_rule: bool,
    /// Other work runs at the same time: use the benchmarks' results but do not cache them.
    pub disturbed: bool,
    /// Memory between two layers, in bytes, above which a frame is scored in strips; 70 MiB by
    /// default.
    pub strip_bytes: Option<usize>,
    /// Whether to compute in half precision.
    pub half: Half,
    /// Run the graph by tract's own operators, for comparison.
    pub stock: bool,
}

impl Engine {
    /// Loads a graph to be run on the caller's thread; see [`Engine::tuned`].
    pub fn from_onnx(onnx: &[u8], network: Network) -> Result<Self, InferError> {
        Self::tuned(onnx, network, &Tuning::default())
    }

    /// Loads an ONNX graph with one input N × C × H × W and one output of the same shape. Height
    /// and width stay symbolic, so that one plan serves frames of any size.
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
        let mut tuner = Autotuner::open(tuning.kernel_file.as_deref(), tuning.by_rule);
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
                let fused = fuse(&model, &pool, &mut tuner, half)?;
                (layers, halved) = (fused.chain, fused.half);
                Ok(fused.model)
            })
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(load)?;
        if !tuning.disturbed {
            tuner.save();
        }
        Ok(Self {
            plan,
            layers,
            strip_bytes: tuning.strip_bytes.unwrap_or(STRIP_BYTES),
            half: halved,
            network,
        })
    }

    /// The same network, but with frames scored in strips as soon as the memory between two layers
    /// exceeds this many bytes.
    #[must_use]
    pub fn with_strip_bytes(&self, strip_bytes: usize) -> Self {
        Self {
            strip_bytes,
            ..self.clone()
        }
    }

    /// Whether any layer computes in half precision.
    pub fn half(&self) -> bool {
        self.half
    }

    /// The shape of the network.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

/// Default of [`Tuning::strip_bytes`].
const STRIP_BYTES: usize = 70 << 20;

impl Engine {
    fn check_shape(&self, planes: &Planes) -> Result<(), InferError> {
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

    /// Rows of a strip without its halo, and rows of the halo on either side. Both are multiples of
    /// the alignment, so that pixels have the same position relative to the layers' strides as in
    /// the whole frame.
    fn strip_rows(&self, width_px: usize) -> (usize, usize) {
        let align_px = usize::from(self.network.align_px);
        let halo_px = usize::from(self.network.halo_px).next_multiple_of(align_px);
        // Outputs of the first and the second layer exist at the same time: 1/4 and 2/16 of width ×
        // rows × columns.
        let row_bytes = usize::from(self.network.width) * width_px * size_of::<f32>() * 3 / 8;
        let rows = (self.strip_bytes / row_bytes.max(1)).saturating_sub(2 * halo_px);
        let rows = rows.max(2 * halo_px).max(align_px);
        (rows / align_px * align_px, halo_px)
    }

    /// Computes `channels` planes for a frame, in strips if it is large. `pass` computes them for a
    /// strip, of which only the given rows are kept. Each value may depend only on what is within
    /// the halo.
    fn in_strips(
        &self,
        planes: &Planes,
        channels: usize,
        pass: impl Fn(&Planes, Range<usize>) -> Result<Vec<f32>, InferError>,
    ) -> Result<Vec<f32>, InferError> {
        self.check_shape(planes)?;
        let (width_px, height_px) = (planes.width_px, planes.height_px);
        let (strip_rows, halo_px) = self.strip_rows(width_px);
        if height_px <= strip_rows + 2 * halo_px {
            return check_planes(pass(planes, 0..height_px)?, planes, channels);
        }
        // Strips of equal size.
        let strips = (height_px - 1).div_ceil(strip_rows);
        let strip_rows = (height_px - 1)
            .div_ceil(strips)
            .next_multiple_of(usize::from(self.network.align_px));
        let mut whole = vec![0.0; channels * height_px * width_px];
        for first in (0..height_px - 1).step_by(strip_rows) {
            // The frame's last row belongs to the last strip.
            let end = match first + strip_rows {
                end if end >= height_px - 1 => height_px,
                end => end,
            };
            let top = first.saturating_sub(halo_px);
            let bottom = (first + strip_rows + halo_px).min(height_px - 1);
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
        check_planes(whole, planes, channels)
    }

    /// The shift A of these planes, by the whole graph at once.
    fn pass(&self, planes: &Planes, rows: Range<usize>) -> Result<Vec<f32>, InferError> {
        if let Some(layers) = &self.layers {
            return run_layers(layers, layers.pool(), planes, rows, Output::planes);
        }
        let shape = [1, planes.channels, planes.height_px, planes.width_px];
        run_plan(&self.plan, &planes.data, shape, shape)
    }
}

/// Runs the compiled layers on planes. The output must have the planes' shape, and only `rows` of
/// it are kept.
fn run_layers(
    layers: &Chain,
    pool: &Pool,
    planes: &Planes,
    rows: Range<usize>,
    take: impl FnOnce(&Output) -> TractResult<Vec<f32>>,
) -> Result<Vec<f32>, InferError> {
    let size = [planes.channels, planes.height_px, planes.width_px];
    let data = Image::from_planes(&planes.data, size).and_then(|image| {
        layers.run(image, rows, pool, |output| match output.size() {
            found if found == size => take(output),
            found => Err(TractError::msg(format!(
                "expected an output of {size:?}, found {found:?}"
            ))),
        })
    });
    data.map_err(run_failed)
}

fn score_map(planes: &Planes, data: Vec<f32>) -> ScoreMap {
    ScoreMap {
        width_px: planes.width_px,
        height_px: planes.height_px,
        data,
    }
}

fn check_planes(data: Vec<f32>, planes: &Planes, channels: usize) -> Result<Vec<f32>, InferError> {
    check_finite(data, [1, channels, planes.height_px, planes.width_px])
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

    /// Sums |A| over channels band by band, so that A never exists as a whole.
    fn scores(&self, planes: &Planes) -> Result<ScoreMap, InferError> {
        let Some(layers) = &self.layers else {
            return Ok(sum_of_magnitudes(&self.shift(planes)?));
        };
        let data = self.in_strips(planes, 1, |strip, rows| {
            run_layers(layers, layers.pool(), strip, rows, Output::magnitudes)
        })?;
        Ok(score_map(planes, data))
    }

    /// Distributes whole tiles over the threads: one tile is too little work to share.
    fn scores_of_tiles(&self, tiles: &[Planes]) -> Result<Vec<ScoreMap>, InferError> {
        let Some(layers) = &self.layers else {
            return tiles.iter().map(|tile| self.scores(tile)).collect();
        };
        let alone = Pool::default();
        let mut maps = vec![ScoreMap::zeros(0, 0); tiles.len()];
        layers
            .pool()
            .for_each(maps.iter_mut().zip(tiles), |(map, tile)| {
                self.check_shape(tile)?;
                let rows = 0..tile.height_px;
                let data = run_layers(layers, &alone, tile, rows, Output::magnitudes)?;
                *map = score_map(tile, check_planes(data, tile, 1)?);
                Ok(())
            })?;
        Ok(maps)
    }
}

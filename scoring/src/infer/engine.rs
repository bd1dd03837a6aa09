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
use super::features::{EncoderOutputs, LayerOutput};
use super::fuse::fuse;
use super::gemm::Kernel;
use super::image::{Image, Output};
use super::layer::Layer;
use super::operand::Operand;
use super::plan::{check_finite, run_failed, run_plan};
use super::pool::Pool;
use super::rescale::Format;
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

/// Layers of the encoder.
const ENCODER: usize = 3;

/// Rows of a frame that are scored at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Strip {
    /// First row.
    first: usize,
    /// Row after the last.
    end: usize,
    /// First row of the pixels that these rows depend on.
    top: usize,
    /// Number of rows of these pixels.
    rows: usize,
}

impl Strip {
    /// The strip's rows, among those of its pixels.
    fn wanted(&self) -> Range<usize> {
        self.first - self.top..self.end - self.top
    }

    /// The rows of an encoder layer's output that were computed, by their place in the frame.
    fn output(
        &self,
        layer: usize,
        format: Format,
        output: &Output,
        rows: &Range<usize>,
    ) -> TractResult<LayerOutput> {
        let [channels, height, columns] = output.size();
        let rows = rows.start.min(height)..rows.end.min(height);
        let above = self.top >> (layer + 1);
        let values = output.rows_in(format, &rows)?;
        let rows = rows.start + above..rows.end + above;
        Ok(LayerOutput::new(channels, columns, rows, values))
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

    /// The strips that a frame of this size is scored in: one if it is small.
    fn strips(&self, width_px: usize, height_px: usize) -> Vec<Strip> {
        let (strip_rows, halo_px) = self.strip_rows(width_px);
        if height_px <= strip_rows + 2 * halo_px {
            return vec![Strip {
                first: 0,
                end: height_px,
                top: 0,
                rows: height_px,
            }];
        }
        // Strips of equal size.
        let strips = (height_px - 1).div_ceil(strip_rows);
        let strip_rows = (height_px - 1)
            .div_ceil(strips)
            .next_multiple_of(usize::from(self.network.align_px));
        let firsts = (0..height_px - 1).step_by(strip_rows);
        firsts
            .map(|first| {
                let top = first.saturating_sub(halo_px);
                let bottom = (first + strip_rows + halo_px).min(height_px - 1);
                Strip {
                    first,
                    // The frame's last row belongs to the last strip.
                    end: match first + strip_rows {
                        end if end >= height_px - 1 => height_px,
                        end => end,
                    },
                    top,
                    rows: bottom - top + 1,
                }
            })
            .collect()
    }

    /// Computes `channels` planes for a frame, in strips if it is large. `pass` computes them for a
    /// strip, of which only the given rows are kept. Each value may depend only on what is within
    /// the halo.
    fn in_strips(
        &self,
        planes: &Planes,
        channels: usize,
        mut pass: impl FnMut(&Planes, &Strip) -> Result<Vec<f32>, InferError>,
    ) -> Result<Vec<f32>, InferError> {
        self.check_shape(planes)?;
        let (width_px, height_px) = (planes.width_px, planes.height_px);
        let strips = self.strips(width_px, height_px);
        if let [whole] = &strips[..] {
            return check_planes(pass(planes, whole)?, planes, channels);
        }
        let mut whole = vec![0.0; channels * height_px * width_px];
        for strip in strips {
            let data = pass(&planes.crop(0, strip.top, width_px, strip.rows), &strip)?;
            for channel in 0..channels {
                let from = (channel * strip.rows + strip.first - strip.top) * width_px;
                let to = (channel * height_px + strip.first) * width_px;
                let length = (strip.end - strip.first) * width_px;
                let data = data.get(from..from + length);
                let data = data.ok_or_else(|| InferError::Output {
                    expected: vec![1, channels, strip.rows, width_px],
                    found: "fewer values".to_owned(),
                })?;
                whole[to..to + length].copy_from_slice(data);
            }
        }
        check_planes(whole, planes, channels)
    }

    /// The scores of a frame, with the outputs of the encoder that they rest on. `visit` gets these
    /// strip by strip, from top to bottom. Only graphs of the method itself have such layers, not
    /// those of the baselines.
    pub fn scores_with_features(
        &self,
        planes: &Planes,
        visit: &mut dyn FnMut(&EncoderOutputs) -> Result<(), InferError>,
    ) -> Result<ScoreMap, InferError> {
        let layers = self.layers.as_ref().ok_or(InferError::NoLayers)?;
        if layers.layers().len() < ENCODER || !layers.layers()[..ENCODER].iter().all(Layer::is_down)
        {
            return Err(InferError::NoLayers);
        }
        let data = self.in_strips(planes, 1, |pixels, strip| {
            // Two rows of the third layer on either side, for what is interpolated and averaged.
            let margin_px = usize::from(self.network.align_px);
            let wanted = strip.wanted();
            let wanted = wanted.start.saturating_sub(margin_px)
                ..(wanted.end + margin_px).min(pixels.height_px);
            let size = [pixels.channels, pixels.height_px, pixels.width_px];
            let mut outputs = Vec::new();
            let scores = Image::from_planes(&pixels.data, size).and_then(|image| {
                let mut observe = |index: usize, output: &Output, rows: &Range<usize>| {
                    if index == ENCODER - 2 || index == ENCODER - 1 {
                        let format = layers.layers()[index].format();
                        outputs.push(strip.output(index, format, output, rows)?);
                    }
                    Ok(())
                };
                let pool = layers.pool();
                layers.run_observed(image, wanted, pool, &mut observe, Output::magnitudes)
            });
            let scores = scores.map_err(run_failed)?;
            let heights = planes.height_px.div_ceil(4);
            let rows = strip.first / 4..match strip.end == planes.height_px {
                true => heights,
                false => strip.end / 4,
            };
            let third = outputs.pop().ok_or(InferError::NoLayers)?;
            let second = outputs.pop().ok_or(InferError::NoLayers)?;
            let (columns, height) = (second.columns(), heights);
            visit(&EncoderOutputs {
                second,
                third,
                rows,
                columns,
                height,
            })?;
            Ok(scores)
        })?;
        Ok(score_map(planes, data))
    }

    /// Works on all items, shared among the engine's threads.
    pub(crate) fn for_each<T: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(T) + Sync,
    ) {
        let alone = Pool::default();
        let pool = self.layers.as_ref().map_or(&alone, |layers| layers.pool());
        let done: Result<(), std::convert::Infallible> = pool.for_each(items, |item| {
            work(item);
            Ok(())
        });
        let Ok(()) = done;
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
        let data = self.in_strips(planes, planes.channels, |pixels, strip| {
            self.pass(pixels, strip.wanted())
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
        let data = self.in_strips(planes, 1, |pixels, strip| {
            let rows = strip.wanted();
            run_layers(layers, layers.pool(), pixels, rows, Output::magnitudes)
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

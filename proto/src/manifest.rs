//! The manifest of a model package: everything a camera must know beside the ONNX graph, and everything
//! a person must know to trust it.
//!
//! Encoded with postcard. The container around it (magic, lengths, signature) is `edge-runtime`'s
//! `package` module; this module does not read files and does not verify signatures.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Version of this structure. A reader takes 2, 3, 5 and 7 as well, 4 without a variation model and 6 without an area network, and refuses
/// any other.
pub const MANIFEST_FORMAT: u16 = 8;

/// Side of the tiles that the method works on, in pixels (paper, IV-A).
pub const TILE_PX: u32 = 65;

/// All that a package says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`] of the writer. First, so that a reader can refuse before decoding the rest.
    pub format: u16,
    /// Name of the product the model is for, as the engineer chose it.
    pub name: String,
    /// Version of the model, as the engineer chose it.
    pub version: String,
    /// When the package was written, seconds since 1970-01-01 UTC.
    pub created_unix_s: u64,
    /// Version of the program that wrote it.
    pub trainer_version: String,
    /// How the weights came about.
    pub training: Training,
    /// Shape of the network.
    pub network: Network,
    /// What a frame is turned into before scoring.
    pub input: Input,
    /// How scores of overlapping positions are made.
    pub scoring: Scoring,
    /// What happens to the anomaly map between scoring and thresholding.
    pub post: PostProcessing,
    /// The part of the frame that is inspected.
    pub roi: Roi,
    /// The decision threshold; `None` until calibrated.
    pub threshold: Option<Threshold>,
    /// Distribution of frame scores and pixel scores on good frames; `None` until calibrated.
    pub normal_scores: Option<NormalScores>,
    /// Quality measured with this very package; `None` until evaluated.
    pub evaluation: Option<EvaluationSummary>,
    /// Tiles with the scores that the trainer's machine gave them (parity gate).
    pub golden: Vec<GoldenTile>,
    /// SHA-256 of the ONNX bytes.
    pub onnx_sha256: [u8; 32],
    /// What good frames score at each place, which scores are then relative to; `None`: all places are alike. Since format 3;
    /// one of format 2 ends before it.
    pub normal_map: Option<NormalMap>,
    /// How good parts look at each place, where they always lie alike; the map is then how far from that a frame is. There is
    /// this or a normal map, not both. Since format 4 (whose models were of other features and are not read); one of format 3
    /// ends before it.
    pub variation: Option<VariationModel>,
    /// What finds areas and defects that do not belong to the rest of the frame, beside a variation model. Since format 6 (whose networks
    /// saw less of a frame and are not read); one of format 5 ends before it.
    pub areas: Option<AreaNetwork>,
}

/// How good parts look at each place and how they vary, at two sizes of cells: the few ways in which whole parts differ from each
/// other, and a Gaussian, at every cell, of what is left. What the features are is `edge-runtime`'s business (`inspect::texture`),
/// so their order and number belong to the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariationModel {
    /// From coarse to fine.
    pub grids: Vec<VariationGrid>,
    /// Frames that were looked at.
    pub frames: u32,
}

/// One size of cells, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariationGrid {
    /// Cells across, and down.
    pub side: u16,
    /// Features of a cell.
    pub features: u16,
    /// Mean of each feature, cell after cell.
    pub mean: Vec<f32>,
    /// What a deviation from the mean is divided by, for each feature: above 0.
    pub scale: Vec<f32>,
    /// Modes of variation: principal components of the divided deviations of whole parts (exposure, how a part lies, its
    /// grain), of length 1 and at right angles to each other, one after the other; each like `mean`. May be none.
    pub modes: Vec<f32>,
    /// Inverse of the Cholesky factor of the covariance of what modes leave over, a lower triangle row by row, cell after cell.
    pub whitening: Vec<f32>,
    /// Mean over good frames of a cell's Mahalanobis distance over the root of the number of features.
    pub distance_mean: Vec<f32>,
    /// Its standard deviation, above 0.
    pub distance_spread: Vec<f32>,
}

/// A small network beside a variation model, which sees the whole frame at once and says of each cell of its finest grid how likely
/// something is there that does not belong. Learned from good frames into which areas and defects were drawn. What it sees of a frame is
/// `edge-runtime`'s business (`inspect::areas`), so that this belongs to the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AreaNetwork {
    /// ONNX graph. In: 1 × planes × 64 × 64. Out: 1 × 1 × side × side logits, a cell of the finest grid each.
    pub onnx: Vec<u8>,
    /// Mean over good frames of each cell's texture, features × side × side.
    pub mean: Vec<f32>,
    /// What deviations from it are divided by, one for each feature, above 0.
    pub scale: Vec<f32>,
    /// Mean logit of cells of good frames that it did not learn from.
    pub logit_mean: f32,
    /// Their standard deviation, above 0.
    pub logit_spread: f32,
    /// What a logit's deviation from the mean, in spreads, is multiplied by before it is added to the variation model's: 0..=10.
    pub share: f32,
    /// Parity gate: its logits of a frame that repeats the first golden tile, every other time mirrored.
    pub golden_logits: Vec<f32>,
    /// Largest deviation accepted, absolute, in logits.
    pub golden_tolerance: f32,
    /// How much of what a cell's surroundings are off is taken from what it is off itself: 0..=1. Since format 8; one of format 7 ends
    /// before it and takes nothing.
    pub surround: f32,
}

/// What good frames score at each place of a part that always lies alike: cells of equal size over the whole map, row by
/// row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NormalMap {
    /// Cells across.
    pub columns: u16,
    /// Cells down.
    pub rows: u16,
    /// Mean score of each cell's pixels.
    pub mean: Vec<f32>,
    /// Their standard deviation, above 0.
    pub spread: Vec<f32>,
    /// Frames that were looked at.
    pub frames: u32,
}

/// How the weights came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// SHA-256 over the sorted SHA-256 digests of the training files.
    pub data_digest: [u8; 32],
    /// First 8 bytes of every training file's SHA-256, so that a calibration or an evaluation on
    /// training images can be told.
    pub file_ids: Vec<[u8; 8]>,
    /// Good images held out of training for calibration.
    pub held_out_images: u32,
    /// What the network was trained to do.
    pub mode: TrainingMode,
    /// Loss, e.g. `perceptual`, `l2`, `ssim`.
    pub loss: String,
    /// Output activation, e.g. `refrelu` (IV-D).
    pub activation: String,
    /// Which feature extractor the perceptual loss used, e.g. `random:0 (orthogonal, not ImageNet)`.
    pub features: String,
    /// Noise families in use (VI-B), `none` where the mode uses none.
    pub noise: String,
    /// Optimiser steps done.
    pub iterations: u32,
    /// Tiles per step.
    pub batch: u32,
    /// Seed of initialisation, crops and noise.
    pub seed: u64,
    /// Wall-clock seconds spent training.
    pub seconds: u32,
}

/// What the network was trained to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrainingMode {
    /// The method: a corrupted tile in, the repairing shift A out (paper, IV).
    Direct,
    /// Baseline: a corrupted tile in, the repaired tile out; scored by |I - I'| (VI-D).
    Denoising,
    /// Baseline: a clean tile in, the same tile out; scored by |I - I'|.
    Reconstruction,
}

/// Shape of the network, enough to check a frame against before running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Image channels C in and out (3; grey is replicated, IV-A).
    pub channels: u8,
    /// Channels after the first convolution (128 in the paper, IV-C).
    pub width: u16,
    /// Side of a training tile in pixels (65, IV-A).
    pub tile_px: u16,
    /// Input sides must be `k * align_px + 1`: three stride-2 convolutions make it 8.
    pub align_px: u16,
    /// How far an output pixel sees, in pixels to either side (14).
    pub halo_px: u16,
}

/// What a frame is turned into before scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Size in pixels.
    pub size: InputSize,
    /// Colour handling.
    pub colour: ColourMode,
}

/// Size that frames are scored at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputSize {
    /// As captured.
    Native,
    /// Resized, aspect ratio not kept (paper, IV-A: 256 × 256).
    Fixed {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
}

/// Colour handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColourMode {
    /// Three channels; a grey frame is replicated.
    Rgb,
    /// Reduced to luminance (Rec. 601), then replicated to the network's channels (IV-A).
    Grey,
}

/// How scores of overlapping positions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scoring {
    /// One pass over the whole frame: equals the cores of tiles with origins at multiples of 8.
    FullyConvolutional,
    /// The paper's 65 × 65 tiles, overlapping scores averaged (IV-G).
    AveragedTiles {
        /// Distance between tile origins in pixels (32: about 50 % overlap).
        stride_px: u16,
    },
}

/// What happens to the anomaly map between scoring and thresholding. All zero: nothing (the default).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PostProcessing {
    /// Standard deviation of a Gaussian smoothing, in map pixels; 0 is off.
    pub smooth_sigma_px: f32,
    /// Side of the square window of a grey opening (removes specks), odd, in map pixels; 0 is off.
    pub open_px: u16,
    /// Side of the square window of a grey closing (fills gaps, VI-A), odd, in map pixels; 0 is off.
    pub close_px: u16,
}

/// The part of the frame that is inspected; the rest scores 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Roi {
    /// All of it.
    Whole,
    /// Inside any of these polygons; corners as fractions of frame width and height, 0..=1.
    Polygons(Vec<Vec<[f32; 2]>>),
    /// A bitmap stretched over the frame.
    Bitmap {
        /// Width in cells.
        width: u32,
        /// Height in cells.
        height: u32,
        /// Row-major run lengths, beginning with cells that are *not* inspected.
        runs: Vec<u32>,
    },
}

/// The decision threshold: a frame whose score is greater is NG, a pixel whose score is greater is marked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Value on the scale of the anomaly map: Σ|A| over channels after post-processing, or standard deviations where there is a
    /// normal map or a variation model (with which good places have about 0.7).
    pub value: f32,
    /// What may be promised of it, if anything.
    pub promise: Option<Promise>,
    /// SHA-256 over the sorted digests of the calibration files.
    pub calibration_digest: [u8; 32],
    /// Good parts used.
    pub parts: u32,
    /// In words, how the value was chosen.
    pub note: String,
}

/// "At most so many good parts in 10,000 are rejected, at this confidence": a distribution-free upper
/// bound on the false-reject rate (Clopper and Pearson 1934; Wilks 1941 for order statistics).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The bound, in good parts rejected per 10,000.
    pub max_false_rejects_per_10_000: f64,
    /// Its confidence, 0..1.
    pub confidence: f64,
    /// Good calibration parts that the threshold itself rejects.
    pub rejected_in_calibration: u32,
}

/// Distribution of scores on good frames, for drift detection and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NormalScores {
    /// Frame scores (maximum of the map).
    pub frames: Histogram,
    /// Pixel scores.
    pub pixels: Histogram,
    /// What the good frames looked like, to tell lighting and focus from the surface itself.
    pub images: ImageStatistics,
}

/// Mean and standard deviation, over frames, of what can be said of a frame without a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ImageStatistics {
    /// Mean brightness of a frame, 0..=1.
    pub brightness: [f32; 2],
    /// Standard deviation of brightness within a frame, 0..=1.
    pub contrast: [f32; 2],
    /// Mean square of the Laplacian of brightness (Pech-Pacheco et al. 2000 use its variance as a focus measure).
    pub sharpness: [f32; 2],
}

/// Equal-width bins from 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Width of a bin, on the scale of the map.
    pub bin_width: f32,
    /// Counts; the last bin also holds everything above.
    pub counts: Vec<u64>,
}

/// Quality measured with the package on a labelled data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSummary {
    /// Name of the data set's folder.
    pub data: String,
    /// SHA-256 over the sorted digests of its test images.
    pub data_digest: [u8; 32],
    /// Test images.
    pub images: u32,
    /// Area under the ROC curve over all test pixels that have a ground truth.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve to 30 % false-positive rate.
    pub aupro: Option<f64>,
    /// Area under the ROC curve over images.
    pub image_auroc: Option<f64>,
}

/// A tile with the scores that it must give (parity gate).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenTile {
    /// Interleaved 8-bit pixels, `tile_px` × `tile_px` × channels, as after resizing and colour handling.
    pub pixels: Vec<u8>,
    /// Mean score of every 13 × 13-pixel-grid block (5 × 5 pixels each), row-major: 169 values.
    pub block_means: Vec<f32>,
    /// Highest score in the tile.
    pub peak: f32,
    /// Largest deviation accepted, absolute, on the scale of the map.
    pub tolerance: f32,
}

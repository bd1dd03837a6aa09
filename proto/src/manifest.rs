//! The manifest of a model package: everything that a camera needs beside the ONNX graph, and
//! everything that a person needs to judge the model.
//!
//! Encoded with postcard. The container around it (magic, lengths, signature) is the `package`
//! module of `scoring`; this module neither reads files nor verifies signatures.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Version of this structure. Fields are added at the end only, so that older packages are read.
pub const MANIFEST_FORMAT: u16 = 11;

/// Side of the method's tiles, in pixels (paper, IV-A).
pub const TILE_PX: u32 = 65;

/// Everything that a package says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`] of the writer. First, so that a reader can refuse before decoding the
    /// rest.
    pub format: u16,
    /// Name of the product that the model is for, chosen by the engineer.
    pub name: String,
    /// Version of the model, chosen by the engineer.
    pub version: String,
    /// When the package was written, seconds since 1970-01-01 UTC.
    pub created_unix_s: u64,
    /// Version of the program that wrote it.
    pub trainer_version: String,
    /// How the weights were trained.
    pub training: Training,
    /// Shape of the network.
    pub network: Network,
    /// How a frame is prepared before scoring.
    pub input: Input,
    /// How the network is applied to a frame.
    pub scoring: Scoring,
    /// What happens to the anomaly map between scoring and thresholding.
    pub post: PostProcessing,
    /// The part of the frame that is inspected.
    pub roi: Roi,
    /// Decision threshold; `None` until calibrated.
    pub threshold: Option<Threshold>,
    /// Distributions of frame scores and pixel scores on good frames; `None` until calibrated.
    pub normal_scores: Option<NormalScores>,
    /// Quality measured with this package; `None` until evaluated.
    pub evaluation: Option<EvaluationSummary>,
    /// Tiles with their scores on the trainer's machine (parity gate).
    pub golden: Vec<GoldenTile>,
    /// SHA-256 of the ONNX bytes.
    pub onnx_sha256: [u8; 32],
    /// Scores of good frames at each position, which scores are made relative to. `None`: all
    /// positions are treated alike.
    pub normal_map: Option<NormalMap>,
    /// Appearance of good parts at each position, for parts presented in a fixed pose. The map then
    /// is the deviation from it. A package has a normal map or a variation model, not both.
    pub variation: Option<VariationModel>,
    /// A segmentation network for anomalous areas and defects, used together with a variation
    /// model.
    pub segmentation: Option<SegmentationNetwork>,
    /// How image files are read. Since format 9; before it, files were read as they are stored.
    pub reading: Reading,
    /// Images and parts that the model was made with, beside [`Training::file_ids`]. Since format
    /// 9.
    pub seen: SeenImages,
    /// A small frame with its map on the trainer's machine (parity gate). Since format 9; `None` in
    /// older packages.
    pub golden_frame: Option<GoldenFrame>,
    /// What the segmentation network adds. Since format 9; `None` without such a network, and in
    /// older packages.
    pub segmentation_gain: Option<SegmentationGain>,
    /// What good places look like to the network's own layers. Since format 10; `None` in older
    /// packages.
    pub layers: Option<LayerStatistics>,
    /// What `host-trainer fit` decided, each with its evidence, as text. Since format 10; empty in
    /// older packages and where a person decided.
    pub decisions: Vec<String>,
    /// What the grain of good places is like. Since format 11; `None` in older packages.
    pub grain: Option<GrainStatistics>,
}

/// Images and parts that a model was made with, so that their use as test or calibration images
/// can be detected. Each is named by the first 8 bytes of a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeenImages {
    /// Training images by their decoded pixels: a copy saved in another lossless format has the
    /// same.
    pub training_pixels: Vec<[u8; 8]>,
    /// Parts that training images show, by their names in the groups file. Empty if parts are not
    /// known.
    pub training_parts: Vec<[u8; 8]>,
    /// Images held out of training for calibration.
    pub held_out: ImageIds,
    /// Images that the threshold was calibrated on.
    pub calibration: ImageIds,
}

/// Identities of a set of images, each the first 8 bytes of a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageIds {
    /// Of the files' bytes.
    pub files: Vec<[u8; 8]>,
    /// Of the decoded pixels.
    pub pixels: Vec<[u8; 8]>,
    /// Of the names of the parts that they show, if they are known.
    pub parts: Vec<[u8; 8]>,
}

/// What a segmentation network adds to its variation model: pixel AUROC on synthetic defects drawn
/// into good images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentationGain {
    /// Pixel AUROC with the network.
    pub with: f64,
    /// Pixel AUROC of the variation model alone.
    pub without: f64,
    /// Kinds of synthetic defects that it was measured on and the network did not learn from. Empty
    /// if it learned from all kinds.
    pub unseen_kinds: Vec<String>,
    /// Whether the images that it was measured on show parts that the network did not learn from;
    /// `None` if it is not known which images show the same part.
    pub unseen_parts: Option<bool>,
}

/// A small frame with the map that it must get (parity gate). It passes every stage: resizing,
/// padding, scoring in strips, post-processing, and a normal map, variation model or segmentation
/// network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenFrame {
    /// Width of the frame in pixels.
    pub width_px: u16,
    /// Height of the frame in pixels.
    pub height_px: u16,
    /// Interleaved 8-bit values, row-major: three a pixel if the package scores colour, otherwise
    /// one.
    pub pixels: Vec<u8>,
    /// Width that it is resized to and scored at, in pixels.
    pub scored_width_px: u16,
    /// Height that it is resized to and scored at, in pixels.
    pub scored_height_px: u16,
    /// Mean scores of 16 × 16 cells of equal size over the whole map, row by row.
    pub cell_means: Vec<f32>,
    /// Highest score of the map.
    pub peak: f32,
    /// Largest absolute deviation accepted, on the scale of the map.
    pub tolerance: f32,
}

/// Appearance of good parts at each position and its variation, on two grids of cells: a few modes
/// in which whole parts differ from each other, and at every cell a Gaussian of the residual. The
/// features are defined by `inspect::texture` of `scoring`, so their order and number belong to the
/// format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariationModel {
    /// From coarse to fine.
    pub grids: Vec<VariationGrid>,
    /// Number of frames that the model was fitted to.
    pub frames: u32,
}

/// One grid of square cells, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariationGrid {
    /// Number of cells along each side.
    pub side: u16,
    /// Number of features of a cell.
    pub features: u16,
    /// Mean of each feature, cell after cell.
    pub mean: Vec<f32>,
    /// Divisor of deviations from the mean, for each feature, above 0.
    pub scale: Vec<f32>,
    /// Modes of variation, one after the other, each with the layout of `mean`: orthonormal
    /// principal components of the scaled deviations of whole parts (exposure, pose, grain). May be
    /// empty.
    pub modes: Vec<f32>,
    /// Inverse of the Cholesky factor of the residual's covariance, cell after cell: a lower
    /// triangle, row by row.
    pub whitening: Vec<f32>,
    /// Mean over good frames of each cell's distance: its Mahalanobis distance divided by the
    /// square root of the number of features.
    pub distance_mean: Vec<f32>,
    /// Standard deviation of that distance, above 0.
    pub distance_spread: Vec<f32>,
}

/// A small segmentation network beside a variation model. It sees the whole frame at once and
/// gives, for each cell of the model's finest grid, the logit of an anomaly there. It is trained on
/// good frames with synthetic areas and defects. Its input is defined by `inspect::segmentation` of
/// `scoring`, so that input belongs to the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentationNetwork {
    /// ONNX graph. In: 1 × planes × 64 × 64. Out: 1 × 1 × side × side logits, one for each cell of
    /// the finest grid.
    pub onnx: Vec<u8>,
    /// Mean over good frames of each cell's texture features: features × side × side.
    pub mean: Vec<f32>,
    /// Divisor of deviations from the mean, for each feature, above 0.
    pub scale: Vec<f32>,
    /// Mean logit over the cells of good frames that were held out of its training.
    pub logit_mean: f32,
    /// Standard deviation of those logits, above 0.
    pub logit_spread: f32,
    /// Weight of the network's score, 0..=10. A logit's deviation from `logit_mean`, in units of
    /// `logit_spread`, is multiplied by it and added to the variation model's deviation.
    pub weight: f32,
    /// Expected logits for a frame that repeats the first golden tile, every other time mirrored
    /// (parity gate).
    pub golden_logits: Vec<f32>,
    /// Largest absolute deviation accepted from `golden_logits`.
    pub golden_tolerance: f32,
    /// Fraction of the smoothed deviation map to subtract from the deviation map (local contrast),
    /// 0..=1.
    pub local_contrast: f32,
}

/// What good places look like to the network: the mean output of its second and third layer at
/// each place, and how outputs deviate from it at all places together. A place is a cell of the
/// second layer's output, 4 × 4 pixels. How distances are computed from it is defined by
/// `inspect::layer_statistics` of `scoring`, so that it belongs to the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStatistics {
    /// Mean output of the second layer.
    pub second: PlaceMeans,
    /// Mean output of the third layer, at half of the second one's resolution.
    pub third: PlaceMeans,
    /// Distances from these means, over the channels of the second layer and then the third, at the
    /// second layer's places.
    pub distances: PlaceDistances,
    /// Weight of the map from all other stages but the grain.
    pub map_weight: f32,
    /// Number of frames that the statistics are of.
    pub frames: u32,
}

/// What the grain of good places is like: how strongly the surface varies there in two directions at
/// several scales, and its brightness and colour. A place is 4 × 4 pixels. The features are defined by
/// `inspect::grain` of `scoring`, so that they belong to the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrainStatistics {
    /// Mean features.
    pub means: PlaceMeans,
    /// Distances from these means.
    pub distances: PlaceDistances,
    /// Weight of the map from all other stages.
    pub map_weight: f32,
    /// Number of frames that the statistics are of.
    pub frames: u32,
}

/// How far good places are from their means, and how that counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceDistances {
    /// Inverse of the Cholesky factor of the residuals' covariance over all channels: a lower
    /// triangle, row by row.
    pub whitening: Vec<f32>,
    /// Mean distance of good frames at each place, row by row. A distance is a Mahalanobis distance
    /// divided by the square root of the number of channels.
    pub mean: Vec<f32>,
    /// Standard deviation of that distance, above 0.
    pub spread: Vec<f32>,
    /// Standard deviation of a Gaussian that smooths the map of deviations, in places; 0 is off.
    pub smooth_sigma_places: f32,
    /// Weight of these deviations in the frame's map.
    pub weight: f32,
}

/// Means of channels at each place, in 8 bits: a mean is offset + step × level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceMeans {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
    /// Offset of each channel.
    pub offset: Vec<f32>,
    /// Step of each channel, at least 0.
    pub step: Vec<f32>,
    /// Levels: channels × rows × columns.
    pub levels: Vec<i8>,
}

/// Scores of good frames at each position, for parts presented in a fixed pose, in cells of equal
/// size over the whole map, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NormalMap {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
    /// Mean score of each cell's pixels.
    pub mean: Vec<f32>,
    /// Standard deviation of those scores, above 0.
    pub spread: Vec<f32>,
    /// Number of frames that the map was fitted to.
    pub frames: u32,
}

/// How the weights were trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// SHA-256 over the sorted SHA-256 digests of the training files.
    pub data_digest: [u8; 32],
    /// First 8 bytes of every training file's SHA-256, so that calibration or evaluation on
    /// training images can be detected.
    pub file_ids: Vec<[u8; 8]>,
    /// Good images held out of training for calibration.
    pub held_out_images: u32,
    /// Training task.
    pub mode: TrainingMode,
    /// Loss, e.g. `perceptual`, `l2`, `ssim`.
    pub loss: String,
    /// Output activation, e.g. `refrelu` (IV-D).
    pub activation: String,
    /// Feature extractor of the perceptual loss, e.g. `random:0 (orthogonal, not ImageNet)`.
    pub features: String,
    /// Noise families in use (VI-B); `none` where the mode uses none.
    pub noise: String,
    /// Number of optimiser steps.
    pub iterations: u32,
    /// Number of tiles per step.
    pub batch: u32,
    /// Random seed of initialisation, crops and noise.
    pub seed: u64,
    /// Wall-clock training time in seconds.
    pub seconds: u32,
}

/// Training task of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrainingMode {
    /// The method: a corrupted tile in, the repairing shift A out (paper, IV).
    Direct,
    /// Baseline: a corrupted tile in, the repaired tile out; scored by |I - I'| (VI-D).
    Denoising,
    /// Baseline: a clean tile in, the same tile out; scored by |I - I'|.
    Reconstruction,
}

/// Shape of the network: enough to check a frame before running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Number of image channels C, in and out (3; grey is replicated, IV-A).
    pub channels: u8,
    /// Number of channels after the first convolution (128 in the paper, IV-C).
    pub width: u16,
    /// Side of a training tile in pixels (65, IV-A).
    pub tile_px: u16,
    /// Input sides must be `k * align_px + 1`: three stride-2 convolutions make it 8.
    pub align_px: u16,
    /// Receptive field of an output pixel, in pixels to either side (14).
    pub halo_px: u16,
}

/// How a frame is prepared before scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Size that frames are scored at.
    pub size: InputSize,
    /// Colour handling.
    pub colour: ColourMode,
}

/// How image files become frames, so that a package reads files as those that it was made from. A
/// camera's frames are not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Whether the orientation that a file states (EXIF, TIFF) is applied, as viewers do.
    pub oriented: bool,
    /// Significant bits of the values in 16-bit files, 8..=16. Values below 2^bits are scaled to
    /// the full range. 16: files have the full range.
    pub bits: u8,
}

impl Reading {
    /// How files were read by programs that did not record it: as they are stored.
    pub const AS_STORED: Self = Self {
        oriented: false,
        bits: 16,
    };
}

impl Default for Reading {
    /// As viewers show files.
    fn default() -> Self {
        Self {
            oriented: true,
            bits: 16,
        }
    }
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

/// How the network is applied to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scoring {
    /// One pass over the whole frame. Equals the cores of tiles with origins at multiples of 8.
    FullyConvolutional,
    /// The paper's 65 × 65 tiles with overlapping scores averaged (IV-G).
    AveragedTiles {
        /// Distance between tile origins in pixels (32: about 50 % overlap).
        stride_px: u16,
    },
}

/// Post-processing of the anomaly map before thresholding. By default all fields are 0, which
/// leaves the map unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PostProcessing {
    /// Standard deviation of a Gaussian smoothing, in map pixels; 0 is off.
    pub smooth_sigma_px: f32,
    /// Side of the square window of a grey opening (removes specks), odd, in map pixels; 0 is off.
    pub open_px: u16,
    /// Side of the square window of a grey closing (fills gaps, VI-A), odd, in map pixels; 0 is
    /// off.
    pub close_px: u16,
}

/// The part of the frame that is inspected; the rest scores 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Roi {
    /// The whole frame.
    Whole,
    /// The inside of any of these polygons. Corners are fractions of frame width and height, 0..=1.
    Polygons(Vec<Vec<[f32; 2]>>),
    /// A bitmap stretched over the frame.
    Bitmap {
        /// Width in cells.
        width: u32,
        /// Height in cells.
        height: u32,
        /// Row-major run lengths. The first run counts cells that are *not* inspected.
        runs: Vec<u32>,
    },
}

/// Decision threshold: a frame whose score is greater is NG, and a pixel whose score is greater is
/// marked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Value on the scale of the anomaly map: Σ|A| over channels after post-processing, or standard
    /// deviations where there is a normal map or a variation model (where good positions have about
    /// 0.7).
    pub value: f32,
    /// Bound on the false-reject rate, if there is one.
    pub promise: Option<Promise>,
    /// SHA-256 over the sorted digests of the calibration files.
    pub calibration_digest: [u8; 32],
    /// Number of good parts used.
    pub parts: u32,
    /// How the value was chosen, as text.
    pub note: String,
}

/// A distribution-free upper bound on the false-reject rate (Clopper and Pearson 1934; Wilks 1941
/// for order statistics).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The bound, in good parts rejected per 10,000.
    pub max_false_rejects_per_10_000: f64,
    /// Confidence of the bound, 0..1.
    pub confidence: f64,
    /// Number of good calibration parts that the threshold rejects.
    pub rejected_in_calibration: u32,
}

/// Distributions of scores on good frames, for drift detection and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NormalScores {
    /// Frame scores (maximum of the map).
    pub frames: Histogram,
    /// Pixel scores.
    pub pixels: Histogram,
    /// Image statistics of the good frames, to distinguish changes of lighting and focus from
    /// changes of the surface.
    pub images: ImageStatistics,
}

/// Mean and standard deviation, over frames, of statistics that need no model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ImageStatistics {
    /// Mean brightness of a frame, 0..=1.
    pub brightness: [f32; 2],
    /// Standard deviation of brightness within a frame, 0..=1.
    pub contrast: [f32; 2],
    /// Mean square of the Laplacian of brightness, as a focus measure (Pech-Pacheco et al. 2000 use
    /// the variance of the Laplacian).
    pub sharpness: [f32; 2],
}

/// A histogram with bins of equal width from 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Width of a bin, on the scale of the map.
    pub bin_width: f32,
    /// Count of each bin. The last bin also counts all greater values.
    pub counts: Vec<u64>,
}

/// Quality measured with the package on a labelled data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSummary {
    /// Name of the data set's folder.
    pub data: String,
    /// SHA-256 over the sorted digests of its test images.
    pub data_digest: [u8; 32],
    /// Number of test images.
    pub images: u32,
    /// Area under the ROC curve over all test pixels that have a ground truth.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve up to a false-positive rate of 30 %.
    pub aupro: Option<f64>,
    /// Area under the ROC curve over images.
    pub image_auroc: Option<f64>,
}

/// A tile with the scores that it must get (parity gate).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenTile {
    /// Interleaved 8-bit pixels, `tile_px` × `tile_px` × channels, as after resizing and colour
    /// handling.
    pub pixels: Vec<u8>,
    /// Mean scores of 13 × 13 blocks of 5 × 5 pixels, row-major: 169 values.
    pub block_means: Vec<f32>,
    /// Highest score in the tile.
    pub peak: f32,
    /// Largest absolute deviation accepted, on the scale of the map.
    pub tolerance: f32,
}

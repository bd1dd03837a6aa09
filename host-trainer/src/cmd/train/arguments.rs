//! Arguments of `host-trainer train`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use host_trainer::dataset::Colour;
use host_trainer::device::DeviceChoice;
use host_trainer::network::OutputActivation;
use host_trainer::noise::{Family, NoiseBank};
use host_trainer::perceptual::Depth;
use host_trainer::surface::SQUARE;
use host_trainer::train::{BATCH, ITERATIONS, LossKind, Schedule, TILES};
use proto::limits::MAX_FRAME_SIDE_PX;
use proto::manifest::{InputSize, TILE_PX, TrainingMode};

use crate::cmd::arguments::positive;

/// Train on defect-free images.
///
/// The defaults are the paper's, except for --features. Ctrl-C saves a checkpoint; the same command
/// with --resume continues and, on the CPU, ends where an uninterrupted run would have. Next:
/// `host-trainer package`.
#[derive(Args)]
pub(crate) struct Train {
    /// Folder of good images, or a data set in MVTec AD's layout, of which train/good is used.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Folder for checkpoints, losses and sample maps; must be new unless --resume.
    #[arg(long)]
    pub(super) run: PathBuf,
    /// Continue from the checkpoint in --run.
    #[arg(long)]
    pub(super) resume: bool,
    /// Size to train and score at, in pixels: WIDTHxHEIGHT, native, or a number: 256 is 256×256 for
    /// square images, the paper's, and as many pixels at the images' own shape for others.
    #[arg(long, default_value = "256", value_parser = size)]
    pub(super) size: TrainingSize,
    /// Colour handling.
    #[arg(long, default_value = "auto")]
    pub(super) colour: Colour,
    /// Bits of the values in 16-bit files, 8 to 16: industrial cameras' programs save 10 or 12 bits
    /// in such files (default: the fewest that hold the values of all images). A package reads
    /// files as those that it was trained on.
    #[arg(long, value_parser = clap::value_parser!(u8).range(8..=16))]
    pub(super) bits: Option<u8>,
    /// Go on if more than a tenth of the images cannot be read.
    #[arg(long)]
    pub(super) allow_unreadable: bool,
    /// Perceptual features: builtin, a .safetensors file (VGG-11 or VGG-19 names, or made by
    /// `pretrain`), or random:SEED.
    #[arg(long, default_value = "builtin")]
    pub(super) features: String,
    /// Which features the perceptual loss compares.
    #[arg(long, value_enum, default_value_t = Depth::Last)]
    pub(super) feature_depth: Depth,
    /// Imitate the network of this training run, usually a wider one, instead of learning by
    /// features: faster, and no features are needed (not in the paper). Compare the result with a
    /// network that learned by itself before you use it.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["features", "feature_depth", "loss"])]
    pub(super) teacher: Option<PathBuf>,
    /// Weight of the mean |A| on uncorrupted pixels, added to the loss (not in the paper). 1 lowers
    /// the scores of good pixels.
    #[arg(long, default_value_t = 0.0, value_parser = loss_weight)]
    pub(super) quiet: f64,
    /// Brightness augmentation: scale each tile by a random factor of up to 1 ± this (not in the
    /// paper). 0.3 helps if good images are few, so that a brightness which they do not show is no
    /// defect.
    #[arg(long, default_value_t = 0.0, value_parser = lighting)]
    pub(super) lighting: f32,
    /// Share of the tiles to draw by how rare they look among the good images, 0 to 1 (0 in the
    /// paper). What is good and rare, such as a woven edge, is then learned as good.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(super) rare: f64,
    /// Package a running average of the weights, of which each step keeps this fraction, for
    /// example 0.999 (not in the paper). 0 packages the last weights.
    #[arg(long, default_value_t = 0.0, value_parser = decay)]
    pub(super) average: f64,
    /// How the learning rate changes.
    #[arg(long, value_enum, default_value_t = Schedule::Constant)]
    pub(super) schedule: Schedule,
    /// What the network learns: direct is the method, the others are baselines.
    #[arg(long, default_value = "direct")]
    pub(super) mode: Mode,
    /// Loss to minimise.
    #[arg(long, default_value = "perceptual")]
    pub(super) loss: LossKind,
    /// Activation applied to the repaired image.
    #[arg(long, default_value = "refrelu")]
    pub(super) activation: OutputActivation,
    /// Noise families to use, separated by commas (default: the paper's five).
    #[arg(long, value_delimiter = ',')]
    pub(super) noise: Vec<Family>,
    /// Also corrupt tiles by pieces of themselves, changed contrast and wrinkles, through masks of
    /// random shape (not in the paper).
    #[arg(long)]
    pub(super) structured: bool,
    /// Noise families to leave out, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(super) without: Vec<Family>,
    /// Channels after the first convolution (128 in the paper; narrower is faster).
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) width: u16,
    /// Use bilinear upsampling and a convolution instead of each transposed convolution (not in the
    /// paper): no checkerboard in the map, but slower scoring at the same width. On textures a
    /// narrower network is often enough then.
    #[arg(long)]
    pub(super) upsampled: bool,
    /// Number of iterations.
    #[arg(long, default_value_t = ITERATIONS, value_parser = positive)]
    pub(super) iterations: usize,
    /// Tiles per iteration.
    #[arg(long, default_value_t = BATCH, value_parser = positive)]
    pub(super) batch: usize,
    /// Number of tiles to draw from.
    #[arg(long, default_value_t = TILES, value_parser = positive)]
    pub(super) tiles: usize,
    /// Seed of weights, crops and noise.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Device to train on: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    pub(super) device: DeviceChoice,
    /// Threads for libtorch (default: all cores).
    #[arg(long)]
    pub(super) threads: Option<u16>,
    /// Threads that cut and corrupt tiles (default: 1 when training on the CPU; on a GPU half of
    /// the cores, at most 8).
    #[arg(long, value_parser = positive)]
    pub(super) workers: Option<usize>,
    /// Fraction of the good images to hold out of training, to calibrate the threshold on.
    #[arg(long, default_value_t = 0.0)]
    pub(super) hold_out: f64,
    /// CSV (file,group) with paths relative to --data: images of one group show the same part, and
    /// are held out or trained on together.
    #[arg(long)]
    pub(super) groups: Option<PathBuf>,
    /// Iterations between checkpoints and sample maps.
    #[arg(long, default_value_t = 250, value_parser = positive)]
    pub(super) checkpoint_every: usize,
    /// Print JSON at the end: what was used of the images, and the training.
    #[arg(long)]
    pub(super) json: bool,
    /// Who trains.
    #[arg(skip)]
    pub(super) caller: Caller,
}

/// Who trains, which decides what is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A person, by `train`.
    #[default]
    Person,
    /// `fit`, which goes on without an option. It has said what is used of the images if it has just
    /// looked at them.
    Fit { looked: bool },
    /// `fit`, to measure how long an iteration takes; nothing is said.
    Trial,
}

/// What the network learns.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Mode {
    /// The network's output is the anomaly map (the method).
    Direct,
    /// The network's output is the repaired image; scored by its distance from the input.
    Denoising,
    /// An autoencoder without noise; scored by its distance from the input.
    Reconstruction,
}

impl Train {
    /// Trains on this device.
    pub(crate) fn on_device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// Says what `caller` needs.
    pub(crate) fn called_by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    pub(super) fn mode(&self) -> TrainingMode {
        match self.mode {
            Mode::Direct => TrainingMode::Direct,
            Mode::Denoising => TrainingMode::Denoising,
            Mode::Reconstruction => TrainingMode::Reconstruction,
        }
    }

    /// The noise that --noise, --structured and --without choose.
    pub(super) fn noise_bank(&self) -> Result<NoiseBank> {
        let mut chosen = if self.noise.is_empty() {
            Family::PAPER.to_vec()
        } else {
            self.noise.clone()
        };
        if self.structured {
            chosen.push(Family::Structured);
        }
        let kept: Vec<Family> = chosen
            .into_iter()
            .filter(|family| !self.without.contains(family))
            .collect();
        if kept.is_empty() {
            bail!("--noise and --without leave no noise family: there would be nothing to learn");
        }
        Ok(NoiseBank::of_families(&kept))
    }
}

fn lighting(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        _ => Err("expected a number from 0 to below 1".to_owned()),
    }
}

fn decay(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(decay) if (0.0..1.0).contains(&decay) => Ok(decay),
        _ => Err("expected a number from 0 to below 1".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

fn loss_weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}

/// Size to train and score at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrainingSize {
    /// This one.
    Exactly(InputSize),
    /// As many pixels as a square of this side, at the images' shape.
    Square(u32),
}

impl TrainingSize {
    /// The size for images that are mostly this large.
    pub(super) fn for_images(self, [width_px, height_px]: [u32; 2]) -> InputSize {
        let side_px = match self {
            Self::Exactly(size) => return size,
            Self::Square(side_px) => side_px,
        };
        let ratio = (width_px as f32 / height_px as f32).sqrt();
        let side = |factor: f32| {
            let aligned = match SQUARE.contains(&ratio) {
                true => side_px,
                false => (side_px as f32 * factor / 8.0).round() as u32 * 8,
            };
            aligned.clamp(TILE_PX, MAX_FRAME_SIDE_PX)
        };
        InputSize::Fixed {
            width_px: side(ratio),
            height_px: side(1.0 / ratio),
        }
    }
}

fn size(text: &str) -> Result<TrainingSize, String> {
    let side = |text: &str| {
        let side = text.parse::<u32>().ok();
        side.filter(|side| (TILE_PX..=MAX_FRAME_SIDE_PX).contains(side))
            .ok_or_else(|| {
                format!("expected native, a side of at least 65 px or WIDTHxHEIGHT, found `{text}`")
            })
    };
    if text == "native" {
        return Ok(TrainingSize::Exactly(InputSize::Native));
    }
    match text.split_once('x') {
        None => side(text).map(TrainingSize::Square),
        Some((width, height)) => Ok(TrainingSize::Exactly(InputSize::Fixed {
            width_px: side(width)?,
            height_px: side(height)?,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(text: &str, images_px: [u32; 2]) -> [u32; 2] {
        match size(text).unwrap().for_images(images_px) {
            InputSize::Fixed {
                width_px,
                height_px,
            } => [width_px, height_px],
            InputSize::Native => [0; 2],
        }
    }

    #[test]
    fn a_size_keeps_the_shape_of_the_images_unless_it_says_otherwise() {
        assert_eq!(sides("256", [1_024, 1_024]), [256, 256]);
        assert_eq!(sides("100", [1_024, 1_024]), [100, 100]);
        // 65,536 pixels at 16 : 9.
        assert_eq!(sides("256", [1_920, 1_080]), [344, 192]);
        assert_eq!(sides("256", [500, 1_260]), [160, 408]);
        assert_eq!(sides("256x256", [1_920, 1_080]), [256, 256]);
        assert_eq!(sides("native", [1_920, 1_080]), [0, 0]);
        // What is hardly off a square counts as one.
        assert_eq!(sides("256", [309, 322]), [256, 256]);
        assert_eq!(sides("256", [640, 480]), [296, 224]);
        // A strip is no lower than a tile.
        assert_eq!(sides("65", [4_096, 256])[1], 65);
        assert!(size("64").is_err() && size("256x").is_err());
    }
}

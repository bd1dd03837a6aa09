//! From a training run to a model package, and from good frames to its threshold.

use std::collections::HashSet;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use edge_runtime::infer::{Engine, InferError};
use edge_runtime::inspect::drift::{Look, image_statistics};
use edge_runtime::inspect::frame::Frame;
use edge_runtime::inspect::normal_map::NormalMapBuilder;
use edge_runtime::inspect::preprocess::{Planes, PreprocessError, prepare, to_planes};
use edge_runtime::inspector::{InspectError, Inspection, Inspector};
use edge_runtime::io::image_file::{ImageFileError, read_frame};
use edge_runtime::package::{
    Loaded, PackageError, Trust, Verified, area_golden, encode, golden_scores,
};
use proto::manifest::{
    ColourMode, GoldenTile, Histogram, Input, MANIFEST_FORMAT, Manifest, NormalScores,
    PostProcessing, Promise, Roi, Scoring, TILE_PX, Threshold, Training,
};
use sha2::{Digest, Sha256};
use tch::Device;

use crate::areas::{AreaError, AreaProgress, CHECKPOINT_EVERY, Gain, Lesson, Usage};
use crate::calibrate::{Calibration, CalibrationError, calibrate, highest};
use crate::dataset::{DatasetError, Skipped, chain, cut_tile, digest_of_files, file_digest};
use crate::noise::{Algorithm, Corruption, Tile};
use crate::onnx::export;
use crate::quantise::{Cost, QuantiseError, steps};
use crate::run_folder::{self, Run, RunError};
use crate::seed::generator;
use crate::train::{CheckpointError, Saved};
use crate::variation::{VariationBuilder, VariationError};

/// Parity tolerance: this fraction of a golden tile's peak, for other instruction sets sum in another order (1.7e-5 on
/// outputs of magnitude 24 was measured between libtorch and onnxruntime) …
const TOLERANCE_OF_PEAK: f32 = 1e-3;
/// In 8 bits, a value that lies between two levels may come to either side, and the difference of a level passes through
/// the layers that follow (measured: `tests/onnx.rs`, by shifts of the input of a millionth).
const TOLERANCE_OF_PEAK_INT8: f32 = 2e-2;
/// … and never less than this.
const TOLERANCE_FLOOR: f32 = 1e-4;
/// Bins of the histograms of normal scores.
const BINS: usize = 100;

/// Where an area network comes from.
#[derive(Debug)]
pub enum AreasFrom {
    /// It is learned.
    Learning {
        /// In so many steps ([`crate::areas::STEPS`]).
        steps: usize,
        /// There.
        device: Device,
        /// Of what is drawn, and how learning begins; the run's unless given.
        seed: Option<u64>,
    },
    /// Another package of the same images has it: another width of the network, say.
    Package(Box<Verified>),
}

/// Why no package could be made.
#[derive(Debug, thiserror::Error)]
pub enum PackagingError {
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// An image that cannot be prepared.
    #[error("{}", path.display())]
    Prepare {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: PreprocessError,
    },
    /// An image that cannot be scored.
    #[error("{}", path.display())]
    Inspect {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: InspectError,
    },
    /// The exported graph does not run.
    #[error("the exported graph does not run")]
    Infer(#[from] InferError),
    /// The package does not work.
    #[error("the package does not work")]
    Inspector(#[source] InspectError),
    /// The container.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The threshold.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// No good frame can be used.
    #[error("none of {count} good images can be used; the first: {first}")]
    NothingLeft {
        /// How many there are.
        count: usize,
        /// Why the first cannot.
        first: String,
    },
    /// Good images score nothing anywhere.
    #[error(
        "good images score 0 everywhere, so nothing can be relative to them: package without --normalise"
    )]
    NoScores,
    /// There can be no variation model.
    #[error(transparent)]
    Variation(#[from] VariationError),
    /// There can be no area network.
    #[error(transparent)]
    Areas(#[from] AreaError),
    /// An area network stands beside a variation model.
    #[error("an area network needs a variation model beside it: package with --variation")]
    NoVariation,
    /// Golden tiles are what the parity gate compares.
    #[error(
        "an area network needs a golden tile, and the draft has none: the run has no images left"
    )]
    NoGolden,
    /// The package to take an area network from has none.
    #[error(
        "expected a package with an area network to take it from, found one without: learn one with --areas"
    )]
    NoAreas,
    /// That package is of something else.
    #[error(
        "the package to take the area network from was made of other training images or another input size than this run: learn one with --areas"
    )]
    OtherImages,
    /// Kernels for 8 bits take channels by four.
    #[error("int8 needs a width that is a multiple of 4, found {0}; train with another --width")]
    Width(i64),
    /// It cannot be quantised.
    #[error(transparent)]
    Quantise(#[from] QuantiseError),
    /// An image that the model was trained on.
    #[error(
        "{} was trained on: a threshold from such images is too low on others. Use images held out of training", .0.display()
    )]
    TrainedOn(PathBuf),
}

/// What the user chooses beside the run.
#[derive(Debug, Clone)]
pub struct PackageOptions {
    /// Name of the product.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Scoring mode.
    pub scoring: Scoring,
    /// Post-processing.
    pub post: PostProcessing,
    /// Region of interest.
    pub roi: Roi,
    /// Layers after the first in 8 bits.
    pub int8: bool,
}

/// Most images that a normal map is made of.
const NORMALISED_BY: usize = 400;
/// Most images that a variation model is made of: it has many more numbers.
const VARIED_BY: usize = 1_000;
/// Images that a network is quantised by.
const QUANTISED_BY: usize = 32;

/// A package's content before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The manifest.
    pub manifest: Manifest,
    /// The graph.
    pub onnx: Vec<u8>,
    /// What 8 bits cost, where it has been quantised.
    pub cost: Option<Cost>,
}

impl Draft {
    /// From a package that exists, to be changed and signed anew.
    pub fn from_package(package: &Verified) -> Self {
        let mut manifest = package.manifest().clone();
        manifest.format = MANIFEST_FORMAT;
        Self {
            manifest,
            onnx: package.onnx().to_vec(),
            cost: None,
        }
    }

    /// Makes scores relative to what the images that a run was trained on score at each place. They are not those that the
    /// threshold is calibrated on, which thus stay as good as new.
    pub fn normalise(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let mut builder = NormalMapBuilder::default();
        let mut add = |_: &Inspector, found: &Inspection| builder.add(&found.map);
        self.look(folder, key, NORMALISED_BY, &mut add, on_progress)?;
        let normal = builder.finish();
        self.manifest.normal_map = Some(normal.ok_or(PackagingError::NoScores)?);
        Ok(())
    }

    /// Makes scores say how far from good a place is, by its score and its looks; from the same images as
    /// [`Self::normalise`].
    pub fn vary(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let mut builder = VariationBuilder::new(self.manifest.input.colour == ColourMode::Rgb);
        let mut add = |inspector: &Inspector, found: &Inspection| {
            let channels = usize::from(inspector.manifest().network.channels);
            builder.add(&to_planes(&found.prepared, channels), &found.map);
        };
        self.look(folder, key, VARIED_BY, &mut add, on_progress)?;
        self.manifest.variation = Some(builder.finish()?);
        Ok(())
    }

    /// Beside a variation model, learns to find areas and defects by seeing whole frames, from the same images; or takes what another
    /// package of the same images has learned.
    pub fn learn_areas(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        from: &AreasFrom,
        usage: Usage,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<Gain, PackagingError> {
        let Some(model) = &self.manifest.variation else {
            return Err(PackagingError::NoVariation);
        };
        let tile = self.manifest.golden.first();
        let tile = tile.ok_or(PackagingError::NoGolden)?;
        let run = Run::read(folder)?;
        let files = different_files(&run, VARIED_BY);
        let colour = self.manifest.input.colour == ColourMode::Rgb;
        let network = self.manifest.network;
        // Of a grey frame one plane is looked at.
        let channels = if colour { 3 } else { 1 };
        let input = run.input;
        let inspector = self.inspector(key)?;
        let (steps, device, seed) = match from {
            AreasFrom::Learning {
                steps,
                device,
                seed,
            } => (*steps, *device, *seed),
            AreasFrom::Package(_) => (0, Device::Cpu, None),
        };
        let lesson = Lesson {
            model,
            colour,
            count: files.len(),
            read: Arc::new(move |index| Ok(to_planes(&prepared(&files[index], &input)?, channels))),
            scored: &|planes| {
                let planes = replicated(planes, usize::from(network.channels));
                Ok(inspector.scores(&planes)?)
            },
            golden: &area_golden(&tile.pixels, &network, colour),
            usage,
            steps,
            seed: seed.unwrap_or(run.seed),
            device,
            checkpoint: &run_folder::area_checkpoint(folder),
            checkpoint_every: CHECKPOINT_EVERY,
        };
        let (areas, gain) = match from {
            AreasFrom::Learning { .. } => lesson.learn(on_progress)?,
            AreasFrom::Package(package) => {
                let (theirs, ours) = (package.manifest(), &self.manifest);
                if theirs.training.data_digest != ours.training.data_digest
                    || theirs.input != ours.input
                {
                    return Err(PackagingError::OtherImages);
                }
                let areas = theirs.areas.clone();
                lesson.judged(areas.ok_or(PackagingError::NoAreas)?, on_progress)?
            }
        };
        self.manifest.areas = Some(areas);
        Ok(gain)
    }

    /// Inspects the images that a run was trained on, `most` of them, copies once.
    fn look(
        &self,
        folder: &Path,
        key: &SigningKey,
        most: usize,
        add: &mut dyn FnMut(&Inspector, &Inspection),
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), PackagingError> {
        let files = different_files(&Run::read(folder)?, most);
        // Of the whole frame: a camera may be told to inspect another part of it.
        let inspector = self.inspector(key)?.with_roi(Roi::Whole);
        for (index, file) in files.iter().enumerate() {
            let found = inspector.inspect(&read_frame(file)?);
            let found = found.map_err(|source| PackagingError::Inspect {
                path: file.clone(),
                source,
            })?;
            add(&inspector, &found);
            on_progress(index + 1, files.len());
        }
        Ok(())
    }

    /// Signed bytes.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, PackageError> {
        encode(&self.manifest, &self.onnx, key)
    }

    /// The draft as the camera will see it: through container, verification and parity gate.
    pub fn inspector(&self, key: &SigningKey) -> Result<Inspector, PackagingError> {
        let verified = Loaded::new(self.sign(key)?)?.verify(&Trust::AnySigner)?;
        Inspector::new(&verified).map_err(PackagingError::Inspector)
    }
}

/// The images that a run was trained on, `most` of them, copies once.
fn different_files(run: &Run, most: usize) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let different = run.train_files.iter().zip(&run.train_digests);
    let files: Vec<&PathBuf> = different
        .filter(|(_, digest)| seen.insert(*digest))
        .map(|(file, _)| file)
        .collect();
    let step = files.len().div_ceil(most).max(1);
    files.into_iter().step_by(step).cloned().collect()
}

/// Planes for a network that takes so many: a grey frame's is repeated.
fn replicated(planes: &Planes, channels: usize) -> Planes {
    Planes {
        channels,
        data: planes
            .data
            .iter()
            .cycle()
            .take(channels * planes.width_px * planes.height_px)
            .copied()
            .collect(),
        ..*planes
    }
}

/// Exports a run's last checkpoint and describes it; no threshold yet.
pub fn draft(folder: &Path, options: &PackageOptions) -> Result<Draft, PackagingError> {
    let run = Run::read(folder)?;
    let saved = Saved::open(&run_folder::checkpoint(folder))?;
    let layers = saved.layers(&run.architecture())?;
    let metadata = [
        ("name", options.name.clone()),
        ("version", options.version.clone()),
        ("mode", format!("{:?}", run.mode)),
        ("features", run.features.clone()),
        ("iterations", saved.progress.iterations.to_string()),
        (
            "input",
            "N x 3 x H x W, RGB, [-1, 1]; H and W = 8 k + 1, at least 65".to_owned(),
        ),
        (
            "output",
            "shift A; score of a pixel = sum over channels of |A|".to_owned(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let plain = export(&layers, run.mode, run.activation, &metadata, None);
    let network = run.architecture().shape();
    let mut engine = Engine::from_onnx(&plain, network)?;
    let (mut onnx, mut cost) = (plain, None);
    if options.int8 {
        if run.width % 4 != 0 {
            return Err(PackagingError::Width(run.width));
        }
        let files = run.train_files.iter();
        let frames = files
            .step_by(run.train_files.len().div_ceil(QUANTISED_BY).max(1))
            .map(|file| prepared(file, &run.input))
            .collect::<Result<Vec<_>, _>>()?;
        let steps = steps(&layers, &frames, run.seed)?;
        onnx = export(&layers, run.mode, run.activation, &metadata, Some(&steps));
        let quantised = Engine::from_onnx(&onnx, network)?;
        let found = Cost::measure(&engine, &quantised, &frames, run.seed)?;
        found.check()?;
        (engine, cost) = (quantised, Some(found));
    }
    let parse = |texts: &[String]| -> Vec<[u8; 32]> {
        texts.iter().filter_map(|text| parse_hex(text)).collect()
    };
    let digests = parse(&run.train_digests);
    // What a teacher has seen, its student has.
    let mut seen: Vec<[u8; 8]> = digests.iter().map(file_id).collect();
    for id in parse(&run.teacher_digests).iter().map(file_id) {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: options.name.clone(),
        version: options.version.clone(),
        created_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        trainer_version: env!("CARGO_PKG_VERSION").to_owned(),
        training: Training {
            data_digest: digest_of_files(&digests),
            file_ids: seen,
            held_out_images: run.held_out.len() as u32,
            mode: run.mode,
            loss: run.loss_label(),
            activation: run.activation.name().to_owned(),
            features: run.features.clone(),
            noise: run.noise_label(),
            iterations: saved.progress.iterations as u32,
            batch: run.batch as u32,
            seed: run.seed,
            seconds: saved.progress.seconds as u32,
        },
        network,
        input: run.input,
        scoring: options.scoring,
        post: options.post,
        roi: options.roi.clone(),
        threshold: None,
        normal_scores: None,
        evaluation: None,
        golden: golden_tiles(&run, &engine, options.int8)?,
        onnx_sha256: Sha256::digest(&onnx).into(),
        normal_map: None,
        variation: None,
        areas: None,
    };
    Ok(Draft {
        manifest,
        onnx,
        cost,
    })
}

/// Tiles for the parity gate: the middle of two training images, as they are and with a line and a rectangle drawn on
/// them, so that both low and high scores are checked.
fn golden_tiles(run: &Run, engine: &Engine, int8: bool) -> Result<Vec<GoldenTile>, PackagingError> {
    let of_peak = if int8 {
        TOLERANCE_OF_PEAK_INT8
    } else {
        TOLERANCE_OF_PEAK
    };
    let mut golden = Vec::new();
    for (index, file) in run.train_files.iter().take(2).enumerate() {
        let frame = prepared(file, &run.input)?;
        let middle = |length: u32| (length - TILE_PX) / 2;
        let tile = cut_tile(&frame, middle(frame.width_px()), middle(frame.height_px()));
        for algorithm in [Algorithm::None, Algorithm::Line, Algorithm::Rectangle] {
            let mut rng = generator(run.seed, "golden", index as u64);
            let mut tile = tile.clone();
            Corruption::draw(algorithm, &tile, &mut rng).apply(&mut tile);
            let pixels = interleave(&tile);
            let scores = golden_scores(engine, &pixels)?;
            golden.push(GoldenTile {
                pixels,
                tolerance: (scores.peak * of_peak).max(TOLERANCE_FLOOR),
                block_means: scores.block_means,
                peak: scores.peak,
            });
        }
    }
    Ok(golden)
}

/// Three interleaved 8-bit channels; grey is replicated.
fn interleave(tile: &Tile) -> Vec<u8> {
    let area = tile.side() * tile.side();
    let last = tile.channels() - 1;
    (0..area)
        .flat_map(|index| [0, 1, 2].map(|channel| tile.plane(channel.min(last))[index]))
        .map(|value| ((value + 1.0) * 127.5).round() as u8)
        .collect()
}

fn prepared(file: &Path, input: &Input) -> Result<Frame, PackagingError> {
    prepare(&read_frame(file)?, input).map_err(|source| PackagingError::Prepare {
        path: file.to_owned(),
        source,
    })
}

/// A good frame and the part that it shows.
#[derive(Debug, Clone)]
pub struct GoodFrame {
    /// The image.
    pub file: PathBuf,
    /// Frames with the same part count as one: the part's score is their highest.
    pub part: String,
}

/// What is wanted of the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// This promise or an error.
    Promise {
        /// False rejects per 10,000 parts.
        per_10_000: f64,
        /// Confidence, 0..1.
        confidence: f64,
    },
    /// The highest good score, with whatever bound it carries.
    Highest {
        /// Confidence of the bound.
        confidence: f64,
    },
    /// The highest score of the training images: no promise at all.
    FromTraining,
}

/// What calibration found.
#[derive(Debug)]
pub struct Calibrated {
    /// Threshold and bound.
    pub calibration: Calibration,
    /// Frames that could not be scored; they count for nothing.
    pub skipped: Vec<Skipped>,
}

/// Scores good frames with the draft itself and gives it threshold and histograms. A frame that cannot be read or is
/// too small is skipped; copies of a frame show the part of the first of them.
pub fn calibrate_draft(
    draft: &mut Draft,
    frames: &[GoodFrame],
    wanted: Wanted,
    key: &SigningKey,
    on_progress: &mut dyn FnMut(usize),
) -> Result<Calibrated, PackagingError> {
    let inspector = draft.inspector(key)?;
    let mut skipped = Vec::new();
    let mut part_of: HashMap<[u8; 32], &str> = HashMap::new();
    let mut parts: BTreeMap<&str, f32> = BTreeMap::new();
    let mut frame_scores = Vec::new();
    let mut pixel_peak = 0.0f32;
    let mut digests = Vec::new();
    let mut maps = Vec::new();
    let mut looks = Vec::new();
    for (index, good) in frames.iter().enumerate() {
        on_progress(index);
        let mut skip = |reason| {
            skipped.push(Skipped {
                file: good.file.clone(),
                reason,
            });
        };
        let frame = match read_frame(&good.file) {
            Ok(frame) => frame,
            Err(error) => {
                skip(chain(&error));
                continue;
            }
        };
        let digest = file_digest(&good.file)?;
        let known = draft.manifest.training.file_ids.contains(&file_id(&digest));
        if known && wanted != Wanted::FromTraining {
            return Err(PackagingError::TrainedOn(good.file.clone()));
        }
        let found = match inspector.inspect(&frame) {
            Ok(found) => found,
            Err(InspectError::Preprocess(error)) => {
                skip(chain(&error));
                continue;
            }
            Err(source) => {
                return Err(PackagingError::Inspect {
                    path: good.file.clone(),
                    source,
                });
            }
        };
        digests.push(digest);
        let part = *part_of.entry(digest).or_insert(&good.part);
        let part = parts.entry(part).or_insert(0.0);
        *part = part.max(found.score);
        pixel_peak = pixel_peak.max(found.score);
        frame_scores.push(found.score);
        looks.push(Look::of(&found.prepared));
        // Only a fine histogram of each map is kept; its bins are folded into the package's afterwards.
        maps.push(fine_histogram(&found.map.data));
    }
    on_progress(frames.len());
    if parts.is_empty()
        && let Some(first) = skipped.first()
    {
        return Err(PackagingError::NothingLeft {
            count: skipped.len(),
            first: format!("{}: {}", first.file.display(), first.reason),
        });
    }
    let scores: Vec<f32> = parts.values().copied().collect();
    let found = match wanted {
        Wanted::Promise {
            per_10_000,
            confidence,
        } => calibrate(&scores, per_10_000, confidence)?,
        Wanted::Highest { confidence } => highest(&scores, confidence)?,
        Wanted::FromTraining => highest(&scores, 0.95)?,
    };
    let promised = wanted != Wanted::FromTraining;
    let note = match wanted {
        Wanted::Promise { .. } => "lowest threshold that carries the promise wanted",
        Wanted::Highest { .. } => "highest score of the good parts held out of training",
        Wanted::FromTraining => {
            "highest score of the training images themselves: no promise, good parts may score higher"
        }
    };
    draft.manifest.threshold = Some(Threshold {
        value: found.threshold,
        promise: promised.then_some(Promise {
            max_false_rejects_per_10_000: found.bound_per_10_000,
            confidence: found.confidence,
            rejected_in_calibration: found.rejected as u32,
        }),
        calibration_digest: digest_of_files(&digests),
        parts: scores.len() as u32,
        note: note.to_owned(),
    });
    let bin_width = (pixel_peak * 1.25 / BINS as f32).max(f32::MIN_POSITIVE);
    draft.manifest.normal_scores = Some(NormalScores {
        frames: fold(bin_width, frame_scores.iter().map(|&score| (score, 1))),
        pixels: fold(bin_width, maps.into_iter().flatten()),
        images: image_statistics(&looks),
    });
    Ok(Calibrated {
        calibration: found,
        skipped,
    })
}

/// Scores rounded to a 16-bit float's precision with their counts: a small lossy copy of a map.
fn fine_histogram(scores: &[f32]) -> Vec<(f32, u64)> {
    let mut counts = HashMap::new();
    for score in scores {
        *counts.entry(score.to_bits() >> 13).or_insert(0u64) += 1;
    }
    counts
        .into_iter()
        .map(|(bits, count)| (f32::from_bits(bits << 13 | 1 << 12), count))
        .collect()
}

fn fold(bin_width: f32, scores: impl Iterator<Item = (f32, u64)>) -> Histogram {
    let mut counts = vec![0; BINS];
    for (score, count) in scores {
        counts[((score / bin_width) as usize).min(BINS - 1)] += count;
    }
    Histogram { bin_width, counts }
}

/// The first 8 bytes of a file's digest, as manifests name training images.
pub fn file_id(digest: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|index| digest[index])
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

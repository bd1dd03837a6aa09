//! `host-trainer package`, `calibrate`, `inspect-package` and `keygen`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ed25519_dalek::{SigningKey, VerifyingKey};
use edge_runtime::inspect::areas::LARGEST_SHARE;
use edge_runtime::inspect::roi;
use edge_runtime::io::atomic::write_atomic;
use edge_runtime::io::image_file::read_roi_mask;
use edge_runtime::package::{self, Trust, Verified, key_id, read_signing_key, write_key_pair};
use host_trainer::areas::{AreaProgress, Phase, STEPS, Usage};
use host_trainer::calibrate::{Calibration, parts_needed, percent, promised};
use host_trainer::dataset::{Groups, calibration_files};
use host_trainer::device::DeviceChoice;
use host_trainer::package::{
    AreasFrom, Draft, GoodFrame, PackageOptions, Wanted, calibrate_draft, draft,
};
use host_trainer::run_folder::Run;
use proto::manifest::{InputSize, Manifest, PostProcessing, Roi, Scoring};

use super::openmp::sleep_while_waiting;
use super::progress;

/// Make a key pair for signing packages.
///
/// Cameras accept packages of trusted keys only: keep the signing key secret and give cameras its .pub file.
#[derive(Args)]
pub(crate) struct Keygen {
    /// File for the signing key; the public key goes beside it as NAME.pub.
    #[arg(long)]
    out: PathBuf,
}

impl Keygen {
    pub(crate) fn run(self) -> Result<()> {
        let key = new_key();
        let public = write_key_pair(&self.out, &key)?;
        println!("key {}", key_id(&key.verifying_key()));
        println!("  {}  keep secret", self.out.display());
        println!("  {}  give to cameras", public.display());
        Ok(())
    }
}

/// A signing key that nobody had before.
pub(crate) fn new_key() -> SigningKey {
    let mut secret = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut secret);
    SigningKey::from_bytes(&secret)
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ScoringMode {
    /// One fully-convolutional pass: fast, the default.
    Full,
    /// The paper's 65×65 tiles at stride 32, overlapping scores averaged.
    Tiles,
}

impl ScoringMode {
    pub(crate) fn scoring(self) -> Scoring {
        match self {
            Self::Full => Scoring::FullyConvolutional,
            Self::Tiles => Scoring::AveragedTiles { stride_px: 32 },
        }
    }
}

/// What the threshold shall promise.
#[derive(Args)]
struct PromiseArgs {
    /// Promise wanted: at most this many false rejects per 10,000 parts. Refused if there are too few good parts;
    /// without it the threshold is the highest good score, and what that may promise is said.
    #[arg(long)]
    promise: Option<f64>,
    /// Confidence of the promise.
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
}

impl PromiseArgs {
    fn wanted(&self) -> Result<Wanted> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            bail!(
                "--confidence expects a number between 0 and 1, found {}",
                self.confidence
            );
        }
        Ok(match self.promise {
            Some(per_10_000) => Wanted::Promise {
                per_10_000,
                confidence: self.confidence,
            },
            None => Wanted::Highest {
                confidence: self.confidence,
            },
        })
    }
}

/// Export a training run as a signed model package.
///
/// The threshold is calibrated on the images that training held out (train --hold-out); where none were, use
/// `host-trainer calibrate` with good images afterwards.
#[derive(Args)]
pub(crate) struct Package {
    /// Folder of the training run; its last checkpoint is used.
    #[arg(long)]
    run: PathBuf,
    /// Signing key (make one with `host-trainer keygen`).
    #[arg(long)]
    key: PathBuf,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
    /// Name of the product.
    #[arg(long)]
    name: String,
    /// Version of the model.
    #[arg(long, default_value = "1")]
    version: String,
    /// Scoring mode.
    #[arg(long, default_value = "full")]
    scoring: ScoringMode,
    /// Smooth the map with a Gaussian of this sigma in map pixels.
    #[arg(long, default_value_t = 0.0)]
    smooth: f32,
    /// Remove specks smaller than this window in map pixels (odd).
    #[arg(long, default_value_t = 0)]
    open: u16,
    /// Fill gaps smaller than this window in map pixels (odd).
    #[arg(long, default_value_t = 0)]
    close: u16,
    /// Inspect only where this picture is white; it is stretched over the frame.
    #[arg(long, value_name = "PNG")]
    roi_mask: Option<PathBuf>,
    /// Inspect only inside this polygon: corners as x,y from 0,0 (upper left) to 1,1 (lower right) of the frame,
    /// separated by spaces. May be given several times.
    #[arg(long, value_name = "\"X,Y X,Y X,Y…\"", value_parser = polygon, conflicts_with = "roi_mask")]
    roi_polygon: Vec<Polygon>,
    /// Take the threshold from the training images where none were held out: no promise, and the package says so.
    #[arg(long, conflicts_with = "promise")]
    threshold_from_training: bool,
    #[command(flatten)]
    promise: PromiseArgs,
    /// Quantise the layers between the first and the last to 8 bits: the package is a quarter as large, and scoring is 1.7 times
    /// as fast at width 128, 1.3 times at 64, no faster below.
    /// Refused where that costs more than 0.005 of pixel AUROC on corrupted good tiles.
    #[arg(long)]
    int8: bool,
    /// Score each place relative to what good images score there (the images trained on): for parts that always lie alike,
    /// whose edges and other fixed structure would else be what scores highest.
    #[arg(long)]
    normalise: bool,
    /// Score how far each place is from how good parts look there (the images trained on; at least 56 grey ones or 72 in
    /// colour): the network's score, brightness and texture together, after taking out how whole parts differ (exposure, position).
    /// For parts that always lie alike; finds worn and uneven areas that are larger than what the network sees at a time.
    #[arg(long, conflicts_with = "normalise")]
    variation: bool,
    /// Beside --variation, learn to find areas and defects by seeing the whole frame: a small network learns them from good images
    /// (the images trained on; at least 40) into which areas and defects of twelve kinds are drawn. Some 25 minutes on two
    /// cores of a Xeon with AMX, 45 in 32 bits; fifteen milliseconds a frame there. Refused where it finds no more.
    ///
    /// What is learned is kept in the run's folder each minute or so: after a power cut or Ctrl-C the same command goes on from there,
    /// and learned to the end it is taken at once (for another name, share or threshold).
    #[arg(long, requires = "variation")]
    areas: bool,
    /// Steps of learning for --areas; with fewer it is done sooner and finds less.
    #[arg(long, requires = "areas", default_value_t = STEPS as u32, value_name = "N",
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    area_steps: u32,
    /// Seed of what --areas draws and of the weights that it begins with; the run's unless given.
    #[arg(long, requires = "areas", value_name = "N")]
    area_seed: Option<u64>,
    /// Instead of learning, take what --areas learned for this package, made of the same images: for another width, or --int8.
    #[arg(
        long,
        requires = "variation",
        conflicts_with = "areas",
        value_name = "PACKAGE"
    )]
    areas_from: Option<PathBuf>,
    /// How much of what --areas found counts beside the variation model, 0 to 10: the more, the better large areas are found, and the
    /// worse small defects that good parts nearly have too.
    #[arg(long, default_value_t = Usage::default().share, value_name = "FACTOR", value_parser = share)]
    area_share: f32,
    /// How much of what a place's surroundings are off is taken from what it is off itself, 0 to 1: for small defects (cracks, holes) on parts
    /// whose good ones have large stains. With 0.5 the cracks of magnetic tiles are found better, worn areas and broken corners
    /// worse.
    #[arg(long, default_value_t = Usage::default().surround, value_name = "FACTOR", value_parser = surround)]
    area_surround: f32,
    /// Where --areas learns: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Also write the plain ONNX graph here.
    #[arg(long)]
    onnx: Option<PathBuf>,
}

impl Package {
    pub(crate) fn run(self) -> Result<()> {
        if self.areas {
            sleep_while_waiting();
        }
        let key = signing_key(&self.key)?;
        let options = PackageOptions {
            name: self.name.clone(),
            version: self.version.clone(),
            scoring: self.scoring.scoring(),
            post: PostProcessing {
                smooth_sigma_px: self.smooth,
                open_px: self.open,
                close_px: self.close,
            },
            roi: self.roi()?,
            int8: self.int8,
        };
        let mut draft = draft(&self.run, &options)?;
        if let Some(cost) = draft.cost {
            println!(
                "int8: pixel AUROC on corrupted good tiles {:.4} for {:.4} in f32, scores correlate by {:.4}",
                cost.auroc_int8, cost.auroc_f32, cost.correlation
            );
        }
        if self.normalise || self.variation {
            let bar = progress::bar(1, "how good images look at each place");
            let mut on_progress = |done: usize, count: usize| {
                bar.set_length(count as u64);
                bar.set_position(done as u64);
            };
            if self.variation {
                draft.vary(&self.run, &key, &mut on_progress)?;
            } else {
                draft.normalise(&self.run, &key, &mut on_progress)?;
            }
            bar.finish_and_clear();
        }
        if let Some(from) = self.areas_from()? {
            self.learn_areas(&mut draft, &key, &from)?;
        }
        let run = Run::read(&self.run)?;
        let frames: Vec<GoodFrame> = if self.threshold_from_training {
            let good = |file: &PathBuf| GoodFrame {
                part: file.display().to_string(),
                file: file.clone(),
            };
            run.train_files.iter().map(good).collect()
        } else {
            let pairs = run.held_out.iter().zip(&run.held_out_parts);
            pairs
                .map(|(file, part)| GoodFrame {
                    file: file.clone(),
                    part: part.clone(),
                })
                .collect()
        };
        let wanted = if self.threshold_from_training {
            Wanted::FromTraining
        } else {
            self.promise.wanted()?
        };
        if frames.is_empty() {
            if self.promise.promise.is_some() {
                bail!(
                    "training held no images out, so nothing can be promised; train with --hold-out"
                );
            }
            eprintln!("no threshold: training held no images out; next: host-trainer calibrate");
        } else {
            threshold(&mut draft, &frames, wanted, &key)?;
        }
        write_atomic(&self.out, &draft.sign(&key)?)?;
        if let Some(path) = &self.onnx {
            write_atomic(path, &draft.onnx)?;
        }
        println!("{}: {} {}", self.out.display(), self.name, self.version);
        Ok(())
    }
}

impl Package {
    fn areas_from(&self) -> Result<Option<AreasFrom>> {
        if let Some(path) = &self.areas_from {
            let package = open(path, &[])?;
            return Ok(Some(AreasFrom::Package(Box::new(package))));
        }
        if !self.areas {
            return Ok(None);
        }
        Ok(Some(AreasFrom::Learning {
            steps: self.area_steps as usize,
            device: self.device.open()?,
            seed: self.area_seed,
        }))
    }

    fn learn_areas(&self, draft: &mut Draft, key: &SigningKey, from: &AreasFrom) -> Result<()> {
        let mut current = None;
        let mut on_progress = |at: AreaProgress| {
            let bar = current.get_or_insert_with(|| {
                let what = match at.phase {
                    Phase::Reading => "reading good images",
                    Phase::Learning => "learning what is drawn into them",
                    Phase::Checking => "looking what it brings",
                };
                progress::bar(at.count, what)
            });
            bar.set_position(at.done as u64);
            if at.done == at.count {
                bar.finish_and_clear();
                current = None;
            }
        };
        let usage = Usage {
            share: self.area_share,
            surround: self.area_surround,
        };
        let gain = draft.learn_areas(&self.run, key, from, usage, &mut on_progress)?;
        println!(
            "areas: pixel AUROC on areas and defects drawn into good images kept back {:.3}, for {:.3} without",
            gain.with, gain.without
        );
        Ok(())
    }

    fn roi(&self) -> Result<Roi> {
        let roi = match &self.roi_mask {
            Some(path) => read_roi_mask(path)?,
            None if self.roi_polygon.is_empty() => Roi::Whole,
            None => Roi::Polygons(self.roi_polygon.iter().map(|p| p.0.clone()).collect()),
        };
        roi::check(&roi).context("region of interest")?;
        Ok(roi)
    }
}

fn share(text: &str) -> Result<f32, String> {
    up_to(LARGEST_SHARE, text)
}

fn surround(text: &str) -> Result<f32, String> {
    up_to(1.0, text)
}

fn up_to(most: f32, text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok();
    let value = value.filter(|value| (0.0..=most).contains(value));
    value.ok_or_else(|| format!("expected a number from 0 to {most}, found `{text}`"))
}

/// Corners in fractions of the frame.
#[derive(Debug, Clone)]
struct Polygon(Vec<[f32; 2]>);

fn polygon(text: &str) -> Result<Polygon, String> {
    let corner = |word: &str| {
        let (x, y) = word.split_once(',')?;
        let inside = |text: &str| {
            let value = text.parse::<f32>().ok()?;
            (0.0..=1.0).contains(&value).then_some(value)
        };
        Some([inside(x)?, inside(y)?])
    };
    let corners = text.split_whitespace().map(|word| {
        corner(word).ok_or_else(|| format!("expected corners x,y from 0,0 to 1,1, found `{word}`"))
    });
    corners.collect::<Result<_, _>>().map(Polygon)
}

/// Give a package a threshold from good images that it was not trained on, and sign it anew.
#[derive(Args)]
pub(crate) struct Calibrate {
    /// The package.
    #[arg(long)]
    package: PathBuf,
    /// Folder of good images (of an MVTec-layout folder, test/good).
    #[arg(long)]
    good: PathBuf,
    /// Signing key.
    #[arg(long)]
    key: PathBuf,
    /// File to write (default: the package is replaced).
    #[arg(long)]
    out: Option<PathBuf>,
    /// CSV (file,group), paths relative to --good: images of one part count as one.
    #[arg(long)]
    groups: Option<PathBuf>,
    #[command(flatten)]
    promise: PromiseArgs,
}

impl Calibrate {
    pub(crate) fn run(self) -> Result<()> {
        let key = signing_key(&self.key)?;
        let mut draft = Draft::from_package(&open(&self.package, &[])?);
        let groups = match &self.groups {
            Some(path) => Groups::read(path, &self.good)?,
            None => Groups::default(),
        };
        let files = calibration_files(&self.good)?;
        super::say_ungrouped(&groups, &files)?;
        let frames: Vec<GoodFrame> = files
            .into_iter()
            .map(|file| GoodFrame {
                part: groups.part(&file),
                file,
            })
            .collect();
        threshold(&mut draft, &frames, self.promise.wanted()?, &key)?;
        let out = self.out.as_ref().unwrap_or(&self.package);
        write_atomic(out, &draft.sign(&key)?)?;
        println!("{}: calibrated", out.display());
        Ok(())
    }
}

fn threshold(
    draft: &mut Draft,
    frames: &[GoodFrame],
    wanted: Wanted,
    key: &SigningKey,
) -> Result<()> {
    let bar = progress::bar(frames.len(), "calibrating");
    let found = calibrate_draft(draft, frames, wanted, key, &mut |done| {
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let skipped: Vec<_> = found.skipped.iter().collect();
    super::say_skipped(&skipped, frames.len());
    println!("{}", in_words(&draft.manifest, &found.calibration));
    Ok(())
}

/// Size of the lot in the second promise.
const LOT: usize = 100;

fn in_words(manifest: &Manifest, found: &Calibration) -> String {
    let parts = manifest
        .threshold
        .as_ref()
        .map_or(0, |threshold| threshold.parts);
    let mut text = format!("threshold {:.4} from {parts} good parts", found.threshold);
    match manifest
        .threshold
        .as_ref()
        .and_then(|threshold| threshold.promise)
    {
        None => text.push_str(": from training images, no promise"),
        Some(promise) => {
            let bound = promise.max_false_rejects_per_10_000;
            text.push_str(&format!(
                ": at most {} false rejects per 10,000 good parts in the long run, and at most {} of the next {LOT}, each at {} % confidence",
                promised(bound),
                found.rejects_of_the_next(LOT, parts as usize),
                percent(promise.confidence)
            ));
            if bound > 100.0 {
                let needed = parts_needed(100.0, promise.confidence);
                text.push_str(&format!(
                    " (100 per 10,000 would need {needed} good parts held out)"
                ));
            }
        }
    }
    text
}

/// Show what a package says of itself.
#[derive(Args)]
pub(crate) struct InspectPackage {
    /// The package.
    package: PathBuf,
    /// Accept only packages signed by this public key; may be given several times.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Write the plain ONNX graph here.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

impl InspectPackage {
    pub(crate) fn run(self) -> Result<()> {
        let verified = open(&self.package, &self.trust)?;
        if let Some(path) = &self.onnx {
            write_atomic(path, verified.onnx())?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(verified.manifest())?);
            return Ok(());
        }
        let facts = facts(verified.manifest(), verified.signer(), true);
        let widest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines = facts.into_iter();
        let lines = lines.map(|(name, value)| format!("{name:widest$}  {value}\n"));
        Ok(super::print(&lines.collect::<String>())?)
    }
}

/// Reads and verifies a package; with `trust`, only packages of those keys.
pub(crate) fn open(path: &Path, trust: &[PathBuf]) -> Result<Verified> {
    let keys = trust
        .iter()
        .map(|path| package::read_public_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let trust = if keys.is_empty() {
        Trust::AnySigner
    } else {
        Trust::Only(keys)
    };
    Ok(package::read(path, &trust)?)
}

/// A package in words, as name and value.
///
/// `manifest` has the overrides in force applied; where `threshold_applies` is false, they took the threshold away.
pub(crate) fn facts(
    manifest: &Manifest,
    signer: &VerifyingKey,
    threshold_applies: bool,
) -> Vec<(String, String)> {
    let training = &manifest.training;
    let size = match manifest.input.size {
        InputSize::Native => "as captured".to_owned(),
        InputSize::Fixed {
            width_px,
            height_px,
        } => format!("{width_px}×{height_px} px"),
    };
    let scoring = match manifest.scoring {
        Scoring::FullyConvolutional => "one fully-convolutional pass".to_owned(),
        Scoring::AveragedTiles { stride_px } => format!("tiles at stride {stride_px} px, averaged"),
    };
    let without = if threshold_applies || manifest.threshold.is_none() {
        "none: not calibrated"
    } else {
        "none in force: the package's belongs to another scoring mode"
    };
    let calibrated = manifest.threshold.as_ref().filter(|_| threshold_applies);
    let threshold = calibrated.map_or_else(
        || without.to_owned(),
        |threshold| {
            let promise = threshold.promise.map_or_else(
                || "no promise".to_owned(),
                |promise| {
                    format!(
                        "at most {} false rejects per 10,000 parts at {} % confidence",
                        promised(promise.max_false_rejects_per_10_000),
                        percent(promise.confidence)
                    )
                },
            );
            format!(
                "{:.4}, {promise} ({}; {} good parts)",
                threshold.value, threshold.note, threshold.parts
            )
        },
    );
    let post = manifest.post;
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("model", format!("{} {}", manifest.name, manifest.version)),
        fact("signed by", key_id(signer)),
        fact("threshold", threshold),
        fact(
            "input",
            format!("{size}, {:?}", manifest.input.colour).to_lowercase(),
        ),
        fact("scoring", scoring),
        fact(
            "region of interest",
            match &manifest.roi {
                Roi::Whole => "the whole frame".to_owned(),
                Roi::Polygons(polygons) => format!("{} polygons", polygons.len()),
                Roi::Bitmap { width, height, .. } => format!("a mask of {width}×{height} cells"),
            },
        ),
        fact(
            "post-processing",
            if post == PostProcessing::default() {
                "none".to_owned()
            } else {
                format!(
                    "smooth {} px, open {} px, close {} px",
                    post.smooth_sigma_px, post.open_px, post.close_px
                )
            },
        ),
        fact(
            "scores",
            match (&manifest.normal_map, &manifest.variation) {
                (None, None) => "sum of |A| over channels".to_owned(),
                (Some(normal), _) => format!(
                    "standard deviations above what {} good images score at the same place",
                    normal.frames
                ),
                (None, Some(model)) => format!(
                    "standard deviations from how {} good images look at the same place{}",
                    model.frames,
                    match manifest.areas.as_ref().map(|areas| areas.surround) {
                        Some(0.0) => ", and an area network's".to_owned(),
                        Some(surround) => format!(
                            ", and an area network's, less {surround} of what is around a place"
                        ),
                        None => String::new(),
                    }
                ),
            },
        ),
        fact(
            "network",
            format!(
                "width {}, {} channels",
                manifest.network.width, manifest.network.channels
            ),
        ),
        fact(
            "training",
            format!(
                "{:?}, {} loss, {} activation, {} iterations of {} tiles, seed {}, {:.1} min, {} images ({} held out)",
                training.mode,
                training.loss,
                training.activation,
                training.iterations,
                training.batch,
                training.seed,
                f64::from(training.seconds) / 60.0,
                training.file_ids.len(),
                training.held_out_images
            ),
        ),
        fact("features", training.features.clone()),
        fact("noise", training.noise.clone()),
        fact("golden tiles", manifest.golden.len().to_string()),
        fact(
            "evaluated",
            manifest.evaluation.as_ref().map_or_else(
                || "not recorded (host-trainer evaluate --record)".to_owned(),
                |found| {
                    let figure = |value: Option<f64>| {
                        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
                    };
                    format!(
                        "on {} ({} images): pixel AUROC {}, AUPRO {}, image AUROC {}",
                        found.data,
                        found.images,
                        figure(found.pixel_auroc),
                        figure(found.aupro),
                        figure(found.image_auroc)
                    )
                },
            ),
        ),
    ]
}

pub(crate) fn signing_key(path: &Path) -> Result<SigningKey> {
    read_signing_key(path).context("no signing key; `host-trainer keygen` makes one")
}

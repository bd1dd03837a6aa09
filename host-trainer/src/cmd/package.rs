//! `host-trainer package`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use ed25519_dalek::SigningKey;
use host_trainer::dataset::Account;
use host_trainer::device::DeviceChoice;
use host_trainer::package::{
    CalibrationFrame, Draft, Evidence, PackageOptions, SegmentationSource, ThresholdRule, draft,
};
use host_trainer::run_folder::{Identities, Run};
use host_trainer::segmentation::{Phase, STEPS, SegmentationOptions, SegmentationProgress};
use proto::manifest::{PostProcessing, Roi};
use scoring::inspect::roi;
use scoring::inspect::segmentation::LARGEST_WEIGHT;
use scoring::io::atomic::write_atomic;
use scoring::io::image_file::read_roi_mask;
use scoring::io::text::path_text;

use super::arguments::ScoringMode;
use super::keys::{signing_key, verified_package};
use super::notices::report_account;
use super::openmp::sleep_while_waiting;
use super::progress;
use super::shell::say;
use super::text::{evidence_in_words, segmentation_gain};
use super::threshold::{PromiseArgs, print_package, set_threshold};

/// Export a training run as a signed model package.
///
/// The threshold is calibrated on the images that training held out (train --hold-out). If none
/// were, calibrate the package with other good images afterwards: `host-trainer calibrate`.
#[derive(Args)]
pub(crate) struct Package {
    /// Folder of the training run; its last checkpoint is exported.
    #[arg(long)]
    run: PathBuf,
    /// Signing key (`host-trainer keygen` makes one).
    #[arg(long)]
    key: PathBuf,
    /// Package to write.
    #[arg(long)]
    out: PathBuf,
    /// Name of the product.
    #[arg(long)]
    name: String,
    /// Version of the model.
    #[arg(long, default_value = "1")]
    version: String,
    /// How frames are scored.
    #[arg(long, default_value = "full")]
    scoring: ScoringMode,
    /// Smooth the anomaly map by a Gaussian with this standard deviation in map pixels; 0 is off.
    #[arg(long, default_value_t = 0.0)]
    smooth: f32,
    /// Remove specks smaller than a window of this side in map pixels (odd); 0 is off.
    #[arg(long, default_value_t = 0)]
    open: u16,
    /// Fill gaps smaller than a window of this side in map pixels (odd); 0 is off.
    #[arg(long, default_value_t = 0)]
    close: u16,
    /// Inspect only where this image is white; it is stretched over the frame.
    #[arg(long, value_name = "PNG")]
    roi_mask: Option<PathBuf>,
    /// Inspect only inside this polygon: corners as x,y from 0,0 (upper left) to 1,1 (lower right)
    /// of the frame, separated by spaces. May be given several times.
    #[arg(long, value_name = "\"X,Y X,Y X,Y…\"", value_parser = polygon, conflicts_with = "roi_mask")]
    roi_polygon: Vec<Polygon>,
    /// Take the threshold from the training images if none were held out. It carries no promise,
    /// and the package says so: other good parts may score higher.
    #[arg(long, conflicts_with = "promise")]
    threshold_from_training: bool,
    #[command(flatten)]
    promise: PromiseArgs,
    /// Quantise the layers between the first and the last to 8 bits: the package is a quarter as
    /// large, and wide networks (64 channels and more) score faster. Refused if it costs more than
    /// 0.005 of pixel AUROC on corrupted good tiles.
    #[arg(long)]
    int8: bool,
    /// Score each place relative to what the training images score there. For parts presented in a
    /// fixed pose, whose edges and other fixed structure would otherwise score highest.
    #[arg(long)]
    normalise: bool,
    /// Score how far each place is from what good parts look like there: by the network's score,
    /// brightness and texture together, after removing how whole parts differ (exposure, position).
    /// For parts presented in a fixed pose; finds worn and uneven areas that are larger than the
    /// network's field of view. Needs at least 56 different training images in grey, 72 in colour.
    #[arg(long, conflicts_with = "normalise")]
    variation: bool,
    /// Train a segmentation network beside the variation model. It sees the whole frame and learns
    /// from training images (at least 40) with synthetic defects of ten kinds; two more kinds
    /// measure what it adds. Takes tens of
    /// minutes on a CPU and makes scoring slower. Refused if it finds no more than the variation
    /// model alone.
    ///
    /// Its state is saved in the run's folder every minute or so: after a power cut or Ctrl-C the
    /// same command resumes. A finished network is used again at once, for example with another
    /// name, weight or threshold.
    #[arg(long, requires = "variation")]
    segmentation: bool,
    /// Training steps of --segmentation; fewer take less time and find less.
    #[arg(long, requires = "segmentation", default_value_t = STEPS as u32, value_name = "N",
        value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    segmentation_steps: u32,
    /// Seed of --segmentation, for its initial weights and synthetic defects (default: the run's).
    #[arg(long, requires = "segmentation", value_name = "N")]
    segmentation_seed: Option<u64>,
    /// Take the segmentation network of this package instead of training one. The package must be
    /// made of the same images; it may be of another width, for example.
    #[arg(
        long,
        requires = "variation",
        conflicts_with = "segmentation",
        value_name = "PACKAGE"
    )]
    segmentation_from: Option<PathBuf>,
    /// Weight of the segmentation network's score beside the variation model's, 0 to 10. A larger
    /// one finds large areas better, and small defects worse that resemble what good parts have.
    #[arg(long, default_value_t = SegmentationOptions::default().weight, value_name = "FACTOR",
        value_parser = segmentation_weight)]
    segmentation_weight: f32,
    /// Fraction of the smoothed deviation map to subtract (local contrast), 0 to 1. For small
    /// defects (cracks, holes) on parts whose good ones have large stains; large defects are found
    /// worse.
    #[arg(long, default_value_t = SegmentationOptions::default().local_contrast,
        value_name = "FACTOR", value_parser = local_contrast)]
    local_contrast: f32,
    /// Also score how far each place is from what good parts look like there: to the network's own
    /// layers, and by the surface's grain. Finds what the network repairs only in part, and texture
    /// that is missing. Synthetic defects decide how much each counts. Needs training at a fixed
    /// --size.
    #[arg(long)]
    places: bool,
    /// Device to train the segmentation network on: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Also write the plain ONNX graph to this file.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// Print JSON: what was used of the images held out, and the threshold.
    #[arg(long)]
    json: bool,
}

impl Package {
    pub(crate) fn run(self) -> Result<()> {
        if self.segmentation {
            sleep_while_waiting();
        }
        let key = signing_key(&self.key)?;
        let mut draft = draft(&self.run, &self.options()?)?;
        if let Some(cost) = draft.cost {
            self.say(&format!(
                "int8: pixel AUROC on corrupted good tiles {:.4} instead of {:.4} in f32; scores correlate by {:.4}",
                cost.auroc_int8, cost.auroc_f32, cost.correlation
            ));
        }
        self.add_normal_scores(&mut draft, &key)?;
        if let Some(source) = self.segmentation_source()? {
            self.add_segmentation(&mut draft, &key, &source)?;
        }
        if self.places {
            add_places(&mut draft, &self.run, &key)?;
            let evidence = choose_mixture(&mut draft, &self.run, &key)?;
            self.say(&evidence_in_words(&evidence));
        }
        draft.add_golden_frame(&self.run, &key)?;
        let frames = self.calibration_frames(&Run::read(&self.run)?);
        let rule = if self.threshold_from_training {
            ThresholdRule::FromTraining
        } else {
            self.promise.rule()?
        };
        let mut account = Account::default();
        let mut promise = None;
        if frames.is_empty() {
            if self.promise.is_given() {
                bail!(
                    "training held no images out, so nothing can be promised; train with --hold-out"
                );
            }
            eprintln!("no threshold: training held no images out; next: host-trainer calibrate");
        } else {
            let (words, _) = set_threshold(&mut draft, &frames, rule, &key, &mut account)?;
            promise = Some(words);
            report_account("calibration set", &account);
        }
        write_atomic(&self.out, &draft.sign(&key)?)?;
        if let Some(path) = &self.onnx {
            write_atomic(path, &draft.onnx)?;
        }
        let words = format!("{} {}", self.name, self.version);
        print_package(
            self.json,
            &self.out,
            &words,
            &draft,
            &account,
            promise.as_deref(),
        )
    }

    fn say(&self, text: &str) {
        say(self.json, text);
    }

    fn options(&self) -> Result<PackageOptions> {
        Ok(PackageOptions {
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
        })
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

    /// Adds a normal map or a variation model, if asked.
    fn add_normal_scores(&self, draft: &mut Draft, key: &SigningKey) -> Result<()> {
        if !self.normalise && !self.variation {
            return Ok(());
        }
        if self.variation {
            return add_variation(draft, &self.run, key);
        }
        progress::during("measuring good images", |on_progress| {
            draft.add_normal_map(&self.run, key, on_progress)
        })
    }

    fn segmentation_source(&self) -> Result<Option<SegmentationSource>> {
        if let Some(path) = &self.segmentation_from {
            let package = verified_package(path, &[])?;
            return Ok(Some(SegmentationSource::Package(Box::new(package))));
        }
        if !self.segmentation {
            return Ok(None);
        }
        Ok(Some(SegmentationSource::Train {
            steps: self.segmentation_steps as usize,
            device: self.device.open()?,
            seed: self.segmentation_seed,
        }))
    }

    fn add_segmentation(
        &self,
        draft: &mut Draft,
        key: &SigningKey,
        source: &SegmentationSource,
    ) -> Result<()> {
        let mut current = None;
        let mut on_progress = |at: SegmentationProgress| {
            let bar = current.get_or_insert_with(|| {
                let what = match at.phase {
                    Phase::Reading => "reading good images",
                    Phase::Training => "training the segmentation network",
                    Phase::Validating => "measuring its improvement",
                };
                progress::bar(at.count, what)
            });
            bar.set_position(at.done as u64);
            if at.done == at.count {
                bar.finish_and_clear();
                current = None;
            }
        };
        let options = SegmentationOptions {
            weight: self.segmentation_weight,
            local_contrast: self.local_contrast,
        };
        let gain = draft.add_segmentation(&self.run, key, source, options, &mut on_progress)?;
        self.say(&format!("segmentation: {}", segmentation_gain(&gain)));
        Ok(())
    }

    /// The images held out of training, or with --threshold-from-training those trained on.
    fn calibration_frames(&self, run: &Run) -> Vec<CalibrationFrame> {
        if self.threshold_from_training {
            let images = run.train_files.iter().zip(&run.train_digests);
            return images
                .map(|(file, digest)| CalibrationFrame {
                    part: path_text(file),
                    file: file.clone(),
                    known_part: None,
                    digest: Some(digest.clone()),
                })
                .collect();
        }
        held_out_frames(run)
    }
}

/// Adds a variation model, with a progress bar.
pub(crate) fn add_variation(draft: &mut Draft, run: &Path, key: &SigningKey) -> Result<()> {
    progress::during("measuring good images", |on_progress| {
        draft.add_variation_model(run, key, on_progress)
    })
}

/// Adds statistics of good places, with a progress bar.
pub(crate) fn add_places(draft: &mut Draft, run: &Path, key: &SigningKey) -> Result<()> {
    progress::during("measuring good places", |on_progress| {
        draft.add_place_statistics(run, key, on_progress)
    })
}

/// Chooses how the maps are put together, with a progress bar.
pub(crate) fn choose_mixture(draft: &mut Draft, run: &Path, key: &SigningKey) -> Result<Evidence> {
    progress::during("trying synthetic defects", |on_progress| {
        draft.choose_mixture(run, key, on_progress)
    })
}

/// The images that a run held out of training, to calibrate on.
pub(crate) fn held_out_frames(run: &Run) -> Vec<CalibrationFrame> {
    let pairs = run.held_out.iter().zip(&run.held_out_parts);
    let Identities {
        held_out_parts,
        held_out_digests,
        ..
    } = &run.identities;
    pairs
        .enumerate()
        .map(|(at, (file, part))| CalibrationFrame {
            file: file.clone(),
            part: part.clone(),
            known_part: held_out_parts.get(at).cloned().flatten(),
            digest: held_out_digests.get(at).cloned(),
        })
        .collect()
}

fn segmentation_weight(text: &str) -> Result<f32, String> {
    number_up_to(LARGEST_WEIGHT, text)
}

fn local_contrast(text: &str) -> Result<f32, String> {
    number_up_to(1.0, text)
}

fn number_up_to(most: f32, text: &str) -> Result<f32, String> {
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

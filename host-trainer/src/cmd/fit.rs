//! `host-trainer fit`: from good images to a calibrated package, in one command.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use ed25519_dalek::SigningKey;
use host_trainer::dataset::Account;
use host_trainer::device::DeviceChoice;
use host_trainer::package::{
    Draft, Evidence, PackageOptions, SegmentationSource, ThresholdRule, draft,
};
use host_trainer::run_folder::{self, Run};
use host_trainer::segmentation::SegmentationOptions;
use host_trainer::surface::{Advice, Surface};
use proto::manifest::{PostProcessing, Roi, Scoring};
use scoring::io::atomic::write_atomic;
use scoring::io::text::path_text;
use scoring::package::{key_id, write_key_pair};

use super::keys::{new_signing_key, signing_key};
use super::notices::report_account;
use super::openmp::sleep_while_waiting;
use super::package::{add_layers, choose_mixture, held_out_frames};
use super::progress;
use super::recommend::{Look, look, milliseconds, of_photographs, width_within};
use super::text::{evidence_in_words, segmentation_gain};
use super::threshold::{PromiseArgs, print_package, set_threshold};
use super::train::Train;

/// Most images to measure.
const MEASURED: usize = 60;
/// Tiles per iteration: fewer than the paper's, more often.
const BATCH: usize = 32;
/// Iterations at most (paper, IV-F), and at least whatever the time.
const ITERATIONS: std::ops::RangeInclusive<f64> = 200.0..=3_500.0;
/// Iterations by which the speed of training is measured.
const TRIAL: usize = 6;
/// Share of the time that is for training; the rest is for reading, statistics and calibration.
const TRAINING_SHARE: f64 = 0.75;
/// Share of the time that is for training where a segmentation network is trained too.
const TRAINING_SHARE_OF_TWO: f64 = 0.45;
/// Steps of a segmentation network in a minute on two cores, and the fewest that are of use.
const SEGMENTATION_STEPS_A_MINUTE: f64 = 55.0;
const LEAST_SEGMENTATION_STEPS: f64 = 600.0;
const MOST_SEGMENTATION_STEPS: f64 = 4_000.0;
/// What scoring takes besides the network, as a multiple of its time.
const BESIDE_THE_NETWORK: f64 = 1.5;
/// Networks of this width and wider are quantised to 8 bits, where they are faster.
const QUANTISED_WIDTH: i64 = 64;
/// Packages with a network in single precision that are larger are quantised too.
const LARGE_ONNX_BYTES: usize = 800_000;

/// Make a calibrated package from good images, in one command.
///
/// Measures the images, trains, tries ways to judge a frame on synthetic defects drawn into good
/// images that were held out, keeps the best, and calibrates the threshold. Every decision is
/// printed with its reason and kept in the package. After a power cut or Ctrl-C the same command
/// goes on. Next: `host-trainer evaluate`, if there are labelled defects, or a camera.
#[derive(Args)]
pub(crate) struct Fit {
    /// Folder of good images, or a data set in MVTec AD's layout, of which train/good is used.
    #[arg(long)]
    data: PathBuf,
    /// Package to write. The training is kept beside it, in a folder that ends in .run.
    #[arg(long)]
    out: PathBuf,
    /// Signing key. One that does not exist is made; cameras need its .pub file.
    #[arg(long, default_value = "signing.key")]
    key: PathBuf,
    /// Name of the product (default: the package's file name).
    #[arg(long)]
    name: Option<String>,
    /// Version of the model.
    #[arg(long, default_value = "1")]
    version: String,
    /// CSV (file,group) with paths relative to --data: images of one group show the same part.
    #[arg(long)]
    groups: Option<PathBuf>,
    /// Minutes that it may take, about.
    #[arg(long, default_value_t = 60.0, value_parser = minutes)]
    minutes: f64,
    /// Milliseconds that scoring a frame may take on one thread of this machine.
    #[arg(long, default_value_t = 50.0, value_parser = milliseconds)]
    frame_ms: f64,
    /// Size of the smallest defect to be found, in pixels of the original images. Frames are scored
    /// large enough for it if the time allows.
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    smallest_defect_px: Option<u32>,
    /// Perceptual features to train with: builtin, or a .safetensors file (`fetch-weights`), which
    /// often finds more.
    #[arg(long, default_value = "builtin")]
    features: String,
    /// Seed of weights, crops, noise and synthetic defects.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to train on: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Go on if more than a tenth of the images cannot be read.
    #[arg(long)]
    allow_unreadable: bool,
    /// Leave this image out of calibration, because it is not good after all. The package says so.
    /// May be given several times; nothing is trained again.
    #[arg(long, value_name = "FILE")]
    leave_out: Vec<PathBuf>,
    #[command(flatten)]
    promise: PromiseArgs,
    /// Print JSON: what was used of the images, and the threshold.
    #[arg(long)]
    json: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.1..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("expected a number of minutes from 0.1 to 10000".to_owned()),
    }
}

/// Training's options, parsed from words as on its own command line.
#[derive(Parser)]
struct TrainLine {
    #[command(flatten)]
    train: Train,
}

impl Fit {
    pub(crate) fn run(self) -> Result<()> {
        sleep_while_waiting();
        let key = self.signing_key()?;
        let run = self.run_folder();
        let Look {
            account: _,
            surface,
            settings,
        } = look(
            &self.data,
            MEASURED,
            self.allow_unreadable,
            of_photographs(&self.features),
        )?;
        for warning in surface.warnings() {
            eprintln!("note: {warning}");
        }
        let settings = self.settings(&surface, settings)?;
        let stages = self.segmentation_steps(&surface);
        let two = stages.flatten().is_some();
        let mut decisions: Vec<String> = settings
            .iter()
            .map(|setting| format!("{}: {}", setting.argument(), setting.why))
            .collect();
        decisions.push(self.train(&run, &settings, two)?);
        for decision in &decisions {
            self.say(decision);
        }
        let draft = self.judge(&run, &key, stages, &mut decisions)?;
        self.finish(draft, &run, &key, decisions)
    }

    /// Says something in passing: with --json not among the output.
    fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    fn signing_key(&self) -> Result<SigningKey> {
        if !self.key.exists() {
            let key = new_signing_key();
            let public = write_key_pair(&self.key, &key)?;
            self.say(&format!(
                "made a signing key, {} ({}): keep it secret, and give {} to cameras",
                self.key.display(),
                key_id(&key.verifying_key()),
                public.display()
            ));
        }
        signing_key(&self.key)
    }

    /// Folder of the training run.
    fn run_folder(&self) -> PathBuf {
        self.out.with_extension("run")
    }

    /// The settings to train with, the width and the size last.
    fn settings(&self, surface: &Surface, measured: Vec<Advice>) -> Result<Vec<Advice>> {
        let mut settings = measured;
        let width_of = |[width_px, height_px]: [u32; 2]| {
            let frame_ms = self.frame_ms / BESIDE_THE_NETWORK;
            width_within(frame_ms, [width_px, height_px], surface.upsampled())
        };
        let (mut width_px, mut height_px, mut why) = surface.size_for(self.smallest_defect_px);
        let (mut width, mut fits) = width_of([width_px, height_px])?;
        if !fits && self.smallest_defect_px.is_some() {
            let reason;
            (width_px, height_px, reason) = surface.size();
            why = format!(
                "a larger one would take more than {} ms; {reason}",
                self.frame_ms
            );
            (width, fits) = width_of([width_px, height_px])?;
        }
        if !fits {
            eprintln!("warning: {}", width.why);
        }
        if let Some(setting) = settings.iter_mut().find(|setting| setting.option == "size") {
            setting.value = format!("{width_px}x{height_px}");
            setting.why = why;
        }
        if let Some(defect_px) = self.smallest_defect_px {
            let becomes = surface.becomes_px(defect_px, [width_px, height_px]);
            self.say(&format!(
                "a defect of {defect_px} px becomes {becomes:.1} px{}",
                if becomes < 2.0 {
                    ": smaller than what the network resolves"
                } else {
                    ""
                }
            ));
        }
        settings.push(width);
        Ok(settings)
    }

    /// Steps to train a segmentation network by, if there is time. `None` if the surface suits none.
    fn segmentation_steps(&self, surface: &Surface) -> Option<Option<u32>> {
        if surface.package_advice().is_empty() {
            return None;
        }
        let minutes = self.minutes * (0.9 - TRAINING_SHARE_OF_TWO);
        let steps = (minutes * SEGMENTATION_STEPS_A_MINUTE).min(MOST_SEGMENTATION_STEPS);
        Some((steps >= LEAST_SEGMENTATION_STEPS).then_some(steps as u32))
    }

    /// Trains the network, or goes on; returns what was decided.
    fn train(&self, run: &Path, settings: &[Advice], two: bool) -> Result<String> {
        let words = |run: &Path, iterations: usize, more: &[&str]| -> Result<Train> {
            let mut words: Vec<String> = ["train", "--run", &path_text(run)]
                .map(str::to_owned)
                .into();
            let mut add = |name: &str, value: &str| {
                words.extend([format!("--{name}"), value.to_owned()]);
            };
            add("features", &self.features);
            add("seed", &self.seed.to_string());
            add("iterations", &iterations.to_string());
            add("batch", &BATCH.to_string());
            words.extend(more.iter().map(|word| (*word).to_owned()));
            if self.allow_unreadable {
                words.push("--allow-unreadable".to_owned());
            }
            for setting in settings {
                words.push(format!("--{}", setting.option));
                if !setting.value.is_empty() {
                    words.push(setting.value.clone());
                }
            }
            let mut words: Vec<std::ffi::OsString> = words.into_iter().map(Into::into).collect();
            words.extend(["--data".into(), self.data.clone().into_os_string()]);
            if let Some(groups) = &self.groups {
                words.extend(["--groups".into(), groups.clone().into_os_string()]);
            }
            let TrainLine { train } = TrainLine::try_parse_from(words)?;
            Ok(train.on_device(self.device))
        };
        if let Ok(before) = Run::read(run)
            && run_folder::checkpoint(run).exists()
        {
            let trained = words(run, before.iterations, &["--resume"])?.train()?;
            return Ok(format!(
                "trained {} iterations in {:.1} min",
                trained.iterations, trained.minutes
            ));
        }
        let trial = run.with_extension("trial");
        std::fs::remove_dir_all(&trial).ok();
        let tried = words(&trial, TRIAL, &[])?.silently().train()?;
        std::fs::remove_dir_all(&trial).with_context(|| format!("removing {}", trial.display()))?;
        let share = if two {
            TRAINING_SHARE_OF_TWO
        } else {
            TRAINING_SHARE
        };
        let minutes = self.minutes * share;
        let fitting = minutes / tried.minutes.max(1e-6) * TRIAL as f64;
        let iterations = fitting.clamp(*ITERATIONS.start(), *ITERATIONS.end()) as usize;
        let trained = words(run, iterations, &[])?.train()?;
        Ok(format!(
            "--iterations {iterations}: what {minutes:.1} min allow, at most the paper's {}; it took {:.1} min",
            ITERATIONS.end(),
            trained.minutes
        ))
    }

    /// Tries ways to judge a frame, and keeps the one that finds most synthetic defects. `stages` is
    /// given for parts in a fixed pose: the steps of a segmentation network, if there is time.
    fn judge(
        &self,
        run: &Path,
        key: &SigningKey,
        stages: Option<Option<u32>>,
        decisions: &mut Vec<String>,
    ) -> Result<Draft> {
        let plain = self.draft(run)?;
        let mut decide = |text: String| {
            self.say(&text);
            decisions.push(text);
        };
        let (mut best, mut evidence) = self.with_layers(plain.clone(), run, key)?;
        decide(evidence_in_words(&evidence));
        let Some(steps) = stages else {
            return Ok(best);
        };
        let mut consider = |what: &str, found: Result<(Draft, Evidence)>| {
            let (draft, other) = match found {
                Ok(found) => found,
                Err(error) => return decide(format!("not kept: {what}: {error:#}")),
            };
            let better = mean(&other) > mean(&evidence);
            decide(format!(
                "{}: {what}: {}",
                if better { "kept" } else { "not kept" },
                evidence_in_words(&other)
            ));
            if better {
                (best, evidence) = (draft, other);
            }
        };
        let variation = match self.with_variation(plain, run, key) {
            Ok(draft) => draft,
            Err(error) => {
                consider("a variation model", Err(error));
                return Ok(best);
            }
        };
        let layers = self.with_layers(variation.clone(), run, key);
        consider("a variation model", layers);
        if let Some(steps) = steps {
            let segmentation = self
                .with_segmentation(variation, run, key, steps)
                .and_then(|draft| self.with_layers(draft, run, key));
            consider("a variation model and a segmentation network", segmentation);
        }
        Ok(best)
    }

    fn draft(&self, run: &Path) -> Result<Draft> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => match self.out.file_stem() {
                Some(stem) => stem.to_string_lossy().into_owned(),
                None => bail!("--out expects a file"),
            },
        };
        let options = |int8| PackageOptions {
            name: name.clone(),
            version: self.version.clone(),
            scoring: Scoring::FullyConvolutional,
            post: PostProcessing::default(),
            roi: Roi::Whole,
            int8,
        };
        let plain = draft(run, &options(false))?;
        if Run::read(run)?.width < QUANTISED_WIDTH && plain.onnx.len() < LARGE_ONNX_BYTES {
            return Ok(plain);
        }
        // It is refused where it costs too much.
        match draft(run, &options(true)) {
            Ok(draft) => Ok(draft),
            Err(error) => {
                self.say(&format!("not in 8 bits: {error}"));
                Ok(plain)
            }
        }
    }

    fn with_layers(
        &self,
        mut draft: Draft,
        run: &Path,
        key: &SigningKey,
    ) -> Result<(Draft, Evidence)> {
        add_layers(&mut draft, run, key)?;
        let evidence = choose_mixture(&mut draft, run, key)?;
        Ok((draft, evidence))
    }

    fn with_variation(&self, mut draft: Draft, run: &Path, key: &SigningKey) -> Result<Draft> {
        let bar = progress::bar(1, "measuring good images");
        draft.add_variation_model(run, key, &mut |done, count| {
            bar.set_length(count as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(draft)
    }

    /// Adds a segmentation network to a draft with a variation model.
    fn with_segmentation(
        &self,
        mut draft: Draft,
        run: &Path,
        key: &SigningKey,
        steps: u32,
    ) -> Result<Draft> {
        let source = SegmentationSource::Train {
            steps: steps as usize,
            device: self.device.open()?,
            seed: Some(self.seed),
        };
        let bar = progress::bar(1, "training the segmentation network");
        let options = SegmentationOptions::default();
        let gain = draft.add_segmentation(run, key, &source, options, &mut |at| {
            bar.set_length(at.count as u64);
            bar.set_position(at.done as u64);
        })?;
        bar.finish_and_clear();
        self.say(&format!("segmentation: {}", segmentation_gain(&gain)));
        Ok(draft)
    }

    /// Calibrates, signs and writes the package.
    fn finish(
        &self,
        mut draft: Draft,
        run: &Path,
        key: &SigningKey,
        mut decisions: Vec<String>,
    ) -> Result<()> {
        draft.add_golden_frame(run, key)?;
        let described = Run::read(run)?;
        let mut frames = held_out_frames(&described);
        for file in &self.leave_out {
            let path = std::path::absolute(file)?;
            let before = frames.len();
            frames.retain(|frame| std::path::absolute(&frame.file).ok().as_ref() != Some(&path));
            if frames.len() == before {
                bail!(
                    "--leave-out {}: expected one of the {before} images held out of training",
                    file.display()
                );
            }
            decisions.push(format!(
                "--leave-out {}: a person said that it is not good",
                file.display()
            ));
        }
        draft.manifest.decisions = decisions;
        let mut account = Account::default();
        let promise = match frames.is_empty() {
            true => {
                eprintln!(
                    "no threshold: too few images to hold any out; next: host-trainer calibrate with other good images"
                );
                None
            }
            false => {
                let rule: ThresholdRule = self.promise.rule()?;
                let promise = set_threshold(&mut draft, &frames, rule, key, &mut account)?;
                report_account("calibration set", &account);
                Some(promise)
            }
        };
        write_atomic(&self.out, &draft.sign(key)?)?;
        let words = format!("{} {}", draft.manifest.name, draft.manifest.version);
        print_package(
            self.json,
            &self.out,
            &words,
            &draft,
            &account,
            promise.as_deref(),
        )
    }
}

/// The mean figure of the mixture that was chosen.
fn mean(evidence: &Evidence) -> f64 {
    evidence.found.first().map_or(0.0, |found| found.mean())
}

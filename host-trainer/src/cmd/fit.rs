//! `host-trainer fit`: from good images to a calibrated package, in one command.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use ed25519_dalek::SigningKey;
use host_trainer::dataset::Account;
use host_trainer::device::DeviceChoice;
use host_trainer::evaluate::{GoodPicture, ThresholdPage, Tried};
use host_trainer::package::{
    CalibrationOutcome, Draft, Evidence, PackageOptions, SegmentationSource, ThresholdRule, draft,
};
use host_trainer::run_folder::{self, Run};
use host_trainer::segmentation::SegmentationOptions;
use host_trainer::surface::{Advice, Surface};
use host_trainer::weights::WeightSet;
use proto::manifest::{PostProcessing, Roi, Scoring};
use scoring::io::atomic::write_atomic;
use scoring::package::{key_id, write_key_pair};
use serde::{Deserialize, Serialize};

use super::keys::{new_signing_key, signing_key};
use super::notices::report_account;
use super::openmp::sleep_while_waiting;
use super::package::{add_places, add_variation, choose_mixture, held_out_frames};
use super::progress;
use super::recommend::{Look, look, milliseconds, of_photographs, width_within};
use super::shell::say;
use super::text::{evidence_in_words, mixture_in_words, segmentation_gain};
use super::threshold::{PromiseArgs, print_package, set_threshold};
use super::train::{Caller, Train};

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
/// Good frames to show on the page.
const SHOWN: usize = 8;
/// Networks of this width and wider are quantised to 8 bits, where they are faster.
const QUANTISED_WIDTH: i64 = 64;
/// Packages with a network in single precision that are larger are quantised too.
const LARGE_ONNX_BYTES: usize = 800_000;

/// Make a calibrated package from good images, in one command.
///
/// Measures the images, trains, tries ways to judge a frame on synthetic defects drawn into good
/// images that were held out, keeps the best, and calibrates the threshold. Every decision is
/// printed with its reason and kept in the package; a page beside it shows why the threshold is what
/// it is. After a power cut or Ctrl-C the same command
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
    /// Perceptual features to train with: builtin, or a .safetensors file (default: what
    /// `fetch-weights` fetched, which often finds more, or else builtin).
    #[arg(long)]
    features: Option<String>,
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

/// What was decided before training. It is kept in the run's folder, so that an interrupted run goes
/// on as it was begun, whatever the times that are measured then.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// Perceptual features to train with.
    #[serde(default = "built_in")]
    features: String,
    /// Options of `train`, each with its value and the reason.
    settings: Vec<Setting>,
    /// Number of iterations.
    iterations: usize,
    /// What else judges frames.
    stages: Stages,
}

/// The features that come with the program.
fn built_in() -> String {
    "builtin".to_owned()
}

/// An option of `train`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Setting {
    option: String,
    value: String,
    why: String,
}

/// What may judge frames besides the network.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Stages {
    /// Nothing: parts are in no fixed pose.
    None,
    /// A variation model.
    Variation,
    /// A variation model, and a segmentation network trained by so many steps.
    Segmentation(u32),
}

impl Plan {
    fn path(run: &Path) -> PathBuf {
        run.join("fit.json")
    }

    /// The plan of a run that was begun, if there is one.
    fn read(run: &Path) -> Result<Option<Self>> {
        let path = Self::path(run);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let plan = serde_json::from_slice(&bytes);
                plan.map(Some).with_context(|| {
                    format!(
                        "{} is damaged; remove {} to begin again",
                        path.display(),
                        run.display()
                    )
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn write(&self, run: &Path) -> Result<()> {
        std::fs::create_dir_all(run).with_context(|| format!("making {}", run.display()))?;
        let text = serde_json::to_string_pretty(self)?;
        Ok(write_atomic(&Self::path(run), text.as_bytes())?)
    }

    /// What was decided, each with its reason.
    fn decisions(&self) -> Vec<String> {
        let settings = self.settings.iter();
        let words = settings.map(|Setting { option, value, why }| {
            format!("{}: {why}", format!("--{option} {value}").trim_end())
        });
        let features = format!("--features {}", self.features);
        std::iter::once(features).chain(words).collect()
    }
}

impl Fit {
    pub(crate) fn run(self) -> Result<()> {
        sleep_while_waiting();
        let key = self.signing_key()?;
        let run = self.run_folder();
        let (plan, looked) = match Plan::read(&run)? {
            Some(plan) => (plan, false),
            None => (self.plan(&run)?, true),
        };
        let mut decisions = plan.decisions();
        for decision in &decisions {
            self.say(decision);
        }
        let trained = self.train(&run, &plan, Caller::Fit { looked })?;
        self.say(&trained);
        decisions.push(trained);
        let (draft, evidence) = self.judge(&run, &key, plan.stages, &mut decisions)?;
        self.finish(draft, &run, &key, decisions, &evidence)
    }

    /// Looks at the images, decides, and keeps what was decided.
    fn plan(&self, run: &Path) -> Result<Plan> {
        let features = self.features();
        let Look {
            account: _,
            surface,
            settings,
        } = look(
            &self.data,
            MEASURED,
            self.allow_unreadable,
            of_photographs(&features),
        )?;
        for warning in surface.warnings() {
            eprintln!("note: {warning}");
        }
        let settings = self.settings(&surface, settings)?.into_iter();
        let settings = settings.map(|Advice { option, value, why }| Setting {
            option: option.to_owned(),
            value,
            why,
        });
        let settings: Vec<Setting> = settings.collect();
        let stages = self.stages(&surface);
        let plan = Plan {
            iterations: self.iterations(run, &features, &settings, stages)?,
            features,
            settings,
            stages,
        };
        plan.write(run)?;
        Ok(plan)
    }

    /// The features to train with.
    fn features(&self) -> String {
        if let Some(features) = &self.features {
            return features.clone();
        }
        match WeightSet::any_fetched() {
            Some(path) => path.display().to_string(),
            None => {
                self.say(
                    "features that `host-trainer fetch-weights` fetches (5 MB, trained on \
                     ImageNet) often find more than the built-in ones",
                );
                built_in()
            }
        }
    }

    fn say(&self, text: &str) {
        say(self.json, text);
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

    /// What else may judge frames of this surface, in this time.
    fn stages(&self, surface: &Surface) -> Stages {
        if surface.package_advice().is_empty() {
            return Stages::None;
        }
        let minutes = self.minutes * (0.9 - TRAINING_SHARE_OF_TWO);
        let steps = (minutes * SEGMENTATION_STEPS_A_MINUTE).min(MOST_SEGMENTATION_STEPS);
        match steps >= LEAST_SEGMENTATION_STEPS {
            true => Stages::Segmentation(steps as u32),
            false => Stages::Variation,
        }
    }

    /// The training with these settings.
    fn training(
        &self,
        run: &Path,
        features: &str,
        settings: &[Setting],
        iterations: usize,
    ) -> Result<Train> {
        let mut words: Vec<OsString> = ["train", "--run"].map(OsString::from).into();
        words.push(run.into());
        words.extend(["--data".into(), self.data.clone().into_os_string()]);
        if let Some(groups) = &self.groups {
            words.extend(["--groups".into(), groups.clone().into_os_string()]);
        }
        if self.allow_unreadable {
            words.push("--allow-unreadable".into());
        }
        let (seed, batch) = (self.seed.to_string(), BATCH.to_string());
        let iterations = iterations.to_string();
        let own = [
            ("features", features),
            ("seed", &seed),
            ("iterations", &iterations),
            ("batch", &batch),
        ];
        let measured = settings.iter();
        let measured = measured.map(|setting| (setting.option.as_str(), setting.value.as_str()));
        for (option, value) in own.into_iter().chain(measured) {
            words.push(format!("--{option}").into());
            if !value.is_empty() {
                words.push(value.into());
            }
        }
        if run_folder::checkpoint(run).exists() {
            words.push("--resume".into());
        }
        let TrainLine { train } = TrainLine::try_parse_from(words)?;
        Ok(train.on_device(self.device))
    }

    /// The iterations that the time allows, by a few that are timed.
    fn iterations(
        &self,
        run: &Path,
        features: &str,
        settings: &[Setting],
        stages: Stages,
    ) -> Result<usize> {
        let trial = run.with_extension("trial");
        std::fs::remove_dir_all(&trial).ok();
        let train = self.training(&trial, features, settings, TRIAL)?;
        let tried = train.called_by(Caller::Trial).train()?;
        std::fs::remove_dir_all(&trial).with_context(|| format!("removing {}", trial.display()))?;
        let fitting = self.training_minutes(stages) / tried.minutes.max(1e-6) * TRIAL as f64;
        Ok(fitting.clamp(*ITERATIONS.start(), *ITERATIONS.end()) as usize)
    }

    /// Minutes for training the network.
    fn training_minutes(&self, stages: Stages) -> f64 {
        self.minutes
            * match stages {
                Stages::None | Stages::Variation => TRAINING_SHARE,
                Stages::Segmentation(_) => TRAINING_SHARE_OF_TWO,
            }
    }

    /// Trains the network, or goes on; returns what was decided.
    fn train(&self, run: &Path, plan: &Plan, caller: Caller) -> Result<String> {
        let train = self.training(run, &plan.features, &plan.settings, plan.iterations)?;
        let trained = train.called_by(caller).train()?;
        Ok(format!(
            "--iterations {}: what {:.1} min allow, at most the paper's {}; it took {:.1} min",
            plan.iterations,
            self.training_minutes(plan.stages),
            ITERATIONS.end(),
            trained.minutes
        ))
    }

    /// Tries ways to judge a frame, and keeps the one that finds most synthetic defects.
    fn judge(
        &self,
        run: &Path,
        key: &SigningKey,
        stages: Stages,
        decisions: &mut Vec<String>,
    ) -> Result<(Draft, Evidence)> {
        let plain = self.draft(run)?;
        let mut decide = |text: String| {
            self.say(&text);
            decisions.push(text);
        };
        let mut best = plain.clone();
        add_places(&mut best, run, key)?;
        // They rest on the network and the images alone, so every draft may have the same.
        let (layers, grain) = (best.manifest.layers.clone(), best.manifest.grain.clone());
        let mut evidence = choose_mixture(&mut best, run, key)?;
        let mixed = |mut draft: Draft| -> Result<(Draft, Evidence)> {
            draft.manifest.layers.clone_from(&layers);
            draft.manifest.grain.clone_from(&grain);
            let evidence = choose_mixture(&mut draft, run, key)?;
            Ok((draft, evidence))
        };
        decide(evidence_in_words(&evidence));
        if matches!(stages, Stages::None) {
            return Ok((best, evidence));
        }
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
        let mut variation = plain;
        if let Err(error) = add_variation(&mut variation, run, key) {
            consider("a variation model", Err(error));
            return Ok((best, evidence));
        }
        consider("a variation model", mixed(variation.clone()));
        if let Stages::Segmentation(steps) = stages {
            let segmentation = self
                .with_segmentation(variation, run, key, steps)
                .and_then(mixed);
            consider("a variation model and a segmentation network", segmentation);
        }
        Ok((best, evidence))
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
        evidence: &Evidence,
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
        let (promise, good) = match frames.is_empty() {
            true => {
                eprintln!(
                    "no threshold: too few images to hold any out; next: host-trainer calibrate with other good images"
                );
                (None, None)
            }
            false => {
                let rule: ThresholdRule = self.promise.rule()?;
                let (promise, good) = set_threshold(&mut draft, &frames, rule, key, &mut account)?;
                report_account("calibration set", &account);
                (Some(promise), Some(good))
            }
        };
        write_atomic(&self.out, &draft.sign(key)?)?;
        let page = self.out.with_extension("html");
        let text = threshold_page(&draft, key, promise.clone(), good.as_ref(), evidence)?;
        write_atomic(&page, text.as_bytes())?;
        self.say(&format!("why: {}", page.display()));
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

/// The page that says why.
fn threshold_page(
    draft: &Draft,
    key: &SigningKey,
    promise: Option<String>,
    good: Option<&CalibrationOutcome>,
    evidence: &Evidence,
) -> Result<String> {
    let scores = good.map_or(&[][..], |good| &good.scores);
    let inspector = draft.inspector(key)?;
    let highest = scores.iter().take(SHOWN);
    let highest = highest.map(|good| GoodPicture::draw(&inspector, &good.file));
    let manifest = &draft.manifest;
    let tried = evidence.found.iter().map(|found| Tried {
        name: mixture_in_words(&found.mixture),
        figures: [found.pixel_auroc, found.aupro, found.image_auroc],
    });
    let page = ThresholdPage {
        title: format!("{} {}", manifest.name, manifest.version),
        threshold: manifest.threshold.as_ref().map(|threshold| threshold.value),
        promise,
        scores: scores.iter().map(|good| good.score).collect(),
        median: good.and_then(CalibrationOutcome::median),
        highest: highest.collect::<Result<_, _>>()?,
        decisions: manifest.decisions.clone(),
        tried: tried.collect(),
    };
    Ok(page.html())
}

/// The mean figure of the mixture that was chosen.
fn mean(evidence: &Evidence) -> f64 {
    evidence.found.first().map_or(0.0, |found| found.mean())
}

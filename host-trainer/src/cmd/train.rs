//! `host-trainer train`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use edge_runtime::io::atomic::write_atomic;
use host_trainer::dataset::{
    Colour, Coordinates, Groups, Skipped, TrainingSet, hex, split, training_files, usable,
};
use host_trainer::device::DeviceChoice;
use host_trainer::memory;
use host_trainer::network::{Network, OutputActivation};
use host_trainer::noise::{Family, NoiseBank};
use host_trainer::perceptual::{Depth, Features};
use host_trainer::run_folder::{self, Run};
use host_trainer::sheet;
use host_trainer::train::{
    self, BATCH, BatchSource, Event, ITERATIONS, Loss, LossKind, Recipe, Saved, Schedule, Ssim,
    TILES,
};
use proto::manifest::{InputSize, TrainingMode};

use super::progress;

/// Train on defect-free images.
///
/// DATA is a folder in MVTec AD's layout (train/good is used) or a bare folder of good images. The defaults but
/// for --features are the paper's. Ctrl-C saves a checkpoint; the same command with --resume goes on and, on the CPU, ends where an
/// uninterrupted run would have. Next: `host-trainer package`.
#[derive(Args)]
pub(crate) struct Train {
    /// Folder of good images.
    #[arg(long)]
    data: PathBuf,
    /// Folder for checkpoints, losses and sample maps; must be new unless --resume.
    #[arg(long)]
    run: PathBuf,
    /// Go on from the checkpoint in --run.
    #[arg(long)]
    resume: bool,
    /// Size to train and score at: a number (256: 256×256, the paper's), WIDTHxHEIGHT, or native.
    #[arg(long, default_value = "256", value_parser = parse_size)]
    size: InputSize,
    /// Colour handling.
    #[arg(long, default_value = "auto")]
    colour: Colour,
    /// Perceptual features: builtin, a .safetensors file (VGG-11 or VGG-19 names, or of `pretrain`), or random:SEED.
    #[arg(long, default_value = "builtin")]
    features: String,

    /// What the perceptual loss compares.
    #[arg(long, value_enum, default_value_t = Depth::Last)]
    feature_depth: Depth,

    /// Imitate the network of this training run, usually a wider one, instead of learning by features: several times as fast,
    /// and no features are needed. Compare with a network that learned by itself before you use it: on leather it ranked
    /// images better and pixels worse (models/studies; not in the paper).
    #[arg(long, value_name = "RUN", conflicts_with_all = ["features", "feature_depth", "loss"])]
    teacher: Option<PathBuf>,

    /// Weight of the mean |A| on uncorrupted pixels, added to the loss (not in the paper, whose value is 0).
    #[arg(long, default_value_t = 0.0, value_parser = weight)]
    quiet: f64,
    /// Light each good tile otherwise, by a factor of up to 1 ± this, so that brightness which the good images do not
    /// show is no defect (not in the paper, whose value is 0). 0.3 helps where good images are few.
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    lighting: f32,
    /// Package the running average of the weights, of which a step leaves this share (0.999; not in the paper, whose
    /// value is 0: the last weights).
    #[arg(long, default_value_t = 0.0, value_parser = decay)]
    average: f64,
    /// How the learning rate changes.
    #[arg(long, value_enum, default_value_t = Schedule::Constant)]
    schedule: Schedule,
    /// direct is the method; the others are baselines.
    #[arg(long, default_value = "direct")]
    mode: Mode,
    /// What is minimised.
    #[arg(long, default_value = "perceptual")]
    loss: LossKind,
    /// What is applied to the repaired image.
    #[arg(long, default_value = "refrelu")]
    activation: OutputActivation,
    /// Noise families to use, separated by commas (default: the paper's five).
    #[arg(long, value_delimiter = ',')]
    noise: Vec<Family>,
    /// Also corrupt by parts of the tile laid over it, changed contrast and wrinkles, through masks of random shape (not in the
    /// paper).
    #[arg(long)]
    structured: bool,
    /// Noise families to leave out, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Family>,
    /// Channels after the first convolution (the paper's 128; narrower is faster).
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1024))]
    width: u16,
    /// Bilinear upsampling and a convolution in place of each transposed convolution (not in the paper): no checkerboard in the
    /// map. On textures width 32 finds as much with it as width 128 without, and a frame takes 1.5 to 2 times as long as
    /// without at the same width (models/studies).
    #[arg(long)]
    upsampled: bool,
    /// Iterations.
    #[arg(long, default_value_t = ITERATIONS, value_parser = super::positive)]
    iterations: usize,
    /// Tiles an iteration.
    #[arg(long, default_value_t = BATCH, value_parser = super::positive)]
    batch: usize,
    /// Tiles to draw from.
    #[arg(long, default_value_t = TILES, value_parser = super::positive)]
    tiles: usize,
    /// Seed of weights, crops and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads for libtorch (default: all cores).
    #[arg(long)]
    threads: Option<u16>,
    /// Threads that cut and corrupt tiles (default: 1 when training on the CPU; on a GPU half of the cores, at most 8).
    #[arg(long, value_parser = super::positive)]
    workers: Option<usize>,
    /// Fraction of the good images held out of training, to calibrate the threshold on.
    #[arg(long, default_value_t = 0.0)]
    hold_out: f64,
    /// CSV (file,group) naming the part that each image shows, so that images of one part stay together.
    #[arg(long)]
    groups: Option<PathBuf>,
    /// Iterations between checkpoints and sample maps.
    #[arg(long, default_value_t = 250, value_parser = super::positive)]
    checkpoint_every: usize,
}

/// The network to imitate.
struct Teacher {
    name: String,
    run: Run,
    network: Network,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// The network's output is the anomaly map (the method).
    Direct,
    /// The network's output is the repaired image; scored by its distance from the input.
    Denoising,
    /// An autoencoder without noise; scored by its distance from the input.
    Reconstruction,
}

fn fraction(text: &str) -> Result<f32, String> {
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

fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}

/// One thread makes tiles faster than a few cores learn from them, and far slower than a GPU does.
fn workers_beside(device: tch::Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if device.is_cuda() {
        (cores / 2).clamp(1, 8)
    } else {
        1
    }
}

fn parse_size(text: &str) -> Result<InputSize, String> {
    let side = |text: &str| {
        let side = text.parse::<u32>().ok();
        side.filter(|side| (65..=proto::limits::MAX_FRAME_SIDE_PX).contains(side))
            .ok_or_else(|| {
                format!("expected native, a side of at least 65 px or WIDTHxHEIGHT, found `{text}`")
            })
    };
    if text == "native" {
        return Ok(InputSize::Native);
    }
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    Ok(InputSize::Fixed {
        width_px: side(width)?,
        height_px: side(height)?,
    })
}

impl Train {
    pub(crate) fn run(self) -> Result<()> {
        memory::keep_freed_memory();
        let device = self.device.open()?;
        if let Some(threads) = self.threads {
            tch::set_num_threads(i32::from(threads));
        }
        let checkpoint = run_folder::checkpoint(&self.run);
        match (self.resume, checkpoint.exists()) {
            (true, false) => bail!(
                "nothing to resume: no checkpoint in {}; leave --resume out to start",
                self.run.display()
            ),
            (false, true) => bail!(
                "{} already holds a run; add --resume to go on with it, or choose another --run",
                self.run.display()
            ),
            _ => {}
        }
        if !(0.0..1.0).contains(&self.hold_out) {
            bail!(
                "--hold-out expects a fraction from 0 to below 1, found {}",
                self.hold_out
            );
        }
        let teacher = self.make_teacher(device)?;
        let (run, set) = self.describe(device, teacher.as_ref())?;
        if self.resume {
            let before = Run::read(&self.run)?;
            // The rate of a schedule depends on how many there will be.
            let same = Run {
                iterations: match run.schedule {
                    Schedule::Constant => run.iterations,
                    Schedule::Cosine => before.iterations,
                },
                ..before.clone()
            };
            if same != run {
                bail!(
                    "the settings or the images differ from those the run in {} was started with, so its result would \
                     be neither; give the same ones (only --iterations may change, and not under --schedule cosine)",
                    self.run.display()
                );
            }
        }
        std::fs::create_dir_all(&self.run)
            .with_context(|| format!("making {}", self.run.display()))?;
        run.write(&self.run)?;
        let recipe = Recipe {
            mode: run.mode,
            activation: run.activation,
            quiet: self.quiet,
            average: self.average,
            schedule: self.schedule,
            loss: self.make_loss(device)?,
            teacher: teacher.map(|teacher| teacher.network),
            architecture: run.architecture(),
            iterations: run.iterations,
            seed: run.seed,
            device,
            workers: self.workers.unwrap_or_else(|| workers_beside(device)),
            checkpoint_every: self.checkpoint_every,
        };
        let source = Arc::new(BatchSource {
            coordinates: Coordinates::draw(&set.frames, run.tiles, run.batch, run.seed),
            frames: set.frames,
            noise: match run.mode {
                TrainingMode::Reconstruction => None,
                TrainingMode::Direct | TrainingMode::Denoising => Some(self.bank()?),
            },
            lighting: self.lighting,
            seed: run.seed,
        });
        self.train(&recipe, &source, &checkpoint)
    }

    fn bank(&self) -> Result<NoiseBank> {
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

    fn make_loss(&self, device: tch::Device) -> Result<Loss> {
        Ok(match self.loss {
            // Whatever takes no file: it is not asked.
            _ if self.teacher.is_some() => Loss::L2,
            LossKind::L2 => Loss::L2,
            LossKind::Ssim => Loss::Ssim(Ssim::new(device)?),
            LossKind::Perceptual => {
                let features = match self.features.strip_prefix("random:") {
                    _ if self.features == "builtin" => Features::built_in(device)?,
                    Some(seed) => {
                        let seed = seed.parse().with_context(|| {
                            format!("--features random:SEED, found seed `{seed}`")
                        })?;
                        Features::random(seed, device)?
                    }
                    None => Features::from_file(Path::new(&self.features), device)?,
                };
                Loss::Perceptual(features.compared_at(self.feature_depth))
            }
        })
    }

    /// The network to imitate, and its run.
    fn make_teacher(&self, device: tch::Device) -> Result<Option<Teacher>> {
        let Some(folder) = &self.teacher else {
            return Ok(None);
        };
        let run = Run::read(folder)?;
        if [run.mode, self.mode()] != [TrainingMode::Direct; 2] {
            bail!("--teacher is for mode direct, of the teacher and of this run");
        }
        let saved = Saved::open(&run_folder::checkpoint(folder))?;
        let network = Network::of(&saved.layers(&run.architecture())?, device)?;
        Ok(Some(Teacher {
            name: format!(
                "a network of width {}, {} iterations, seed {}, SHA-256 {}…",
                run.width,
                saved.progress.iterations,
                run.seed,
                &saved.sha256()[..8]
            ),
            run,
            network,
        }))
    }

    fn mode(&self) -> TrainingMode {
        match self.mode {
            Mode::Direct => TrainingMode::Direct,
            Mode::Denoising => TrainingMode::Denoising,
            Mode::Reconstruction => TrainingMode::Reconstruction,
        }
    }

    /// Loads the images and writes down everything that decides the result.
    fn describe(
        &self,
        device: tch::Device,
        teacher: Option<&Teacher>,
    ) -> Result<(Run, TrainingSet)> {
        let files = training_files(&self.data)?;
        let mut groups = match &self.groups {
            Some(path) => Groups::read(path, &self.data)?,
            None => Groups::default(),
        };
        super::say_ungrouped(&groups, &files)?;
        if self.hold_out > 0.0 {
            groups.join_copies(&files);
        }
        let split = split(&files, &groups, self.hold_out, self.seed)?;
        let bar = progress::bar(split.train.len(), "reading images");
        let set = TrainingSet::load(&split.train, self.size, self.colour, &mut |done| {
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        // Now, not after hours of training, when `package` would need them.
        let bar = progress::bar(split.held_out.len(), "reading held-out images");
        let (held_out, unusable) = usable(&split.held_out, &set.input, &mut |done| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let left_out: Vec<&Skipped> = set.skipped.iter().chain(&unusable).collect();
        super::say_skipped(&left_out, files.len());
        eprintln!(
            "{} images to train on, {} held out, on {device:?}",
            set.frames.len(),
            held_out.len()
        );
        if let Some(teacher) = teacher.filter(|of| of.run.input != set.input) {
            bail!(
                "the teacher sees {:?}, this run {:?}: its maps would be of something else; give its --size and --colour",
                teacher.run.input,
                set.input
            );
        }
        let features = match self.loss {
            // What a network learned from another's features is made from them.
            _ if teacher.is_some() => {
                let features = teacher.map(|of| of.run.features.as_str());
                format!("{} (its teacher's)", features.unwrap_or_default())
            }
            LossKind::Perceptual => match self.make_loss(tch::Device::Cpu)? {
                Loss::Perceptual(features) => features.label().to_owned(),
                Loss::L2 | Loss::Ssim(_) => String::new(),
            },
            LossKind::L2 | LossKind::Ssim => "none".to_owned(),
        };
        let mode = self.mode();
        let noise = match mode {
            TrainingMode::Reconstruction => "none".to_owned(),
            TrainingMode::Direct | TrainingMode::Denoising => self.bank()?.describe(),
        };
        let skipped: Vec<&PathBuf> = set.skipped.iter().map(|s| &s.file).collect();
        // Whole paths, so that `package` finds the images from whatever folder it is run in.
        let whole = |file: &PathBuf| {
            std::path::absolute(file).with_context(|| format!("finding {}", file.display()))
        };
        let run = Run {
            schema: Run::schema(),
            quiet: self.quiet,
            lighting: self.lighting,
            average: self.average,
            schedule: self.schedule,
            teacher: teacher.map(|teacher| teacher.name.clone()),
            teacher_digests: teacher
                .map(|Teacher { run, .. }| [&run.train_digests[..], &run.teacher_digests].concat())
                .unwrap_or_default(),
            mode,
            loss: self.loss,
            activation: self.activation,
            features,
            noise,
            width: i64::from(self.width),
            upsampled: self.upsampled,
            iterations: self.iterations,
            batch: self.batch,
            tiles: self.tiles,
            seed: self.seed,
            input: set.input,
            train_files: split
                .train
                .iter()
                .filter(|file| !skipped.contains(file))
                .map(whole)
                .collect::<Result<_>>()?,
            train_digests: set.digests.iter().map(|digest| hex(digest)).collect(),
            held_out_parts: held_out.iter().map(|file| groups.part(file)).collect(),
            held_out: held_out.iter().map(whole).collect::<Result<_>>()?,
        };
        Ok((run, set))
    }

    fn train(&self, recipe: &Recipe, source: &Arc<BatchSource>, checkpoint: &Path) -> Result<()> {
        let stop = super::stopped_by_ctrl_c("iteration")?;
        let done = if checkpoint.exists() {
            Saved::open(checkpoint)?.progress.iterations
        } else {
            0
        };
        let mut losses = read_losses(&run_folder::losses(&self.run), done);
        let bar = progress::bar(recipe.iterations, "training");
        bar.set_position(done as u64);
        let mut failed = None;
        let outcome = train::train(
            recipe,
            source,
            checkpoint,
            &stop,
            &mut |event| match event {
                Event::Step {
                    iteration,
                    loss,
                    tiles_per_s,
                } => {
                    losses.push_str(&format!("{iteration},{loss}\n"));
                    bar.set_position(iteration as u64);
                    bar.set_message(format!("loss {loss:.4}, {tiles_per_s:.0} tiles/s"));
                    if bar.is_hidden() && (iteration % 50 == 0 || iteration == 1) {
                        eprintln!(
                            "iteration {iteration}: loss {loss:.4}, {tiles_per_s:.0} tiles/s"
                        );
                    }
                }
                Event::Checkpoint { iteration, samples } => {
                    let picture = sheet::samples(&samples);
                    let written =
                        sheet::png(&picture)
                            .map_err(anyhow::Error::from)
                            .and_then(|png| {
                                write_atomic(&run_folder::sample(&self.run, iteration), &png)?;
                                write_atomic(&run_folder::losses(&self.run), losses.as_bytes())?;
                                Ok(())
                            });
                    if let Err(error) = written {
                        failed = Some(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            },
        )?;
        bar.finish_and_clear();
        if let Some(error) = failed {
            return Err(error.context("saving losses and sample maps"));
        }
        let minutes = outcome.progress.seconds / 60.0;
        if outcome.interrupted {
            bail!(
                "stopped at iteration {} of {} after {minutes:.1} min; saved: the same command with --resume goes on",
                outcome.progress.iterations,
                recipe.iterations
            );
        }
        println!(
            "trained {} iterations in {minutes:.1} min; next: host-trainer package --run {} --key SIGNING.key --name PRODUCT --out PRODUCT.awr",
            outcome.progress.iterations,
            self.run.display()
        );
        Ok(())
    }
}

/// Losses of the iterations that the checkpoint has; later ones belong to a session that was cut off.
fn read_losses(path: &Path, iterations: usize) -> String {
    let mut text = "iteration,loss\n".to_owned();
    let written = std::fs::read_to_string(path).unwrap_or_default();
    for line in written.lines().skip(1).take(iterations) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: Train,
    }

    fn train(extra: &[&str]) -> Train {
        let line = [&["x", "--data", "d", "--run", "r"], extra].concat();
        Line::parse_from(line).train
    }

    #[test]
    fn the_defaults_are_the_papers() {
        let train = train(&[]);
        let (width_px, height_px) = (256, 256);
        assert_eq!(
            train.size,
            InputSize::Fixed {
                width_px,
                height_px
            }
        ); // IV-A
        assert_eq!(train.width, 128); // IV-C
        assert_eq!(train.activation, OutputActivation::RefRelu); // IV-D
        assert_eq!(train.loss, LossKind::Perceptual); // IV-E
        assert_eq!(train.feature_depth, Depth::Last);
        assert_eq!(
            (train.tiles, train.batch, train.iterations),
            (80_000, 64, 3_500)
        ); // IV-F
        assert!(matches!(train.mode, Mode::Direct));
        assert_eq!((train.quiet, train.lighting), (0.0, 0.0));
        assert_eq!((train.average, train.schedule), (0.0, Schedule::Constant));
        assert_eq!(train.bank().unwrap().algorithms().len(), 12); // IV-B
    }

    #[test]
    fn leaving_out_every_family_is_refused() {
        let nothing = train(&["--noise", "opaque", "--without", "opaque"]);
        assert!(nothing.bank().is_err());
    }
}

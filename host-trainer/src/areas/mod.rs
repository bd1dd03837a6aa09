//! Learns an area network ([`proto::manifest::AreaNetwork`]) for a variation model: good frames into which areas and defects are drawn
//! ([`defect`]), looked at in many ways ([`view`], [`examples`]); a small network ([`network`]) that says of each cell whether it was
//! changed. A fifth of the frames is kept back, to see what it brings and what good cells give. **Ours**.

mod defect;
mod examples;
mod network;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use edge_runtime::infer::{AreaEngine, InferError};
use edge_runtime::inspect::areas::{CELLS, input, planes_of, shrunk, texture};
use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::variation::{FINEST, deviations, look};
use proto::manifest::{AreaNetwork, VariationModel};
use sha2::{Digest, Sha256};
use tch::{Device, Kind as Number, Reduction, TchError, Tensor};

use crate::ahead::Ahead;
use crate::dataset::hex;
use crate::evaluate::{PixelError, PixelMetrics};
use crate::onnx::export_areas;
use crate::seed::generator;
use crate::train::{Adam, CheckpointError, LEARNING_RATE, Progress, Saved, save_tensors};
pub use defect::{Drawn, Good, Kind};
pub use examples::BATCH;
use examples::{GoodFrames, cells};
pub use network::AreaNet;
pub use view::View;

/// Steps of learning: some 25 minutes on two cores of a Xeon with AMX, 45 where nothing multiplies 16 bits.
pub const STEPS: usize = 10_000;
/// Steps between checkpoints: a minute or so on two cores.
pub const CHECKPOINT_EVERY: usize = 200;
/// Which drawings and looks are learned from; another number whenever these change, so that nobody goes on from a checkpoint of others.
const DRAWINGS: u32 = 2;
/// The highest learning rate; it rises to that in the first tenth and falls to nothing along a cosine (Smith and Topin 2019).
const RATE: f64 = 2e-3;
/// One frame in so many is kept back.
const KEPT_BACK_ONE_IN: usize = 5;
/// Kinds that are drawn into each frame that is kept back.
const CHECKED_KINDS: usize = 4;
/// Good frames that it takes.
const LEAST_FRAMES: usize = 40;
/// What the network's deviations are multiplied by before they are added to the variation model's, unless the user has it otherwise: found
/// best on synthetic defects in good frames (`models/studies`).
const SHARE: f32 = 2.0;
/// A spread of logits is at least that.
const LEAST_SPREAD: f32 = 0.1;
/// Golden logits may be off by that: other instruction sets add up in another order.
const TOLERANCE: f32 = 0.02;

/// Why there is no area network.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// Too few good frames.
    #[error(
        "expected at least {LEAST_FRAMES} good images for an area network, found {0}: package without --areas"
    )]
    Frames(usize),
    /// It finds no more than the variation model alone.
    #[error(
        "the area network brings nothing here: pixel AUROC on areas drawn into good images {with:.3}, without it {without:.3}; package without --areas"
    )]
    Useless {
        /// With it.
        with: f64,
        /// Without.
        without: f64,
    },
    /// A good image cannot be read or scored.
    #[error("a good image cannot be used")]
    Image(#[source] Cause),
    /// The threads that read or draw ended early.
    #[error("the threads that read and draw into good images ended early")]
    Workers,
    /// It cannot be run.
    #[error("the area network does not run")]
    Infer(#[from] InferError),
    /// What was learned before cannot be used.
    #[error("what was learned before cannot be gone on with; remove that file to begin anew")]
    Resume(#[source] CheckpointError),
    /// What was learned cannot be kept.
    #[error("what was learned so far cannot be kept")]
    Keep(#[source] CheckpointError),
    /// The measurement failed.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// Why an image cannot be used.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Good frames are read.
    Reading,
    /// Steps are learned.
    Learning,
    /// Frames that were kept back are looked at.
    Checking,
}

/// How far a phase has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AreaProgress {
    /// The phase.
    pub phase: Phase,
    /// Frames or steps that are done.
    pub done: usize,
    /// Of so many.
    pub count: usize,
}

/// What it finds on frames kept back, into which areas and defects were drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// Pixel AUROC (a pixel: a cell) with it.
    pub with: f64,
    /// By the variation model alone.
    pub without: f64,
}

/// Reads and prepares the good frame of a number.
pub type ReadFrame = dyn Fn(usize) -> Result<Planes, Cause> + Send + Sync;

/// What is made of what an area network says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// As [`AreaNetwork::share`].
    pub share: f32,
    /// As [`AreaNetwork::surround`].
    pub surround: f32,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            share: SHARE,
            surround: 0.0,
        }
    }
}

/// What an area network is learned from.
pub struct Lesson<'a> {
    /// The variation model that it will stand beside.
    pub model: &'a VariationModel,
    /// Whether frames are in colour.
    pub colour: bool,
    /// Good frames.
    pub count: usize,
    /// Gives them, by number below `count`.
    pub read: Arc<ReadFrame>,
    /// Gives a frame's scores as the variation model takes them.
    pub scored: &'a dyn Fn(&Planes) -> Result<ScoreMap, Cause>,
    /// The frame of the parity gate ([`edge_runtime::package::area_golden`]).
    pub golden: &'a Planes,
    /// What is made of what it says.
    pub usage: Usage,
    /// Steps of learning, see [`STEPS`].
    pub steps: usize,
    /// Of what is drawn, and how learning begins.
    pub seed: u64,
    /// Where it is learned.
    pub device: Device,
    /// What was learned so far is kept here, and gone on with if it is of the same lesson.
    pub checkpoint: &'a Path,
    /// Steps from one time to the next, see [`CHECKPOINT_EVERY`].
    pub checkpoint_every: usize,
}

impl Lesson<'_> {
    /// Learns it, and sees what it brings.
    pub fn learn(
        &self,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<(AreaNetwork, Gain), AreaError> {
        if self.count < LEAST_FRAMES {
            return Err(AreaError::Frames(self.count));
        }
        let good = Arc::new(self.good_frames(on_progress)?);
        let onnx = self.fit(&good, on_progress)?;
        let engine = AreaEngine::new(&onnx, planes_of(self.colour))?;
        let mut network = AreaNetwork {
            onnx,
            mean: good.mean.clone(),
            scale: good.scale.clone(),
            logit_mean: 0.0,
            logit_spread: 1.0,
            share: self.usage.share,
            golden_logits: Vec::new(),
            golden_tolerance: TOLERANCE,
            surround: self.usage.surround,
        };
        let mut logits = Vec::new();
        for index in self.learned()..self.count {
            logits.extend(self.logits(&engine, &network, &self.good(index)?)?);
        }
        let (mean, spread) = mean_and_spread(&logits);
        (network.logit_mean, network.logit_spread) = (mean, spread.max(LEAST_SPREAD));
        self.judged(network, on_progress)
    }

    /// A network that was learned before, of the same frames: used as this lesson says, with golden logits of this package, and what it
    /// brings here.
    pub fn judged(
        &self,
        mut network: AreaNetwork,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<(AreaNetwork, Gain), AreaError> {
        let engine = AreaEngine::new(&network.onnx, planes_of(self.colour))?;
        (network.share, network.surround) = (self.usage.share, self.usage.surround);
        network.golden_logits = self.logits(&engine, &network, self.golden)?;
        let gain = self.gain(&network, &engine, on_progress)?;
        let Gain { with, without } = gain;
        if with <= without {
            return Err(AreaError::Useless { with, without });
        }
        Ok((network, gain))
    }

    /// The first so many frames are learned from, the last kept back: images of one part mostly follow each other.
    fn learned(&self) -> usize {
        self.count - self.count / KEPT_BACK_ONE_IN
    }

    fn good(&self, index: usize) -> Result<Planes, AreaError> {
        (self.read)(index).map_err(AreaError::Image)
    }

    fn logits(
        &self,
        engine: &AreaEngine,
        network: &AreaNetwork,
        planes: &Planes,
    ) -> Result<Vec<f32>, AreaError> {
        let seen = shrunk(planes, self.colour);
        let texture = texture(&seen, self.colour);
        let input = input(&network.mean, &network.scale, &seen, &texture, self.colour);
        Ok(engine.logits(&input)?)
    }

    /// Reads what is learned from, by as many threads as there are cores.
    fn good_frames(
        &self,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<GoodFrames, AreaError> {
        let (learned, colour, read) = (self.learned(), self.colour, Arc::clone(&self.read));
        let make = move |index: usize| -> Result<(Vec<u8>, Vec<f32>), Cause> {
            let seen = shrunk(&read(index)?, colour);
            let bytes = seen
                .data
                .iter()
                .map(|value| ((value + 1.0) * 127.5).round() as u8);
            Ok((bytes.collect(), texture(&seen, colour)))
        };
        let workers = workers();
        let (mut frames, mut textures) = (Vec::new(), Vec::new());
        for made in Ahead::start(0..learned, workers, make).take(learned) {
            let (frame, texture) = made.map_err(AreaError::Image)?;
            frames.push(frame);
            textures.push(texture);
            on_progress(AreaProgress {
                phase: Phase::Reading,
                done: frames.len(),
                count: learned,
            });
        }
        if frames.len() < learned {
            return Err(AreaError::Workers);
        }
        Ok(GoodFrames::new(colour, frames, &textures))
    }

    /// Learns the graph; what each step learns from is drawn by other threads meanwhile.
    fn fit(
        &self,
        good: &Arc<GoodFrames>,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<Vec<u8>, AreaError> {
        let planes = planes_of(self.colour) as i64;
        let net = AreaNet::new(
            planes,
            self.device,
            &mut generator(self.seed, "area network", 0),
        )?;
        let mut adam = Adam::new(net.parameters())?;
        let lesson = self.title(good, &net);
        let mut progress = self.resume(&lesson, &net, &mut adam)?;
        let number = number(self.device);
        let threads = tch::get_num_threads();
        if number == Number::BFloat16 {
            // All draw; those that learn together wait for the one that is held up by that.
            tch::set_num_threads(workers().div_ceil(2) as i32);
        }
        let before = progress;
        let started = Instant::now();
        let (good, seed) = (Arc::clone(good), self.seed);
        let draw = move |step: usize| good.batch(&mut generator(seed, "area step", step as u64));
        let range = before.iterations..self.steps;
        let mut batches = Ahead::start(range.clone(), workers(), draw);
        let (batch, cells, finest) = (BATCH as i64, CELLS as i64, FINEST as i64);
        for step in range {
            let drawn = batches.next().ok_or(AreaError::Workers)?;
            let tensor = |values: &[f32], size: &[i64]| {
                Tensor::f_from_slice(values)?
                    .f_view(size)?
                    .f_to_device(self.device)
            };
            let input = tensor(&drawn.inputs, &[batch, planes, cells, cells])?;
            let mask = tensor(&drawn.masks, &[batch, 1, finest, finest])?;
            let weight = tensor(&drawn.weights, &[batch, 1, finest, finest])?;
            let loss = net
                .forward(&input, Some(number))?
                .f_binary_cross_entropy_with_logits(&mask, Some(&weight), None, Reduction::Mean)?;
            loss.f_backward()?;
            adam.step(rate(step, self.steps) / LEARNING_RATE)?;
            progress = Progress {
                iterations: step + 1,
                seconds: before.seconds + started.elapsed().as_secs_f64(),
            };
            let last = progress.iterations == self.steps;
            if last || progress.iterations.is_multiple_of(self.checkpoint_every) {
                let state = adam.state().into_iter().chain(net.statistics());
                save_tensors(self.checkpoint, state, progress, &lesson).map_err(AreaError::Keep)?;
            }
            on_progress(AreaProgress {
                phase: Phase::Learning,
                done: step + 1,
                count: self.steps,
            });
        }
        tch::set_num_threads(threads);
        Ok(export_areas(&net.steps()?, planes))
    }

    /// What decides how learning goes: only what was learned by the same is gone on with.
    fn title(&self, good: &GoodFrames, net: &AreaNet) -> String {
        let mut frames = Sha256::new();
        good.frames.iter().for_each(|frame| frames.update(frame));
        let parameters = net.parameters().into_iter();
        format!(
            "areas: drawings {DRAWINGS}, {} weights, {} steps of {BATCH}, seed {}, colour {}, frames {}",
            parameters.map(|(_, values)| values.numel()).sum::<usize>(),
            self.steps,
            self.seed,
            self.colour,
            hex(&frames.finalize())
        )
    }

    /// Goes on where the same lesson was left, if it was.
    fn resume(&self, lesson: &str, net: &AreaNet, adam: &mut Adam) -> Result<Progress, AreaError> {
        if self.checkpoint.exists() {
            let saved = Saved::open(self.checkpoint).map_err(AreaError::Resume)?;
            if saved.lesson == lesson {
                saved.restore(adam).map_err(AreaError::Resume)?;
                let statistics = saved.restore_tensors(net.statistics());
                statistics.map_err(AreaError::Resume)?;
                return Ok(saved.progress);
            }
        }
        Ok(Progress::default())
    }

    /// What it brings on the frames kept back, some kinds drawn into each.
    fn gain(
        &self,
        network: &AreaNetwork,
        engine: &AreaEngine,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<Gain, AreaError> {
        let nowhere = Path::new("nothing is put there");
        let mut metrics = [(); 2].map(|()| PixelMetrics::new(0, usize::MAX, nowhere));
        let learned = self.learned();
        let mut kinds = Kind::AREAS.into_iter().chain(Kind::DEFECTS).cycle();
        for index in learned..self.count {
            let mut rng = generator(self.seed, "areas kept back", index as u64);
            let good = Good::new(self.good(index)?);
            // Another part, most of the time: those that follow each other are often of one.
            let other = Good::new(self.good(index - learned)?);
            for kind in kinds.by_ref().take(CHECKED_KINDS) {
                let Drawn { planes, mask } = good.drawn(&[kind], &other, &mut rng);
                let scores = (self.scored)(&planes).map_err(AreaError::Image)?;
                let found = look(&planes, self.colour, &scores);
                let logits = self.logits(engine, network, &planes)?;
                let changed = cells(&mask, [planes.width_px, planes.height_px]);
                let mask: Vec<bool> = changed.iter().map(|changed| *changed >= 0.5).collect();
                for (metrics, areas) in metrics
                    .iter_mut()
                    .zip([Some((network, logits.as_slice())), None])
                {
                    let map = deviations(self.model, &found, areas, [FINEST; 2]);
                    metrics.add(&map.data, &mask, FINEST, None)?;
                }
            }
            on_progress(AreaProgress {
                phase: Phase::Checking,
                done: index + 1 - learned,
                count: self.count - learned,
            });
        }
        let [with, without] = metrics.map(|metrics| metrics.finish());
        Ok(Gain {
            with: with?.total.auroc.unwrap_or_default(),
            without: without?.total.auroc.unwrap_or_default(),
        })
    }
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What convolutions are computed in while they are learned: in 16 bits where that is done in hardware. What is learned is as good, and on
/// two cores with AMX it takes half the time (`models/studies`).
fn number(device: Device) -> Number {
    match device {
        Device::Cpu if brain_floats() => Number::BFloat16,
        _ => Number::Float,
    }
}

#[cfg(target_arch = "x86_64")]
fn brain_floats() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn brain_floats() -> bool {
    false
}

/// The learning rate at a step of so many.
fn rate(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64 + 0.5, steps as f64);
    let rising = steps / 10.0;
    if step < rising {
        return RATE * step / rising;
    }
    let done = (step - rising) / (steps - rising);
    RATE * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

fn mean_and_spread(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f64;
    let values = || values.iter().map(|value| f64::from(*value));
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::clouds;
    use crate::variation::VariationBuilder;

    /// A part with an even grain, whose brightness and contrast vary from part to part.
    fn part(number: usize) -> Planes {
        let (side, seed) = (96, number as u32);
        let (light, contrast) = (
            0.2 * clouds(number as f32 * 0.37, 0.5, 1),
            0.3 + 0.1 * clouds(number as f32 * 0.73, 0.5, 2),
        );
        let value = |index: usize| {
            let (x, y) = ((index % side) as f32, (index / side) as f32);
            light + contrast * clouds(x / 1.7, y / 3.1, seed)
        };
        Planes {
            channels: 1,
            width_px: side,
            height_px: side,
            data: (0..side * side).map(value).collect(),
        }
    }

    fn nothing(planes: &Planes) -> ScoreMap {
        ScoreMap::zeros(planes.width_px, planes.height_px)
    }

    fn model() -> VariationModel {
        let mut builder = VariationBuilder::new(false);
        for number in 0..64 {
            let planes = part(number);
            builder.add(&planes, &nothing(&planes));
        }
        builder.finish().unwrap()
    }

    fn lesson<'a>(
        model: &'a VariationModel,
        golden: &'a Planes,
        checkpoint: &'a Path,
    ) -> Lesson<'a> {
        Lesson {
            model,
            colour: false,
            count: 64,
            read: Arc::new(|number| Ok(part(number))),
            scored: &|planes| Ok(nothing(planes)),
            golden,
            usage: Usage::default(),
            steps: 150,
            seed: 1,
            device: Device::Cpu,
            checkpoint,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }

    #[test]
    fn it_finds_areas_that_places_by_themselves_do_not_show() {
        let folder = tempfile::tempdir().unwrap();
        let (model, golden) = (model(), shrunk(&part(0), false));
        let checkpoint = folder.path().join("areas.safetensors");
        let lesson = lesson(&model, &golden, &checkpoint);
        let mut ended = Vec::new();
        let mut on_progress = |at: AreaProgress| {
            if at.done == at.count {
                ended.push((at.phase, at.count));
            }
        };
        let (network, gain) = lesson.learn(&mut on_progress).unwrap();
        let expected = [
            (Phase::Reading, 52),
            (Phase::Learning, 150),
            (Phase::Checking, 12),
        ];
        assert_eq!(ended, expected);
        assert!(gain.with > gain.without + 0.02, "{gain:?}");
        edge_runtime::inspect::areas::check(&network, false).unwrap();
        let few = Lesson {
            count: 39,
            ..lesson
        };
        let few = few.learn(&mut |_| {});
        assert!(matches!(few, Err(AreaError::Frames(39))));
    }

    /// Power fails after 4 of 6 steps: learned on from the checkpoint at 3, it is what it would have been. Of another lesson, or once
    /// the file is damaged, nothing is taken.
    #[test]
    fn what_was_cut_off_ends_as_it_would_have() {
        let folder = tempfile::tempdir().unwrap();
        let (model, golden) = (model(), shrunk(&part(0), false));
        let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
        let short = |checkpoint| Lesson {
            steps: 6,
            checkpoint_every: 3,
            ..lesson(&model, &golden, checkpoint)
        };
        let good = Arc::new(short(&whole).good_frames(&mut |_| {}).unwrap());
        let steps_of = |lesson: Lesson, then: &dyn Fn(usize)| {
            let mut steps = Vec::new();
            let mut on_progress = |at: AreaProgress| {
                steps.push(at.done);
                then(at.done);
            };
            let onnx = lesson.fit(&good, &mut on_progress);
            onnx.map(|onnx| (onnx, steps))
        };
        let at_the_fourth = |done| {
            if done == 4 {
                std::fs::copy(&whole, &cut).unwrap();
            }
        };
        let (expected, steps) = steps_of(short(&whole), &at_the_fourth).unwrap();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        let (found, steps) = steps_of(short(&cut), &|_| ()).unwrap();
        assert_eq!(steps, [4, 5, 6]);
        assert!(found == expected);
        // Learned to the end: there it is, at once.
        let (found, steps) = steps_of(short(&cut), &|_| ()).unwrap();
        assert!(steps.is_empty() && found == expected);
        let other = Lesson {
            seed: 2,
            ..short(&cut)
        };
        let (found, steps) = steps_of(other, &|_| ()).unwrap();
        assert_eq!(steps.len(), 6);
        assert!(found != expected);
        let bytes = std::fs::read(&whole).unwrap();
        std::fs::write(&whole, &bytes[..bytes.len() / 2]).unwrap();
        let damaged = steps_of(short(&whole), &|_| ());
        assert!(matches!(damaged, Err(AreaError::Resume(_))));
    }

    #[test]
    fn the_rate_rises_and_falls_to_nothing() {
        let rates: Vec<f64> = (0..300).map(|step| rate(step, 300)).collect();
        assert!(rates[..30].is_sorted() && rates[30..].iter().rev().is_sorted());
        assert!((rates[29] / RATE - 1.0).abs() < 0.02 && rates[299] < 1e-3 * RATE);
    }
}

//! Learns an area network ([`proto::manifest::AreaNetwork`]) for a variation model: good frames into which areas and defects are drawn
//! ([`defect`]) and features of them as the camera takes them; a small network ([`network`]) that says of each cell whether it was
//! changed. A fifth of the frames is kept back, to see what it brings and what good cells give. **Ours**.

mod defect;
mod network;

use std::path::Path;
use std::sync::Arc;

use edge_runtime::infer::{AreaEngine, InferError};
use edge_runtime::inspect::cells::reduce;
use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::variation::{
    FINEST, area_deviations, area_features_of, area_input, deviations, look,
};
use proto::manifest::{AreaNetwork, VariationModel};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Reduction, TchError, Tensor};

use crate::ahead::Ahead;
use crate::evaluate::{PixelError, PixelMetrics};
use crate::onnx::export_areas;
use crate::seed::generator;
use crate::train::{Adam, LEARNING_RATE};
pub use defect::{Change, Drawn, Good};
pub use network::AreaNet;

/// Steps of learning: some five minutes on two cores.
pub const STEPS: usize = 2_000;
/// For each step so many examples are made, about; each good frame gives as many.
const EXAMPLES_A_STEP: usize = 3;
/// But at most so many a frame, in rounds of [`ROUND`].
const MOST_EXAMPLES_A_FRAME: usize = 60;
/// One of each change twice, and two with small defects.
const ROUND: usize = 10;
/// One in so many examples of a batch is a good frame as it is.
const GOOD_ONE_IN: usize = 6;
/// Examples a step.
pub const BATCH: usize = 32;
/// The highest learning rate; it rises to that in the first third and falls to nothing along a cosine (Smith and Topin 2019).
const RATE: f64 = 2e-3;
/// One frame in so many is kept back.
const KEPT_BACK_ONE_IN: usize = 5;
/// Good frames that it takes.
const LEAST_FRAMES: usize = 40;
/// What the network's deviations are multiplied by before they are added to the variation model's: the largest of those tried at which
/// small defects are found as often as without, at 2 % and 5 % of false rejects (`models/studies`). Larger areas take more.
const SHARE: f32 = 0.5;
/// A spread of logits is at least that.
const LEAST_SPREAD: f32 = 0.1;
/// Golden logits may be off by that: other instruction sets add up in another order.
const TOLERANCE: f32 = 0.02;
/// Which of a cell's features, without the score, changes its sign in a mirror: the direction
/// ([`edge_runtime::inspect::texture::GREY_FEATURES`]).
const DIRECTION: i64 = 3;

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
    /// The threads that draw ended early.
    #[error("the threads that draw areas ended early")]
    Workers,
    /// It cannot be run.
    #[error("the area network does not run")]
    Infer(#[from] InferError),
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
    /// Good frames are drawn into.
    Drawing,
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
    /// Steps of learning, see [`STEPS`].
    pub steps: usize,
    /// Of what is drawn, and how learning begins.
    pub seed: u64,
}

/// Features of a frame as the network takes them, and which of its cells were changed.
struct Example {
    input: Vec<f32>,
    mask: Vec<f32>,
}

/// A good frame's examples.
struct Frame {
    good: Vec<f32>,
    drawn: Vec<Example>,
}

/// The network sees no score, so none is made.
fn input(model: &VariationModel, colour: bool, planes: &Planes) -> Vec<f32> {
    let scores = ScoreMap::zeros(planes.width_px, planes.height_px);
    area_input(model, &look(planes, colour, &scores))
}

/// Number `number` of a frame's examples: each round has all kinds.
fn draw(good: &Good, other: &Good, number: usize, rng: &mut ChaCha8Rng) -> Drawn {
    match Change::ALL.get(number % (Change::ALL.len() + 1)) {
        Some(&change) => good.with_area(change, other, rng),
        None => good.with_defects(rng),
    }
}

/// The share of each cell that was changed.
fn cells(drawn: &Drawn) -> Vec<f32> {
    let size = [drawn.planes.width_px, drawn.planes.height_px];
    reduce(&drawn.mask, size, [FINEST; 2])
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
        let examples = self.examples(on_progress)?;
        let features = area_features_of(self.colour);
        let mut rng = generator(self.seed, "area network", 0);
        let net = AreaNet::new(features as i64, &mut rng)?;
        fit(&net, &examples, self.steps, &mut rng, on_progress)?;
        let onnx = export_areas(&net.steps()?, features as i64);
        let engine = AreaEngine::new(&onnx, features, FINEST)?;
        let network = self.network(onnx, &engine)?;
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

    /// Draws into the frames that are learned from, by as many threads as there are cores.
    fn examples(&self, on_progress: &mut dyn FnMut(AreaProgress)) -> Result<Vec<Frame>, AreaError> {
        let learned = self.learned();
        let each = (EXAMPLES_A_STEP * self.steps).div_ceil(learned);
        let each = each.min(MOST_EXAMPLES_A_FRAME).next_multiple_of(ROUND);
        let (model, read) = (Arc::new(self.model.clone()), Arc::clone(&self.read));
        let (colour, seed) = (self.colour, self.seed);
        let make = move |index: usize| -> Result<Frame, Cause> {
            let mut rng = generator(seed, "areas", index as u64);
            let good = Good::new(read(index)?);
            // Another part, most of the time: those that follow each other are often of one.
            let other = Good::new(read((index + learned / 2) % learned)?);
            let drawn = (0..each).map(|number| {
                let drawn = draw(&good, &other, number, &mut rng);
                Example {
                    input: input(&model, colour, &drawn.planes),
                    mask: cells(&drawn),
                }
            });
            Ok(Frame {
                drawn: drawn.collect(),
                good: input(&model, colour, good.planes()),
            })
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut made = Vec::with_capacity(learned);
        for frame in Ahead::start(0..learned, workers, make).take(learned) {
            made.push(frame.map_err(AreaError::Image)?);
            on_progress(AreaProgress {
                phase: Phase::Drawing,
                done: made.len(),
                count: learned,
            });
        }
        if made.len() < learned {
            return Err(AreaError::Workers);
        }
        Ok(made)
    }

    /// With what good cells give, of the frames kept back, and what must come out of the first frame.
    fn network(&self, onnx: Vec<u8>, engine: &AreaEngine) -> Result<AreaNetwork, AreaError> {
        let mut logits = Vec::new();
        for index in self.learned()..self.count {
            let input = input(self.model, self.colour, &self.good(index)?);
            logits.extend(engine.logits(&input)?);
        }
        let (mean, spread) = mean_and_spread(&logits);
        let golden_input = input(self.model, self.colour, &self.good(0)?);
        Ok(AreaNetwork {
            golden_logits: engine.logits(&golden_input)?,
            golden_input,
            golden_tolerance: TOLERANCE,
            onnx,
            logit_mean: mean,
            logit_spread: spread.max(LEAST_SPREAD),
            share: SHARE,
        })
    }

    /// What it brings on the frames kept back, one of each kind of example a frame.
    fn gain(
        &self,
        network: &AreaNetwork,
        engine: &AreaEngine,
        on_progress: &mut dyn FnMut(AreaProgress),
    ) -> Result<Gain, AreaError> {
        let nowhere = Path::new("nothing is put there");
        let mut metrics = [(); 2].map(|()| PixelMetrics::new(0, usize::MAX, nowhere));
        let learned = self.learned();
        for index in learned..self.count {
            let mut rng = generator(self.seed, "areas kept back", index as u64);
            let good = Good::new(self.good(index)?);
            let other = Good::new(self.good(index - learned)?);
            for number in 0..=Change::ALL.len() {
                let drawn = draw(&good, &other, number, &mut rng);
                let scores = (self.scored)(&drawn.planes).map_err(AreaError::Image)?;
                let found = look(&drawn.planes, self.colour, &scores);
                let logits = engine.logits(&area_input(self.model, &found))?;
                let areas = area_deviations(network, &logits);
                let mask: Vec<bool> = cells(&drawn).iter().map(|share| *share >= 0.5).collect();
                for (metrics, areas) in metrics.iter_mut().zip([Some(areas.as_slice()), None]) {
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

/// The learning rate at a step of so many.
fn rate(step: usize, steps: usize) -> f64 {
    let (step, steps) = (step as f64 + 0.5, steps as f64);
    let rising = steps / 3.0;
    if step < rising {
        return RATE * step / rising;
    }
    let done = (step - rising) / (steps - rising);
    RATE * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

fn fit(
    net: &AreaNet,
    frames: &[Frame],
    steps: usize,
    rng: &mut ChaCha8Rng,
    on_progress: &mut dyn FnMut(AreaProgress),
) -> Result<(), AreaError> {
    let (batch, cells) = (BATCH as i64, FINEST as i64);
    let mut adam = Adam::new(net.parameters())?;
    let nothing = vec![0.0; FINEST * FINEST];
    for step in 0..steps {
        let (mut inputs, mut masks) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let frame = &frames[rng.random_range(0..frames.len())];
            let (input, mask) = if rng.random_range(0..GOOD_ONE_IN) == 0 {
                (&frame.good, &nothing)
            } else {
                let example = &frame.drawn[rng.random_range(0..frame.drawn.len())];
                (&example.input, &example.mask)
            };
            inputs.extend_from_slice(input);
            masks.extend_from_slice(mask);
        }
        let mut input = Tensor::f_from_slice(&inputs)?.f_view([batch, -1, cells, cells])?;
        let mut mask = Tensor::f_from_slice(&masks)?.f_view([batch, 1, cells, cells])?;
        for side in [2, 3] {
            if rng.random() {
                (input, mask) = (input.f_flip([side])?, mask.f_flip([side])?);
                let _ = input.f_narrow(1, DIRECTION, 1)?.f_neg_()?;
            }
        }
        let loss = net
            .forward(&input, true)?
            .f_binary_cross_entropy_with_logits::<Tensor>(&mask, None, None, Reduction::Mean)?;
        loss.f_backward()?;
        adam.step(rate(step, steps) / LEARNING_RATE)?;
        on_progress(AreaProgress {
            phase: Phase::Learning,
            done: step + 1,
            count: steps,
        });
    }
    Ok(())
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

    #[test]
    fn it_finds_areas_that_places_by_themselves_do_not_show() {
        let nothing = |planes: &Planes| ScoreMap::zeros(planes.width_px, planes.height_px);
        let mut builder = VariationBuilder::new(false);
        for number in 0..64 {
            let planes = part(number);
            builder.add(&planes, &nothing(&planes));
        }
        let model = builder.finish().unwrap();
        let lesson = Lesson {
            model: &model,
            colour: false,
            count: 64,
            read: Arc::new(|number| Ok(part(number))),
            scored: &|planes| Ok(nothing(planes)),
            steps: 150,
            seed: 1,
        };
        let mut ended = Vec::new();
        let mut on_progress = |at: AreaProgress| {
            if at.done == at.count {
                ended.push((at.phase, at.count));
            }
        };
        let (network, gain) = lesson.learn(&mut on_progress).unwrap();
        let expected = [
            (Phase::Drawing, 52),
            (Phase::Learning, 150),
            (Phase::Checking, 12),
        ];
        assert_eq!(ended, expected);
        assert!(gain.with > gain.without + 0.02, "{gain:?}");
        edge_runtime::inspect::variation::check_areas(&network, false).unwrap();
        let few = Lesson {
            count: 39,
            ..lesson
        };
        let few = few.learn(&mut |_| {});
        assert!(matches!(few, Err(AreaError::Frames(39))));
    }

    #[test]
    fn the_rate_rises_and_falls_to_nothing() {
        let rates: Vec<f64> = (0..300).map(|step| rate(step, 300)).collect();
        assert!(rates[..100].is_sorted() && rates[100..].iter().rev().is_sorted());
        assert!((rates[99] / RATE - 1.0).abs() < 0.01 && rates[299] < 1e-3 * RATE);
    }
}

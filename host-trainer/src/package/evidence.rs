//! Chooses how a draft's maps are put together, by what they find on this surface: synthetic defects
//! drawn into good images that nothing was trained on.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::manifest::{ColourMode, Input, PlaceDistances, PostProcessing};
use scoring::inspect::map::ScoreMap;
use scoring::inspect::places::place_map;
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::inspector::{Inspector, Maps};
use serde::Serialize;

use super::draft::Draft;
use super::error::PackagingError;
use super::segmentation::replicated;
use super::training_images::{RunImage, distinct_images, held_out_images};
use crate::dataset::in_parallel;
use crate::evaluate::{PixelMetrics, ScoredFrame, image_metrics};
use crate::place_statistics::MOST_FRAMES;
use crate::run_folder::Run;
use crate::seed::generator;
use crate::segmentation::{DefectKind, DefectiveFrame, GoodFrame};

/// Good images to draw into.
const MOST_IMAGES: usize = 40;
/// Pixels of all maps together that are kept in memory.
const MOST_PIXELS: usize = 24 << 20;
/// Frames with a defect for each good one: more where good ones are few, each kind once at most.
const DEFECTS_EACH: std::ops::RangeInclusive<usize> = 3..=12;
/// Frames with a defect to aim at.
const DEFECTS: usize = 120;
/// Quantile of good pixels by which maps are brought to the same footing.
const FOOTING: f64 = 0.999;
/// Standard deviations of a Gaussian that smooths the network's scores, in pixels.
const SIGMAS_PX: [f32; 4] = [0.0, 1.0, 2.0, 4.0];
/// The same for the deviations of places, in places.
const SIGMAS_PLACES: [f32; 3] = [0.0, 0.5, 1.0];
/// Shares of the maps in a mixture, when all are on the same footing: in thirds and quarters, in any
/// order.
const SHARES: [[f32; 3]; 5] = [
    [0.5, 0.5, 0.0],
    [0.67, 0.33, 0.0],
    [0.75, 0.25, 0.0],
    [0.34, 0.33, 0.33],
    [0.5, 0.25, 0.25],
];

/// What a further map must add to the mean of the figures. On a hundred synthetic defects less is
/// chance, and a map that finds little on its own does harm where real defects differ from them.
const LEAST_GAIN: f64 = 0.005;

/// A map that a frame may be judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MapKind {
    /// The network's scores, with what rests on them.
    Scores,
    /// Deviations of places by the network's layers.
    Layers,
    /// Deviations of places by the surface's grain.
    Grain,
}

impl MapKind {
    /// All of them, in the order in which they are added up.
    pub const ALL: [Self; 3] = [Self::Scores, Self::Layers, Self::Grain];
}

/// A map's part in a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// The map.
    pub map: MapKind,
    /// Standard deviation of its smoothing: in pixels for the network's scores, in places for others.
    pub smooth_sigma: f32,
    /// Its share, above 0; all shares together are 1.
    pub share: f32,
}

/// A way to put the maps together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mixture {
    /// The maps that have a share.
    pub shares: Vec<Share>,
}

impl Mixture {
    /// A map alone.
    fn alone(map: MapKind, smooth_sigma: f32) -> Self {
        Self {
            shares: vec![Share {
                map,
                smooth_sigma,
                share: 1.0,
            }],
        }
    }

    /// The map that is alone, if one is.
    pub fn only(&self) -> Option<MapKind> {
        match &self.shares[..] {
            [only] => Some(only.map),
            _ => None,
        }
    }

    fn of(&self, map: MapKind) -> Option<&Share> {
        self.shares.iter().find(|share| share.map == map)
    }
}

/// What a mixture finds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// The mixture.
    pub mixture: Mixture,
    /// Area under the ROC curve over pixels.
    pub pixel_auroc: f64,
    /// Area under the per-region-overlap curve.
    pub aupro: f64,
    /// Area under the ROC curve over images.
    pub image_auroc: f64,
}

impl Found {
    /// The mean of its figures.
    pub fn mean(&self) -> f64 {
        (self.pixel_auroc + self.aupro + self.image_auroc) / 3.0
    }

    /// What mixtures are compared by: the mean of the figures, less what each further map must bring.
    fn worth(&self) -> f64 {
        let further = self.mixture.shares.len().saturating_sub(1);
        self.mean() - LEAST_GAIN * further as f64
    }
}

/// What was tried on synthetic defects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Good images, none of which was trained on.
    pub images: usize,
    /// Images with synthetic defects.
    pub defects: usize,
    /// What each mixture finds, the best first.
    pub found: Vec<Found>,
}

/// A frame's maps.
struct Example {
    maps: Maps,
    /// Which pixels are defects; `None` for a good frame.
    mask: Option<Vec<bool>>,
}

impl Example {
    /// A map, smoothed; `None` if there is none of its kind.
    fn smoothed(&self, map: MapKind, sigma: f32) -> Option<ScoreMap> {
        let Maps {
            scores,
            layers,
            grain,
        } = &self.maps;
        let places = match map {
            MapKind::Scores => {
                let mut scores = scores.clone();
                scores.post_process(&PostProcessing {
                    smooth_sigma_px: sigma,
                    ..Default::default()
                });
                return Some(scores);
            }
            MapKind::Layers => layers.as_ref(),
            MapKind::Grain => grain.as_ref(),
        };
        let (width_px, height_px) = (scores.width_px, scores.height_px);
        places.map(|places| place_map(places.clone(), sigma, width_px, height_px))
    }
}

/// A share of a map that is to be measured, with the factor that gives it that share.
type Weighted = (MapKind, f32, f32);

impl Draft {
    /// Chooses the weights of the network's scores and of the deviations of places, and their
    /// smoothing: first each map's, by itself, and then their shares. The draft must have statistics
    /// of places; those that bring nothing are removed.
    pub fn choose_mixture(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Evidence, PackagingError> {
        let run = Run::read(folder)?;
        let examples = self.examples(&run, key, on_progress)?;
        // Only where nothing else rests on the network's scores are they smoothed here.
        let plain = self.manifest.variation.is_none() && self.manifest.normal_map.is_none();
        let has = |map: &MapKind| match map {
            MapKind::Scores => true,
            MapKind::Layers => self.manifest.layers.is_some(),
            MapKind::Grain => self.manifest.grain.is_some(),
        };
        let mut found: Vec<Found> = Vec::new();
        let mut best_alone = Vec::new();
        for map in MapKind::ALL.into_iter().filter(has) {
            let sigmas = match map {
                MapKind::Scores if plain => &SIGMAS_PX[..],
                MapKind::Scores => &[0.0],
                MapKind::Layers | MapKind::Grain => &SIGMAS_PLACES,
            };
            let mixtures = sigmas.iter().map(|sigma| Mixture::alone(map, *sigma));
            let mut tried = measure_all(&examples, mixtures.collect(), &|_| 1.0)?;
            tried.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
            let sigma = tried.first().and_then(|best| best.mixture.of(map).copied());
            best_alone.extend(sigma.map(|share| (map, share.smooth_sigma)));
            found.extend(tried);
        }
        let footings: Vec<Weighted> = best_alone
            .iter()
            .map(|&(map, sigma)| (map, sigma, footing(&examples, map, sigma)))
            .collect();
        let footing_of = |map: MapKind| {
            let of = footings.iter().find(|(of, ..)| *of == map);
            of.map_or(1.0, |(_, _, footing)| *footing)
        };
        found.extend(measure_all(&examples, mixtures(&best_alone), &footing_of)?);
        found.sort_by(|a, b| b.worth().total_cmp(&a.worth()));
        let Some(best) = found.first().map(|best| best.mixture.clone()) else {
            return Err(PackagingError::NoScores);
        };
        self.set_mixture(&best, plain, &footing_of);
        let images = examples.iter().filter(|example| example.mask.is_none());
        let images = images.count();
        Ok(Evidence {
            images,
            defects: examples.len() - images,
            found,
        })
    }

    /// Scores good frames that neither the network nor the statistics have seen, as they are and with
    /// synthetic defects. If none were held out of training, each half of the training images is
    /// compared with statistics of the other half.
    fn examples(
        &self,
        run: &Run,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Example>, PackagingError> {
        let held_out = held_out_images(run);
        if !held_out.is_empty() {
            let inspector = self.inspector(key)?;
            return examples(&inspector, run, &held_out, on_progress);
        }
        let images = distinct_images(run, MOST_FRAMES);
        let half = |which: usize| -> Vec<RunImage> {
            let images = images.iter().enumerate();
            let images = images.filter(|(at, _)| at % 2 == which);
            images.map(|(_, image)| image.clone()).collect()
        };
        let halves = [half(0), half(1)];
        if halves.iter().any(Vec::is_empty) {
            return examples(&self.inspector(key)?, run, &images, on_progress);
        }
        let mut all = Vec::new();
        for (mine, other) in [(0, 1), (1, 0)] {
            let mut draft = self.clone();
            draft.add_statistics_of(&halves[other], key, &mut |_, _| {})?;
            let inspector = draft.inspector(key)?;
            all.extend(examples(&inspector, run, &halves[mine], on_progress)?);
        }
        Ok(all)
    }

    /// Judges frames by this mixture.
    fn set_mixture(&mut self, mixture: &Mixture, plain: bool, footing: &dyn Fn(MapKind) -> f32) {
        // Alone, the network's scores keep their scale.
        let weight = |share: &Share| match mixture.only() {
            Some(MapKind::Scores) => 1.0,
            _ => share.share / footing(share.map),
        };
        let scores = mixture.of(MapKind::Scores);
        let mut so_far = scores.map_or(0.0, weight);
        if let (true, Some(share)) = (plain, scores) {
            self.manifest.post.smooth_sigma_px = share.smooth_sigma;
        }
        let set = |distances: &mut PlaceDistances, share: &Share| {
            distances.weight = weight(share);
            distances.smooth_sigma_places = share.smooth_sigma;
        };
        match (&mut self.manifest.layers, mixture.of(MapKind::Layers)) {
            (Some(layers), Some(share)) => {
                set(&mut layers.distances, share);
                layers.map_weight = so_far;
                so_far = 1.0;
            }
            (layers, _) => *layers = None,
        }
        match (&mut self.manifest.grain, mixture.of(MapKind::Grain)) {
            (Some(grain), Some(share)) => {
                set(&mut grain.distances, share);
                grain.map_weight = so_far;
            }
            (grain, _) => *grain = None,
        }
    }
}

/// The mixtures of two and three of these maps, each with its smoothing.
fn mixtures(maps: &[(MapKind, f32)]) -> Vec<Mixture> {
    let mut all: Vec<Mixture> = Vec::new();
    for shares in SHARES {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let shares = order
                .into_iter()
                .zip(shares)
                .filter(|(_, share)| *share > 0.0);
            let shares = shares.map(|(map, share)| {
                let (map, smooth_sigma) = maps.get(map).copied()?;
                Some(Share {
                    map,
                    smooth_sigma,
                    share,
                })
            });
            let Some(mut shares) = shares.collect::<Option<Vec<Share>>>() else {
                continue;
            };
            shares.sort_by_key(|share| MapKind::ALL.iter().position(|map| *map == share.map));
            let mixture = Mixture { shares };
            if !all.contains(&mixture) {
                all.push(mixture);
            }
        }
    }
    all
}

/// The score by which maps are brought to the same footing.
fn footing(examples: &[Example], map: MapKind, sigma: f32) -> f32 {
    let good = examples.iter().filter(|example| example.mask.is_none());
    let maps = good.filter_map(|example| example.smoothed(map, sigma));
    let mut scores: Vec<f32> = maps.flat_map(|map| map.data).collect();
    quantile(&mut scores).max(f32::MIN_POSITIVE)
}

/// Measures mixtures, several at a time.
fn measure_all(
    examples: &[Example],
    mixtures: Vec<Mixture>,
    footing: &(dyn Fn(MapKind) -> f32 + Sync),
) -> Result<Vec<Found>, PackagingError> {
    let found = in_parallel(&mixtures, &mut |_| {}, |_, mixture: &Mixture| {
        let weighted = mixture.shares.iter();
        let weighted = weighted.map(|share| {
            let weight = share.share / footing(share.map);
            (share.map, share.smooth_sigma, weight)
        });
        measure(examples, mixture, &weighted.collect::<Vec<Weighted>>())
    });
    found.into_iter().collect()
}

/// The value that [`FOOTING`] of the values do not exceed.
fn quantile(values: &mut [f32]) -> f32 {
    let Some(last) = values.len().checked_sub(1) else {
        return 0.0;
    };
    let at = (last as f64 * FOOTING) as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

fn measure(
    examples: &[Example],
    mixture: &Mixture,
    weighted: &[Weighted],
) -> Result<Found, PackagingError> {
    let nowhere = Path::new("nothing is put there");
    let mut pixels = PixelMetrics::new(0, usize::MAX, nowhere);
    let mut frames = Vec::new();
    for example in examples {
        let scores = &example.maps.scores;
        let mut map = ScoreMap::zeros(scores.width_px, scores.height_px);
        for &(kind, sigma, weight) in weighted {
            let part = example.smoothed(kind, sigma);
            let part = part.ok_or(PackagingError::NoScores)?;
            for (score, value) in map.data.iter_mut().zip(&part.data) {
                *score += weight * value;
            }
        }
        frames.push(ScoredFrame {
            score: map.peak(),
            defect: example.mask.is_some(),
        });
        let good = vec![false; map.data.len()];
        let mask = example.mask.as_deref().unwrap_or(&good);
        pixels.add(&map.data, mask, map.width_px, None)?;
    }
    let total = pixels.finish()?.total;
    Ok(Found {
        mixture: mixture.clone(),
        pixel_auroc: total.auroc.unwrap_or_default(),
        aupro: total.aupro.unwrap_or_default(),
        image_auroc: image_metrics(&frames).auroc.unwrap_or_default(),
    })
}

/// Scores good frames, as they are and with synthetic defects.
fn examples(
    inspector: &Inspector,
    run: &Run,
    images: &[RunImage],
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Example>, PackagingError> {
    let colour = run.input.colour == ColourMode::Rgb;
    let input = Input {
        size: run.input.size,
        colour: run.input.colour,
    };
    let planes_of = |image: &RunImage| -> Result<Planes, PackagingError> {
        let frame = image.prepared(&input, &run.reading)?;
        Ok(to_planes(&frame, if colour { 3 } else { 1 }))
    };
    let Some(first) = images.first() else {
        return Ok(Vec::new());
    };
    let first = planes_of(first)?;
    let frame_px = (first.width_px * first.height_px).max(1);
    let frames = (MOST_PIXELS / frame_px).max(2);
    let most = (frames / (1 + DEFECTS_EACH.start())).clamp(1, MOST_IMAGES);
    let step = images.len().div_ceil(most).max(1);
    let chosen: Vec<&RunImage> = images.iter().step_by(step).collect();
    let defects_each = (DEFECTS.div_ceil(chosen.len()))
        .min(frames / chosen.len())
        .clamp(*DEFECTS_EACH.start(), *DEFECTS_EACH.end());
    let all = [&DefectKind::AREAS[..], &DefectKind::DEFECTS].concat();
    let channels = usize::from(inspector.manifest().network.channels);
    let score = |planes: &Planes| inspector.maps(&replicated(planes, channels));
    let mut examples = Vec::new();
    let mut done = 0;
    for (index, image) in chosen.iter().enumerate() {
        let failed = |source| PackagingError::Inspect {
            path: image.file.clone(),
            source,
        };
        let good = GoodFrame::new(planes_of(image)?);
        let other = GoodFrame::new(planes_of(chosen[(index + 1) % chosen.len()])?);
        let mut rng = generator(run.seed, "evidence", index as u64);
        let mut add = |planes: &Planes, mask| -> Result<(), PackagingError> {
            let maps = score(planes).map_err(failed)?;
            examples.push(Example { maps, mask });
            Ok(())
        };
        add(good.planes(), None)?;
        for number in 0..defects_each {
            let kind = all[(index * defects_each + number) % all.len()];
            let DefectiveFrame { planes, mask } = good.with_defects(&[kind], &other, &mut rng);
            let mask: Vec<bool> = mask.iter().map(|changed| *changed >= 0.5).collect();
            if mask.contains(&true) {
                add(&planes, Some(mask))?;
            }
        }
        done += 1;
        on_progress(done, chosen.len());
    }
    Ok(examples)
}

//! Chooses how a draft's maps are put together, by what they find on this surface: synthetic defects
//! drawn into good images that nothing was trained on.

use std::path::Path;

use ed25519_dalek::SigningKey;
use proto::manifest::{ColourMode, Input};
use scoring::inspect::layer_statistics::place_map;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::inspector::Inspector;
use serde::Serialize;

use super::draft::Draft;
use super::error::PackagingError;
use super::segmentation::replicated;
use super::training_images::{RunImage, held_out_images, training_images};
use crate::dataset::in_parallel;
use crate::evaluate::{PixelMetrics, ScoredFrame, image_metrics};
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
/// Shares of the deviations of places in the map, when both are on the same footing.
const SHARES: [f32; 5] = [0.0, 0.33, 0.5, 0.67, 1.0];

/// A way to put the maps together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mixture {
    /// Smoothing of the network's scores, in pixels.
    pub smooth_sigma_px: f32,
    /// Smoothing of the deviations of places, in places.
    pub smooth_sigma_places: f32,
    /// Share of the deviations of places, 0 to 1.
    pub share: f32,
}

/// What a mixture finds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
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
    map: ScoreMap,
    places: ScoreMap,
    /// Which pixels are defects; `None` for a good frame.
    mask: Option<Vec<bool>>,
}

impl Draft {
    /// Chooses the weights of the network's scores and of the deviations of places, and their
    /// smoothing. The draft must have statistics of layers; they are removed if they bring nothing.
    pub fn choose_mixture(
        &mut self,
        folder: &Path,
        key: &SigningKey,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Evidence, PackagingError> {
        let run = Run::read(folder)?;
        let inspector = self.inspector(key)?;
        let examples = examples(&inspector, &run, on_progress)?;
        // Only where nothing else rests on the network's scores are they smoothed here.
        let plain = self.manifest.variation.is_none() && self.manifest.normal_map.is_none();
        let mixtures = mixtures(plain.then_some(&SIGMAS_PX[..]));
        let footing = |smoothed: &dyn Fn(&Example) -> ScoreMap| {
            let good = examples.iter().filter(|example| example.mask.is_none());
            let mut scores: Vec<f32> = good.flat_map(|example| smoothed(example).data).collect();
            quantile(&mut scores).max(f32::MIN_POSITIVE)
        };
        let map_footings: Vec<(f32, f32)> = SIGMAS_PX
            .map(|sigma| (sigma, footing(&|example| smoothed_map(example, sigma))))
            .to_vec();
        let place_footings: Vec<(f32, f32)> = SIGMAS_PLACES
            .map(|sigma| (sigma, footing(&|example| smoothed_places(example, sigma))))
            .to_vec();
        let of = |footings: &[(f32, f32)], sigma: f32| {
            let found = footings.iter().find(|(of, _)| *of == sigma);
            found.map_or(1.0, |(_, footing)| *footing)
        };
        let weights = |mixture: &Mixture| {
            let map = of(&map_footings, mixture.smooth_sigma_px);
            let places = of(&place_footings, mixture.smooth_sigma_places);
            // Alone, the network's scores keep their scale.
            match mixture.share {
                share if share <= 0.0 => [1.0, 0.0],
                share => [(1.0 - share) / map, share / places],
            }
        };
        let mut found: Vec<Found> = Vec::new();
        for result in in_parallel(&mixtures, &mut |_| {}, |_, mixture| {
            measure(&examples, mixture, weights(mixture))
        }) {
            found.push(result?);
        }
        found.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
        let Some(best) = found.first().copied() else {
            return Err(PackagingError::NoScores);
        };
        let [map_weight, weight] = weights(&best.mixture);
        if plain {
            self.manifest.post.smooth_sigma_px = best.mixture.smooth_sigma_px;
        }
        match &mut self.manifest.layers {
            Some(layers) if weight > 0.0 => {
                layers.smooth_sigma_places = best.mixture.smooth_sigma_places;
                (layers.weight, layers.map_weight) = (weight, map_weight);
            }
            layers => *layers = None,
        }
        let good = examples.iter().filter(|example| example.mask.is_none());
        let images = good.count();
        Ok(Evidence {
            images,
            defects: examples.len() - images,
            found,
        })
    }
}

/// The mixtures to try; without `sigmas_px` the network's scores stay as they are.
fn mixtures(sigmas_px: Option<&[f32]>) -> Vec<Mixture> {
    let sigmas_px = sigmas_px.unwrap_or(&[0.0]);
    let mut all = Vec::new();
    for share in SHARES {
        for &smooth_sigma_px in sigmas_px {
            for smooth_sigma_places in SIGMAS_PLACES {
                // What has no share need not be smoothed.
                if (share >= 1.0 && smooth_sigma_px > 0.0)
                    || (share <= 0.0 && smooth_sigma_places > 0.0)
                {
                    continue;
                }
                all.push(Mixture {
                    smooth_sigma_px,
                    smooth_sigma_places,
                    share,
                });
            }
        }
    }
    all
}

fn smoothed_map(example: &Example, sigma_px: f32) -> ScoreMap {
    let mut map = example.map.clone();
    map.post_process(&proto::manifest::PostProcessing {
        smooth_sigma_px: sigma_px,
        ..Default::default()
    });
    map
}

fn smoothed_places(example: &Example, sigma_places: f32) -> ScoreMap {
    let (width_px, height_px) = (example.map.width_px, example.map.height_px);
    place_map(example.places.clone(), sigma_places, width_px, height_px)
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
    [map_weight, place_weight]: [f32; 2],
) -> Result<Found, PackagingError> {
    let nowhere = Path::new("nothing is put there");
    let mut pixels = PixelMetrics::new(0, usize::MAX, nowhere);
    let mut frames = Vec::new();
    for example in examples {
        let mut map = smoothed_map(example, mixture.smooth_sigma_px);
        let places = smoothed_places(example, mixture.smooth_sigma_places);
        for (score, place) in map.data.iter_mut().zip(&places.data) {
            *score = map_weight * *score + place_weight * place;
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
        mixture: *mixture,
        pixel_auroc: total.auroc.unwrap_or_default(),
        aupro: total.aupro.unwrap_or_default(),
        image_auroc: image_metrics(&frames).auroc.unwrap_or_default(),
    })
}

/// Images that were not trained on; where there are none, those that were.
fn unseen(run: &Run) -> Vec<RunImage> {
    let held_out = held_out_images(run);
    match held_out.is_empty() {
        false => held_out,
        true => training_images(run),
    }
}

/// Scores good frames, as they are and with synthetic defects.
fn examples(
    inspector: &Inspector,
    run: &Run,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Example>, PackagingError> {
    let images = unseen(run);
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
            let (map, places) = score(planes).map_err(failed)?;
            let places = places.unwrap_or_else(|| ScoreMap::zeros(1, 1));
            examples.push(Example { map, places, mask });
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

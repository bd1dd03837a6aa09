//! From good frames to a draft's threshold: scores each with the draft itself, and records the
//! threshold with its promise and the histograms of good scores.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::SigningKey;
use proto::manifest::{ImageIds, Manifest, NormalScores, Promise, SeenImages, Threshold};
use scoring::inspect::drift::{Appearance, image_statistics};
use scoring::inspect::frame::Frame;
use scoring::inspector::{InspectError, Inspector};
use scoring::io::image_file::read_frame_as;

use super::digests::{file_id, part_id};
use super::draft::Draft;
use super::error::PackagingError;
use super::histogram::{FineHistogram, bin_width, histogram};
use super::training_images::check_unchanged;
use crate::calibrate::{Calibration, calibrate, highest};
use crate::dataset::{
    Room, Skipped, chain, digest_of_files, file_digest, in_parallel, pixel_digest,
};

/// Pixels of frames that are scored at the same time: each takes some 40 bytes of memory.
pub(super) const MOST_PIXELS: usize = 40 << 20;

/// Number of pixels of a frame.
pub(super) fn frame_px(frame: &Frame) -> usize {
    frame.width_px() as usize * frame.height_px() as usize
}

/// An image of a good part.
#[derive(Debug, Clone)]
pub struct CalibrationFrame {
    /// The image.
    pub file: PathBuf,
    /// Name of the part. Several images of one part count as one: its score is their highest.
    pub part: String,
    /// The part by its name in a groups file, if it is named there.
    pub known_part: Option<String>,
    /// The SHA-256 that the file must have, in hexadecimal; `None` if any will do.
    pub digest: Option<String>,
}

/// How the threshold is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ThresholdRule {
    /// The lowest threshold that carries this promise, or an error.
    Promise {
        /// False rejects per 10,000 parts.
        per_10_000: f64,
        /// Confidence, 0..1.
        confidence: f64,
    },
    /// The highest good score, with the bound that it happens to carry.
    Highest {
        /// Confidence of the bound, 0..1.
        confidence: f64,
    },
    /// The highest score of the training images, without a promise.
    FromTraining,
}

impl ThresholdRule {
    fn apply(self, scores: &[f32]) -> Result<Calibration, PackagingError> {
        Ok(match self {
            Self::Promise {
                per_10_000,
                confidence,
            } => calibrate(scores, per_10_000, confidence)?,
            Self::Highest { confidence } => highest(scores, confidence)?,
            Self::FromTraining => highest(scores, 0.95)?,
        })
    }

    /// The rule in words, for the manifest.
    fn note(self) -> &'static str {
        match self {
            Self::Promise { .. } => "lowest threshold that carries the promise wanted",
            Self::Highest { .. } => "highest score of the good parts held out of training",
            Self::FromTraining => {
                "highest score of the training images themselves: no promise, good parts may score higher"
            }
        }
    }
}

/// The result of a calibration.
#[derive(Debug)]
pub struct CalibrationOutcome {
    /// Threshold and bound.
    pub calibration: Calibration,
    /// Images that could not be scored and were left out.
    pub skipped: Vec<Skipped>,
    /// Score of every good image that was scored, the highest first.
    pub scores: Vec<GoodScore>,
}

/// The score of a good image.
#[derive(Debug, Clone, PartialEq)]
pub struct GoodScore {
    /// The image.
    pub file: PathBuf,
    /// Its score.
    pub score: f32,
}

/// A good image is an outlier from this multiple of the median score on.
const OUTLIER: f32 = 4.0;

impl CalibrationOutcome {
    /// The median score of a good image.
    pub fn median(&self) -> Option<f32> {
        self.scores
            .get(self.scores.len() / 2)
            .map(|good| good.score)
    }

    /// Good images that score several times the median, the highest first. One of them sets the
    /// threshold, so a person should look at them: a defect among the good images hides others.
    pub fn outliers(&self) -> &[GoodScore] {
        let median = self.median().unwrap_or_default();
        let ordinary = |good: &GoodScore| good.score < OUTLIER * median;
        let end = self.scores.iter().position(ordinary);
        &self.scores[..end.unwrap_or(0)]
    }
}

/// What is measured on a good frame.
struct Scored {
    /// SHA-256 of the image.
    digest: [u8; 32],
    /// Digest of its pixels.
    pixels: [u8; 32],
    score: f32,
    appearance: Appearance,
}

/// What becomes of a good frame.
enum Outcome {
    Scored(Scored),
    /// It cannot be read, or is too small.
    Skipped(String),
}

/// What was trained on, by which calibration images are refused.
struct TrainedOn {
    files: HashSet<[u8; 8]>,
    pixels: HashSet<[u8; 8]>,
    parts: HashSet<[u8; 8]>,
}

impl TrainedOn {
    fn new(manifest: &Manifest) -> Self {
        let SeenImages {
            training_pixels,
            training_parts,
            ..
        } = &manifest.seen;
        let set = |ids: &[[u8; 8]]| ids.iter().copied().collect();
        Self {
            files: set(&manifest.training.file_ids),
            pixels: set(training_pixels),
            parts: set(training_parts),
        }
    }

    /// Refuses an image with one of these digests of its file and pixels, or of one of these parts.
    fn check(
        &self,
        good: &CalibrationFrame,
        file: &[u8; 32],
        pixels: &[u8; 32],
    ) -> Result<(), PackagingError> {
        let path = good.file.clone();
        if self.files.contains(&file_id(file)) || self.pixels.contains(&file_id(pixels)) {
            return Err(PackagingError::TrainedOn(path));
        }
        match &good.known_part {
            Some(part) if self.parts.contains(&part_id(part)) => Err(PackagingError::TrainedPart {
                path,
                part: part.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Scores a frame, and counts the scores of the inspected part of its map.
fn score(
    inspector: &Inspector,
    good: &CalibrationFrame,
    trained_on: Option<&TrainedOn>,
    histogram: &Mutex<FineHistogram>,
    room: &Room,
) -> Result<Outcome, PackagingError> {
    if let Some(expected) = &good.digest {
        check_unchanged(&good.file, expected)?;
    }
    let frame = match read_frame_as(&good.file, inspector.reading()) {
        Ok(frame) => frame,
        Err(error) => return Ok(Outcome::Skipped(chain(&error))),
    };
    let (digest, pixels) = (file_digest(&good.file)?, pixel_digest(&frame));
    if let Some(trained_on) = trained_on {
        trained_on.check(good, &digest, &pixels)?;
    }
    let found = match room.with(frame_px(&frame), || inspector.inspect(&frame)) {
        Ok(found) => found,
        Err(InspectError::Preprocess(error)) => return Ok(Outcome::Skipped(chain(&error))),
        Err(source) => {
            return Err(PackagingError::Inspect {
                path: good.file.clone(),
                source,
            });
        }
    };
    let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    histogram.add(found.inspected_scores());
    drop(histogram);
    Ok(Outcome::Scored(Scored {
        digest,
        pixels,
        score: found.score,
        appearance: Appearance::of(&found.prepared),
    }))
}

/// What is measured on all good frames together.
#[derive(Default)]
struct Measured<'a> {
    /// SHA-256 of each scored image.
    digests: Vec<[u8; 32]>,
    /// What the scored images are known by in the package.
    ids: ImageIds,
    /// The part that each distinct image shows: copies show the part of the first of them.
    part_of: HashMap<[u8; 32], &'a str>,
    /// Highest score of each part.
    parts: BTreeMap<&'a str, f32>,
    /// Score of each frame.
    frame_scores: Vec<f32>,
    good_scores: Vec<GoodScore>,
    appearances: Vec<Appearance>,
    skipped: Vec<Skipped>,
}

impl<'a> Measured<'a> {
    fn add(&mut self, good: &'a CalibrationFrame, outcome: Outcome) {
        match outcome {
            Outcome::Scored(scored) => {
                self.digests.push(scored.digest);
                self.ids.files.push(file_id(&scored.digest));
                self.ids.pixels.push(file_id(&scored.pixels));
                self.ids
                    .parts
                    .extend(good.known_part.as_deref().map(part_id));
                let part = *self.part_of.entry(scored.pixels).or_insert(&good.part);
                let part = self.parts.entry(part).or_insert(0.0);
                *part = part.max(scored.score);
                self.frame_scores.push(scored.score);
                self.good_scores.push(GoodScore {
                    file: good.file.clone(),
                    score: scored.score,
                });
                self.appearances.push(scored.appearance);
            }
            Outcome::Skipped(reason) => self.skipped.push(Skipped {
                file: good.file.clone(),
                reason,
            }),
        }
    }

    fn normal_scores(&self, pixels: &FineHistogram) -> NormalScores {
        let peak = self.frame_scores.iter().copied().fold(0.0, f32::max);
        let bin_width = bin_width(peak);
        let frames = self.frame_scores.iter().map(|&score| (score, 1));
        NormalScores {
            frames: histogram(bin_width, frames),
            pixels: histogram(bin_width, pixels.counts()),
            images: image_statistics(&self.appearances),
        }
    }
}

/// Scores good frames with the draft itself and gives it a threshold and histograms.
pub fn calibrate_draft(
    draft: &mut Draft,
    frames: &[CalibrationFrame],
    rule: ThresholdRule,
    key: &SigningKey,
    on_progress: &mut dyn FnMut(usize),
) -> Result<CalibrationOutcome, PackagingError> {
    let inspector = draft.inspector(key)?;
    let may_be_trained_on = rule == ThresholdRule::FromTraining;
    let trained_on = (!may_be_trained_on).then(|| TrainedOn::new(&draft.manifest));
    let pixels = Mutex::new(FineHistogram::new());
    let room = Room::new(MOST_PIXELS);
    // After an error there is no threshold, so the frames that are left need not be scored.
    let failed = AtomicBool::new(false);
    let outcomes = in_parallel(frames, on_progress, |_, good| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let outcome = score(&inspector, good, trained_on.as_ref(), &pixels, &room);
        failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
        Some(outcome)
    });
    let pixels = pixels.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut measured = Measured::default();
    for (good, outcome) in frames.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            measured.add(good, outcome?);
        }
    }
    if measured.parts.is_empty()
        && let Some(first) = measured.skipped.first()
    {
        return Err(PackagingError::NothingLeft {
            count: measured.skipped.len(),
            first: format!("{}: {}", first.file.display(), first.reason),
        });
    }
    let scores: Vec<f32> = measured.parts.values().copied().collect();
    let found = rule.apply(&scores)?;
    let promised = rule != ThresholdRule::FromTraining;
    draft.manifest.threshold = Some(Threshold {
        value: found.threshold,
        promise: promised.then_some(Promise {
            max_false_rejects_per_10_000: found.bound_per_10_000,
            confidence: found.confidence,
            rejected_in_calibration: found.rejected as u32,
        }),
        calibration_digest: digest_of_files(&measured.digests),
        parts: scores.len() as u32,
        note: rule.note().to_owned(),
    });
    measured.ids.parts.sort_unstable();
    measured.ids.parts.dedup();
    draft.manifest.normal_scores = Some(measured.normal_scores(&pixels));
    draft.manifest.seen.calibration = measured.ids;
    measured
        .good_scores
        .sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(CalibrationOutcome {
        calibration: found,
        skipped: measured.skipped,
        scores: measured.good_scores,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(scores: &[f32]) -> CalibrationOutcome {
        CalibrationOutcome {
            calibration: highest(&[1.0], 0.95).unwrap(),
            skipped: Vec::new(),
            scores: scores
                .iter()
                .map(|&score| GoodScore {
                    file: format!("{score}.png").into(),
                    score,
                })
                .collect(),
        }
    }

    #[test]
    fn good_images_far_above_the_median_are_outliers() {
        let found = outcome(&[9.0, 4.1, 3.9, 1.2, 1.0, 1.0, 0.9]);
        assert_eq!(found.median(), Some(1.2));
        assert_eq!(found.outliers().len(), 1);
        assert_eq!(found.outliers()[0].score, 9.0);
        assert!(outcome(&[1.4, 1.2, 1.0]).outliers().is_empty());
        assert!(outcome(&[]).outliers().is_empty());
        assert_eq!(outcome(&[5.0, 5.0, 0.1]).outliers().len(), 0);
    }
}

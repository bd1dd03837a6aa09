//! What verdicts are counted by: parts where it is known which images show the same part, otherwise
//! images. A part is rejected if any of its images is, and its images are no independent evidence.

use std::collections::{BTreeMap, BTreeSet};

use super::images::ScoredFrame;
use super::rate::Rate;
use super::resample::Sample;

/// A part, or an image if parts are not known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    /// Its highest score, and whether any of its images is labelled defective.
    pub(super) scored: ScoredFrame,
    /// Numbers of the kinds of defect that it has.
    pub(super) kinds: BTreeSet<usize>,
}

/// The units that the images make, in the order of their numbers. Images without a score make none.
pub(super) fn units(samples: &[Sample]) -> Vec<Unit> {
    let mut units: BTreeMap<usize, Unit> = BTreeMap::new();
    for sample in samples {
        let Some(score) = sample.score else {
            continue;
        };
        let unit = units.entry(sample.part).or_insert(Unit {
            scored: ScoredFrame {
                score,
                defect: false,
            },
            kinds: BTreeSet::new(),
        });
        unit.scored.score = unit.scored.score.max(score);
        unit.scored.defect |= sample.kind.is_some();
        unit.kinds.extend(sample.kind);
    }
    units.into_values().collect()
}

/// Good units that the threshold rejects. A unit is rejected iff its score is greater.
pub(super) fn false_rejects(units: &[Unit], threshold: f32) -> Option<Rate> {
    let good = units.iter().filter(|unit| !unit.scored.defect);
    let rejected = good.clone().filter(|unit| unit.scored.score > threshold);
    Rate::new(rejected.count(), good.count())
}

/// Defective units, of one kind or of all, that the threshold passes.
pub(super) fn misses(units: &[Unit], kind: Option<usize>, threshold: f32) -> Option<Rate> {
    let of_kind = |unit: &&Unit| kind.is_none_or(|kind| unit.kinds.contains(&kind));
    let defects = units.iter().filter(|unit| unit.scored.defect);
    let defects = defects.filter(of_kind);
    let missed = defects
        .clone()
        .filter(|unit| unit.scored.score <= threshold);
    Rate::new(missed.count(), defects.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(part: usize, kind: Option<usize>, score: f32) -> Sample {
        Sample {
            part,
            kind,
            score: Some(score),
            pixels: None,
        }
    }

    #[test]
    fn a_part_is_rejected_if_any_of_its_images_is() {
        let samples = [
            sample(0, None, 1.0),
            sample(0, None, 3.0),
            sample(1, None, 1.0),
            sample(2, Some(0), 1.0),
            sample(2, Some(0), 3.0),
            sample(3, Some(1), 1.0),
        ];
        let found = units(&samples);
        let counts = |rate: Option<Rate>| rate.map(|rate| (rate.count, rate.of));
        assert_eq!(counts(false_rejects(&found, 2.0)), Some((1, 2)));
        assert_eq!(counts(misses(&found, None, 2.0)), Some((1, 2)));
        assert_eq!(counts(misses(&found, Some(0), 2.0)), Some((0, 1)));
        assert_eq!(counts(misses(&found, Some(1), 2.0)), Some((1, 1)));
        assert_eq!(misses(&found, Some(2), 2.0), None);
        // Each image by itself: the same images, but other rates.
        let alone: Vec<Sample> = (0..)
            .zip(&samples)
            .map(|(part, sample)| Sample { part, ..*sample })
            .collect();
        let found = units(&alone);
        assert_eq!(counts(false_rejects(&found, 2.0)), Some((1, 3)));
        assert_eq!(counts(misses(&found, None, 2.0)), Some((2, 3)));
    }

    #[test]
    fn a_score_equal_to_the_threshold_passes() {
        let found = units(&[sample(0, None, 2.0), sample(1, Some(0), 2.0)]);
        assert_eq!(false_rejects(&found, 2.0).map(|rate| rate.rate), Some(0.0));
        assert_eq!(misses(&found, None, 2.0).map(|rate| rate.rate), Some(1.0));
    }

    #[test]
    fn an_image_without_a_score_counts_for_nothing() {
        let outside = Sample {
            score: None,
            ..sample(0, Some(0), 0.0)
        };
        assert!(units(&[outside]).is_empty());
    }
}

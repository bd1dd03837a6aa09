//! Exact pixel metrics over all test pixels that have a ground truth, image by image, in bounded memory.

use std::io;

use edge_runtime::inspect::region::label_components;

use super::curve::{Overlap, Sweep};
use super::sorter::Sorter;

/// False-positive rate up to which the per-region overlap is integrated (MVTec's published evaluation).
pub const PRO_LIMIT: f64 = 0.3;
/// Why pixels cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// A score that has no place in an order.
    #[error("expected finite scores of at least 0, found {0}")]
    Score(f32),
    /// Map and mask differ in size.
    #[error("expected a mask of {expected} pixels like the map, found {found}")]
    Mask {
        /// Pixels of the map.
        expected: usize,
        /// Pixels of the mask.
        found: usize,
    },
    /// The temporary file failed.
    #[error("cannot sort scores in a temporary file")]
    Io(#[from] io::Error),
}

/// Pixels counted so far.
#[derive(Debug)]
pub struct PixelMetrics {
    /// Complement of the score's bits above, so that the highest score comes first; below, 0 for a defect-free pixel
    /// or 1 + the number of its defect region.
    keys: Sorter,
    normal: u64,
    defect: u64,
    region_areas: Vec<u64>,
}

/// What was measured; `None` where there is one class only.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelResult {
    /// Area under the ROC curve, pooled over all pixels.
    pub auroc: Option<f64>,
    /// Average precision.
    pub aupr: Option<f64>,
    /// Highest F1.
    pub f1_max: Option<f64>,
    /// The threshold that it is reached at (defect iff score ≥ threshold).
    pub f1_threshold: Option<f32>,
    /// Area under the per-region-overlap curve to [`PRO_LIMIT`].
    pub aupro: Option<f64>,
    /// ROC curve for drawing.
    pub roc: Vec<[f64; 2]>,
    /// PRO curve for drawing.
    pub pro: Vec<[f64; 2]>,
}

impl PixelMetrics {
    /// Keeps at most this many keys of 8 bytes in memory; the rest goes to a temporary file.
    pub fn with_memory(keys: usize) -> Self {
        Self {
            keys: Sorter::new(keys),
            normal: 0,
            defect: 0,
            region_areas: Vec::new(),
        }
    }

    /// Adds an image: scores and mask, row-major, `width` wide. An empty mask is a good image.
    pub fn add(&mut self, scores: &[f32], mask: &[bool], width: usize) -> Result<(), PixelError> {
        if scores.len() != mask.len() || width == 0 {
            return Err(PixelError::Mask {
                expected: scores.len(),
                found: mask.len(),
            });
        }
        if let Some(&score) = scores.iter().find(|s| !s.is_finite() || **s < 0.0) {
            return Err(PixelError::Score(score));
        }
        let (labels, count) = label_components(mask, width, mask.len() / width);
        let first = self.region_areas.len() as u64;
        self.region_areas.resize(self.region_areas.len() + count, 0);
        for (&score, &label) in scores.iter().zip(&labels) {
            // Bits of non-negative floats order as their values do; -0 is folded into 0.
            let descending = u64::from(!(score + 0.0).to_bits()) << 32;
            if label == 0 {
                self.normal += 1;
                self.keys.push(descending)?;
            } else {
                let region = first + u64::from(label);
                self.defect += 1;
                self.region_areas[region as usize - 1] += 1;
                self.keys.push(descending | region)?;
            }
        }
        Ok(())
    }

    /// Everything at once, in one pass from the highest score down.
    pub fn finish(mut self) -> Result<PixelResult, PixelError> {
        let mut sweep = Sweep::new(self.defect, self.normal);
        let mut overlap = Overlap::new(self.region_areas.len(), self.normal, PRO_LIMIT);
        let areas = &self.region_areas;
        let mut level = Level::default();
        self.keys.for_each(|key| {
            let bits = !((key >> 32) as u32);
            if bits != level.bits {
                level.count(&mut sweep, &mut overlap);
                level = Level {
                    bits,
                    ..Level::default()
                };
            }
            match (key as u32).checked_sub(1) {
                None => level.normal += 1,
                Some(region) => {
                    level.defect += 1;
                    level.covered += 1.0 / areas[region as usize] as f64;
                }
            }
        })?;
        level.count(&mut sweep, &mut overlap);
        let swept = sweep.finish();
        let pro = overlap.finish();
        Ok(PixelResult {
            auroc: swept.as_ref().map(|s| s.auroc),
            aupr: swept.as_ref().map(|s| s.average_precision),
            f1_max: swept.as_ref().map(|s| s.f1_max),
            f1_threshold: swept.as_ref().map(|s| s.f1_threshold),
            roc: swept.map(|s| s.roc).unwrap_or_default(),
            aupro: pro.as_ref().map(|p| p.0),
            pro: pro.map(|p| p.1).unwrap_or_default(),
        })
    }
}

/// All pixels of one score.
#[derive(Default)]
struct Level {
    bits: u32,
    normal: u64,
    defect: u64,
    covered: f64,
}

impl Level {
    fn count(&self, sweep: &mut Sweep, overlap: &mut Overlap) {
        if self.normal + self.defect > 0 {
            sweep.step(f32::from_bits(self.bits), self.defect, self.normal);
            overlap.step(self.covered, self.normal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(images: &[(&[f32], &[bool], usize)], memory: usize) -> PixelResult {
        let mut metrics = PixelMetrics::with_memory(memory);
        for (scores, mask, width) in images {
            metrics.add(scores, mask, *width).unwrap();
        }
        metrics.finish().unwrap()
    }

    #[test]
    fn a_case_to_compute_by_hand() {
        // Scores 4 3 2 1, defect at 4 and 2: AUROC = 3 of 4 pairs; AP = (1 + 2/3) / 2; F1-max at 2: 2·2/(3 + 2).
        let found = measure(
            &[(&[4.0, 3.0, 2.0, 1.0], &[true, false, true, false], 4)],
            100,
        );
        assert_eq!(found.auroc, Some(0.75));
        assert!((found.aupr.unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!((found.f1_max, found.f1_threshold), (Some(0.8), Some(2.0)));
        // PRO: one of two regions at FPR 0, the rise to FPR 0.5 is flat at 1/2: area 0.15 / 0.3.
        assert!((found.aupro.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn ties_count_half() {
        let found = measure(
            &[(&[1.0, 1.0, 1.0, 1.0], &[true, false, true, false], 2)],
            100,
        );
        assert_eq!(found.auroc, Some(0.5));
    }

    #[test]
    fn one_class_alone_has_no_figure() {
        let found = measure(&[(&[1.0, 2.0], &[false, false], 2)], 10);
        assert_eq!((found.auroc, found.aupro, found.f1_max), (None, None, None));
        let found = measure(&[(&[1.0, 2.0], &[true, true], 2)], 10);
        assert_eq!((found.auroc, found.aupro), (None, None));
    }

    #[test]
    fn scores_without_an_order_are_refused() {
        let mut metrics = PixelMetrics::with_memory(10);
        assert!(metrics.add(&[f32::NAN], &[false], 1).is_err());
        assert!(metrics.add(&[-1.0], &[false], 1).is_err());
        assert!(metrics.add(&[1.0], &[false, true], 1).is_err());
    }

    /// Golden values from scikit-learn and an independent PRO implementation: tests/fixtures/metrics/make.py.
    #[test]
    fn agrees_with_scikit_learn_and_mvtecs_pro() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics/golden.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let width = case["width"].as_u64().unwrap() as usize;
            let mut results = Vec::new();
            for memory in [1 << 20, 97] {
                let mut metrics = PixelMetrics::with_memory(memory);
                for image in case["images"].as_array().unwrap() {
                    let list = |key: &str| image[key].as_array().unwrap().iter();
                    let scores: Vec<f32> =
                        list("scores").map(|v| v.as_f64().unwrap() as f32).collect();
                    let mask: Vec<bool> = list("mask").map(|v| v.as_u64() == Some(1)).collect();
                    metrics.add(&scores, &mask, width).unwrap();
                }
                results.push(metrics.finish().unwrap());
            }
            assert_eq!(results[0], results[1], "spilling changes nothing");
            let found = &results[0];
            for (key, value) in [
                ("auroc", found.auroc),
                ("aupr", found.aupr),
                ("f1_max", found.f1_max),
                ("aupro", found.aupro),
            ] {
                let expected = case[key].as_f64().unwrap();
                let value = value.unwrap();
                assert!(
                    (value - expected).abs() < 1e-9,
                    "{} {key}: {value} for {expected}",
                    case["name"]
                );
            }
        }
    }
}

//! Exact pixel metrics in bounded memory. In: scores and ground truth, image by image. Out: metrics
//! over all pixels, and for each kind of defect together with the good images. All of them come
//! from one sort of the pixels.

use std::io;
use std::path::Path;

use scoring::inspect::region::label_components;

use super::curve::{NormalScores, OverlapCurve, ThresholdSweep};
use super::sorter::Sorter;

/// False-positive rate up to which the per-region overlap is integrated, as in MVTec's published
/// evaluation.
pub const PRO_LIMIT: f64 = 0.3;

/// Why pixel metrics cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// A score is negative or not finite.
    #[error("expected finite scores of at least 0, found {0}")]
    Score(f32),
    /// The map and the mask differ in size.
    #[error("expected a mask of {expected} pixels like the map, found {found}")]
    Mask {
        /// Pixels of the map.
        expected: usize,
        /// Pixels of the mask.
        found: usize,
    },
    /// The map is not a whole number of rows.
    #[error("expected whole rows of {width_px} pixels, found {pixels} pixels")]
    Width {
        /// Pixels per row.
        width_px: usize,
        /// Pixels of the map.
        pixels: usize,
    },
    /// The kind is not one of those announced.
    #[error("expected a kind below {kinds}, found {found}")]
    Kind {
        /// Number of kinds announced.
        kinds: usize,
        /// The kind given.
        found: usize,
    },
    /// There are more defect regions than codes for them.
    #[error("expected fewer than 2^32 defect regions")]
    TooManyRegions,
    /// The temporary file cannot be written or read.
    #[error("cannot sort scores in a temporary file")]
    Io(#[from] io::Error),
}

/// Collects pixels for the metrics.
#[derive(Debug)]
pub struct PixelMetrics {
    /// One key per pixel. Its upper half is the complement of the score's bits, so that the highest
    /// score comes first; its lower half is the pixel's code (see [`Pixel`]).
    keys: Sorter,
    /// Defect-free pixels of images without a kind, which count for every kind.
    shared_normal: u64,
    kinds: Vec<KindCount>,
    /// Defect pixels of images without a kind, which count for every kind.
    shared_defect: u64,
    regions: Vec<DefectRegion>,
}

/// Counts over the images of one kind.
#[derive(Debug, Clone, Default)]
struct KindCount {
    normal: u64,
    defect: u64,
    regions: usize,
}

/// A connected defect region.
#[derive(Debug)]
struct DefectRegion {
    kind: Option<usize>,
    area_px: u64,
}

/// What a pixel is, as the lower half of its key encodes it.
enum Pixel {
    /// A defect-free pixel of an image without a kind: code 0.
    Shared,
    /// A defect-free pixel of an image of this kind: the codes after 0, one per kind.
    Normal(usize),
    /// A pixel of this defect region: the codes after those of the kinds, one per region.
    Defect(usize),
}

impl Pixel {
    fn decode(code: u32, kinds: usize) -> Self {
        match code as usize {
            0 => Self::Shared,
            code if code <= kinds => Self::Normal(code - 1),
            code => Self::Defect(code - 1 - kinds),
        }
    }
}

/// Pixel metrics of all images and of each kind.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelResults {
    /// Metrics over all images.
    pub total: PixelResult,
    /// For each kind, metrics over its images and those without a kind.
    pub kinds: Vec<PixelResult>,
}

/// Pixel metrics; `None` where a class that a metric needs is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelResult {
    /// Area under the ROC curve over all pixels.
    pub auroc: Option<f64>,
    /// Average precision.
    pub aupr: Option<f64>,
    /// Highest F1.
    pub f1_max: Option<f64>,
    /// The threshold that gives the highest F1 (defect iff score ≥ threshold).
    pub f1_threshold: Option<f32>,
    /// Area under the per-region-overlap curve to [`PRO_LIMIT`].
    pub aupro: Option<f64>,
    /// Percentiles of the scores of defect-free pixels.
    pub normal: Option<NormalScores>,
    /// ROC curve, for drawing.
    pub roc: Vec<[f64; 2]>,
    /// Per-region-overlap curve up to [`PRO_LIMIT`], for drawing.
    pub pro: Vec<[f64; 2]>,
}

impl PixelMetrics {
    /// Prepares to collect pixels of `kinds` kinds of defect. At most `keys_in_memory` keys of
    /// 8 bytes, one per pixel, are kept in memory; the rest go to an unnamed temporary file in
    /// `scratch`.
    pub fn new(kinds: usize, keys_in_memory: usize, scratch: &Path) -> Self {
        Self {
            keys: Sorter::new(keys_in_memory, scratch),
            shared_normal: 0,
            kinds: vec![KindCount::default(); kinds],
            shared_defect: 0,
            regions: Vec::new(),
        }
    }

    /// Adds an image: scores and mask (true for defects), row-major, `width_px` wide. `kind` is the
    /// number of its kind of defect; an image without a kind, such as a good one, counts for every
    /// kind. An image that is refused as malformed changes no counts.
    pub fn add(
        &mut self,
        scores: &[f32],
        mask: &[bool],
        width_px: usize,
        kind: Option<usize>,
    ) -> Result<(), PixelError> {
        if scores.len() != mask.len() {
            return Err(PixelError::Mask {
                expected: scores.len(),
                found: mask.len(),
            });
        }
        if width_px == 0 || !scores.len().is_multiple_of(width_px) {
            return Err(PixelError::Width {
                width_px,
                pixels: scores.len(),
            });
        }
        let kinds = self.kinds.len();
        if let Some(found) = kind.filter(|&kind| kind >= kinds) {
            return Err(PixelError::Kind { kinds, found });
        }
        if let Some(&score) = scores.iter().find(|s| !s.is_finite() || **s < 0.0) {
            return Err(PixelError::Score(score));
        }
        let (labels, count) = label_components(mask, width_px, mask.len() / width_px);
        let first = self.regions.len();
        if u32::try_from(kinds + first + count).is_err() {
            return Err(PixelError::TooManyRegions);
        }
        self.regions
            .extend((0..count).map(|_| DefectRegion { kind, area_px: 0 }));
        let normal_code = kind.map_or(0, |kind| kind as u64 + 1);
        let (mut normal, mut defect) = (0, 0);
        for (&score, &label) in scores.iter().zip(&labels) {
            // The bits of non-negative floats are ordered like their values; adding 0 turns -0 into
            // 0.
            let descending = u64::from(!(score + 0.0).to_bits()) << 32;
            if label == 0 {
                normal += 1;
                self.keys.push(descending | normal_code)?;
            } else {
                defect += 1;
                let region = first + label as usize - 1;
                self.regions[region].area_px += 1;
                let code = (1 + kinds + region) as u64;
                self.keys.push(descending | code)?;
            }
        }
        match kind {
            Some(kind) => {
                let kind = &mut self.kinds[kind];
                kind.normal += normal;
                kind.defect += defect;
                kind.regions += count;
            }
            None => {
                self.shared_normal += normal;
                self.shared_defect += defect;
            }
        }
        Ok(())
    }

    /// Computes all metrics in one pass from the highest score down.
    pub fn finish(self) -> Result<PixelResults, PixelError> {
        let (shared_normal, shared_defect) = (self.shared_normal, self.shared_defect);
        let regions_of_kinds: usize = self.kinds.iter().map(|kind| kind.regions).sum();
        let shared_regions = self.regions.len() - regions_of_kinds;
        let mut total = Curves::new(
            shared_normal + self.kinds.iter().map(|kind| kind.normal).sum::<u64>(),
            shared_defect + self.kinds.iter().map(|kind| kind.defect).sum::<u64>(),
            self.regions.len(),
        );
        let mut kinds: Vec<Curves> = self
            .kinds
            .iter()
            .map(|kind| {
                Curves::new(
                    shared_normal + kind.normal,
                    shared_defect + kind.defect,
                    shared_regions + kind.regions,
                )
            })
            .collect();
        let regions = &self.regions;
        let mut all = PixelCounts::default();
        let mut shared = PixelCounts::default();
        let mut of_kind = vec![PixelCounts::default(); kinds.len()];
        let mut bits = 0;
        let mut flush = |bits: u32,
                         all: &mut PixelCounts,
                         shared: &mut PixelCounts,
                         own: &mut [PixelCounts]| {
            let score = f32::from_bits(bits);
            total.step(score, all);
            for (curves, own) in kinds.iter_mut().zip(own) {
                own.add(shared);
                curves.step(score, own);
                *own = PixelCounts::default();
            }
            (*all, *shared) = (PixelCounts::default(), PixelCounts::default());
        };
        self.keys.for_each(|key| {
            let found = !((key >> 32) as u32);
            if found != bits {
                flush(bits, &mut all, &mut shared, &mut of_kind);
                bits = found;
            }
            let (one, kind) = match Pixel::decode(key as u32, of_kind.len()) {
                Pixel::Shared => (PixelCounts::NORMAL, None),
                Pixel::Normal(kind) => (PixelCounts::NORMAL, Some(kind)),
                Pixel::Defect(region) => {
                    let region = &regions[region];
                    (PixelCounts::defect(region.area_px), region.kind)
                }
            };
            all.add(&one);
            kind.map_or(&mut shared, |kind| &mut of_kind[kind])
                .add(&one);
        })?;
        flush(bits, &mut all, &mut shared, &mut of_kind);
        Ok(PixelResults {
            total: total.finish(),
            kinds: kinds.into_iter().map(Curves::finish).collect(),
        })
    }
}

/// Counts of the pixels that have the same score.
#[derive(Debug, Clone, Copy, Default)]
struct PixelCounts {
    normal: u64,
    defect: u64,
    /// Sum of 1 / (area of the pixel's region) over the defect pixels.
    covered: f64,
}

impl PixelCounts {
    const NORMAL: Self = Self {
        normal: 1,
        defect: 0,
        covered: 0.0,
    };

    fn defect(area_px: u64) -> Self {
        Self {
            normal: 0,
            defect: 1,
            covered: 1.0 / area_px as f64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.normal += other.normal;
        self.defect += other.defect;
        self.covered += other.covered;
    }
}

/// The curves over one set of images.
struct Curves {
    sweep: ThresholdSweep,
    overlap: OverlapCurve,
}

impl Curves {
    fn new(normal: u64, defect: u64, regions: usize) -> Self {
        Self {
            sweep: ThresholdSweep::new(defect, normal),
            overlap: OverlapCurve::new(regions, normal, PRO_LIMIT),
        }
    }

    fn step(&mut self, score: f32, counts: &PixelCounts) {
        if counts.normal + counts.defect > 0 {
            self.sweep.step(score, counts.defect, counts.normal);
            self.overlap.step(counts.covered, counts.normal);
        }
    }

    fn finish(self) -> PixelResult {
        let swept = self.sweep.finish();
        let pro = self.overlap.finish();
        PixelResult {
            auroc: swept.as_ref().map(|s| s.auroc),
            aupr: swept.as_ref().map(|s| s.average_precision),
            f1_max: swept.as_ref().map(|s| s.f1_max),
            f1_threshold: swept.as_ref().map(|s| s.f1_threshold),
            normal: swept.as_ref().and_then(|s| s.normal),
            roc: swept.map(|s| s.roc).unwrap_or_default(),
            aupro: pro.as_ref().map(|p| p.0),
            pro: pro.map(|p| p.1).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;

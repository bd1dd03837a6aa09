//! Exact pixel metrics in bounded memory. In: scores and ground truth, image by image. Out: metrics
//! over all pixels, and for each kind of defect together with the good images. All of them come
//! from one sort of the pixels.

use std::io;
use std::path::Path;

use scoring::inspect::region::label_components;

use super::bins::{BinnedImage, Binner};
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
    /// There are more images or defect regions than codes for them.
    #[error("expected fewer than 2^31 images and defect regions")]
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
    kinds: usize,
    images: Vec<ImageCount>,
    regions: Vec<DefectRegion>,
    /// The threshold that F1 is measured at.
    threshold: Option<f32>,
}

/// An image to add.
#[derive(Debug, Clone, Copy)]
pub struct PixelImage<'a> {
    /// Scores, row-major.
    pub scores: &'a [f32],
    /// Ground truth: true for defects.
    pub mask: &'a [bool],
    /// Which pixels are inspected; `None` if all are. The others count for nothing.
    pub inside: Option<&'a [bool]>,
    /// Width in pixels.
    pub width_px: usize,
    /// Number of its kind of defect. An image without a kind, such as a good one, counts for every
    /// kind.
    pub kind: Option<usize>,
}

/// Number of defect regions of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegionCount {
    /// Regions of which at least one pixel is inspected.
    pub inspected: usize,
    /// Regions that lie outside of the inspected part.
    pub outside: usize,
}

/// Counts over an image.
#[derive(Debug, Clone)]
struct ImageCount {
    kind: Option<usize>,
    normal: u64,
    defect: u64,
    regions: usize,
}

/// A connected defect region.
#[derive(Debug)]
struct DefectRegion {
    image: usize,
    area_px: u64,
}

/// What a pixel is, as the lower half of its key encodes it.
enum Pixel {
    /// A defect-free pixel of this image: codes below [`DEFECT`].
    Normal(usize),
    /// A pixel of this defect region: codes from [`DEFECT`].
    Defect(usize),
}

/// The first code of a defect pixel.
const DEFECT: u32 = 1 << 31;

impl Pixel {
    fn decode(code: u32) -> Self {
        match code.checked_sub(DEFECT) {
            None => Self::Normal(code as usize),
            Some(region) => Self::Defect(region as usize),
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
    /// Each image's pixels in bins, in the order in which the images were added.
    pub images: Vec<BinnedImage>,
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
    /// F1 at the threshold given beforehand (defect iff score > threshold).
    pub f1_at_threshold: Option<f64>,
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
            kinds,
            images: Vec::new(),
            regions: Vec::new(),
            threshold: None,
        }
    }

    /// Also measures F1 at this threshold, if there is one.
    #[must_use]
    pub fn with_threshold(self, threshold: Option<f32>) -> Self {
        Self { threshold, ..self }
    }

    /// Adds an image that is inspected everywhere, see [`Self::add_image`].
    pub fn add(
        &mut self,
        scores: &[f32],
        mask: &[bool],
        width_px: usize,
        kind: Option<usize>,
    ) -> Result<(), PixelError> {
        let whole = PixelImage {
            scores,
            mask,
            inside: None,
            width_px,
            kind,
        };
        self.add_image(&whole).map(drop)
    }

    /// Adds an image. One that is refused as malformed changes no counts.
    ///
    /// A region is what is connected in the ground truth, whether or not all of it is inspected;
    /// of a region that is inspected in part, that part counts.
    pub fn add_image(&mut self, image: &PixelImage) -> Result<RegionCount, PixelError> {
        let PixelImage {
            scores,
            mask,
            inside,
            width_px,
            kind,
        } = *image;
        for found in [mask.len(), inside.map_or(scores.len(), <[bool]>::len)] {
            if scores.len() != found {
                let expected = scores.len();
                return Err(PixelError::Mask { expected, found });
            }
        }
        if width_px == 0 || !scores.len().is_multiple_of(width_px) {
            return Err(PixelError::Width {
                width_px,
                pixels: scores.len(),
            });
        }
        let kinds = self.kinds;
        if let Some(found) = kind.filter(|&kind| kind >= kinds) {
            return Err(PixelError::Kind { kinds, found });
        }
        if let Some(&score) = scores.iter().find(|s| !s.is_finite() || **s < 0.0) {
            return Err(PixelError::Score(score));
        }
        let (labels, count) = label_components(mask, width_px, mask.len() / width_px);
        let inspected = |at: usize| inside.is_none_or(|inside| inside[at]);
        let mut areas = vec![0u64; count];
        for (at, &label) in labels.iter().enumerate() {
            if label > 0 && inspected(at) {
                areas[label as usize - 1] += 1;
            }
        }
        let number = self.images.len();
        let limit = DEFECT as usize;
        if self.regions.len() + count > limit || number >= limit {
            return Err(PixelError::TooManyRegions);
        }
        // Regions outside get no number.
        let mut codes = Vec::with_capacity(count);
        for &area_px in &areas {
            codes.push(u64::from(DEFECT) + self.regions.len() as u64);
            if area_px > 0 {
                self.regions.push(DefectRegion {
                    image: number,
                    area_px,
                });
            }
        }
        let regions = areas.iter().filter(|area| **area > 0).count();
        let mut normal = 0;
        for (at, (&score, &label)) in scores.iter().zip(&labels).enumerate() {
            if !inspected(at) {
                continue;
            }
            // The bits of non-negative floats are ordered like their values; adding 0 turns -0 into
            // 0.
            let descending = u64::from(!(score + 0.0).to_bits()) << 32;
            let code = match label {
                0 => {
                    normal += 1;
                    number as u64
                }
                label => codes[label as usize - 1],
            };
            self.keys.push(descending | code)?;
        }
        self.images.push(ImageCount {
            kind,
            normal,
            defect: areas.iter().sum(),
            regions,
        });
        Ok(RegionCount {
            inspected: regions,
            outside: count - regions,
        })
    }

    /// Computes all metrics in one pass from the highest score down.
    pub fn finish(self) -> Result<PixelResults, PixelError> {
        let curves_of = |wanted: &dyn Fn(Option<usize>) -> bool| {
            let of = || self.images.iter().filter(|image| wanted(image.kind));
            let normal = of().map(|image| image.normal).sum();
            let defect = of().map(|image| image.defect).sum();
            let regions = of().map(|image| image.regions).sum();
            Curves::new(normal, defect, regions, self.threshold)
        };
        let mut total = curves_of(&|_| true);
        let mut kinds: Vec<Curves> = (0..self.kinds)
            .map(|kind| curves_of(&|of| of.is_none_or(|of| of == kind)))
            .collect();
        let of_images: Vec<(Option<usize>, usize)> = self
            .images
            .iter()
            .map(|image| (image.kind, image.regions))
            .collect();
        let normal = self.images.iter().map(|image| image.normal).sum();
        let defect = self.images.iter().map(|image| image.defect).sum();
        let mut binner = Binner::new(&of_images, normal, defect);
        let regions = &self.regions;
        let images = &self.images;
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
                binner.next_score();
                bits = found;
            }
            let (one, image) = match Pixel::decode(key as u32) {
                Pixel::Normal(image) => {
                    binner.add_normal(image);
                    (PixelCounts::NORMAL, image)
                }
                Pixel::Defect(region) => {
                    let DefectRegion { image, area_px } = regions[region];
                    binner.add_defect(image, area_px);
                    (PixelCounts::defect(area_px), image)
                }
            };
            all.add(&one);
            images[image]
                .kind
                .map_or(&mut shared, |kind| &mut of_kind[kind])
                .add(&one);
        })?;
        flush(bits, &mut all, &mut shared, &mut of_kind);
        Ok(PixelResults {
            total: total.finish(),
            kinds: kinds.into_iter().map(Curves::finish).collect(),
            images: binner.finish(),
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
    threshold: Option<f32>,
    /// Pixels above the threshold.
    above: PixelCounts,
    defect: u64,
}

impl Curves {
    fn new(normal: u64, defect: u64, regions: usize, threshold: Option<f32>) -> Self {
        Self {
            sweep: ThresholdSweep::new(defect, normal),
            overlap: OverlapCurve::new(regions, normal, PRO_LIMIT),
            threshold,
            above: PixelCounts::default(),
            defect,
        }
    }

    fn step(&mut self, score: f32, counts: &PixelCounts) {
        if counts.normal + counts.defect > 0 {
            self.sweep.step(score, counts.defect, counts.normal);
            self.overlap.step(counts.covered, counts.normal);
            if self.threshold.is_some_and(|threshold| score > threshold) {
                self.above.add(counts);
            }
        }
    }

    /// F1 at the threshold; `None` without a threshold or without defects.
    fn f1_at_threshold(&self) -> Option<f64> {
        let marked = self.above.defect + self.above.normal;
        let f1 = 2.0 * self.above.defect as f64 / (marked + self.defect) as f64;
        (self.threshold.is_some() && self.defect > 0).then_some(f1)
    }

    fn finish(self) -> PixelResult {
        let f1_at_threshold = self.f1_at_threshold();
        let swept = self.sweep.finish();
        let pro = self.overlap.finish();
        PixelResult {
            auroc: swept.as_ref().map(|s| s.auroc),
            aupr: swept.as_ref().map(|s| s.average_precision),
            f1_max: swept.as_ref().map(|s| s.f1_max),
            f1_threshold: swept.as_ref().map(|s| s.f1_threshold),
            f1_at_threshold,
            normal: swept.as_ref().and_then(|s| s.normal),
            roc: swept.map(|s| s.roc).unwrap_or_default(),
            aupro: pro.as_ref().map(|p| p.0),
            pro: pro.map(|p| p.1).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;

//! Exact pixel metrics over all test pixels that have a ground truth, image by image, in bounded memory: in total, and
//! for every kind of defect with the good images. All of them come from one sort of the pixels.

use std::io;
use std::path::Path;

use edge_runtime::inspect::region::label_components;

pub(super) use super::curve::NormalScores;
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
    /// Map and mask are no whole number of rows.
    #[error("expected whole rows of {width_px} pixels, found {pixels} pixels")]
    Width {
        /// Pixels of a row.
        width_px: usize,
        /// Pixels of the map.
        pixels: usize,
    },
    /// A kind that was not announced.
    #[error("expected a kind below {kinds}, found {found}")]
    Kind {
        /// Kinds announced.
        kinds: usize,
        /// The kind given.
        found: usize,
    },
    /// More defect regions than can be told apart.
    #[error("expected fewer than 2^32 defect regions")]
    TooManyRegions,
    /// The temporary file failed.
    #[error("cannot sort scores in a temporary file")]
    Io(#[from] io::Error),
}

/// Pixels counted so far.
#[derive(Debug)]
pub struct PixelMetrics {
    /// Complement of the score's bits above, so that the highest score comes first; below, what the pixel is (see
    /// [`Pixel`]).
    keys: Sorter,
    /// Defect-free pixels of good images, which count for every kind.
    shared_normal: u64,
    kinds: Vec<KindCount>,
    /// Defect pixels of images without a kind.
    shared_defect: u64,
    regions: Vec<Region>,
}

#[derive(Debug, Clone, Default)]
struct KindCount {
    normal: u64,
    defect: u64,
    regions: usize,
}

/// A connected defect region.
#[derive(Debug)]
struct Region {
    kind: Option<usize>,
    area_px: u64,
}

/// What the lower half of a key says: 0 a defect-free pixel of a good image, then one number per kind for defect-free
/// pixels of its images, then one per defect region.
enum Pixel {
    Shared,
    Normal(usize),
    Defect(usize),
}

impl Pixel {
    fn of(code: u32, kinds: usize) -> Self {
        match code as usize {
            0 => Self::Shared,
            code if code <= kinds => Self::Normal(code - 1),
            code => Self::Defect(code - 1 - kinds),
        }
    }
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelResults {
    /// Over all images.
    pub total: PixelResult,
    /// For every kind: its images and the good ones.
    pub kinds: Vec<PixelResult>,
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
    /// Scores of defect-free pixels.
    pub normal: Option<NormalScores>,
    /// ROC curve for drawing.
    pub roc: Vec<[f64; 2]>,
    /// PRO curve for drawing, up to [`PRO_LIMIT`].
    pub pro: Vec<[f64; 2]>,
}

impl PixelMetrics {
    /// For `kinds` kinds of defect. Keeps at most `keys_in_memory` keys of 8 bytes in memory; the rest goes to a
    /// nameless temporary file in `scratch`, of 8 bytes a pixel.
    pub fn new(kinds: usize, keys_in_memory: usize, scratch: &Path) -> Self {
        Self {
            keys: Sorter::new(keys_in_memory, scratch),
            shared_normal: 0,
            kinds: vec![KindCount::default(); kinds],
            shared_defect: 0,
            regions: Vec::new(),
        }
    }

    /// Adds an image: scores and mask (true = defect), row-major, `width_px` wide. `kind` is the number of its kind of
    /// defect; `None` is an image that counts for every kind, as good images do. An image that is refused leaves the
    /// counts as they were.
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
            .extend((0..count).map(|_| Region { kind, area_px: 0 }));
        let normal_code = kind.map_or(0, |kind| kind as u64 + 1);
        let (mut normal, mut defect) = (0, 0);
        for (&score, &label) in scores.iter().zip(&labels) {
            // Bits of non-negative floats order as their values do; -0 is folded into 0.
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

    /// Everything at once, in one pass from the highest score down.
    pub fn finish(self) -> Result<PixelResults, PixelError> {
        let (shared_normal, shared_defect) = (self.shared_normal, self.shared_defect);
        let of_kinds: usize = self.kinds.iter().map(|kind| kind.regions).sum();
        let shared_regions = self.regions.len() - of_kinds;
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
        let mut level = Level::default();
        let mut shared = Level::default();
        let mut of_kind = vec![Level::default(); kinds.len()];
        let mut bits = 0;
        let mut flush = |bits: u32, all: &mut Level, shared: &mut Level, own: &mut [Level]| {
            let score = f32::from_bits(bits);
            total.step(score, all);
            for (curves, own) in kinds.iter_mut().zip(own) {
                own.add(shared);
                curves.step(score, own);
                *own = Level::default();
            }
            (*all, *shared) = (Level::default(), Level::default());
        };
        self.keys.for_each(|key| {
            let found = !((key >> 32) as u32);
            if found != bits {
                flush(bits, &mut level, &mut shared, &mut of_kind);
                bits = found;
            }
            let (one, kind) = match Pixel::of(key as u32, of_kind.len()) {
                Pixel::Shared => (Level::NORMAL, None),
                Pixel::Normal(kind) => (Level::NORMAL, Some(kind)),
                Pixel::Defect(region) => {
                    let region = &regions[region];
                    (Level::defect(region.area_px), region.kind)
                }
            };
            level.add(&one);
            kind.map_or(&mut shared, |kind| &mut of_kind[kind])
                .add(&one);
        })?;
        flush(bits, &mut level, &mut shared, &mut of_kind);
        Ok(PixelResults {
            total: total.finish(),
            kinds: kinds.into_iter().map(Curves::finish).collect(),
        })
    }
}

/// Pixels of one score.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    normal: u64,
    defect: u64,
    /// Sum of 1 / (region's area) over the defect pixels.
    covered: f64,
}

impl Level {
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

/// The curves of one selection of images.
struct Curves {
    sweep: Sweep,
    overlap: Overlap,
}

impl Curves {
    fn new(normal: u64, defect: u64, regions: usize) -> Self {
        Self {
            sweep: Sweep::new(defect, normal),
            overlap: Overlap::new(regions, normal, PRO_LIMIT),
        }
    }

    fn step(&mut self, score: f32, level: &Level) {
        if level.normal + level.defect > 0 {
            self.sweep.step(score, level.defect, level.normal);
            self.overlap.step(level.covered, level.normal);
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

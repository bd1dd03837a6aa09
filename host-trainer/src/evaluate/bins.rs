//! Counts of each image's pixels in bins of descending score. Metrics of resampled images are
//! computed from them, which takes a thousandth of the time that sorting all pixels again takes.

/// Bins that hold equal numbers of defect-free pixels, and as many that hold equal numbers of
/// defect pixels: fine enough that an interval's ends are right to three digits.
const BINS: u64 = 512;

/// One image's pixels by bin. All images have the same bins.
#[derive(Debug, Clone, PartialEq)]
pub struct BinnedImage {
    /// Number of its kind of defect; `None` for a good image.
    pub kind: Option<usize>,
    /// Number of its defect regions.
    pub regions: usize,
    /// Defect-free pixels in each bin.
    pub normal: Vec<u32>,
    /// Defect pixels in each bin; empty if there are none.
    pub defect: Vec<u32>,
    /// Sum of 1 / (area of the pixel's region) over the defect pixels of each bin; empty if there
    /// are none.
    pub covered: Vec<f32>,
}

/// Sorts pixels into bins, from the highest score down.
#[derive(Debug)]
pub(super) struct Binner {
    images: Vec<BinnedImage>,
    /// The bin that pixels go to.
    bin: usize,
    /// Pixels in that bin: defect-free ones and defects.
    counted: [u64; 2],
    /// Numbers that close a bin.
    full: [u64; 2],
}

impl Binner {
    /// Prepares bins for images with a kind and a number of regions each, and this many defect-free
    /// and defect pixels in all.
    pub(super) fn new(images: &[(Option<usize>, usize)], normal: u64, defect: u64) -> Self {
        // Every bin but the last is closed by one of the two, so there are no more.
        let bins = 2 * BINS as usize + 1;
        let empty = |&(kind, regions): &(Option<usize>, usize)| {
            let of_defects = if regions > 0 { bins } else { 0 };
            BinnedImage {
                kind,
                regions,
                normal: vec![0; bins],
                defect: vec![0; of_defects],
                covered: vec![0.0; of_defects],
            }
        };
        Self {
            images: images.iter().map(empty).collect(),
            bin: 0,
            counted: [0; 2],
            full: [normal, defect].map(|count| count.div_ceil(BINS).max(1)),
        }
    }

    /// Counts a defect-free pixel of an image.
    pub(super) fn add_normal(&mut self, image: usize) {
        self.images[image].normal[self.bin] += 1;
        self.counted[0] += 1;
    }

    /// Counts a defect pixel of an image, in a region of this many pixels.
    pub(super) fn add_defect(&mut self, image: usize, area_px: u64) {
        let image = &mut self.images[image];
        image.defect[self.bin] += 1;
        image.covered[self.bin] += 1.0 / area_px as f32;
        self.counted[1] += 1;
    }

    /// All pixels of a score have been counted: the next ones may go to another bin.
    pub(super) fn next_score(&mut self) {
        let [normal, defect] = [0, 1].map(|class| self.counted[class] >= self.full[class]);
        if normal || defect {
            self.bin += 1;
            self.counted = [0; 2];
        }
    }

    pub(super) fn finish(self) -> Vec<BinnedImage> {
        self.images
    }
}

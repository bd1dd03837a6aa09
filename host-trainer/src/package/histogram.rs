//! Histograms of the scores of good frames, with bins that are known only once all scores are.

use proto::manifest::Histogram;

/// Bins of a package's histograms.
const BINS: usize = 100;

/// Scores counted by their value rounded to the precision of a 16-bit float, to be kept until the
/// bins are known. All maps share one, so its size does not depend on their number.
pub(super) struct FineHistogram {
    counts: Vec<u64>,
}

impl FineHistogram {
    /// Bits of a score that are rounded off.
    const ROUNDED_BITS: u32 = 13;

    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; 1 << (u32::BITS - Self::ROUNDED_BITS)],
        }
    }

    pub(super) fn add(&mut self, scores: impl Iterator<Item = f32>) {
        for score in scores {
            self.counts[(score.to_bits() >> Self::ROUNDED_BITS) as usize] += 1;
        }
    }

    /// The rounded scores that were found, and how often.
    pub(super) fn counts(&self) -> impl Iterator<Item = (f32, u64)> {
        let found = (0u32..).zip(&self.counts).filter(|(_, count)| **count > 0);
        // The middle of what was rounded to one value.
        let middle = 1 << (Self::ROUNDED_BITS - 1);
        found
            .map(move |(bits, &count)| (f32::from_bits(bits << Self::ROUNDED_BITS | middle), count))
    }
}

/// Width of the bins for scores up to `peak`, with a quarter to spare.
pub(super) fn bin_width(peak: f32) -> f32 {
    (peak * 1.25 / BINS as f32).max(f32::MIN_POSITIVE)
}

/// Counts scores into bins; the last bin takes what lies beyond it.
pub(super) fn histogram(bin_width: f32, scores: impl Iterator<Item = (f32, u64)>) -> Histogram {
    let mut counts = vec![0; BINS];
    for (score, count) in scores {
        counts[((score / bin_width) as usize).min(BINS - 1)] += count;
    }
    Histogram { bin_width, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fine_histogram_of_many_maps_counts_each_score_once_and_hardly_moves_it() {
        let maps: Vec<Vec<f32>> = (0..7)
            .map(|map| (0..900).map(|k| (map * 900 + k) as f32 * 1e-3).collect())
            .collect();
        let mut fine = FineHistogram::new();
        maps.iter().for_each(|map| fine.add(map.iter().copied()));
        assert_eq!(fine.counts().map(|(_, count)| count).sum::<u64>(), 6_300);
        let width = bin_width(6.3);
        let binned = histogram(width, fine.counts());
        let exact = histogram(width, maps.iter().flatten().map(|&score| (score, 1)));
        let moved = binned.counts.iter().zip(&exact.counts);
        // A value near the edge of a bin may fall on its other side.
        for (binned, exact) in moved {
            assert!(binned.abs_diff(*exact) <= 4, "{binned} for {exact}");
        }
    }
}

//! Histograms of the scores of good frames, with bins that are known only once all scores are.

use std::collections::HashMap;

use proto::manifest::Histogram;

/// Bins of a package's histograms.
const BINS: usize = 100;

/// Counts scores rounded to the precision of a 16-bit float: a small, slightly lossy copy of a map,
/// to be kept until the bins are known.
pub(super) fn fine_histogram(scores: &[f32]) -> Vec<(f32, u64)> {
    let mut counts = HashMap::new();
    for score in scores {
        *counts.entry(score.to_bits() >> 13).or_insert(0u64) += 1;
    }
    counts
        .into_iter()
        .map(|(bits, count)| (f32::from_bits(bits << 13 | 1 << 12), count))
        .collect()
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

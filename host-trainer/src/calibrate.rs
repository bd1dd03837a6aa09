//! The threshold and its promise. Pure arithmetic on the scores of good parts that the model was
//! not trained on.
//!
//! With n such parts and the threshold at an order statistic that k of them exceed, the
//! false-reject rate of future parts follows Beta(k + 1, n - k) whatever the distribution of scores
//! (Wilks 1941), so P(rate > p) = P(Binomial(n, p) ≤ k), which is Clopper and Pearson's exact bound
//! (1934). The rejects among the next m parts follow the beta-binomial distribution with the same
//! parameters.

use statrs::distribution::{Binomial, DiscreteCDF};
use statrs::function::beta::ln_beta;

/// Why there is no threshold with the promise wanted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// No parts.
    #[error("no good parts to calibrate on")]
    NoParts,
    /// A score is NaN or infinite.
    #[error("expected finite scores, found {0}")]
    Score(f32),
    /// The rate or the confidence is out of range.
    #[error(
        "expected a promise above 0 and below 10,000 rejects per 10,000 and a confidence between 0 and 1, found {rate} and {confidence}"
    )]
    Promise {
        /// Rejects per 10,000 asked for.
        rate: f64,
        /// Confidence asked for.
        confidence: f64,
    },
    /// Too few parts for the promise.
    #[error(
        "{parts} good parts cannot support \"at most {rate} false rejects per 10,000 parts at {} % confidence\": at \
         least {needed} are needed; the best that {parts} support is {} per 10,000",
        format_confidence(*confidence), format_bound(*best)
    )]
    TooFew {
        /// Number of parts.
        parts: usize,
        /// Rejects per 10,000 asked for.
        rate: f64,
        /// Confidence asked for, 0..1.
        confidence: f64,
        /// Number of parts needed.
        needed: u64,
        /// The bound that the parts support, per 10,000.
        best: f64,
    },
}

/// A threshold and its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// A part is rejected if its score is greater.
    pub threshold: f32,
    /// Number of calibration parts that exceed the threshold.
    pub rejected: usize,
    /// Rank k: at most k calibration parts exceed the threshold (fewer with ties).
    pub allowed: usize,
    /// Upper bound on the false-reject rate, per 10,000 parts.
    pub bound_per_10_000: f64,
    /// Confidence of the bound, 0..1.
    pub confidence: f64,
}

impl Calibration {
    /// Upper bound on the rejects among the next `lot` good parts, at the confidence of the
    /// calibration, for a threshold found on `parts` good parts. The rank decides, even if fewer
    /// parts exceed the threshold because of ties.
    pub fn most_rejects_in_lot(&self, lot: usize, parts: usize) -> usize {
        rejects_in_a_lot(parts, self.allowed, lot, self.confidence)
    }
}

/// Number of good parts needed before any threshold can carry the promise: the least n with
/// (1 - p)^n ≤ 1 - confidence.
pub fn parts_needed(rate_per_10_000: f64, confidence: f64) -> u64 {
    let p = rate_per_10_000 / 10_000.0;
    ((1.0 - confidence).ln() / (1.0 - p).ln()).ceil() as u64
}

/// Exact upper bound on the false-reject rate, per 10,000, when `rejected` of `parts` good parts
/// are rejected.
pub fn bound_per_10_000(parts: usize, rejected: usize, confidence: f64) -> f64 {
    // The bound is the rate at which `supports` starts to hold. It is bisected, because the inverse
    // of statrs' Beta is not exact enough; the upper end is returned, because a promise must not be
    // too small.
    let (mut below, mut bound) = (0.0, 1.0);
    loop {
        let middle = f64::midpoint(below, bound);
        if middle <= below || middle >= bound {
            return 10_000.0 * bound;
        }
        if supports(parts, rejected, middle, confidence) {
            bound = middle;
        } else {
            below = middle;
        }
    }
}

/// Quantile of the beta-binomial distribution: the most rejects among the next `lot` good parts at
/// this confidence (0..1), when the threshold's rank allows `allowed` of `parts` good parts to
/// exceed it. The whole lot if the rank allows all of them. No prior is assumed: for exchangeable
/// parts and an order statistic this distribution is exact.
fn rejects_in_a_lot(parts: usize, allowed: usize, lot: usize, confidence: f64) -> usize {
    if allowed >= parts {
        return lot;
    }
    let (a, b) = (allowed as f64 + 1.0, (parts - allowed) as f64);
    let size = lot as f64;
    // Sums the probabilities of 0, 1, 2… rejects. They are kept as logarithms, because in a large
    // lot the first may underflow.
    let mut log_probability = ln_beta(a, b + size) - ln_beta(a, b);
    let mut sum = 0.0;
    for rejected in 0..lot {
        sum += log_probability.exp();
        if sum >= confidence {
            return rejected;
        }
        let more = rejected as f64;
        log_probability +=
            ((size - more) / (more + 1.0) * (a + more) / (b + size - more - 1.0)).ln();
    }
    lot
}

/// Formats a bound in tenths, rounded up: a promise must not be too small.
pub fn format_bound(bound_per_10_000: f64) -> String {
    format!("{:.1}", (10.0 * bound_per_10_000).ceil() / 10.0)
}

/// Formats a confidence (0..1) in per cent, rounded down to hundredths for the same reason.
pub fn format_confidence(confidence: f64) -> String {
    // A whole number of hundredths must not be rounded down because of its binary representation.
    format!("{}", (10_000.0 * confidence + 1e-6).floor() / 100.0)
}

/// Whether a true rate of `rate` would give `rejected` or fewer of `parts` with a probability of at
/// most 1 - confidence.
fn supports(parts: usize, rejected: usize, rate: f64, confidence: f64) -> bool {
    Binomial::new(rate, parts as u64)
        .is_ok_and(|binomial| binomial.cdf(rejected as u64) <= 1.0 - confidence)
}

/// The lowest threshold that carries the promise, so that the fewest defects are missed: as many
/// calibration parts as the bound allows exceed it.
pub fn calibrate(
    scores: &[f32],
    rate_per_10_000: f64,
    confidence: f64,
) -> Result<Calibration, CalibrationError> {
    let sane = (0.0..10_000.0).contains(&rate_per_10_000) && rate_per_10_000 > 0.0;
    if !sane || !(0.0..1.0).contains(&confidence) || confidence == 0.0 {
        return Err(CalibrationError::Promise {
            rate: rate_per_10_000,
            confidence,
        });
    }
    let sorted = descending(scores)?;
    let parts = sorted.len();
    let p = rate_per_10_000 / 10_000.0;
    let Some(allowed) = (0..parts)
        .take_while(|&k| supports(parts, k, p, confidence))
        .last()
    else {
        return Err(CalibrationError::TooFew {
            parts,
            rate: rate_per_10_000,
            confidence,
            needed: parts_needed(rate_per_10_000, confidence),
            best: bound_per_10_000(parts, 0, confidence),
        });
    };
    Ok(at_rank(&sorted, allowed, confidence))
}

/// The highest score of the good parts as threshold, with the bound that it happens to carry: for
/// when no promise is wanted or there are too few parts for it.
pub fn highest(scores: &[f32], confidence: f64) -> Result<Calibration, CalibrationError> {
    let sorted = descending(scores)?;
    Ok(at_rank(&sorted, 0, confidence))
}

fn descending(scores: &[f32]) -> Result<Vec<f32>, CalibrationError> {
    if let Some(&score) = scores.iter().find(|score| !score.is_finite()) {
        return Err(CalibrationError::Score(score));
    }
    if scores.is_empty() {
        return Err(CalibrationError::NoParts);
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    Ok(sorted)
}

/// The threshold that at most `allowed` parts exceed. With ties fewer parts exceed it, but the
/// bound is that of `allowed`: a rank chosen after looking at the scores would promise too much.
fn at_rank(sorted: &[f32], allowed: usize, confidence: f64) -> Calibration {
    let threshold = sorted[allowed];
    Calibration {
        threshold,
        rejected: sorted.partition_point(|&score| score > threshold),
        allowed,
        bound_per_10_000: bound_per_10_000(sorted.len(), allowed, confidence),
        confidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sample_sizes() {
        // Wilks' tables: 59 parts for 5 %, 299 for 1 %, 2995 for 0.1 %, at 95 %.
        assert_eq!(parts_needed(500.0, 0.95), 59);
        assert_eq!(parts_needed(100.0, 0.95), 299);
        assert_eq!(parts_needed(10.0, 0.95), 2_995);
    }

    #[test]
    fn rejects_in_a_lot_match_scipy() {
        // scipy.stats.betabinom.ppf(confidence, lot, k + 1, n - k)
        for (n, k, lot, confidence, expected) in [
            (22, 0, 100, 0.95, 14),
            (299, 0, 100, 0.95, 2),
            (299, 0, 1_000, 0.95, 11),
            (24, 0, 25, 0.95, 4),
            (100, 2, 50, 0.9, 3),
            (6, 0, 100, 0.95, 40),
            (3, 2, 10, 0.999, 10),
            // The probability of no reject underflows.
            (1_000, 900, 5_000, 0.95, 4_583),
            (50, 45, 100_000, 0.95, 95_978),
        ] {
            assert_eq!(
                rejects_in_a_lot(n, k, lot, confidence),
                expected,
                "{n} {k} {lot}"
            );
        }
        // One part is as likely as any other to be the highest of all.
        assert_eq!(rejects_in_a_lot(1, 0, 1, 0.4), 0);
        assert_eq!(rejects_in_a_lot(1, 0, 1, 0.6), 1);
        // A threshold that every part may exceed promises nothing.
        assert_eq!(rejects_in_a_lot(4, 4, 100, 0.95), 100);
        assert_eq!(rejects_in_a_lot(0, 0, 100, 0.95), 100);
    }

    #[test]
    fn bounds_match_scipy() {
        // repr(scipy.stats.beta.ppf(0.95, k + 1, n - k))
        for (n, k, expected) in [
            (10, 0, 0.258_865_550_893_052_2),
            (100, 2, 0.061_619_200_396_040_69),
            (299, 0, 0.009_969_146_792_899_269),
            (93, 1, 0.049_993_978_387_988_317),
            (1_000, 20, 0.028_930_122_851_398_708),
            (100_000, 0, 2.995_687_401_942_794_7e-5),
            (299, 298, 0.999_828_465_234_213_5),
        ] {
            let found = bound_per_10_000(n, k, 0.95) / 10_000.0;
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{n} {k}: {found} for {expected}"
            );
        }
        assert_eq!(bound_per_10_000(4, 4, 0.95), 10_000.0);
    }

    #[test]
    fn too_few_parts_are_refused_with_the_number_needed() {
        let scores: Vec<f32> = (0..298).map(|i| i as f32).collect();
        let error = calibrate(&scores, 100.0, 0.95).unwrap_err().to_string();
        assert!(
            error.contains("298 good parts") && error.contains("least 299"),
            "{error}"
        );
        // 100.024: "the best is 100" would contradict the refusal of 100.
        assert!(error.contains("support is 100.1 per"), "{error}");
        let scores: Vec<f32> = (0..299).map(|i| i as f32).collect();
        let found = calibrate(&scores, 100.0, 0.95).unwrap();
        assert_eq!((found.threshold, found.rejected), (298.0, 0));
        assert!(found.bound_per_10_000 <= 100.0);
    }

    #[test]
    fn the_lowest_threshold_that_holds_is_chosen() {
        // 93 parts support one reject at 5 % (Wilks' second order), 92 do not.
        let scores = |n: usize| (0..n).map(|i| i as f32).collect::<Vec<_>>();
        assert_eq!(calibrate(&scores(92), 500.0, 0.95).unwrap().rejected, 0);
        let found = calibrate(&scores(93), 500.0, 0.95).unwrap();
        assert_eq!((found.threshold, found.rejected), (91.0, 1));
    }

    #[test]
    fn the_promise_holds_on_fresh_parts() {
        // Uniform scores: the true false-reject rate at threshold t is 1 - t. Over many
        // calibrations it may exceed the promise in at most 5 % of them, give or take chance.
        use rand::RngExt;
        let mut rng = crate::seed::generator(1, "test", 0);
        let broken = (0..2_000)
            .filter(|_| {
                let scores: Vec<f32> = (0..120).map(|_| rng.random()).collect();
                1.0 - calibrate(&scores, 500.0, 0.95).unwrap().threshold > 0.05
            })
            .count();
        assert!(broken < 140, "{broken} of 2000 promises broken");
        assert!(
            broken > 10,
            "{broken} of 2000: the threshold is needlessly high"
        );
    }

    #[test]
    fn promises_are_never_rounded_in_their_favour() {
        assert_eq!(
            [99.36, 1.498, 100.0, 100.024].map(format_bound),
            ["99.4", "1.5", "100.0", "100.1"]
        );
        let confidences = [0.95, 0.29, 0.995, 0.999, 0.999_99];
        assert_eq!(
            confidences.map(format_confidence),
            ["95", "29", "99.5", "99.9", "99.99"]
        );
    }

    #[test]
    fn ties_are_not_rejected() {
        let mut scores = vec![1.0; 100];
        scores[0] = 0.5;
        let found = calibrate(&scores, 1_000.0, 0.95).unwrap();
        assert_eq!((found.threshold, found.rejected), (1.0, 0));
        // 100 parts allow 4 above the threshold at 10 %; that none is does not lower the bound.
        assert_eq!(found.bound_per_10_000, bound_per_10_000(100, 4, 0.95));
        // Nor does it lower the bound for a lot: the rank was chosen before the scores were seen.
        let lots = [4, 0].map(|allowed| rejects_in_a_lot(100, allowed, 100, 0.95));
        assert_eq!(found.most_rejects_in_lot(100, 100), lots[0]);
        assert!(lots[0] > lots[1]);
        assert!(calibrate(&[f32::NAN], 1_000.0, 0.95).is_err());
    }
}

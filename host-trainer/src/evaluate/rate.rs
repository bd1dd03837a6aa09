//! Rates with the range that they may lie in: "3 of 40" says more than "7.5 %".

use serde::{Deserialize, Serialize};

use crate::calibrate::bound_per_10_000;

/// Confidence of all intervals of an evaluation, two-sided.
pub const CONFIDENCE: f64 = 0.95;

/// A fraction of independent images or parts, with its interval at [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Number that were counted.
    pub count: usize,
    /// Number that there are, above 0.
    pub of: usize,
    /// `count` / `of`.
    pub rate: f64,
    /// Lower end of the interval, 0..=1.
    pub low: f64,
    /// Upper end of the interval, 0..=1.
    pub high: f64,
}

impl Rate {
    /// `count` of `of`, with Clopper and Pearson's exact interval (1934). `None` if there are none.
    pub(super) fn new(count: usize, of: usize) -> Option<Self> {
        // Half of the error is on either side.
        let one_sided = 0.5 + CONFIDENCE / 2.0;
        let upper = |count: usize| bound_per_10_000(of, count, one_sided) / 10_000.0;
        (of > 0 && count <= of).then(|| Self {
            count,
            of,
            rate: count as f64 / of as f64,
            low: 1.0 - upper(of - count),
            high: upper(count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.beta.ppf([0.025, 0.975], [k, k + 1], [n - k + 1, n - k])`, as
    /// tests/fixtures/metrics/make_intervals.py does it.
    #[test]
    fn intervals_are_scipys() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics/intervals.json"))
                .unwrap();
        let cases = golden["clopper_pearson"].as_array().unwrap();
        assert!(cases.len() > 10);
        for case in cases {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let (count, of) = (number("count"), number("of"));
            let found = Rate::new(count, of).unwrap();
            for (found, key) in [(found.low, "low"), (found.high, "high")] {
                let expected = case[key].as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{count} of {of} {key}: {found}, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn nothing_of_nothing_is_no_rate() {
        assert_eq!(Rate::new(0, 0), None);
    }
}

//! How many defects are found at a given rate of false rejects, whatever threshold the package has.

use serde::{Deserialize, Serialize};

use super::images::ScoredFrame;
use super::rate::Rate;

/// Fractions of good images or parts that may be rejected.
const ALLOWED: [f64; 6] = [0.0, 0.001, 0.01, 0.02, 0.05, 0.1];

/// What a threshold would do that rejects at most a given fraction of the good ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Fraction of the good images or parts that may be rejected.
    pub allowed: f64,
    /// The lowest threshold that rejects no more of those measured here.
    pub threshold: f32,
    /// Good ones that it rejects. Fewer than allowed where scores are tied, or where the fraction
    /// is less than one.
    pub false_rejects: Rate,
    /// Defective ones that it rejects. The interval takes the threshold as given; that another set
    /// of good ones would give another threshold shows in the interval of the false rejects.
    pub found: Rate,
}

/// The operating points; none if a class is missing. Scores must be finite.
pub(super) fn operating_points(units: &[ScoredFrame]) -> Vec<OperatingPoint> {
    let scores = |defect: bool| {
        let of_class = units.iter().filter(move |unit| unit.defect == defect);
        let mut scores: Vec<f32> = of_class.map(|unit| unit.score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    };
    let (good, defects) = (scores(false), scores(true));
    let points = ALLOWED.into_iter().filter_map(|allowed| {
        // A hundredth of 300 must not become 2 because of its binary representation.
        let most = (allowed * good.len() as f64 + 1e-9) as usize;
        let threshold = *good.get(most)?;
        let above = |scores: &[f32]| scores.partition_point(|score| *score > threshold);
        Some(OperatingPoint {
            allowed,
            threshold,
            false_rejects: Rate::new(above(&good), good.len())?,
            found: Rate::new(above(&defects), defects.len())?,
        })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest true-positive rate at no more than these false-positive rates on the ROC curve
    /// of scikit-learn (tests/fixtures/metrics/make_intervals.py). Scores are rounded, so that many
    /// are tied.
    #[test]
    fn the_table_is_scikit_learns_roc_curve() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/metrics/intervals.json"))
                .unwrap();
        for case in golden["operating"].as_array().unwrap() {
            let list = |key: &str| case[key].as_array().unwrap().iter();
            let units: Vec<ScoredFrame> = list("scores")
                .zip(list("defect"))
                .map(|(score, defect)| ScoredFrame {
                    score: score.as_f64().unwrap() as f32,
                    defect: defect.as_u64() == Some(1),
                })
                .collect();
            let found = operating_points(&units);
            assert_eq!(found.len(), 6);
            for (found, expected) in found.iter().zip(list("points")) {
                assert_eq!(Some(found.allowed), expected["allowed"].as_f64());
                assert_eq!(
                    Some(found.found.rate),
                    expected["found"].as_f64(),
                    "{found:?}"
                );
                let rejected = expected["false_rejects"].as_f64();
                assert_eq!(Some(found.false_rejects.rate), rejected, "{found:?}");
            }
        }
    }

    #[test]
    fn a_missing_class_has_no_table() {
        let one = ScoredFrame {
            score: 1.0,
            defect: true,
        };
        assert!(operating_points(&[one]).is_empty());
        let good = ScoredFrame {
            defect: false,
            ..one
        };
        assert!(operating_points(&[good]).is_empty());
        // Of two good ones none may be rejected at any of these rates.
        let found = operating_points(&[one, good, good]);
        assert!(found.iter().all(|point| point.found.count == 0));
    }
}

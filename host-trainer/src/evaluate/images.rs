//! Image metrics: how well frame scores separate defect frames from good ones.

use super::curve::ThresholdSweep;

/// Score and label of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredFrame {
    /// Its score.
    pub score: f32,
    /// Whether it is labelled defective.
    pub defect: bool,
}

/// Metrics over frames; `None` where a class that a metric needs is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageResult {
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// Average precision.
    pub aupr: Option<f64>,
}

/// Computes the metrics. Scores must be finite.
pub fn image_metrics(frames: &[ScoredFrame]) -> ImageResult {
    let mut sorted = frames.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let defects = frames.iter().filter(|frame| frame.defect).count() as u64;
    let mut sweep = ThresholdSweep::new(defects, frames.len() as u64 - defects);
    for equal in sorted.chunk_by(|a, b| a.score == b.score) {
        let positives = equal.iter().filter(|frame| frame.defect).count() as u64;
        sweep.step(equal[0].score, positives, equal.len() as u64 - positives);
    }
    let swept = sweep.finish();
    ImageResult {
        auroc: swept.as_ref().map(|swept| swept.auroc),
        aupr: swept.as_ref().map(|swept| swept.average_precision),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(list: &[(f32, bool)]) -> Vec<ScoredFrame> {
        list.iter()
            .map(|&(score, defect)| ScoredFrame { score, defect })
            .collect()
    }

    proptest! {
        #[test]
        fn auroc_is_the_mann_whitney_statistic(
            list in proptest::collection::vec((0u8..12, any::<bool>()), 1..60),
        ) {
            let list: Vec<(f32, bool)> = list.into_iter().map(|(s, d)| (f32::from(s), d)).collect();
            let of = |wanted: bool| list.iter().filter(move |f| f.1 == wanted).map(|f| f.0);
            let pairs: Vec<f64> = of(true)
                .flat_map(|p| {
                    of(false).map(move |n| match p.total_cmp(&n) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    })
                })
                .collect();
            let found = image_metrics(&frames(&list)).auroc;
            if pairs.is_empty() {
                prop_assert_eq!(found, None);
            } else {
                let expected = pairs.iter().sum::<f64>() / pairs.len() as f64;
                prop_assert!((found.unwrap() - expected).abs() < 1e-9);
            }
        }
    }
}

//! Hand-computed, golden and property tests of the pixel metrics.

use super::*;
use proptest::prelude::*;

fn measure(images: &[(&[f32], &[bool], usize)]) -> PixelResult {
    let mut metrics = PixelMetrics::new(0, 100, &std::env::temp_dir());
    for (scores, mask, width) in images {
        metrics.add(scores, mask, *width, None).unwrap();
    }
    metrics.finish().unwrap().total
}

#[test]
fn agrees_with_a_case_computed_by_hand() {
    // Scores 4, 3, 2, 1 with defects at 4 and 2: AUROC is 3 of 4 pairs, AP is (1 + 2/3) / 2, and
    // F1-max is 2·2/(3 + 2), at 2.
    let found = measure(&[(&[4.0, 3.0, 2.0, 1.0], &[true, false, true, false], 4)]);
    assert_eq!(found.auroc, Some(0.75));
    assert!((found.aupr.unwrap() - 5.0 / 6.0).abs() < 1e-12);
    assert_eq!((found.f1_max, found.f1_threshold), (Some(0.8), Some(2.0)));
    // PRO: one of two regions is covered at FPR 0, and the overlap stays at 1/2 up to FPR 0.5. The
    // area is 0.15 / 0.3.
    assert!((found.aupro.unwrap() - 0.5).abs() < 1e-12);
    assert_eq!(found.pro.last(), Some(&[0.3, 0.5]));
}

/// What is not inspected counts for nothing: the figures are those of the inspected pixels alone,
/// cut out by hand. Without the region, a background of zeros would flatter them.
#[test]
fn only_inspected_pixels_count() {
    // Two rows of six; the right third is not inspected.
    let scores = [3.0, 1.0, 2.0, 0.5, 0.0, 0.0, 1.5, 4.0, 0.2, 2.5, 0.0, 0.0];
    let mask = [
        false, false, true, true, true, true, false, true, true, false, true, false,
    ];
    let inside: Vec<bool> = (0..12).map(|at| at % 6 < 4).collect();
    let image = PixelImage {
        scores: &scores,
        mask: &mask,
        inside: Some(&inside),
        width_px: 6,
        kind: None,
    };
    let mut metrics = PixelMetrics::new(0, 100, &std::env::temp_dir());
    let regions = metrics.add_image(&image).unwrap();
    // One region, of which the right half is not inspected.
    let (inspected, outside) = (1, 0);
    assert_eq!(regions, RegionCount { inspected, outside });
    let found = metrics.finish().unwrap().total;
    let cut = |values: &[f32]| -> Vec<f32> {
        let kept = values.iter().zip(&inside).filter(|(_, inside)| **inside);
        kept.map(|(value, _)| *value).collect()
    };
    let cut_mask = [false, false, true, true, false, true, true, false];
    let alone = measure(&[(&cut(&scores), &cut_mask, 4)]);
    assert_eq!(found, alone);
    let whole = measure(&[(&scores, &mask, 6)]);
    assert_ne!(found.auroc, whole.auroc);
}

#[test]
fn regions_outside_of_the_inspected_part_are_counted_apart() {
    // Three regions in a row: inside, across the border, outside.
    let mask = [true, false, true, true, true, false, true, true];
    let inside = [true, true, true, true, false, false, false, false];
    let mut metrics = PixelMetrics::new(1, 100, &std::env::temp_dir());
    let image = PixelImage {
        scores: &[3.0, 1.0, 1.0, 4.0, 9.0, 9.0, 9.0, 9.0],
        mask: &mask,
        inside: Some(&inside),
        width_px: 8,
        kind: Some(0),
    };
    let regions = metrics.add_image(&image).unwrap();
    let (inspected, outside) = (2, 1);
    assert_eq!(regions, RegionCount { inspected, outside });
    let found = metrics.finish().unwrap();
    // Defects 3, 1 and 4, one good pixel of 1: two of three pairs are won and one is tied.
    assert_eq!(found.total.auroc, Some(2.5 / 3.0));
    assert_eq!(found.kinds[0].auroc, found.total.auroc);
    let mut metrics = PixelMetrics::new(0, 100, &std::env::temp_dir());
    let wrong = PixelImage {
        inside: Some(&inside[..7]),
        kind: None,
        ..image
    };
    assert!(matches!(
        metrics.add_image(&wrong),
        Err(PixelError::Mask { .. })
    ));
}

#[test]
fn ties_count_half() {
    let found = measure(&[(&[1.0, 1.0, 1.0, 1.0], &[true, false, true, false], 2)]);
    assert_eq!(found.auroc, Some(0.5));
}

#[test]
fn of_equal_f1_the_highest_threshold_is_returned() {
    // Defects at 4 and 1: F1 is 2·1/(1 + 2) at threshold 4 and 2·2/(4 + 2) at threshold 1.
    let found = measure(&[(&[4.0, 3.0, 2.0, 1.0], &[true, false, false, true], 4)]);
    assert_eq!(
        (found.f1_max, found.f1_threshold),
        (Some(2.0 / 3.0), Some(4.0))
    );
}

#[test]
fn the_stated_fraction_exceeds_each_percentile() {
    let mut scores: Vec<f32> = (0..1_000).map(|score| score as f32).collect();
    scores.push(5_000.0);
    let mask: Vec<bool> = (0..1_001).map(|index| index == 1_000).collect();
    let normal = measure(&[(&scores, &mask, 1_001)]).normal.unwrap();
    assert_eq!(
        (normal.median, normal.p99, normal.p99_9),
        (499.0, 989.0, 998.0)
    );
}

#[test]
fn one_class_alone_has_no_metrics() {
    let found = measure(&[(&[1.0, 2.0], &[false, false], 2)]);
    assert_eq!((found.auroc, found.aupro, found.f1_max), (None, None, None));
    let found = measure(&[(&[1.0, 2.0], &[true, true], 2)]);
    assert_eq!((found.auroc, found.aupro), (None, None));
    let nothing = measure(&[]);
    assert_eq!((nothing.auroc, nothing.aupro), (None, None));
    assert!(nothing.roc.is_empty() && nothing.pro.is_empty());
}

#[test]
fn malformed_images_are_refused() {
    let mut metrics = PixelMetrics::new(2, 10, &std::env::temp_dir());
    let mut add = |scores: &[f32], mask: &[bool], width, kind| {
        metrics.add(scores, mask, width, kind).unwrap_err()
    };
    for score in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(matches!(
            add(&[score], &[false], 1, None),
            PixelError::Score(_)
        ));
    }
    let wrong = add(&[1.0], &[false, true], 1, None);
    assert!(matches!(wrong, PixelError::Mask { .. }));
    let wrong = add(&[1.0; 3], &[false; 3], 2, None);
    assert!(matches!(wrong, PixelError::Width { .. }));
    let wrong = add(&[1.0], &[false], 1, Some(2));
    assert!(matches!(wrong, PixelError::Kind { kinds: 2, found: 2 }));
}

/// Compares with scikit-learn and an independent implementation of PRO, see
/// tests/fixtures/metrics/make.py.
#[test]
fn agrees_with_scikit_learn_and_mvtecs_pro() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/metrics/golden.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let width = case["width"].as_u64().unwrap() as usize;
        let mut results = Vec::new();
        for memory in [1 << 20, 97] {
            let mut metrics = PixelMetrics::new(0, memory, &std::env::temp_dir());
            for image in case["images"].as_array().unwrap() {
                let list = |key: &str| image[key].as_array().unwrap().iter();
                let scores: Vec<f32> = list("scores").map(|v| v.as_f64().unwrap() as f32).collect();
                let mask: Vec<bool> = list("mask").map(|v| v.as_u64() == Some(1)).collect();
                metrics.add(&scores, &mask, width, None).unwrap();
            }
            results.push(metrics.finish().unwrap());
        }
        assert_eq!(results[0], results[1], "spilling changes nothing");
        let found = &results[0].total;
        for (key, value) in [
            ("auroc", found.auroc),
            ("aupr", found.aupr),
            ("f1_max", found.f1_max),
            ("aupro", found.aupro),
        ] {
            let expected = case[key].as_f64().unwrap();
            let value = value.unwrap();
            assert!(
                (value - expected).abs() < 1e-9,
                "{} {key}: {value}, expected {expected}",
                case["name"]
            );
        }
    }
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        (a, b) => a == b,
    }
}

proptest! {
    /// The metrics of a kind equal those of its images and the good ones alone.
    #[test]
    fn kinds_share_the_good_images(
        images in proptest::collection::vec(
            (0usize..4, proptest::collection::vec((0u8..6, any::<bool>()), 12)), 1..8),
        memory in 1usize..40,
    ) {
        const KINDS: usize = 3;
        // Kind 3 is a good image.
        let images: Vec<(Option<usize>, Vec<f32>, Vec<bool>)> = images
            .into_iter()
            .map(|(kind, pixels)| {
                let kind = (kind < KINDS).then_some(kind);
                let scores = pixels.iter().map(|p| f32::from(p.0)).collect();
                (kind, scores, pixels.iter().map(|p| p.1 && kind.is_some()).collect())
            })
            .collect();
        let mut together = PixelMetrics::new(KINDS, memory, &std::env::temp_dir());
        for (kind, scores, mask) in &images {
            together.add(scores, mask, 4, *kind).unwrap();
        }
        let together = together.finish().unwrap();
        let alone = |wanted: &dyn Fn(Option<usize>) -> bool| {
            let mut metrics = PixelMetrics::new(0, 1 << 10, &std::env::temp_dir());
            for (_, scores, mask) in images.iter().filter(|image| wanted(image.0)) {
                metrics.add(scores, mask, 4, None).unwrap();
            }
            metrics.finish().unwrap().total
        };
        let mut pairs = vec![(alone(&|_| true), &together.total)];
        for (number, found) in together.kinds.iter().enumerate() {
            pairs.push((alone(&|kind| kind.is_none_or(|kind| kind == number)), found));
        }
        for (expected, found) in pairs {
            prop_assert!(close(found.auroc, expected.auroc));
            prop_assert!(close(found.aupr, expected.aupr));
            prop_assert!(close(found.f1_max, expected.f1_max));
            let (aupro, wanted) = (found.aupro, expected.aupro);
            prop_assert!(close(aupro, wanted), "{aupro:?}, expected {wanted:?}");
            prop_assert_eq!(found.f1_threshold, expected.f1_threshold);
        }
    }
}

/// To measure peak memory, run `cargo test -p host-trainer --lib -- --ignored a_thousand_maps`
/// under `/usr/bin/time -v`.
#[test]
#[ignore = "takes minutes and 8.4 GB of temporary space"]
fn a_thousand_maps_of_a_megapixel() {
    use rand::RngExt;
    const SIDE: usize = 1024;
    let mut rng = crate::seed::generator(1, "maps", 0);
    let mut metrics = PixelMetrics::new(5, 32 << 20, &std::env::temp_dir());
    let mut scores = vec![0.0f32; SIDE * SIDE];
    for image in 0..1_000 {
        let kind = (image % 2 == 1).then_some(image / 2 % 5);
        let mask: Vec<bool> = (0..SIDE * SIDE)
            .map(|i| kind.is_some() && i % SIDE < 100 && i / SIDE < 100)
            .collect();
        for (score, &defect) in scores.iter_mut().zip(&mask) {
            *score = rng.random::<f32>() + if defect { 0.5 } else { 0.0 };
        }
        metrics.add(&scores, &mask, SIDE, kind).unwrap();
    }
    let found = metrics.finish().unwrap();
    // Good pixels are uniform on 0..1, defect pixels on 0.5..1.5, so AUROC is 1 - 0.5² / 2. The
    // overlap at false-positive rate f is 0.5 + f, so AUPRO is 0.5 + 0.15. Random deviations are
    // far below the tolerance.
    for found in found.kinds.iter().chain([&found.total]) {
        assert!((found.auroc.unwrap() - 0.875).abs() < 1e-3);
        assert!((found.aupro.unwrap() - 0.65).abs() < 1e-3);
    }
}

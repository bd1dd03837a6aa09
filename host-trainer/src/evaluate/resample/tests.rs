//! Intervals beside those of an independent bootstrap, and where there can be none.

use std::path::Path;

use super::*;
use crate::evaluate::pixels::{PixelMetrics, PixelResults};

struct Image {
    part: usize,
    defect: bool,
    mask: Vec<bool>,
    scores: Vec<f32>,
}

fn golden() -> (serde_json::Value, Vec<Image>) {
    let text = include_str!("../../../tests/fixtures/metrics/intervals.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let images = list(&golden["bootstrap"]["images"]);
    let images = images
        .iter()
        .map(|image| Image {
            part: image["part"].as_u64().unwrap() as usize,
            defect: image["defect"].as_u64() == Some(1),
            mask: list(&image["mask"])
                .iter()
                .map(|value| value.as_u64() == Some(1))
                .collect(),
            scores: list(&image["scores"])
                .iter()
                .map(|value| value.as_f64().unwrap() as f32)
                .collect(),
        })
        .collect();
    (golden, images)
}

fn measured(images: &[Image], threshold: Option<f32>) -> PixelResults {
    let mut metrics =
        PixelMetrics::new(1, usize::MAX, Path::new("unused")).with_threshold(threshold);
    for image in images {
        let kind = image.defect.then_some(0);
        metrics.add(&image.scores, &image.mask, 6, kind).unwrap();
    }
    metrics.finish().unwrap()
}

fn samples(images: &[Image], by_part: bool) -> Vec<Sample> {
    images
        .iter()
        .enumerate()
        .map(|(at, image)| Sample {
            part: if by_part { image.part } else { at },
            kind: image.defect.then_some(0),
            score: Some(image.scores.iter().copied().fold(0.0, f32::max)),
            pixels: Some(at),
        })
        .collect()
}

fn width(interval: Option<[f64; 2]>) -> f64 {
    interval.map_or(f64::NAN, |[low, high]| high - low)
}

/// 20,000 replicates by numpy and scikit-learn, tests/fixtures/metrics/make_intervals.py. The ends
/// of an interval of 1,000 replicates scatter by about a hundredth.
#[test]
fn intervals_are_those_of_a_bootstrap_by_scikit_learn() {
    let (golden, images) = golden();
    let pixels = measured(&images, None);
    for (by_part, key) in [(false, "by_image"), (true, "by_part")] {
        let (found, kinds) = intervals(&samples(&images, by_part), &pixels.images, 1);
        // There is one kind, so its images and the good ones are all images.
        assert_eq!(kinds, std::slice::from_ref(&found));
        for (name, found) in [
            ("image_auroc", found.image_auroc),
            ("pixel_auroc", found.pixel_auroc),
        ] {
            let expected = &golden["bootstrap"][key][name];
            for (end, found) in found.unwrap().into_iter().enumerate() {
                let expected = expected[end].as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 0.015,
                    "{key} {name}: {found}, expected {expected}"
                );
            }
        }
    }
}

/// Several images of a part say less than as many parts.
#[test]
fn parts_make_intervals_wider_than_their_images_would() {
    let (_, images) = golden();
    let pixels = measured(&images, None);
    let [by_image, by_part] =
        [false, true].map(|by_part| intervals(&samples(&images, by_part), &pixels.images, 1).0);
    assert!(width(by_part.image_auroc) > 1.05 * width(by_image.image_auroc));
    assert!(width(by_part.pixel_auroc) > 1.05 * width(by_image.pixel_auroc));
    assert!(width(by_part.aupro) > 0.0);
}

#[test]
fn f1_at_a_threshold_is_scikit_learns() {
    let (golden, images) = golden();
    for case in golden["f1"].as_array().unwrap() {
        let [threshold, expected] = ["threshold", "f1"].map(|key| case[key].as_f64().unwrap());
        let found = measured(&images, Some(threshold as f32));
        let found = found.total.f1_at_threshold.unwrap();
        assert!(
            (found - expected).abs() < 1e-12,
            "{found}, expected {expected}"
        );
    }
    assert_eq!(measured(&images, None).total.f1_at_threshold, None);
}

/// The same draws give the same intervals, and those of a replicate with every image once are the
/// areas themselves.
#[test]
fn binned_areas_are_the_exact_ones_to_three_digits() {
    let (_, images) = golden();
    let pixels = measured(&images, None);
    let mut sums = Sums::new(pixels.images[0].normal.len());
    pixels.images.iter().for_each(|image| sums.add(image, 1));
    let [auroc, aupro] = sums.areas();
    assert!((auroc.unwrap() - pixels.total.auroc.unwrap()).abs() < 1e-3);
    assert!((aupro.unwrap() - pixels.total.aupro.unwrap()).abs() < 1e-3);
    let again = || intervals(&samples(&images, true), &pixels.images, 1);
    assert_eq!(again(), again());
}

#[test]
fn where_nothing_overlaps_the_interval_still_admits_doubt() {
    let sample = |part: usize, defect: bool| Sample {
        part,
        kind: defect.then_some(0),
        score: Some(if defect { 2.0 } else { 1.0 }),
        pixels: None,
    };
    let of = |good: usize, defects: usize| {
        let samples: Vec<Sample> = (0..good + defects)
            .map(|at| sample(at, at >= good))
            .collect();
        intervals(&samples, &[], 1).0.image_auroc
    };
    // 0.025^(1/3), and 0.025 for one pair.
    let [low, high] = of(20, 3).unwrap();
    assert!((low - 0.292_401_77).abs() < 1e-6 && high == 1.0, "{low}");
    assert_eq!(of(20, 1).map(|[low, _]| (low * 1e3).round()), Some(25.0));
    assert_eq!(of(0, 3), None);
    // A single defective part that is not apart from the good ones does not say how such parts vary.
    let mixed = [
        sample(0, false),
        sample(1, false),
        Sample {
            score: Some(1.5),
            ..sample(2, true)
        },
        Sample {
            score: Some(1.7),
            ..sample(3, false)
        },
    ];
    assert_eq!(intervals(&mixed, &[], 1).0.image_auroc, None);
}

//! A verified package from frame to verdict.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{key, manifest, package};
use proto::manifest::{InputSize, PostProcessing, Roi, Scoring};
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::verdict::Verdict;
use scoring::inspector::Inspector;
use scoring::package::{Loaded, Trust};

fn inspector(change: impl FnOnce(&mut proto::manifest::Manifest)) -> Inspector {
    let mut manifest = manifest();
    change(&mut manifest);
    let trust = Trust::Only(vec![key().verifying_key()]);
    let package = Loaded::new(package(&manifest))
        .unwrap()
        .verify(&trust)
        .unwrap();
    Inspector::new(&package).unwrap()
}

fn spot() -> Frame {
    let bright = |x, y| (40..52).contains(&x) && (30..42).contains(&y);
    let value = |index: usize| {
        if bright(index % 97, index / 97) {
            255
        } else {
            128
        }
    };
    let pixels = Pixels::U8((0..97 * 80).map(value).collect());
    Frame::new(97, 80, Channels::Grey, pixels).unwrap()
}

/// The left half of the frame.
fn left_half() -> Roi {
    Roi::Polygons(vec![vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]])
}

#[test]
fn a_verdict_needs_a_threshold_and_goes_with_its_regions() {
    let uncalibrated = inspector(|manifest| manifest.threshold = None)
        .inspect(&spot())
        .unwrap();
    assert_eq!(
        (uncalibrated.verdict, uncalibrated.regions.len()),
        (None, 0)
    );
    let score = uncalibrated.score;
    assert_eq!(score, uncalibrated.map.peak());
    let at = |threshold| {
        inspector(|_| ())
            .with_threshold(threshold)
            .inspect(&spot())
            .unwrap()
    };
    let passed = at(score);
    assert_eq!(
        (passed.verdict, passed.regions.len()),
        (Some(Verdict::Ok), 0)
    );
    let rejected = at(score * 0.999);
    assert_eq!(rejected.verdict, Some(Verdict::Ng));
    assert_eq!(rejected.regions[0].peak, score);
}

#[test]
fn nothing_outside_the_roi_scores_even_after_smoothing() {
    let post = PostProcessing {
        smooth_sigma_px: 4.0,
        open_px: 3,
        close_px: 5,
    };
    let whole = inspector(|manifest| manifest.post = post)
        .inspect(&spot())
        .unwrap();
    let half = inspector(|manifest| {
        manifest.post = post;
        manifest.roi = left_half();
    });
    let half = half.inspect(&spot()).unwrap();
    for (at, (half, whole)) in half.map.data.iter().zip(&whole.map.data).enumerate() {
        // Pixel centres are at 0.5/97, 1.5/97, …; the middle one, on the edge, is outside.
        let inside = at % 97 < 48;
        assert_eq!(
            *half,
            if inside { *whole } else { 0.0 },
            "at ({}, {})",
            at % 97,
            at / 97
        );
    }
}

#[test]
fn the_roi_follows_the_size_of_the_frame() {
    let half = inspector(|manifest| manifest.roi = left_half());
    let narrow = Frame::new(70, 80, Channels::Grey, Pixels::U8(vec![90; 70 * 80])).unwrap();
    for frame in [spot(), narrow, spot()] {
        let width = frame.width_px() as usize;
        let found = half.inspect(&frame).unwrap();
        for (at, score) in found.map.data.iter().enumerate() {
            let inside = (at % width) * 2 + 1 < width;
            assert!(inside || *score == 0.0, "column {} of {width}", at % width);
        }
    }
    let whole = half.with_roi(Roi::Whole).inspect(&spot()).unwrap();
    assert!(whole.map.data.iter().skip(60).step_by(97).any(|&s| s > 0.0));
}

#[test]
fn regions_are_in_pixels_of_the_captured_frame() {
    let small = inspector(|manifest| {
        manifest.input.size = InputSize::Fixed {
            width_px: 130,
            height_px: 65,
        };
    });
    let found = small.clone().inspect(&spot()).unwrap();
    assert_eq!((found.map.width_px, found.map.height_px), (130, 65));
    let found = small.with_threshold(0.0).inspect(&spot()).unwrap();
    let region = &found.regions[0];
    assert!(
        region.x_px + region.width_px <= 97 && region.y_px + region.height_px <= 80,
        "{region:?}"
    );
}

#[test]
fn a_threshold_is_dropped_with_the_scoring_that_it_belongs_to() {
    let tiles = Scoring::AveragedTiles { stride_px: 32 };
    let package = || inspector(|_| ());
    assert_eq!(
        package()
            .with_scoring(Scoring::FullyConvolutional)
            .threshold(),
        Some(1e3)
    );
    assert_eq!(package().with_scoring(tiles).threshold(), None);
    assert_eq!(
        package()
            .with_scoring(tiles)
            .with_threshold(2.0)
            .threshold(),
        Some(2.0)
    );
    let smooth = PostProcessing {
        smooth_sigma_px: 1.0,
        ..PostProcessing::default()
    };
    assert_eq!(package().with_post(smooth).threshold(), None);
}

#[test]
fn both_bit_depths_give_the_same_score() {
    let Pixels::U8(values) = spot().pixels().clone() else {
        panic!("8 bit")
    };
    let deep = Pixels::U16(values.iter().map(|&value| u16::from(value) * 257).collect());
    let deep = Frame::new(97, 80, Channels::Grey, deep).unwrap();
    let inspector = inspector(|_| ());
    let scores = [spot(), deep].map(|frame| inspector.inspect(&frame).unwrap().score);
    assert!((scores[0] - scores[1]).abs() < 1e-5, "{scores:?}");
}

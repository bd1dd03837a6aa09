//! A verified package from frame to verdict.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{key, manifest, package};
use proto::manifest::{GoldenFrame, InputSize, Manifest, NormalMap, PostProcessing, Roi, Scoring};
use scoring::infer::{Half, Tuning};
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{InspectError, Inspector, golden_cells};
use scoring::package::{Loaded, PackageError, ParityError, Trust};

fn inspector(change: impl FnOnce(&mut Manifest)) -> Inspector {
    let mut manifest = manifest();
    change(&mut manifest);
    loaded(&manifest, Half::Off).unwrap()
}

fn loaded(manifest: &Manifest, half: Half) -> Result<Inspector, InspectError> {
    let trust = Trust::Only(vec![key().verifying_key()]);
    let package = Loaded::new(package(manifest))
        .unwrap()
        .verify(&trust)
        .unwrap();
    let tuning = Tuning {
        half,
        ..Tuning::default()
    };
    Inspector::tuned(&package, &tuning)
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

#[test]
fn scores_of_what_is_inspected_are_told_from_the_rest() {
    let whole = inspector(|_| ()).inspect(&spot()).unwrap();
    assert_eq!(whole.inside, None);
    assert!(whole.inspected_scores().eq(whole.map.data.iter().copied()));
    let half = inspector(|manifest| manifest.roi = left_half());
    let half = half.inspect(&spot()).unwrap();
    let inside = half.inside.as_ref().unwrap();
    assert!((0..97 * 80).all(|at| inside[at] == (at % 97 < 48)));
    let left = (0..97 * 80).filter(|at| at % 97 < 48);
    assert!(
        half.inspected_scores()
            .eq(left.map(|at| whole.map.data[at]))
    );
}

/// A manifest with a normal map and smoothing, and the golden frame that belongs to it.
fn with_golden_frame() -> Manifest {
    let mut manifest = manifest();
    manifest.post.smooth_sigma_px = 1.5;
    manifest.normal_map = Some(NormalMap {
        columns: 2,
        rows: 2,
        mean: vec![0.0, 0.1, 0.2, 0.3],
        spread: vec![0.5, 0.6, 0.7, 0.8],
        frames: 9,
    });
    let value = |at: usize| (at * 37 % 251) as u8;
    let mut golden = GoldenFrame {
        width_px: 81,
        height_px: 150,
        pixels: (0..81 * 150 * 3).map(value).collect(),
        scored_width_px: 117,
        scored_height_px: 109,
        cell_means: Vec::new(),
        peak: 0.0,
        tolerance: 0.0,
    };
    let map = loaded(&manifest, Half::Off).unwrap();
    let map = map.golden_frame_map(&golden).unwrap();
    assert_eq!((map.width_px, map.height_px), (117, 109));
    golden.cell_means = golden_cells(&map);
    golden.peak = map.peak();
    golden.tolerance = 1e-2 * golden.peak;
    manifest.golden_frame = Some(golden);
    manifest
}

/// The map of the golden frame is that of the same picture as a frame from a camera, although it is
/// scored in strips.
#[test]
fn a_golden_frame_is_scored_as_any_other() {
    let manifest = with_golden_frame();
    let golden = manifest.golden_frame.as_ref().unwrap();
    let mut camera = manifest.clone();
    camera.input.size = InputSize::Fixed {
        width_px: 117,
        height_px: 109,
    };
    let pixels = Pixels::U8(golden.pixels.clone());
    let frame = Frame::new(81, 150, Channels::Rgb, pixels).unwrap();
    let found = loaded(&camera, Half::Off).unwrap().inspect(&frame).unwrap();
    assert_eq!(golden_cells(&found.map), golden.cell_means);
    assert_eq!(found.map.peak(), golden.peak);
}

/// Each change leaves the golden tiles as they are, and the map of a frame is another.
#[test]
fn a_golden_frame_notices_what_golden_tiles_do_not() {
    let right = with_golden_frame();
    let off = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = right.clone();
        change(&mut manifest);
        match loaded(&manifest, Half::Off) {
            Ok(inspector) => {
                inspector.check_parity().unwrap();
                false
            }
            Err(InspectError::Parity(ParityError::Frame { .. })) => true,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(!off(&|_| ()));
    assert!(off(&|m| m.post.smooth_sigma_px = 2.5));
    assert!(off(&|m| m.normal_map = None));
    assert!(off(&|m| m.normal_map.as_mut().unwrap().spread[0] = 0.6));
    let golden = |m: &mut Manifest, change: &dyn Fn(&mut GoldenFrame)| {
        change(m.golden_frame.as_mut().unwrap());
    };
    // Resized by another factor, and a row that is another: as a resizer or padding that is off.
    assert!(off(&|m| golden(m, &|g| g.scored_height_px = 111)));
    assert!(off(&|m| golden(m, &|g| g.pixels.rotate_right(81 * 3))));
    assert!(off(&|m| golden(m, &|g| g.cell_means[255] += 0.02 * g.peak)));
    // Overrides that drop the threshold drop the golden frame, which was made without them.
    let tiles = Scoring::AveragedTiles { stride_px: 32 };
    let inspector = loaded(&right, Half::Off).unwrap().with_scoring(tiles);
    assert!(inspector.check_parity().is_ok());
}

/// A package that accepts anything does not get what it asks for.
#[test]
fn no_tolerance_counts_for_more_than_a_twentieth_of_the_peak() {
    let right = with_golden_frame();
    let opens = |change: &dyn Fn(&mut Manifest), half: Half| {
        let mut manifest = right.clone();
        change(&mut manifest);
        loaded(&manifest, half).is_ok()
    };
    let frame = |share: f32| {
        move |manifest: &mut Manifest| {
            let golden = manifest.golden_frame.as_mut().unwrap();
            golden.tolerance = 1e9;
            golden.cell_means[100] += share * golden.peak;
        }
    };
    assert!(opens(&frame(0.04), Half::Off) && !opens(&frame(0.06), Half::Off));
    let tile = |share: f32| {
        move |manifest: &mut Manifest| {
            let tile = &mut manifest.golden[0];
            tile.tolerance = 1e9;
            tile.block_means[100] += share * tile.peak;
        }
    };
    assert!(opens(&tile(0.04), Half::Off) && !opens(&tile(0.06), Half::Off));
    // Half precision is less exact, and passes its own gate.
    assert!(opens(&|_| (), Half::Always) && opens(&frame(0.03), Half::Always));
    assert!(!opens(&frame(0.08), Half::Always));
}

#[test]
fn a_malformed_golden_frame_is_refused() {
    let refused = |change: &dyn Fn(&mut GoldenFrame)| {
        let mut manifest = with_golden_frame();
        change(manifest.golden_frame.as_mut().unwrap());
        let package = Loaded::new(package(&manifest)).unwrap();
        let refused = package.verify(&Trust::AnySigner).unwrap_err();
        assert!(
            matches!(refused, PackageError::Inconsistent(_)),
            "{refused}"
        );
    };
    refused(&|golden| golden.pixels.truncate(9));
    refused(&|golden| golden.scored_width_px = 64);
    refused(&|golden| golden.scored_height_px = 513);
    refused(&|golden| golden.width_px = 0);
    refused(&|golden| golden.cell_means.push(0.0));
    refused(&|golden| golden.peak = f32::NAN);
    refused(&|golden| golden.tolerance = -1.0);
}

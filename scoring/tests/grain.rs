//! The grain of a frame's places: features and deviations beside those of numpy and scipy
//! (fixtures/make_grain.py), and packages with such statistics.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's failure"
)]

mod common;

use common::{ONNX, key, manifest};
use proto::manifest::{ColourMode, GrainStatistics, Manifest, PlaceDistances, PlaceMeans};
use scoring::infer::LayerOutput;
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::grain::{GoodGrain, features};
use scoring::inspect::preprocess::Planes;
use scoring::inspector::{InspectError, Inspector};
use scoring::package::{Loaded, Trust, encode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Golden {
    width_px: usize,
    height_px: usize,
    columns: usize,
    rows: usize,
    planes: Vec<f32>,
    grey: Vec<f32>,
    colour: Vec<f32>,
    offset: Vec<f32>,
    step: Vec<f32>,
    levels: Vec<i8>,
    whitening: Vec<f32>,
    mean: Vec<f32>,
    spread: Vec<f32>,
    deviation: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("fixtures/grain.json")).unwrap()
}

impl Golden {
    fn planes(&self) -> Planes {
        Planes {
            channels: 3,
            width_px: self.width_px,
            height_px: self.height_px,
            data: self.planes.clone(),
        }
    }

    fn statistics(&self) -> GrainStatistics {
        GrainStatistics {
            means: PlaceMeans {
                columns: self.columns as u16,
                rows: self.rows as u16,
                offset: self.offset.clone(),
                step: self.step.clone(),
                levels: self.levels.clone(),
            },
            distances: PlaceDistances {
                whitening: self.whitening.clone(),
                mean: self.mean.clone(),
                spread: self.spread.clone(),
                smooth_sigma_places: 0.0,
                weight: 1.0,
            },
            map_weight: 0.0,
            frames: 10,
        }
    }
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < tolerance,
            "{at}: {found}, not {expected}"
        );
    }
}

fn values(features: &LayerOutput) -> Vec<f32> {
    let channels = 0..features.channels();
    let rows = channels.flat_map(|channel| features.rows().map(move |row| (channel, row)));
    rows.flat_map(|(channel, row)| features.row(channel, row).to_vec())
        .collect()
}

#[test]
fn features_and_deviations_are_those_of_numpy_and_scipy() {
    let golden = golden();
    let planes = golden.planes();
    assert_near(&values(&features(&planes, false)), &golden.grey, 2e-3);
    let colour = features(&planes, true);
    assert_near(&values(&colour), &golden.colour, 2e-3);
    let good = GoodGrain::new(&golden.statistics(), golden.width_px, golden.height_px);
    assert_near(&good.deviations(&colour).data, &golden.deviation, 5e-3);
}

fn inspector(manifest: &Manifest) -> Result<Inspector, Box<dyn std::error::Error>> {
    let mut manifest = manifest.clone();
    manifest.onnx_sha256 = Sha256::digest(ONNX).into();
    let bytes = encode(&manifest, ONNX, &key())?;
    let verified = Loaded::new(bytes)?.verify(&Trust::AnySigner)?;
    Ok(Inspector::new(&verified)?)
}

/// Stripes with a smear: the middle has their mean.
fn stripes(smeared: bool) -> Frame {
    let side = 65;
    let pixels = (0..side * side).flat_map(|at| {
        let (x, y) = (at % side, at / side);
        let inside = smeared && (20..44).contains(&x) && (20..44).contains(&y);
        let value = if inside { 128 } else { [108, 148][x % 2] };
        [value; 3]
    });
    let pixels = Pixels::U8(pixels.collect());
    Frame::new(side as u32, side as u32, Channels::Rgb, pixels).unwrap()
}

#[test]
fn missing_texture_is_found() -> Result<(), InspectError> {
    let mut manifest = manifest();
    manifest.input.colour = ColourMode::Rgb;
    let channels = 15;
    let places = 17 * 17;
    let identity = (0..channels).flat_map(|row| (0..=row).map(move |at| f32::from(at == row)));
    let mut statistics = GrainStatistics {
        means: PlaceMeans {
            columns: 17,
            rows: 17,
            offset: vec![0.0; channels],
            step: vec![0.0; channels],
            levels: vec![0; channels * places],
        },
        distances: PlaceDistances {
            whitening: identity.collect(),
            mean: vec![0.0; places],
            spread: vec![1.0; places],
            smooth_sigma_places: 0.0,
            weight: 1.0,
        },
        map_weight: 0.0,
        frames: 10,
    };
    // The stripes themselves are good.
    let prepared = inspector(&manifest).unwrap();
    let good = prepared.prepare(&stripes(false))?;
    let good = features(&scoring::inspect::preprocess::to_planes(&good, 3), true);
    for channel in 0..channels {
        statistics.means.offset[channel] = good.row(channel, 8)[8];
    }
    manifest.grain = Some(statistics);
    let inspector = inspector(&manifest).unwrap();
    let whole = inspector.inspect(&stripes(false))?;
    let smeared = inspector.inspect(&stripes(true))?;
    let at = |found: &scoring::inspector::Inspection| found.map.data[32 * 65 + 32];
    assert!(at(&whole) < 0.8, "{}", at(&whole));
    assert!(at(&smeared) > 2.0, "{}", at(&smeared));
    Ok(())
}

#[test]
fn statistics_that_do_not_fit_the_frames_are_refused() {
    let mut manifest = manifest();
    manifest.input.colour = ColourMode::Rgb;
    manifest.grain = Some(golden().statistics());
    assert!(inspector(&manifest).is_ok());
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 3] = [
        ("means of 9 channels", |m| m.input.colour = ColourMode::Grey),
        ("weights and distances", |m| {
            m.grain.as_mut().unwrap().distances.mean.truncate(3);
        }),
        ("weights from 0", |m| {
            m.grain.as_mut().unwrap().map_weight = f32::NAN;
        }),
    ];
    for (expected, change) in changes {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        let error = inspector(&manifest).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

//! Statistics of the network's layers on a real graph: values of ONNX Runtime and numpy
//! (fixtures/make_layers.py), frames in strips, and packages.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's failure"
)]

mod common;

use common::{NETWORK, ONNX, key, manifest, planes};
use proto::manifest::{LayerStatistics, Manifest, PlaceDistances, PlaceMeans, Scoring};
use scoring::infer::{Engine, InferError, Tuning};
use scoring::inspect::layer_statistics::GoodLayers;
use scoring::inspector::Inspector;
use scoring::package::{Loaded, Trust, encode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Means {
    columns: u16,
    rows: u16,
    offset: Vec<f32>,
    step: Vec<f32>,
    levels: Vec<i8>,
}

#[derive(Deserialize)]
struct Golden {
    width_px: usize,
    height_px: usize,
    columns: usize,
    rows: usize,
    second: Means,
    third: Means,
    whitening: Vec<f32>,
    distance_mean: Vec<f32>,
    distance_spread: Vec<f32>,
    deviation: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("fixtures/layers.json")).unwrap()
}

impl Golden {
    fn statistics(self) -> LayerStatistics {
        let means = |means: Means| PlaceMeans {
            columns: means.columns,
            rows: means.rows,
            offset: means.offset,
            step: means.step,
            levels: means.levels,
        };
        LayerStatistics {
            second: means(self.second),
            third: means(self.third),
            distances: PlaceDistances {
                whitening: self.whitening,
                mean: self.distance_mean,
                spread: self.distance_spread,
                smooth_sigma_places: 0.0,
                weight: 0.5,
            },
            map_weight: 2.0,
            frames: 10,
        }
    }
}

/// Deviations of all places of a frame, row by row.
fn deviations(engine: &Engine, statistics: &LayerStatistics, size: [usize; 2]) -> Vec<f32> {
    let mut found = Vec::new();
    let mut next = 0;
    let scores = engine.scores_with_features(&planes(size[0], size[1]), &mut |outputs| {
        let good = GoodLayers::new(statistics, outputs.columns, outputs.height);
        assert_eq!(outputs.rows.start, next, "rows come once and in order");
        next = outputs.rows.end;
        for row in outputs.rows.clone() {
            found.extend(good.deviations_of_row(outputs, row));
        }
        Ok(())
    });
    assert_eq!(scores.unwrap().data.len(), size[0] * size[1]);
    assert_eq!(next, size[1].div_ceil(4));
    found
}

#[test]
fn deviations_are_those_of_onnx_runtime_and_numpy() {
    let golden = golden();
    let expected = golden.deviation.clone();
    let size = [golden.width_px, golden.height_px];
    let places = golden.columns * golden.rows;
    for threads in [1, 3] {
        let tuning = Tuning {
            threads,
            ..Tuning::default()
        };
        let engine = Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
        let found = deviations(&engine, &self::golden().statistics(), size);
        assert_eq!(found.len(), places);
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() < 2e-4,
                "{at}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn a_frame_in_strips_has_the_deviations_of_the_whole_frame_bit_by_bit() {
    let statistics = golden().statistics();
    for size in [[81, 73], [89, 201], [65, 409]] {
        let whole = deviations(&common::engine(), &statistics, size);
        for rows in [1, 64, 100] {
            let engine = common::engine().with_strip_bytes(rows * size[0] * 6);
            let strips = deviations(&engine, &statistics, size);
            let same = whole
                .iter()
                .zip(&strips)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && whole.len() == strips.len(), "{size:?} {rows}");
        }
    }
}

fn inspector(manifest: &Manifest, onnx: &[u8]) -> Result<Inspector, Box<dyn std::error::Error>> {
    let mut manifest = manifest.clone();
    manifest.onnx_sha256 = Sha256::digest(onnx).into();
    let bytes = encode(&manifest, onnx, &key())?;
    let verified = Loaded::new(bytes)?.verify(&Trust::AnySigner)?;
    Ok(Inspector::new(&verified)?)
}

#[test]
fn the_map_is_the_weighted_sum_of_scores_and_deviations() {
    let mut manifest = manifest();
    let plain = inspector(&manifest, ONNX).unwrap();
    manifest.layers = Some(golden().statistics());
    let both = inspector(&manifest, ONNX).unwrap();
    let golden = golden();
    let planes = planes(golden.width_px, golden.height_px);
    let scores = plain.scores(&planes).unwrap();
    let maps = both.maps(&planes).unwrap();
    assert_eq!(maps.scores, scores);
    let places = maps.layers.unwrap();
    // A place lies on every fourth pixel, and is passed through softplus.
    let mut frame = manifest.golden[0].pixels.clone();
    frame.truncate(65 * 65 * 3);
    let frame = scoring::inspect::frame::Frame::new(
        65,
        65,
        scoring::inspect::frame::Channels::Rgb,
        scoring::inspect::frame::Pixels::U8(frame),
    )
    .unwrap();
    let (with, without) = (
        both.inspect(&frame).unwrap(),
        plain.inspect(&frame).unwrap(),
    );
    let prepared = scoring::inspect::preprocess::to_planes(&with.prepared, 3);
    let of_frame = both.maps(&prepared).unwrap().layers.unwrap();
    for (column, row) in [(0, 0), (3, 5), (16, 16)] {
        let z = of_frame.data[row * of_frame.width_px + column];
        let softplus = f64::from(z).exp().ln_1p() as f32;
        let at = 4 * row * 65 + 4 * column;
        let expected = 2.0 * without.map.data[at] + 0.5 * softplus;
        assert!(
            (with.map.data[at] - expected).abs() < 1e-4 * expected,
            "{column} {row}"
        );
    }
    assert_eq!(places.data.len(), golden.columns * golden.rows);
}

#[test]
fn statistics_that_do_not_fit_the_network_are_refused() {
    let mut manifest = manifest();
    manifest.layers = Some(golden().statistics());
    assert!(inspector(&manifest, ONNX).is_ok());
    type Change = fn(&mut LayerStatistics);
    let changes: [(&str, Change); 7] = [
        ("means of 8 channels", |s| s.second.offset.push(0.0)),
        ("third layer", |s| {
            s.second.rows = 1;
            s.second.columns = 1;
            s.second.levels.truncate(8);
        }),
        ("weights and distances", |s| {
            s.distances.whitening.truncate(9)
        }),
        ("weights and distances", |s| s.distances.mean.truncate(9)),
        ("spreads from 1e-6", |s| s.distances.spread[0] = 0.0),
        ("at most 1e12", |s| s.distances.whitening[0] = f32::NAN),
        ("weights from 0", |s| s.distances.weight = -1.0),
    ];
    for (expected, change) in changes {
        let mut statistics = golden().statistics();
        change(&mut statistics);
        let manifest = Manifest {
            layers: Some(statistics),
            ..manifest.clone()
        };
        let error = inspector(&manifest, ONNX).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    manifest.scoring = Scoring::AveragedTiles { stride_px: 32 };
    let error = inspector(&manifest, ONNX).unwrap_err().to_string();
    assert!(error.contains("scored as a whole"), "{error}");
}

#[test]
fn a_graph_without_an_encoder_of_its_own_has_no_such_outputs() {
    let engine = Engine::from_onnx(include_bytes!("fixtures/baseline.onnx"), NETWORK).unwrap();
    let found = engine.scores_with_features(&planes(65, 65), &mut |_| Ok(()));
    assert!(matches!(found, Err(InferError::NoLayers)), "{found:?}");
}

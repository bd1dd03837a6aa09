//! The inference engine and both scoring modes on a real graph (made by fixtures/make_network.py).

mod common;

use common::{NETWORK, engine, planes};
use proto::manifest::Scoring;
use scoring::infer::{Engine, InferError};
use scoring::inspect::score::{Shift, score, sum_of_magnitudes};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    graph: String,
    width_px: usize,
    height_px: usize,
    sum_of_magnitudes: f64,
    at: Vec<usize>,
    values: Vec<f32>,
}

#[test]
fn the_engine_computes_what_onnx_runtime_does() {
    let golden: Vec<Golden> = serde_json::from_str(include_str!("fixtures/golden.json")).unwrap();
    assert_eq!(golden.len(), 4);
    for golden in golden {
        let onnx: &[u8] = match golden.graph.as_str() {
            "network.onnx" => common::ONNX,
            _ => include_bytes!("fixtures/baseline.onnx"),
        };
        let engine = Engine::from_onnx(onnx, NETWORK).unwrap();
        let found = engine
            .shift(&planes(golden.width_px, golden.height_px))
            .unwrap();
        for (&at, &expected) in golden.at.iter().zip(&golden.values) {
            let found = found.data[at];
            // f32 sums in another order: a few units in the last place of values around 1.
            assert!(
                (found - expected).abs() < 1e-5,
                "{} at {at}: {found}, not {expected}",
                golden.graph
            );
        }
        let sum: f64 = found.data.iter().map(|value| f64::from(value.abs())).sum();
        assert!((sum / golden.sum_of_magnitudes - 1.0).abs() < 1e-5, "{sum}");
    }
}

/// Tile origins at multiples of 8 whose cores cover `length`. A core is 49 px; the 8 px around it
/// depend on the tile's padding.
fn core_origins(length: usize) -> Vec<usize> {
    let mut origins: Vec<usize> = (0..=length - 65).step_by(48).collect();
    if origins.last() != Some(&(length - 65)) {
        origins.push(length - 65);
    }
    origins
}

#[test]
fn one_pass_over_a_frame_equals_the_stitched_cores_of_its_tiles() {
    let engine = engine();
    let (width, height) = (177, 121);
    let frame = planes(width, height);
    let whole = engine.shift(&frame).unwrap();
    let mut stitched = vec![None; whole.data.len()];
    for &y in &core_origins(height) {
        for &x in &core_origins(width) {
            let tile = engine.shift(&frame.crop(x, y, 65, 65)).unwrap();
            // At the frame's edges the tile's padding is the frame's.
            let core = |origin: usize, length: usize| {
                let from = if origin == 0 { 0 } else { 8 };
                let to = if origin + 65 == length { 65 } else { 57 };
                from..to
            };
            for channel in 0..3 {
                for ty in core(y, height) {
                    for tx in core(x, width) {
                        let at = (channel * height + y + ty) * width + x + tx;
                        stitched[at] = Some(tile.plane(channel)[ty * 65 + tx]);
                    }
                }
            }
        }
    }
    for (at, (stitched, whole)) in stitched.iter().zip(&whole.data).enumerate() {
        assert_eq!(stitched.map(f32::to_bits), Some(whole.to_bits()), "at {at}");
    }
}

#[test]
fn averaged_tiles_are_the_mean_over_all_tiles_that_hold_a_pixel() {
    let engine = engine();
    let (width, height) = (100, 70);
    let frame = planes(width, height);
    let scoring = Scoring::AveragedTiles { stride_px: 32 };
    let found = score(&engine, &frame, &NETWORK, scoring).unwrap();
    // Origins by hand: 0, 32 and flush at 35 across; 0 and flush at 5 down.
    let tiles: Vec<_> = [0, 32, 35]
        .iter()
        .flat_map(|&x| [0, 5].map(|y| (x, y)))
        .map(|(x, y)| {
            let shift = engine.shift(&frame.crop(x, y, 65, 65)).unwrap();
            (x, y, shift)
        })
        .collect();
    for y in 0..height {
        for x in 0..width {
            let scores: Vec<f64> = tiles
                .iter()
                .filter(|(left, top, _)| {
                    (*left..left + 65).contains(&x) && (*top..top + 65).contains(&y)
                })
                .map(|(left, top, shift)| {
                    let at = (y - top) * 65 + x - left;
                    (0..3)
                        .map(|channel| f64::from(shift.plane(channel)[at].abs()))
                        .sum()
                })
                .collect();
            let expected = scores.iter().sum::<f64>() / scores.len() as f64;
            let found = f64::from(found.data[y * width + x]);
            assert!(
                (found - expected).abs() < 1e-5,
                "at ({x}, {y}): {found}, not {expected}"
            );
        }
    }
}

#[test]
fn a_frame_of_any_size_is_scored_up_to_its_borders() {
    let engine = engine();
    for (width, height) in [(65, 65), (66, 65), (65, 73), (72, 80), (130, 99)] {
        let frame = planes(width, height);
        let found = score(&engine, &frame, &NETWORK, Scoring::FullyConvolutional).unwrap();
        assert_eq!((found.width_px, found.height_px), (width, height));
        // Padding by hand: the right and lower edges are repeated up to k·8 + 1, and the padding's
        // scores cut off.
        let aligned = |length: usize| (length + 6) / 8 * 8 + 1;
        let (wide, high) = (aligned(width), aligned(height));
        let mut padded = planes(wide, high);
        for (at, value) in padded.data.iter_mut().enumerate() {
            let (x, y, channel) = (at % wide, at / wide % high, at / wide / high);
            *value = frame.plane(channel)[y.min(height - 1) * width + x.min(width - 1)];
        }
        let expected = sum_of_magnitudes(&engine.shift(&padded).unwrap());
        for y in 0..height {
            for x in 0..width {
                assert_eq!(
                    found.data[y * width + x],
                    expected.data[y * wide + x],
                    "at ({x}, {y})"
                );
            }
        }
    }
}

#[test]
fn several_threads_score_at_once_with_the_same_result() {
    let engine = engine();
    let expected = engine.shift(&planes(73, 65)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(engine.shift(&planes(73, 65)).unwrap(), expected));
        }
    });
}

#[test]
fn unsuitable_shapes_are_refused_with_numbers() {
    let engine = engine();
    for (width, height) in [(64, 65), (65, 66), (57, 65), (1, 1)] {
        let error = engine.shift(&planes(width, height)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, InferError::Shape { .. }));
        assert!(
            text.contains("k·8 + 1") && text.contains(&format!("{width}×{height}")),
            "{text}"
        );
    }
}

#[test]
fn a_damaged_graph_is_an_error() {
    for damaged in [
        &b""[..],
        b"not a graph",
        &common::ONNX[..common::ONNX.len() / 2],
    ] {
        assert!(Engine::from_onnx(damaged, NETWORK).is_err());
    }
    let four = proto::manifest::Network {
        channels: 4,
        ..NETWORK
    };
    assert!(
        Engine::from_onnx(common::ONNX, four).is_err(),
        "weights for 3 channels"
    );
}

/// Our layers against tract's own operators, on the fixture network.
mod fused {
    use scoring::infer::{Engine, Half, Tuning, half_is_native};
    use scoring::inspect::score::{Shift, sum_of_magnitudes};

    use super::common::{NETWORK, ONNX, planes};

    fn engine(threads: usize, stock: bool) -> Engine {
        let tuning = Tuning {
            threads,
            stock,
            ..Tuning::default()
        };
        Engine::tuned(ONNX, NETWORK, &tuning).expect("the fixture can be loaded")
    }

    #[test]
    fn our_layers_compute_what_tract_does_at_any_size() {
        let (stock, ours) = (engine(1, true), engine(1, false));
        for (width, height) in [
            (65, 65),
            (73, 65),
            (65, 89),
            (137, 161),
            (257, 257),
            (513, 65),
        ] {
            let frame = planes(width, height);
            let expected = stock.shift(&frame).unwrap();
            let found = ours.shift(&frame).unwrap();
            let off = expected.data.iter().zip(&found.data);
            let off = off.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 2e-5, "{width}×{height}: off by {off}");
            let scores = ours.scores(&frame).unwrap();
            assert_eq!(scores.data, sum_of_magnitudes(&found).data);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let frame = planes(257, 193);
        let expected = engine(1, false).scores(&frame).unwrap();
        for threads in [2, 3, 7] {
            let engine = engine(threads, false);
            assert_eq!(
                engine.scores(&frame).unwrap(),
                expected,
                "{threads} threads"
            );
            // Also from several threads at once.
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| assert_eq!(engine.scores(&frame).unwrap(), expected));
                }
            });
        }
    }

    #[test]
    fn strips_do_not_change_a_bit() {
        for (width, height) in [(137, 513), (65, 97), (73, 105), (65, 2_049)] {
            let frame = planes(width, height);
            let whole = engine(1, false);
            let tuning = Tuning {
                strip_bytes: Some(1),
                threads: 2,
                ..Tuning::default()
            };
            let strips = Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
            assert_eq!(strips.shift(&frame).unwrap(), whole.shift(&frame).unwrap());
            assert_eq!(
                strips.scores(&frame).unwrap(),
                whole.scores(&frame).unwrap()
            );
        }
    }

    /// By this processor's kernels, or by portable ones.
    #[test]
    fn half_precision_changes_scores_little_and_strips_and_threads_not_a_bit() {
        let half = |threads: usize, strip_bytes: Option<usize>| {
            let tuning = Tuning {
                half: Half::Always,
                threads,
                strip_bytes,
                ..Tuning::default()
            };
            let engine = Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
            assert!(engine.half());
            engine
        };
        let frame = planes(73, 105);
        let whole = half(1, None).scores(&frame).unwrap();
        assert_eq!(half(2, Some(1)).scores(&frame).unwrap(), whole);
        let expected = engine(1, false);
        assert!(!expected.half());
        let expected = expected.scores(&frame).unwrap();
        assert_ne!(whole, expected);
        let pairs = whole.data.iter().zip(&expected.data);
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.01 * expected.peak(), "{off} of {}", expected.peak());
        // Without native kernels the result is single precision, to the bit.
        let native = Engine::tuned(
            ONNX,
            NETWORK,
            &Tuning {
                half: Half::WhereNative,
                ..Tuning::default()
            },
        );
        let native = native.unwrap();
        assert_eq!(native.half(), half_is_native());
        if !half_is_native() {
            assert_eq!(native.scores(&frame).unwrap(), expected);
        }
    }

    #[test]
    fn kernel_choices_are_cached_and_a_damaged_cache_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let tuning = Tuning {
            kernel_file: Some(path.clone()),
            ..Tuning::default()
        };
        let frame = planes(65, 65);
        let expected = engine(1, false).scores(&frame).unwrap();
        for text in [
            None,
            Some("{"),
            Some("{\"processor\":\"other\",\"kernels\":{}}"),
        ] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let engine = Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
            assert_eq!(engine.scores(&frame).unwrap(), expected);
            let kept: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert!(!kept["kernels"].as_object().unwrap().is_empty(), "{kept}");
        }
        // Choices made while other work runs are used but not cached.
        std::fs::remove_file(&path).unwrap();
        let disturbed = Tuning {
            disturbed: true,
            ..tuning.clone()
        };
        Engine::tuned(ONNX, NETWORK, &disturbed).unwrap();
        assert!(!path.exists());
        // Cached choices are not benchmarked again. What a slow processor had no time for is
        // benchmarked at the next starts.
        let mut text = String::new();
        let settled = (0..20).any(|_| {
            Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
            let before = std::mem::replace(&mut text, std::fs::read_to_string(&path).unwrap());
            before == text
        });
        assert!(settled, "{text}");
        // A kernel that does not exist is chosen again.
        let mut known: serde_json::Value = serde_json::from_str(&text).unwrap();
        for kernel in known["kernels"].as_object_mut().unwrap().values_mut() {
            *kernel = "no_such_kernel".into();
        }
        std::fs::write(&path, known.to_string()).unwrap();
        let engine = Engine::tuned(ONNX, NETWORK, &tuning).unwrap();
        assert_eq!(engine.scores(&frame).unwrap(), expected);
        assert!(
            !std::fs::read_to_string(&path)
                .unwrap()
                .contains("no_such_kernel")
        );
    }
}

//! The exported graph, run by the camera's engine, gives what libtorch gives; and a whole-frame pass equals stitched
//! tile cores.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what goes wrong in them fails the test"
)]

use std::process::Command;

use edge_runtime::infer::{Engine, Tuning};
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::score::{Shift, sum_of_magnitudes};
use host_trainer::network::{Architecture, CHANNELS, Network, OutputActivation, as_run};
use host_trainer::onnx::{LayerWeights, export};
use host_trainer::quantise::Step;
use host_trainer::seed::generator;
use host_trainer::train::floats;
use proto::manifest::TrainingMode;
use rand::RngExt;
use tch::{Device, Tensor};

const WIDTH: i64 = 8;

fn network() -> (Network, Vec<LayerWeights>) {
    built(&Architecture::paper(WIDTH))
}

fn built(architecture: &Architecture) -> (Network, Vec<LayerWeights>) {
    let network = Network::initialise(CHANNELS, architecture, 11, Device::Cpu).unwrap();
    // PyTorch's initialisation gives tiny outputs; larger weights make a stricter comparison.
    tch::no_grad(|| {
        for (_, mut parameter) in network.parameters() {
            let _ = parameter.g_mul_scalar_(3.0);
        }
    });
    let layers = network.weights().unwrap();
    (network, layers)
}

fn engine(onnx: &[u8]) -> Engine {
    Engine::from_onnx(onnx, Architecture::paper(WIDTH).shape()).unwrap()
}

fn planes(width_px: usize, height_px: usize) -> Planes {
    planes_of(0, width_px, height_px)
}

fn planes_of(seed: u64, width_px: usize, height_px: usize) -> Planes {
    let mut rng = generator(1, "planes", seed);
    Planes {
        channels: 3,
        width_px,
        height_px,
        data: (0..3 * width_px * height_px)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect(),
    }
}

fn tensor(planes: &Planes) -> Tensor {
    let size = [1, 3, planes.height_px as i64, planes.width_px as i64];
    Tensor::from_slice(&planes.data).view(size)
}

fn assert_close(found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    assert!(
        largest > 0.1,
        "an output of nearly nothing would prove nothing: {largest}"
    );
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 5e-5, "{found} for {expected}");
    }
}

#[test]
fn the_direct_graph_gives_the_networks_shift_at_any_size() {
    let (network, layers) = network();
    let engine = engine(&export(
        &layers,
        TrainingMode::Direct,
        OutputActivation::RefRelu,
        &[],
        None,
    ));
    for (width, height) in [(65, 65), (97, 73), (129, 257)] {
        let input = planes(width, height);
        let expected = tch::no_grad(|| network.forward(&tensor(&input))).unwrap();
        assert_close(
            &engine.shift(&input).unwrap().data,
            &floats(&expected).unwrap(),
        );
    }
}

/// Its transposed convolutions are none of the camera's own operators, so that tract's run: whole and in strips.
#[test]
fn an_upsampled_networks_graph_gives_its_shift_too() {
    let architecture = Architecture {
        upsampled: true,
        ..Architecture::paper(WIDTH)
    };
    let (network, layers) = built(&architecture);
    let layers = as_run(layers, true).unwrap();
    let direct = TrainingMode::Direct;
    let onnx = export(&layers, direct, OutputActivation::RefRelu, &[], None);
    let input = planes(97, 257);
    let expected = tch::no_grad(|| network.forward(&tensor(&input))).unwrap();
    for strip_bytes in [None, Some(1)] {
        let tuning = Tuning {
            strip_bytes,
            ..Tuning::default()
        };
        let engine = Engine::tuned(&onnx, architecture.shape(), &tuning).unwrap();
        let found = engine.shift(&input).unwrap();
        assert_close(&found.data, &floats(&expected).unwrap());
    }
}

#[test]
fn a_baselines_graph_gives_the_distance_from_its_image() {
    let (network, layers) = network();
    let input = planes(65, 65);
    for activation in [
        OutputActivation::RefRelu,
        OutputActivation::Tanh,
        OutputActivation::None,
    ] {
        let engine = engine(&export(
            &layers,
            TrainingMode::Denoising,
            activation,
            &[],
            None,
        ));
        let expected = tch::no_grad(|| {
            let output = network.forward(&tensor(&input)).unwrap();
            activation.apply(&output).unwrap() - tensor(&input)
        });
        assert_close(
            &engine.shift(&input).unwrap().data,
            &floats(&expected).unwrap(),
        );
    }
}

/// How the network's values between its layers are quantised on an image, each by its own range.
fn steps(network: &Network, input: &Planes) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |output: &Tensor| {
        let values = floats(output).unwrap();
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        let scale = (high - low) / 255.0;
        steps.push(Step {
            scale,
            zero_point: (-128.0 - low / scale).round() as i8,
        });
    };
    let _ = tch::no_grad(|| {
        network.forward_through(&tensor(input), &mut |layer, output| {
            if layer < 5 {
                step(output);
            }
        })
    })
    .unwrap();
    steps
}

/// In 8 bits, by the layers of the engine's own and by tract's, which compute the graph in f32 between the same levels.
#[test]
fn a_quantised_graph_gives_nearly_the_same_and_runs_in_integers() {
    let (network, layers) = network();
    for (width, height) in [(65, 65), (97, 73)] {
        let input = planes(width, height);
        let steps = steps(&network, &input);
        let onnx = export(
            &layers,
            TrainingMode::Direct,
            OutputActivation::RefRelu,
            &[],
            Some(&steps),
        );
        let plain = export(
            &layers,
            TrainingMode::Direct,
            OutputActivation::RefRelu,
            &[],
            None,
        );
        assert!(onnx.len() < plain.len() / 2, "weights take a byte each");
        let stock = Tuning {
            stock: true,
            ..Tuning::default()
        };
        let [ours, tracts, expected] = [
            engine(&onnx),
            Engine::tuned(&onnx, Architecture::paper(WIDTH).shape(), &stock).unwrap(),
            engine(&plain),
        ]
        .map(|engine| engine.shift(&input).unwrap().data);
        let peak = expected.iter().fold(0.0f32, |peak, a| peak.max(a.abs()));
        let worst = |found: &[f32], expected: &[f32]| {
            let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            off.fold(0.0f32, f32::max) / peak
        };
        let lost = worst(&ours, &expected);
        assert!(
            (0.001..0.08).contains(&lost),
            "8 bits show, a little: {lost}"
        );
        // Sums of integers are exact, tract's of f32 are not: a value between two levels may fall to either side.
        let apart = worst(&ours, &tracts);
        assert!(apart < 0.02, "{apart}");
        assert!(apart < lost / 2.0, "{apart} of {lost}");
    }
}

/// What another processor's rounding may do: a value between two levels falls to the other side. The parity gate's tolerance
/// for 8 bits, 2 % of the peak, must leave room for that, and the one for f32, 0.1 %, must not be enough.
#[test]
fn shifts_of_a_millionth_move_a_quantised_score_by_less_than_the_gate_allows() {
    let (network, layers) = network();
    let mut worst = 0.0f32;
    for seed in 0..8 {
        let input = planes_of(seed, 65, 65);
        let onnx = export(
            &layers,
            TrainingMode::Direct,
            OutputActivation::RefRelu,
            &[],
            Some(&steps(&network, &input)),
        );
        let engine = engine(&onnx);
        let mut shifted = input.clone();
        for (index, value) in shifted.data.iter_mut().enumerate() {
            *value += if index % 2 == 0 { 1e-6 } else { -1e-6 };
        }
        let [before, after] = [&input, &shifted].map(|planes| engine.scores(planes).unwrap());
        let off = before
            .data
            .iter()
            .zip(&after.data)
            .map(|(a, b)| (a - b).abs());
        worst = worst.max(off.fold(0.0, f32::max) / before.peak());
    }
    assert!((1e-3..1e-2).contains(&worst), "{worst}");
}

/// Tiles with origins at multiples of 8 see what the frame sees, 8 px inside their border (14 px receptive field, of
/// which the innermost six are reached through values that the padding does not touch). At stride 48 their cores
/// cover the frame.
#[test]
fn one_pass_over_the_frame_equals_stitched_tile_cores() {
    let (_, layers) = network();
    let engine = engine(&export(
        &layers,
        TrainingMode::Direct,
        OutputActivation::RefRelu,
        &[],
        None,
    ));
    let frame = planes(48 * 2 + 65, 48 + 65);
    let whole = sum_of_magnitudes(&engine.shift(&frame).unwrap());
    let mut compared = 0;
    for tile_y in [0, 48] {
        for tile_x in [0, 48, 96] {
            let tile = frame.crop(tile_x, tile_y, 65, 65);
            let scores = sum_of_magnitudes(&engine.shift(&tile).unwrap());
            // At the frame's own edges the tile's padding is the frame's.
            let core = |origin: usize, last: usize| {
                (if origin == 0 { 0 } else { 8 })..(if origin == last { 65 } else { 57 })
            };
            for y in core(tile_y, 48) {
                for x in core(tile_x, 96) {
                    let of_frame = whole.data[(tile_y + y) * whole.width_px + tile_x + x];
                    assert!((of_frame - scores.data[y * 65 + x]).abs() < 1e-6);
                    compared += 1;
                }
            }
        }
    }
    assert!(
        compared >= frame.width_px * frame.height_px,
        "the cores cover the frame"
    );
}

#[test]
fn onnx_checker_and_onnxruntime_accept_the_graph() {
    let ready = Command::new("python3")
        .args(["-c", "import onnx, onnxruntime, numpy"])
        .output();
    if !ready.is_ok_and(|output| output.status.success()) {
        eprintln!("not run: python3 has no onnx, onnxruntime and numpy here");
        return;
    }
    let (network, layers) = network();
    let folder = tempfile::tempdir().unwrap();
    let metadata = [("name".to_owned(), "test".to_owned())];
    let onnx = export(
        &layers,
        TrainingMode::Direct,
        OutputActivation::RefRelu,
        &metadata,
        None,
    );
    std::fs::write(folder.path().join("m.onnx"), onnx).unwrap();
    let input = planes(73, 65);
    let bytes: Vec<u8> = input.data.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.path().join("in.f32"), bytes).unwrap();
    let script = "
import onnx, onnxruntime, numpy as np
model = onnx.load('m.onnx'); onnx.checker.check_model(model, full_check=True)
assert model.metadata_props[0].value == 'test'
x = np.fromfile('in.f32', dtype='<f4').reshape(1, 3, 65, 73)
onnxruntime.InferenceSession('m.onnx').run(None, {'input': x})[0].astype('<f4').tofile('out.f32')
";
    let status = Command::new("python3")
        .args(["-c", script])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(folder.path().join("out.f32")).unwrap();
    let found: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let expected = tch::no_grad(|| network.forward(&tensor(&input))).unwrap();
    assert_close(&found, &floats(&expected).unwrap());
}

//! A small signed package over the fixture network, and frames to score with it.

#![allow(dead_code, reason = "every test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use ed25519_dalek::SigningKey;
use proto::manifest::{
    ColourMode, GoldenTile, Input, InputSize, MANIFEST_FORMAT, Manifest, Network, PostProcessing,
    Reading, Roi, Scoring, SeenImages, Threshold, Training, TrainingMode,
};
use scoring::infer::Engine;
use scoring::inspect::preprocess::Planes;
use scoring::package::{encode, golden_scores};
use sha2::{Digest, Sha256};

pub(crate) const ONNX: &[u8] = include_bytes!("../fixtures/network.onnx");

/// The shape of the fixture network.
pub(crate) const NETWORK: Network = Network {
    channels: 3,
    width: 4,
    tile_px: 65,
    align_px: 8,
    halo_px: 14,
};

pub(crate) fn engine() -> Engine {
    Engine::from_onnx(ONNX, NETWORK).unwrap()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// The input that make_network.py gives to ONNX Runtime.
pub(crate) fn planes(width_px: usize, height_px: usize) -> Planes {
    let value = |index: usize| ((index * 7919 % 1021) as f64 / 510.0 - 1.0) as f32;
    Planes {
        channels: 3,
        width_px,
        height_px,
        data: (0..3 * width_px * height_px).map(value).collect(),
    }
}

/// A calibrated package's manifest that is consistent and passes the parity gate.
pub(crate) fn manifest() -> Manifest {
    let pixels: Vec<u8> = (0..65 * 65 * 3)
        .map(|i: u32| (i * 37 % 251) as u8)
        .collect();
    let scores = golden_scores(&engine(), &pixels).unwrap();
    Manifest {
        format: MANIFEST_FORMAT,
        name: "fixture".to_owned(),
        version: "1".to_owned(),
        created_unix_s: 0,
        trainer_version: "0".to_owned(),
        training: Training {
            data_digest: [0; 32],
            file_ids: Vec::new(),
            held_out_images: 0,
            mode: TrainingMode::Direct,
            loss: "perceptual".to_owned(),
            activation: "refrelu".to_owned(),
            features: "none".to_owned(),
            noise: "none".to_owned(),
            iterations: 0,
            batch: 0,
            seed: 65,
            seconds: 0,
        },
        network: NETWORK,
        input: Input {
            size: InputSize::Native,
            colour: ColourMode::Rgb,
        },
        scoring: Scoring::FullyConvolutional,
        post: PostProcessing::default(),
        roi: Roi::Whole,
        threshold: Some(Threshold {
            value: 1e3,
            promise: None,
            calibration_digest: [0; 32],
            parts: 0,
            note: String::new(),
        }),
        normal_scores: None,
        evaluation: None,
        golden: vec![GoldenTile {
            pixels,
            block_means: scores.block_means,
            peak: scores.peak,
            tolerance: 1e-4,
        }],
        onnx_sha256: Sha256::digest(ONNX).into(),
        normal_map: None,
        variation: None,
        segmentation: None,
        reading: Reading::default(),
        seen: SeenImages::default(),
        golden_frame: None,
        segmentation_gain: None,
        layers: None,
        grain: None,
        decisions: Vec::new(),
    }
}

pub(crate) fn package(manifest: &Manifest) -> Vec<u8> {
    encode(manifest, ONNX, &key()).unwrap()
}

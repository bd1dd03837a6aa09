//! Packages that are altered, cut off or signed by somebody else are refused, and nothing panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{key, manifest, package};
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use proto::manifest::{
    MANIFEST_FORMAT, Manifest, NormalMap, PostProcessing, Reading, Roi, Scoring,
    SegmentationNetwork, VariationGrid, VariationModel,
};
use scoring::infer::{Half, SegmentationEngine, Tuning};
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::grid::GRIDS;
use scoring::inspect::preprocess::{Planes, to_planes};
use scoring::inspect::segmentation::{self, CELLS};
use scoring::inspect::texture::CellFeatures;
use scoring::inspect::variation::{deviations, grid_features};
use scoring::inspector::{InspectError, Inspector};
use scoring::package::{Loaded, PackageError, ParityError, Trust, Verified, golden_frame};

fn verify(bytes: Vec<u8>) -> Result<Verified, PackageError> {
    Loaded::new(bytes)?.verify(&Trust::Only(vec![key().verifying_key()]))
}

/// Signs a changed package again, so that the signature is not the reason of its refusal.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 64);
    let signature = key().sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

#[test]
fn a_package_is_read_back_as_it_was_written() {
    let manifest = manifest();
    let verified = verify(package(&manifest)).unwrap();
    assert_eq!(verified.manifest(), &manifest);
    assert_eq!(verified.onnx(), common::ONNX);
    assert_eq!(verified.signer(), &key().verifying_key());
}

fn normal_map(columns: u16, mean: Vec<f32>, spread: Vec<f32>) -> NormalMap {
    NormalMap {
        columns,
        rows: 2,
        mean,
        spread,
        frames: 1,
    }
}

/// A signed package with these bytes as its manifest.
fn package_with_manifest(manifest: &[u8]) -> Vec<u8> {
    let mut bytes = b"AWRPKG\r\n\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(common::ONNX.len() as u64).to_le_bytes());
    bytes.extend_from_slice(manifest);
    bytes.extend_from_slice(common::ONNX);
    bytes.extend_from_slice(key().verifying_key().as_bytes());
    bytes.extend_from_slice(&[0; 64]);
    signed(bytes)
}

#[test]
fn other_manifest_formats_are_refused_with_a_hint() {
    for found in [2, 7] {
        let hint = "package the run again with this version's host-trainer";
        let expected = format!("expected manifest format {MANIFEST_FORMAT}, found {found}: {hint}");
        let mut manifest = manifest();
        manifest.format = found;
        let error = verify(package(&manifest)).unwrap_err();
        assert_eq!(error.to_string(), expected);
        // Even if nothing but the format can be decoded.
        let error = verify(package_with_manifest(&[found as u8])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let mut manifest = manifest();
    manifest.format = MANIFEST_FORMAT + 1;
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("update this program"), "{error}");
}

#[test]
fn packages_of_formats_before_are_read_and_say_what_programs_did_then() {
    let mut manifest = manifest();
    // What is not there takes one byte. Format 9 added four fields, format 10 two,
    // format 11 one.
    let nothing = 0u8;
    let added_by_9 = (manifest.reading, &manifest.seen, nothing, nothing);
    let added_by_9 = postcard::to_allocvec(&added_by_9).unwrap().len();
    for (format, added) in [(10, 1), (9, 3), (8, 3 + added_by_9)] {
        manifest.format = format;
        let whole = postcard::to_allocvec(&manifest).unwrap();
        let old = &whole[..whole.len() - added];
        let read = verify(package_with_manifest(old)).unwrap();
        let mut expected = manifest.clone();
        if format < 9 {
            expected.reading = Reading::AS_STORED;
        }
        assert_eq!(read.manifest(), &expected);
        assert!(verify(package_with_manifest(&old[..old.len() - 1])).is_err());
        assert!(verify(package_with_manifest(&whole)).is_err());
    }
}

#[test]
fn a_manifest_that_is_too_short_or_too_long_is_refused() {
    let manifest = postcard::to_allocvec(&manifest()).unwrap();
    assert!(verify(package_with_manifest(&manifest)).is_ok());
    let short = &manifest[..manifest.len() - 1];
    let error = verify(package_with_manifest(short)).unwrap_err();
    assert!(error.to_string().contains("cannot be decoded"), "{error}");
    let long = [&manifest[..], &[0; 4]].concat();
    let error = verify(package_with_manifest(&long)).unwrap_err();
    assert!(error.to_string().contains("4 bytes too many"), "{error}");
}

fn inspector(manifest: &Manifest) -> Inspector {
    Inspector::new(&verify(package(manifest)).unwrap()).unwrap()
}

/// The first golden tile with some noise.
fn frame(manifest: &Manifest, seed: u32) -> Frame {
    let noise = |index: u32| (index ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 28;
    let pixels = (0..).zip(&manifest.golden[0].pixels);
    let pixels = pixels.map(|(index, &value)| value.saturating_add(noise(index) as u8));
    Frame::new(65, 65, Channels::Rgb, Pixels::U8(pixels.collect())).unwrap()
}

/// The features of a frame that a variation model takes, from an inspector without a model.
fn features(plain: &Inspector, frame: &Frame) -> [CellFeatures; 2] {
    let found = plain.inspect(frame).unwrap();
    grid_features(&to_planes(&found.prepared, 3), true, &found.map)
}

/// A variation model whose only good frame has these features, with usual distances of 1.
fn variation_of(good: [CellFeatures; 2]) -> VariationModel {
    let grids = GRIDS.into_iter().zip(good).map(|(side, good)| {
        let triangle = good.count * (good.count + 1) / 2;
        let diagonal = (1..=good.count).flat_map(|row| (1..=row).map(move |column| row == column));
        let identity: Vec<f32> = diagonal.map(|on| f32::from(u8::from(on))).collect();
        assert_eq!(identity.len(), triangle);
        VariationGrid {
            side: side as u16,
            features: good.count as u16,
            scale: vec![0.01; good.count],
            modes: Vec::new(),
            whitening: identity.repeat(side * side),
            distance_mean: vec![1.0; side * side],
            distance_spread: vec![0.5; side * side],
            mean: good.values,
        }
    });
    VariationModel {
        grids: grids.collect(),
        frames: 1,
    }
}

#[test]
fn scores_are_deviations_from_good_frames() {
    let mut manifest = manifest();
    let plain = inspector(&manifest);
    let [good, own] = [0, 999].map(|seed| frame(&manifest, seed));
    let model = variation_of(features(&plain, &good));
    manifest.variation = Some(model.clone());
    let with_model = inspector(&manifest);
    let expected = deviations(&model, &features(&plain, &own), None, [65; 2]);
    assert_eq!(with_model.inspect(&own).unwrap().map, expected);
    // The model belongs to these scores and is dropped with them.
    let post = PostProcessing {
        open_px: 3,
        ..PostProcessing::default()
    };
    let map = |inspector: Inspector| inspector.inspect(&own).unwrap().map;
    assert_eq!(map(with_model.with_post(post)), map(plain.with_post(post)));
    manifest.normal_map = Some(normal_map(2, vec![0.0; 4], vec![1.0; 4]));
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("found both"), "{error}");
    manifest.normal_map = None;
    // Values whose sums would be NaN, which no comparison finds too high.
    manifest.variation.as_mut().unwrap().grids[0].whitening[0] = 3e38;
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("at most 1e6"), "{error}");
}

/// A graph of a segmentation network's operators (fixtures/make_segmentation.py).
const SEGMENTATION_ONNX: &[u8] = include_bytes!("fixtures/segmentation.onnx");

/// The input that make_segmentation.py gives to ONNX Runtime.
fn segmentation_values() -> Vec<f32> {
    let value = |index: usize| ((index as f64 * 0.37).sin() * 2.0) as f32;
    (0..42 * CELLS * CELLS).map(value).collect()
}

#[test]
fn a_segmentation_network_computes_what_onnx_runtime_does() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/segmentation.json")).unwrap();
    let engine = SegmentationEngine::new(SEGMENTATION_ONNX, 42).unwrap();
    let found = engine.logits(&segmentation_values()).unwrap();
    assert_eq!(found.len(), 32 * 32);
    for point in golden["points"].as_array().unwrap() {
        let found = f64::from(found[point[0].as_u64().unwrap() as usize]);
        let expected = point[1].as_f64().unwrap();
        assert!(
            (found - expected).abs() < 1e-4,
            "{found} instead of {expected}"
        );
    }
    let total: f64 = found.iter().map(|value| f64::from(value.abs())).sum();
    let expected = golden["sum_of_magnitudes"].as_f64().unwrap();
    assert!(
        (total / expected - 1.0).abs() < 1e-5,
        "{total} instead of {expected}"
    );
    assert!(engine.logits(&segmentation_values()[1..]).is_err());
    assert!(SegmentationEngine::new(&SEGMENTATION_ONNX[..900], 42).is_err());
}

#[test]
fn a_segmentation_network_adds_to_the_deviations() {
    let mut manifest = manifest();
    let plain = inspector(&manifest);
    let [good, own] = [0, 999].map(|seed| frame(&manifest, seed));
    let model = variation_of(features(&plain, &good));
    let engine = SegmentationEngine::new(SEGMENTATION_ONNX, 42).unwrap();
    let (mean, scale) = (vec![-2.0; 8 * 32 * 32], vec![0.5; 8]);
    let logits = |planes: &Planes| {
        let texture = segmentation::texture(planes, true);
        let input = segmentation::input(&mean, &scale, planes, &texture, true);
        engine.logits(&input).unwrap()
    };
    let golden = golden_frame(&manifest.golden[0].pixels, &manifest.network, true);
    let network = SegmentationNetwork {
        onnx: SEGMENTATION_ONNX.to_vec(),
        logit_mean: -0.5,
        logit_spread: 0.25,
        weight: 0.5,
        golden_logits: logits(&golden),
        golden_tolerance: 1e-3,
        local_contrast: 0.0,
        mean: mean.clone(),
        scale: scale.clone(),
    };
    manifest.segmentation = Some(network.clone());
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("found none"), "{error}");
    manifest.variation = Some(model.clone());
    let own_features = features(&plain, &own);
    let planes = to_planes(&plain.prepare(&own).unwrap(), 3);
    // Half a logit above the mean is two standard deviations, times a weight of a half.
    let seen = logits(&segmentation::resized(&planes, true));
    let added = segmentation::segmentation_deviations(&network, &seen);
    for (added, logit) in added.iter().zip(&seen) {
        assert!((added - 0.5 * (logit + 0.5) / 0.25).abs() < 1e-5 * added.abs().max(1.0));
    }
    let expected = deviations(&model, &own_features, Some((&network, &seen)), [65; 2]).data;
    let found = inspector(&manifest).inspect(&own).unwrap().map.data;
    let off = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs() / b.max(1.0));
    assert!(off.fold(0.0, f32::max) < 1e-5);
    assert_ne!(found, deviations(&model, &own_features, None, [65; 2]).data);
    // Local contrast lowers the scores.
    manifest.segmentation.as_mut().unwrap().local_contrast = 0.5;
    let less = inspector(&manifest).inspect(&own).unwrap().map.data;
    assert!(less.iter().sum::<f32>() < 0.8 * found.iter().sum::<f32>());
    manifest.segmentation = Some(network.clone());
    // A machine that computes other logits does not pass the parity gate.
    let segmentation = manifest.segmentation.as_mut().unwrap();
    segmentation.golden_logits[7] += 0.1;
    let error = Inspector::new(&verify(package(&manifest)).unwrap()).unwrap_err();
    let InspectError::Parity(ParityError::Segmentation { off, .. }) = &error else {
        panic!("{error}");
    };
    assert!((off - 0.1).abs() < 1e-6, "{off}");
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("golden logits are off by"), "{text}");
    let mut refused = |change: fn(&mut SegmentationNetwork), word: &str| {
        let mut network = network.clone();
        change(&mut network);
        manifest.segmentation = Some(network);
        let error = verify(package(&manifest)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(
        |n| n.golden_logits.truncate(9),
        "means, scales and golden logits",
    );
    refused(|n| n.mean.truncate(9), "means, scales and golden logits");
    refused(|n| n.scale[3] = 0.0, "scales and a spread from 1e-6");
    refused(|n| n.logit_spread = 0.0, "a spread from 1e-6");
    refused(|n| n.weight = f32::NAN, "a weight of 0 to 10");
    refused(|n| n.mean[0] = f32::INFINITY, "at most 1e6");
    refused(|n| n.local_contrast = 1.5, "a local contrast of 0 to 1");
}

#[test]
fn scores_are_relative_to_the_normal_map() {
    let mut manifest = manifest();
    let pixels = manifest.golden[0].pixels.clone();
    let frame = Frame::new(65, 65, Channels::Rgb, Pixels::U8(pixels)).unwrap();
    let map = |manifest: &Manifest| {
        let inspector = Inspector::new(&verify(package(manifest)).unwrap()).unwrap();
        // Twice, because the normal map is kept at the size of the anomaly map.
        inspector.inspect(&frame).unwrap();
        inspector.inspect(&frame).unwrap().map.data
    };
    let plain = map(&manifest);
    let mean = plain.iter().sum::<f32>() / plain.len() as f32;
    manifest.normal_map = Some(normal_map(2, vec![mean; 4], vec![0.5; 4]));
    for (relative, plain) in map(&manifest).iter().zip(&plain) {
        let expected = ((plain - mean) * 2.0).max(0.0);
        assert!(
            (relative - expected).abs() < 1e-5,
            "{relative} instead of {expected}"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let bytes = package(&manifest());
    // Every byte of header, key and signature, and every 23rd byte between them.
    let ends = (0..24).chain(bytes.len() - 96..bytes.len());
    let positions: Vec<usize> = ends.chain((24..bytes.len() - 96).step_by(23)).collect();
    assert!(positions.len() >= 1_000, "{}", positions.len());
    for (count, &position) in positions.iter().enumerate() {
        let mut altered = bytes.clone();
        altered[position] ^= 1 << (count % 8);
        assert!(verify(altered).is_err(), "byte {position}");
    }
}

#[test]
fn a_truncated_or_extended_package_is_refused() {
    let bytes = package(&manifest());
    for length in (0..200)
        .chain((200..bytes.len()).step_by(97))
        .chain([bytes.len() - 1])
    {
        let error = Loaded::new(bytes[..length].to_vec()).unwrap_err();
        let expected = matches!(
            error,
            PackageError::Length { .. } | PackageError::Magic { .. }
        );
        assert!(expected, "{length} bytes: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(
        Loaded::new(longer),
        Err(PackageError::Length { .. })
    ));
}

#[test]
fn announced_lengths_are_checked_before_anything_is_allocated() {
    let mut bytes = package(&manifest());
    bytes[16..24].fill(0xff);
    assert!(matches!(
        Loaded::new(bytes.clone()),
        Err(PackageError::Limit { .. })
    ));
    bytes[12..16].fill(0xff);
    assert!(matches!(
        Loaded::new(bytes),
        Err(PackageError::Limit { .. })
    ));
}

#[test]
fn another_signer_is_refused_by_name_and_accepted_if_any_is_trusted() {
    let bytes = package(&manifest());
    let other = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let loaded = Loaded::new(bytes.clone()).unwrap();
    let error = loaded
        .verify(&Trust::Only(vec![other]))
        .unwrap_err()
        .to_string();
    for key in [key().verifying_key(), other] {
        assert!(error.contains(&scoring::package::key_id(&key)), "{error}");
    }
    assert!(
        Loaded::new(bytes.clone())
            .unwrap()
            .verify(&Trust::AnySigner)
            .is_ok()
    );
    assert!(
        Loaded::new(bytes)
            .unwrap()
            .verify(&Trust::Only(Vec::new()))
            .is_err()
    );
}

#[test]
fn a_key_replaced_in_the_file_does_not_help() {
    let mut bytes = package(&manifest());
    let at = bytes.len() - 96;
    let other = SigningKey::from_bytes(&[7; 32]);
    bytes[at..at + 32].copy_from_slice(other.verifying_key().as_bytes());
    let error = Loaded::new(bytes)
        .unwrap()
        .verify(&Trust::AnySigner)
        .unwrap_err();
    assert!(matches!(error, PackageError::Signature));
}

#[test]
fn a_graph_other_than_the_manifests_is_refused_though_signed() {
    let mut bytes = package(&manifest());
    let at = bytes.len() - 97;
    bytes[at] ^= 1;
    assert!(matches!(verify(signed(bytes)), Err(PackageError::Onnx)));
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_though_signed() {
    let refused = |change: fn(&mut Manifest), word: &str| {
        let mut manifest = manifest();
        change(&mut manifest);
        let error = verify(package(&manifest)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(
        |m| {
            m.variation = Some(VariationModel {
                grids: Vec::new(),
                frames: 0,
            });
        },
        "16, 32",
    );
    refused(
        |m| m.normal_map = Some(normal_map(2, vec![0.0; 3], vec![1.0; 4])),
        "4 means and spreads, found 3 and 4",
    );
    refused(
        |m| m.normal_map = Some(normal_map(0, vec![], vec![])),
        "found 0×2",
    );
    refused(
        |m| m.normal_map = Some(normal_map(1, vec![0.0; 2], vec![1.0, 0.0])),
        "spreads from 1e-9",
    );
    refused(|m| m.network.tile_px = 33, "found 33 px");
    refused(|m| m.network.channels = 1, "3 channels");
    refused(|m| m.network.align_px = 0, "found 65 px");
    refused(|m| m.network.align_px = 4, "alignment of 8 px");
    refused(|m| m.network.halo_px = 13, "found 8 and 13");
    refused(
        |m| m.scoring = Scoring::AveragedTiles { stride_px: 0 },
        "stride",
    );
    refused(
        |m| m.scoring = Scoring::AveragedTiles { stride_px: 66 },
        "stride",
    );
    refused(|m| m.post.smooth_sigma_px = f32::NAN, "smoothing");
    refused(|m| m.post.open_px = 4, "odd window");
    refused(
        |m| m.threshold.as_mut().unwrap().value = f32::NAN,
        "threshold",
    );
    refused(|m| m.golden.clear(), "golden tiles");
    refused(|m| m.golden[0].pixels.truncate(9), "12675 pixel values");
    refused(|m| m.golden[0].block_means.truncate(9), "169 block means");
    refused(|m| m.golden[0].peak = f32::INFINITY, "finite scores");
    refused(
        |m| m.roi = Roi::Polygons(vec![vec![[0.0, 0.0]]]),
        "ROI polygon 0",
    );
    refused(
        |m| {
            m.roi = Roi::Bitmap {
                width: 3,
                height: 2,
                runs: vec![6, 0],
            };
        },
        "no pixel to inspect",
    );
}

#[test]
fn the_parity_gate_says_which_tile_is_off_and_by_how_much() {
    let mut manifest = manifest();
    assert!(
        Inspector::new(&verify(package(&manifest)).unwrap())
            .unwrap()
            .parity_off()
            < 1e-4
    );
    let tile = manifest.golden[0].clone();
    manifest.golden.push(tile);
    manifest.golden[1].block_means[100] += 0.25;
    let error = Inspector::new(&verify(package(&manifest)).unwrap()).unwrap_err();
    let InspectError::Parity(ParityError::Differs {
        tile,
        off,
        tolerance,
        ..
    }) = &error
    else {
        panic!("{error}")
    };
    assert_eq!((*tile, *tolerance), (1, 1e-4));
    assert!((off - 0.25).abs() < 1e-3, "{off}");
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        text.contains("golden tile 1") && text.contains("off by 0.2"),
        "{text}"
    );
}

#[test]
fn half_precision_has_a_tolerance_of_its_own() {
    let loudest = |manifest: &Manifest| {
        let peaks = manifest.golden.iter().map(|tile| tile.peak);
        peaks.fold(0.0f32, f32::max)
    };
    let opens = |share: f32, half: Half| {
        let mut manifest = manifest();
        let off = share * loudest(&manifest);
        manifest.golden[0].block_means[100] += off;
        let tuning = Tuning {
            half,
            ..Tuning::default()
        };
        Inspector::tuned(&verify(package(&manifest)).unwrap(), &tuning).is_ok()
    };
    assert!(opens(0.0, Half::Off) && opens(0.0, Half::Always));
    assert!(!opens(0.01, Half::Off), "single precision has its own");
    assert!(opens(0.01, Half::Always));
    assert!(!opens(0.04, Half::Always));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verify(bytes.clone()).is_err());
        // With a valid header, so that the manifest's decoder is reached.
        let mut framed = b"AWRPKG\r\n\x01\0\0\0".to_vec();
        framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&[0; 8]);
        framed.extend_from_slice(&bytes);
        framed.extend_from_slice(key().verifying_key().as_bytes());
        framed.extend_from_slice(&[0; 64]);
        prop_assert!(verify(signed(framed)).is_err());
    }
}

//! Packages: whatever is altered, cut off or signed by somebody else is refused, and nothing panics.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{key, manifest, package};
use ed25519_dalek::{Signer, SigningKey};
use edge_runtime::infer::{AreaEngine, Half, Tuning};
use edge_runtime::inspect::areas::{self, CELLS};
use edge_runtime::inspect::frame::{Channels, Frame, Pixels};
use edge_runtime::inspect::preprocess::{Planes, to_planes};
use edge_runtime::inspect::texture::CellFeatures;
use edge_runtime::inspect::variation::{GRIDS, deviations, look};
use edge_runtime::inspector::{InspectError, Inspector};
use edge_runtime::package::{Loaded, PackageError, ParityError, Trust, Verified, area_golden};
use proptest::prelude::*;
use proto::manifest::{
    AreaNetwork, MANIFEST_FORMAT, Manifest, NormalMap, PostProcessing, Roi, Scoring, VariationGrid,
    VariationModel,
};

fn verify(bytes: Vec<u8>) -> Result<Verified, PackageError> {
    Loaded::new(bytes)?.verify(&Trust::Only(vec![key().verifying_key()]))
}

/// Signs again, so that only what was changed can be the reason of a refusal.
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

/// Format 2 ended before the normal map, format 3 before the variation model, which in format 4 was of other features, format 5 before the
/// area network, which in format 6 saw less of a frame and in format 7 took nothing of a cell's surroundings.
#[test]
fn packages_of_the_formats_before_are_read() {
    for (format, missing) in [(2, 3), (3, 2), (4, 1), (5, 1), (6, 0), (7, 0)] {
        let mut manifest = manifest();
        manifest.format = format;
        let verified = verify(before(&manifest, missing)).unwrap();
        assert_eq!(verified.manifest(), &manifest);
    }
    let mut manifest = manifest();
    manifest.format = 7;
    let error = verify(before(&manifest, 1)).unwrap_err().to_string();
    assert!(error.contains("ends too early"), "{error}");
}

/// A package of a format before, whose manifest lacks so many of the last fields, which are `None`.
fn before(manifest: &Manifest, missing: u32) -> Vec<u8> {
    let mut bytes = package(manifest);
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) - missing;
    for _ in 0..missing {
        assert_eq!(bytes.remove(24 + length as usize), 0, "none of them");
    }
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    signed(bytes)
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

/// What a variation model looks at in a frame, by a package without one.
fn looks(plain: &Inspector, frame: &Frame) -> [CellFeatures; 2] {
    let found = plain.inspect(frame).unwrap();
    look(&to_planes(&found.prepared, 3), true, &found.map)
}

/// How one frame looks is good, and deviations of 1 are usual.
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
fn scores_are_how_far_a_place_is_from_good() {
    let mut manifest = manifest();
    let plain = inspector(&manifest);
    let [good, own] = [0, 999].map(|seed| frame(&manifest, seed));
    let model = variation_of(looks(&plain, &good));
    manifest.variation = Some(model.clone());
    let with_model = inspector(&manifest);
    let expected = deviations(&model, &looks(&plain, &own), None, [65; 2]);
    assert_eq!(with_model.inspect(&own).unwrap().map, expected);
    // The model is of these scores: with others there is none.
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
    manifest.format = 4;
    let error = verify(before(&manifest, 1)).unwrap_err().to_string();
    assert!(error.contains("package the run again"), "{error}");
    manifest.format = MANIFEST_FORMAT;
    // Values whose sums would be no numbers, which no comparison finds too high.
    manifest.variation.as_mut().unwrap().grids[0].whitening[0] = 3e38;
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("at most 1e6"), "{error}");
}

/// A graph of an area network's operators, and what ONNX Runtime makes of it: fixtures/make_areas.py.
const AREAS: &[u8] = include_bytes!("fixtures/areas.onnx");

/// The input that make_areas.py gives to ONNX Runtime.
fn area_values() -> Vec<f32> {
    let value = |index: usize| ((index as f64 * 0.37).sin() * 2.0) as f32;
    (0..42 * CELLS * CELLS).map(value).collect()
}

#[test]
fn an_area_network_gives_what_onnx_runtime_gives() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/areas.json")).unwrap();
    let engine = AreaEngine::new(AREAS, 42).unwrap();
    let found = engine.logits(&area_values()).unwrap();
    assert_eq!(found.len(), 32 * 32);
    for point in golden["points"].as_array().unwrap() {
        let found = f64::from(found[point[0].as_u64().unwrap() as usize]);
        let expected = point[1].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
    }
    let total: f64 = found.iter().map(|value| f64::from(value.abs())).sum();
    let expected = golden["sum_of_magnitudes"].as_f64().unwrap();
    assert!(
        (total / expected - 1.0).abs() < 1e-5,
        "{total} for {expected}"
    );
    assert!(engine.logits(&area_values()[1..]).is_err());
    assert!(AreaEngine::new(&AREAS[..900], 42).is_err());
}

#[test]
fn an_area_network_adds_to_how_far_a_place_is_from_good() {
    let mut manifest = manifest();
    let plain = inspector(&manifest);
    let [good, own] = [0, 999].map(|seed| frame(&manifest, seed));
    let model = variation_of(looks(&plain, &good));
    let engine = AreaEngine::new(AREAS, 42).unwrap();
    let (mean, scale) = (vec![-2.0; 8 * 32 * 32], vec![0.5; 8]);
    let logits = |planes: &Planes| {
        let texture = areas::texture(planes, true);
        let input = areas::input(&mean, &scale, planes, &texture, true);
        engine.logits(&input).unwrap()
    };
    let golden = area_golden(&manifest.golden[0].pixels, &manifest.network, true);
    let network = AreaNetwork {
        onnx: AREAS.to_vec(),
        logit_mean: -0.5,
        logit_spread: 0.25,
        share: 0.5,
        golden_logits: logits(&golden),
        golden_tolerance: 1e-3,
        surround: 0.0,
        mean: mean.clone(),
        scale: scale.clone(),
    };
    manifest.areas = Some(network.clone());
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("found none"), "{error}");
    manifest.variation = Some(model.clone());
    let own_looks = looks(&plain, &own);
    let planes = to_planes(&plain.prepare(&own).unwrap(), 3);
    // Two standard deviations for half a logit above the mean, halved.
    let seen = logits(&areas::shrunk(&planes, true));
    let added = areas::area_deviations(&network, &seen);
    for (added, logit) in added.iter().zip(&seen) {
        assert!((added - 0.5 * (logit + 0.5) / 0.25).abs() < 1e-5 * added.abs().max(1.0));
    }
    let expected = deviations(&model, &own_looks, Some((&network, &seen)), [65; 2]).data;
    let found = inspector(&manifest).inspect(&own).unwrap().map.data;
    let off = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs() / b.max(1.0));
    assert!(off.fold(0.0, f32::max) < 1e-5);
    assert_ne!(found, deviations(&model, &own_looks, None, [65; 2]).data);
    // Less of what is around each place.
    manifest.areas.as_mut().unwrap().surround = 0.5;
    let less = inspector(&manifest).inspect(&own).unwrap().map.data;
    assert!(less.iter().sum::<f32>() < 0.8 * found.iter().sum::<f32>());
    manifest.areas = Some(network.clone());
    // Another machine that computes something else lets nothing through.
    let areas = manifest.areas.as_mut().unwrap();
    areas.golden_logits[7] += 0.1;
    let error = Inspector::new(&verify(package(&manifest)).unwrap()).unwrap_err();
    let InspectError::Parity(ParityError::Areas { off, .. }) = &error else {
        panic!("{error}");
    };
    assert!((off - 0.1).abs() < 1e-6, "{off}");
    let error = format!("{:#}", anyhow::Error::from(error));
    assert!(error.contains("golden logits are off by"), "{error}");
    let mut refused = |change: fn(&mut AreaNetwork), word: &str| {
        let mut network = network.clone();
        change(&mut network);
        manifest.areas = Some(network);
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
    refused(|n| n.share = f32::NAN, "a share of 0 to 10");
    refused(|n| n.mean[0] = f32::INFINITY, "at most 1e6");
    refused(|n| n.surround = 1.5, "of its surroundings 0 to 1");
    // Networks of format 7 end before what is taken of surroundings.
    manifest.areas = Some(network.clone());
    manifest.format = 7;
    let verified = verify(before(&manifest, 4)).unwrap();
    assert_eq!(verified.manifest(), &manifest);
    let error = verify(package(&manifest)).unwrap_err().to_string();
    assert!(error.contains("4 bytes too many"), "{error}");
    // Networks of format 6 saw other values.
    manifest.format = 6;
    let error = verify(before(&manifest, 4)).unwrap_err().to_string();
    assert!(error.contains("package the run again"), "{error}");
}

#[test]
fn scores_are_relative_to_the_normal_map() {
    let mut manifest = manifest();
    let pixels = manifest.golden[0].pixels.clone();
    let frame = Frame::new(65, 65, Channels::Rgb, Pixels::U8(pixels)).unwrap();
    let map = |manifest: &Manifest| {
        let inspector = Inspector::new(&verify(package(manifest)).unwrap()).unwrap();
        // Twice: what is laid out for a map's size is kept.
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
            "{relative} for {expected}"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let bytes = package(&manifest());
    // The header, the key and the signature whole, and every 23rd byte between them.
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
fn another_signer_is_refused_by_name_and_accepted_where_any_is() {
    let bytes = package(&manifest());
    let other = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let loaded = Loaded::new(bytes.clone()).unwrap();
    let error = loaded
        .verify(&Trust::Only(vec![other]))
        .unwrap_err()
        .to_string();
    for key in [key().verifying_key(), other] {
        assert!(
            error.contains(&edge_runtime::package::key_id(&key)),
            "{error}"
        );
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
fn a_graph_that_the_manifest_does_not_mean_is_refused_though_signed() {
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
    refused(|m| m.format = 9, "format 2 to 8, found 9");
    refused(|m| m.format = 2, "3 bytes too many");
    refused(|m| m.format = 3, "2 bytes too many");
    refused(|m| m.format = 5, "1 bytes too many");
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
        // With a right header, so that the decoder of the manifest is reached.
        let mut framed = b"AWRPKG\r\n\x01\0\0\0".to_vec();
        framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&[0; 8]);
        framed.extend_from_slice(&bytes);
        framed.extend_from_slice(key().verifying_key().as_bytes());
        framed.extend_from_slice(&[0; 64]);
        prop_assert!(verify(signed(framed)).is_err());
    }
}

//! From a training run to a draft: exports the last checkpoint as an ONNX graph, in 8 bits if
//! asked, and describes it in a manifest. The draft has no threshold yet.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::manifest::{
    ImageIds, MANIFEST_FORMAT, Manifest, PostProcessing, Roi, Scoring, SeenImages, Training,
};
use scoring::infer::Engine;
use sha2::{Digest, Sha256};

use super::digests::{file_id, parse_hex, part_id};
use super::draft::Draft;
use super::error::PackagingError;
use super::golden::golden_tiles;
use super::training_images::training_images;
use crate::dataset::digest_of_files;
use crate::onnx::export;
use crate::quantise::{Cost, quantisations};
use crate::run_folder::{self, Run};
use crate::train::Checkpoint;

/// Number of training images that the ranges of 8-bit values are measured on.
const QUANTISED_BY: usize = 32;

/// What the user chooses for a package beside the run.
#[derive(Debug, Clone)]
pub struct PackageOptions {
    /// Name of the product.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Scoring mode.
    pub scoring: Scoring,
    /// Post-processing.
    pub post: PostProcessing,
    /// Region of interest.
    pub roi: Roi,
    /// Whether the layers between the first and the last are quantised to 8 bits.
    pub int8: bool,
}

/// Exports the last checkpoint of a run.
pub fn draft(folder: &Path, options: &PackageOptions) -> Result<Draft, PackagingError> {
    let run = Run::read(folder)?;
    let saved = Checkpoint::open(&run_folder::checkpoint(folder))?;
    let layers = saved.layers(&run.architecture())?;
    let metadata = [
        ("name", options.name.clone()),
        ("version", options.version.clone()),
        ("mode", format!("{:?}", run.mode)),
        ("features", run.features.clone()),
        ("iterations", saved.progress.iterations.to_string()),
        (
            "input",
            "N x 3 x H x W, RGB, [-1, 1]; H and W = 8 k + 1, at least 65".to_owned(),
        ),
        (
            "output",
            "shift A; score of a pixel = sum over channels of |A|".to_owned(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let plain = export(&layers, run.mode, run.activation, &metadata, None);
    let network = run.architecture().shape();
    let mut engine = Engine::from_onnx(&plain, network)?;
    let (mut onnx, mut cost) = (plain, None);
    if options.int8 {
        if run.width % 4 != 0 {
            return Err(PackagingError::Width(run.width));
        }
        let images = training_images(&run);
        let frames = images
            .iter()
            .step_by(images.len().div_ceil(QUANTISED_BY).max(1))
            .map(|image| image.prepared(&run.input, &run.reading))
            .collect::<Result<Vec<_>, _>>()?;
        let quantisations = quantisations(&layers, &frames, run.seed)?;
        onnx = export(
            &layers,
            run.mode,
            run.activation,
            &metadata,
            Some(&quantisations),
        );
        let quantised = Engine::from_onnx(&onnx, network)?;
        let found = Cost::measure(&engine, &quantised, &frames, run.seed)?;
        found.check()?;
        (engine, cost) = (quantised, Some(found));
    }
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: options.name.clone(),
        version: options.version.clone(),
        created_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        trainer_version: env!("CARGO_PKG_VERSION").to_owned(),
        training: training(&run, &saved),
        network,
        input: run.input,
        scoring: options.scoring,
        post: options.post,
        roi: options.roi.clone(),
        threshold: None,
        normal_scores: None,
        evaluation: None,
        golden: golden_tiles(&run, &engine, options.int8)?,
        onnx_sha256: Sha256::digest(&onnx).into(),
        normal_map: None,
        variation: None,
        segmentation: None,
        reading: run.reading,
        seen: seen(&run),
        golden_frame: None,
        segmentation_gain: None,
        layers: None,
        grain: None,
        decisions: Vec::new(),
    };
    Ok(Draft {
        manifest,
        onnx,
        cost,
    })
}

fn parse(digests: &[String]) -> Vec<[u8; 32]> {
    digests.iter().filter_map(|text| parse_hex(text)).collect()
}

/// What the images are known by. A student has seen what its teacher was trained on.
fn seen(run: &Run) -> SeenImages {
    let identities = &run.identities;
    let ids = |digests: &[String]| parse(digests).iter().map(file_id).collect::<Vec<_>>();
    let parts = |names: &mut dyn Iterator<Item = &String>| {
        let parts: BTreeSet<[u8; 8]> = names.map(|name| part_id(name)).collect();
        parts.into_iter().collect()
    };
    let trained = identities.train_parts.iter().flatten();
    SeenImages {
        training_pixels: ids(&[&identities.train_pixels[..], &identities.teacher_pixels].concat()),
        training_parts: parts(&mut trained.chain(&identities.teacher_parts)),
        held_out: ImageIds {
            files: ids(&identities.held_out_digests),
            pixels: ids(&identities.held_out_pixels),
            parts: parts(&mut identities.held_out_parts.iter().flatten()),
        },
        calibration: ImageIds::default(),
    }
}

/// How the weights came about.
fn training(run: &Run, saved: &Checkpoint) -> Training {
    let digests = parse(&run.train_digests);
    // A student has seen what its teacher was trained on.
    let mut file_ids: Vec<[u8; 8]> = digests.iter().map(file_id).collect();
    for id in parse(&run.teacher_digests).iter().map(file_id) {
        if !file_ids.contains(&id) {
            file_ids.push(id);
        }
    }
    Training {
        data_digest: digest_of_files(&digests),
        file_ids,
        held_out_images: run.held_out.len() as u32,
        mode: run.mode,
        loss: run.loss_label(),
        activation: run.activation.name().to_owned(),
        features: run.features.clone(),
        noise: run.noise_label(),
        iterations: saved.progress.iterations as u32,
        batch: run.batch as u32,
        seed: run.seed,
        seconds: saved.progress.seconds as u32,
    }
}

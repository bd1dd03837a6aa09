//! Other programs read our graphs: `onnx.checker` accepts each kind that we export, and ONNX Runtime
//! computes what we do. The Python packages are installed under `target` on the first run, by pip
//! as this machine has it configured; without them the test fails, because a graph that only our
//! own engine reads would otherwise go unnoticed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use host_trainer::network::{Architecture, OutputActivation, inference_layers};
use host_trainer::onnx::{export, export_segmentation};
use host_trainer::seed::generator;
use host_trainer::segmentation::SegmentationNet;
use host_trainer::tensor::floats;
use proto::manifest::TrainingMode;
use rand::RngExt;
use scoring::infer::SegmentationEngine;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::score::Shift;
use tch::{Device, Tensor};

use super::{WIDTH, assert_close, built, engine, network, planes, quantisations, tensor};

/// In fixed versions, so that a failure is ours.
const PACKAGES: [&str; 3] = ["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0"];

/// Checks `NAME.onnx`, runs it on `NAME.in` and writes `NAME.out`, for each NAME:SHAPE.
const SCRIPT: &str = "
import sys
import numpy as np, onnx, onnxruntime
for case in sys.argv[1:]:
    name, shape = case.split(':')
    model = onnx.load(name + '.onnx')
    onnx.checker.check_model(model, full_check=True)
    assert [p.value for p in model.metadata_props] == (['test'] if name == 'direct' else []), name
    x = np.fromfile(name + '.in', dtype='<f4').reshape([int(side) for side in shape.split(',')])
    session = onnxruntime.InferenceSession(name + '.onnx', providers=['CPUExecutionProvider'])
    session.run(None, {'input': x})[0].astype('<f4').tofile(name + '.out')
";

/// The folder with the packages, for PYTHONPATH. Installed once, though tests run at the same time.
fn packages() -> &'static Path {
    static SITE: OnceLock<PathBuf> = OnceLock::new();
    SITE.get_or_init(install)
}

fn install() -> PathBuf {
    let site = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGES.join("-").replace("==", "-"));
    if site.is_dir() {
        return site;
    }
    let partial = site.with_extension(format!("partial-{}", std::process::id()));
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--root-user-action=ignore"])
        .arg("--target")
        .arg(&partial)
        .args(PACKAGES)
        .stdin(Stdio::null())
        // The environment may have it set for another Python.
        .env_remove("PYTHONPATH")
        .status()
        .expect("python3 with pip: install it, e.g. `sudo apt install python3-pip`");
    assert!(
        status.success(),
        "pip could not install {PACKAGES:?}, see its message above (a network is needed once)"
    );
    // Another process may have been faster: its copy is as good.
    if std::fs::rename(&partial, &site).is_err() {
        assert!(site.is_dir(), "cannot rename {}", partial.display());
        std::fs::remove_dir_all(&partial).ok();
    }
    site
}

/// A graph with an input and the output that it must have.
struct Case {
    name: &'static str,
    onnx: Vec<u8>,
    input: Vec<f32>,
    shape: [usize; 4],
    expected: Vec<f32>,
}

impl Case {
    fn new(name: &'static str, onnx: Vec<u8>, input: &Planes, expected: Vec<f32>) -> Self {
        Self {
            name,
            onnx,
            shape: [1, input.channels, input.height_px, input.width_px],
            input: input.data.clone(),
            expected,
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// What ONNX Runtime computes in each case.
fn computed(cases: &[Case]) -> Vec<Vec<f32>> {
    let site = packages();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, ending: &str| folder.path().join(format!("{name}.{ending}"));
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).env("PYTHONPATH", site);
    for case in cases {
        std::fs::write(at(case.name, "onnx"), &case.onnx).unwrap();
        std::fs::write(at(case.name, "in"), bytes(&case.input)).unwrap();
        let shape = case.shape.map(|side| side.to_string()).join(",");
        python.arg(format!("{}:{shape}", case.name));
    }
    let status = python.current_dir(folder.path()).status().unwrap();
    assert!(status.success(), "see the message above");
    let read = |case: &Case| {
        let bytes = std::fs::read(at(case.name, "out")).unwrap();
        let (values, rest) = bytes.as_chunks();
        assert!(rest.is_empty());
        values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    cases.iter().map(read).collect()
}

/// The graphs of networks with the paper's layers, with our own upsampled ones, and of a baseline,
/// which has its activation and the subtraction inside. Expected is what libtorch computes.
fn networks() -> Vec<Case> {
    let (plain, layers) = network();
    let relu = OutputActivation::RefRelu;
    let metadata = [("name".to_owned(), "test".to_owned())];
    let input = planes(73, 65);
    let forward = |network: &host_trainer::network::Network, input: &Planes| {
        tch::no_grad(|| network.forward(&tensor(input))).unwrap()
    };
    let direct = export(&layers, TrainingMode::Direct, relu, &metadata, None);
    let expected = floats(&forward(&plain, &input)).unwrap();
    let mut cases = vec![Case::new("direct", direct, &input, expected)];

    let baseline = export(
        &layers,
        TrainingMode::Denoising,
        OutputActivation::Tanh,
        &[],
        None,
    );
    let shown = OutputActivation::Tanh
        .apply(&forward(&plain, &input))
        .unwrap();
    let expected = floats(&(shown - tensor(&input))).unwrap();
    cases.push(Case::new("denoising", baseline, &input, expected));

    let architecture = Architecture {
        upsampled: true,
        ..Architecture::paper(WIDTH)
    };
    let (upsampled, layers) = built(&architecture);
    let layers = inference_layers(layers, true).unwrap();
    let onnx = export(&layers, TrainingMode::Direct, relu, &[], None);
    let input = planes(97, 81);
    let expected = floats(&forward(&upsampled, &input)).unwrap();
    cases.push(Case::new("upsampled", onnx, &input, expected));
    cases
}

#[test]
fn onnx_runtime_computes_what_libtorch_does_from_every_network() {
    let cases = networks();
    for (case, found) in cases.iter().zip(computed(&cases)) {
        eprintln!("{}", case.name);
        assert_eq!(found.len(), case.expected.len());
        assert_close(&found, &case.expected);
    }
}

/// ONNX Runtime multiplies the levels as integers or in f32 as it likes; ours are integers. A value
/// near the middle between two levels may be rounded to either.
#[test]
fn onnx_runtime_computes_what_our_engine_does_from_a_quantised_network() {
    let (network, layers) = network();
    let input = planes(97, 73);
    let onnx = export(
        &layers,
        TrainingMode::Direct,
        OutputActivation::RefRelu,
        &[],
        Some(&quantisations(&network, &input)),
    );
    let expected = engine(&onnx).shift(&input).unwrap().data;
    let peak = expected.iter().fold(0.0f32, |peak, a| peak.max(a.abs()));
    let cases = [Case::new("quantised", onnx, &input, expected)];
    let found = &computed(&cases)[0];
    assert_eq!(found.len(), cases[0].expected.len());
    let off = found
        .iter()
        .zip(&cases[0].expected)
        .map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0f32, f32::max) / peak;
    assert!(peak > 0.1 && off < 0.02, "off by {off} of {peak}");
}

#[test]
fn onnx_runtime_computes_what_libtorch_and_we_do_from_a_segmentation_network() {
    let planes_in = scoring::inspect::segmentation::plane_count(false);
    let mut rng = generator(3, "segmentation", 0);
    let net = SegmentationNet::new(planes_in as i64, Device::Cpu, &mut rng).unwrap();
    let side = scoring::inspect::segmentation::CELLS;
    let input = Planes {
        channels: planes_in,
        width_px: side,
        height_px: side,
        data: (0..planes_in * side * side)
            .map(|_| rng.random_range(-2.0..2.0))
            .collect(),
    };
    let size = [1, planes_in as i64, side as i64, side as i64];
    let tensor = Tensor::from_slice(&input.data).view(size);
    let expected = tch::no_grad(|| net.forward(&tensor, None)).unwrap();
    let expected = floats(&expected.contiguous()).unwrap();
    let onnx = export_segmentation(&net.steps().unwrap(), planes_in as i64);
    let ours = SegmentationEngine::new(&onnx, planes_in).unwrap();
    let ours = ours.logits(&input.data).unwrap();
    let cases = [Case::new("segmentation", onnx, &input, expected)];
    let found = &computed(&cases)[0];
    assert_eq!(found.len(), cases[0].expected.len());
    assert_close(found, &cases[0].expected);
    assert_close(&ours, found);
}

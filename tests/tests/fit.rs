//! `host-trainer fit`: from good images to a calibrated package in one command, and again after it was
//! cut off.

use std::path::Path;

use integration_tests::{fails, ok, synth};

const FIT: &[&str] = &[
    "fit",
    "--data",
    "data",
    "--out",
    "mine.awr",
    "--minutes",
    "0.3",
    "--frame-ms",
    "3",
    "--device",
    "cpu",
    "--json",
];

fn fit(root: &Path) -> serde_json::Value {
    serde_json::from_str(&ok("host-trainer", root, FIT)).expect("JSON")
}

fn manifest(root: &Path) -> serde_json::Value {
    let words = [
        "inspect-package",
        "mine.awr",
        "--trust",
        "signing.key.pub",
        "--json",
    ];
    serde_json::from_str(&ok("host-trainer", root, &words)).expect("JSON")
}

#[test]
fn fit_makes_a_calibrated_package_and_goes_on_where_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 24, 2);
    let found = fit(root);
    let parts = found["threshold"]["parts"].as_u64();
    assert_eq!(
        parts,
        Some(5),
        "a fifth of the good images, rounded: {found}"
    );
    assert!(
        found["promise"]
            .as_str()
            .is_some_and(|promise| promise.contains("5 good parts"))
    );
    let first = manifest(root);
    let decisions = first["decisions"].as_array().unwrap();
    let decided = |start: &str| {
        decisions.iter().any(|decision| {
            decision
                .as_str()
                .is_some_and(|text| text.starts_with(start))
        })
    };
    for start in ["--size", "--colour", "--width", "--iterations", "map: "] {
        assert!(decided(start), "{start}: {decisions:?}");
    }
    let command = [
        "evaluate",
        "--package",
        "mine.awr",
        "--data",
        "data",
        "--json",
    ];
    let figures: serde_json::Value =
        serde_json::from_str(&ok("host-trainer", root, &command)).unwrap();
    // The network finds 0.8 in this time; the grain of the fabric needs no training.
    assert!(
        figures["pixel_auroc"].as_f64().unwrap() > 0.95,
        "{}",
        figures["pixel_auroc"]
    );

    let page = std::fs::read_to_string(root.join("mine.html")).unwrap();
    for expected in [
        "Why this threshold",
        "good frames were held",
        "data:image/jpeg",
        "--width",
    ] {
        assert!(page.contains(expected), "{expected}");
    }

    // As after a power cut when the package was about to be written.
    std::fs::remove_file(root.join("mine.awr")).unwrap();
    fit(root);
    let second = manifest(root);
    let (before, after) = (&first["training"], &second["training"]);
    assert_eq!(before["iterations"], after["iterations"]);
    assert_eq!(
        before["seconds"], after["seconds"],
        "nothing was trained again"
    );
    assert_eq!(first["onnx_sha256"], second["onnx_sha256"]);
    assert_eq!(first["threshold"]["value"], second["threshold"]["value"]);
    assert_eq!(first["layers"], second["layers"]);

    // A person sees that one of the images held out is not good.
    let run = std::fs::read(root.join("mine.run/run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
    let left_out = run["held_out"][0].as_str().unwrap();
    let without = [FIT, &["--leave-out", left_out]].concat();
    let found: serde_json::Value =
        serde_json::from_str(&ok("host-trainer", root, &without)).unwrap();
    assert_eq!(found["threshold"]["parts"].as_u64(), Some(4));
    let third = manifest(root);
    let decisions = third["decisions"].to_string();
    assert!(
        decisions.contains("--leave-out") && decisions.contains(left_out),
        "{decisions}"
    );
    let other = [FIT, &["--leave-out", "other.png"]].concat();
    fails(
        "host-trainer",
        root,
        &other,
        &["other.png", "5 images held out"],
    );
}

#[test]
fn fit_says_what_is_wrong_before_it_trains() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("data")).unwrap();
    fails("host-trainer", root, FIT, &["no images", "data"]);
    assert!(!root.join("mine.run").exists());
}

#[test]
fn features_that_were_fetched_are_used_without_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 24, 2);
    // Any features will do where fetch-weights would have kept its own.
    let kept = root.join("user-data/awr/features/squeezenet1_1-b8a52dc0.safetensors");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    let features = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/features/surfaces.safetensors"
    );
    std::fs::copy(features, &kept).unwrap();
    fit(root);
    let manifest = manifest(root);
    let features = manifest["training"]["features"].as_str().unwrap();
    assert!(
        features.contains("squeezenet1_1-b8a52dc0.safetensors"),
        "{features}"
    );
}

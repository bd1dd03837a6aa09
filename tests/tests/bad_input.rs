//! What users get wrong: a clear line, exit code 2, and nothing half-written.

use std::fs;

use integration_tests::{TINY, fails, ok, tiny_package};

#[test]
fn data_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir(root.join("small")).unwrap();
    image::GrayImage::new(40, 80)
        .save(root.join("small/a.png"))
        .unwrap();
    fs::create_dir(root.join("broken")).unwrap();
    fs::write(root.join("broken/a.png"), b"no picture").unwrap();
    let train = |data: &str, words: &[&str]| {
        fails(
            "host-trainer",
            root,
            &[
                "train", "--data", data, "--run", "run", "--size", "native", "--device", "cpu",
            ],
            words,
        );
        assert!(!root.join("run").exists(), "nothing is written");
    };
    train("nowhere", &["no folder at nowhere"]);
    train("empty", &["no images in empty"]);
    train("small", &["none of 1 images", "65×65", "40×80"]);
    train("broken", &["none of 1 images", "a.png"]);
}

#[test]
fn a_broken_image_among_good_ones_is_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    ok(
        "host-trainer",
        root,
        &[
            "synth",
            "data",
            "--size",
            "80",
            "--train",
            "3",
            "--test-good",
            "1",
            "--per-kind",
            "1",
        ],
    );
    fs::write(root.join("data/train/good/zz.png"), b"no picture").unwrap();
    let all: Vec<&str> = TINY
        .iter()
        .copied()
        .map(|word| if word == "0.5" { "0" } else { word })
        .collect();
    let output = integration_tests::run(
        "host-trainer",
        root,
        &[&["train", "--run", "run", "--iterations", "1"], &all[..]].concat(),
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("zz.png") && errors.contains("skipped 1 of 4 images"),
        "{errors}"
    );
}

#[test]
fn weights_and_devices_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    ok(
        "host-trainer",
        root,
        &[
            "synth",
            "data",
            "--size",
            "80",
            "--train",
            "2",
            "--test-good",
            "1",
            "--per-kind",
            "1",
        ],
    );
    fs::write(
        root.join("bad.safetensors"),
        b"\x10\0\0\0\0\0\0\0{\"nonsense\": 1}  ",
    )
    .unwrap();
    let train = |extra: &[&str], words: &[&str]| {
        fails(
            "host-trainer",
            root,
            &[
                &["train", "--data", "data", "--run", "run", "--size", "80"],
                extra,
            ]
            .concat(),
            words,
        );
    };
    train(&["--features", "none.safetensors"], &["none.safetensors"]);
    train(
        &["--features", "bad.safetensors"],
        &["bad.safetensors", "safetensors"],
    );
    train(&["--device", "cuda:77"], &["cuda:77"]);
    assert!(!root.join("run").exists());
}

#[test]
fn packages_that_must_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let bytes = fs::read(root.join("m.awr")).unwrap();
    let evaluate = |package: &str, extra: &[&str], words: &[&str]| {
        fails(
            "host-trainer",
            root,
            &[&["evaluate", "--data", "data", "--package", package], extra].concat(),
            words,
        );
        fails(
            "edge-runtime",
            root,
            &[
                &["score", "--package", package, "data/test/good/000.png"],
                extra,
            ]
            .concat(),
            words,
        );
    };
    fs::write(root.join("cut.awr"), &bytes[..bytes.len() - 1]).unwrap();
    evaluate("cut.awr", &[], &["cut.awr", "cut off"]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(root.join("flipped.awr"), &flipped).unwrap();
    evaluate("flipped.awr", &[], &["flipped.awr", "signature"]);
    let mut unsigned = bytes.clone();
    let end = unsigned.len();
    unsigned[end - 64..].fill(0);
    fs::write(root.join("unsigned.awr"), &unsigned).unwrap();
    evaluate("unsigned.awr", &[], &["unsigned.awr", "signature"]);
    evaluate("data/test/good/000.png", &[], &["not a model package"]);
    evaluate("none.awr", &[], &["none.awr"]);
    ok("host-trainer", root, &["keygen", "--out", "other.key"]);
    evaluate(
        "m.awr",
        &["--trust", "other.key.pub"],
        &["not among the trusted keys"],
    );
    fails(
        "station",
        root,
        &["check", "m.awr", "--trust", "other.key.pub"],
        &["not among the trusted keys"],
    );
    fails(
        "host-trainer",
        root,
        &["keygen", "--out", "k.key"],
        &["never overwritten"],
    );
}

#[test]
fn masks_calibration_and_promises() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let before = fs::read(root.join("m.awr")).unwrap();
    let calibrate = |extra: &[&str], words: &[&str]| {
        fails(
            "host-trainer",
            root,
            &[
                &["calibrate", "--package", "m.awr", "--key", "k.key"],
                extra,
            ]
            .concat(),
            words,
        );
        assert_eq!(
            fs::read(root.join("m.awr")).unwrap(),
            before,
            "the package is untouched"
        );
    };
    calibrate(
        &["--good", "data/test/good", "--promise", "100"],
        &["2 good parts", "299", "needed"],
    );
    calibrate(&["--good", "data/train/good"], &["was trained on"]);
    calibrate(&["--good", "nowhere"], &["nowhere"]);
    image::GrayImage::new(30, 30)
        .save(root.join("data/ground_truth/hole/000_mask.png"))
        .unwrap();
    let evaluate = [
        "evaluate",
        "--package",
        "m.awr",
        "--data",
        "data",
        "--out",
        "report",
    ];
    fails(
        "host-trainer",
        root,
        &evaluate,
        &["000_mask.png", "80×80", "30×30"],
    );
    assert!(!root.join("report").exists());
}

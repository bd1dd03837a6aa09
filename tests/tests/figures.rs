//! What figures are of: the inspected part, images that the model was not made with, and images that
//! are still what they were.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use integration_tests::{TINY, fails, ok, run, synth};
use serde_json::Value;

/// Trains on one of two parts and calibrates on the other. Returns an image of each.
fn trained(root: &Path) -> [PathBuf; 2] {
    synth(root, 4, 2);
    let lines = "file,group\ntrain/good/000.png,a\ntrain/good/001.png,a\n\
        train/good/002.png,b\ntrain/good/003.png,b\n";
    std::fs::write(root.join("groups.csv"), lines).unwrap();
    let train = [
        "train",
        "--run",
        "run",
        "--iterations",
        "2",
        "--groups",
        "groups.csv",
    ];
    ok("host-trainer", root, &[&train, TINY].concat());
    ok("host-trainer", root, &["keygen", "--out", "k.key"]);
    let described = std::fs::read_to_string(root.join("run/run.json")).unwrap();
    let described: Value = serde_json::from_str(&described).unwrap();
    ["train_files", "held_out"].map(|key| described[key][0].as_str().unwrap().into())
}

fn package(root: &Path, name: &str, extra: &[&str]) {
    let words = [
        "package", "--run", "run", "--key", "k.key", "--name", "n", "--out", name,
    ];
    ok("host-trainer", root, &[&words, extra].concat());
}

/// The figures as JSON, and what is printed beside them.
fn evaluated(root: &Path, package: &str, extra: &[&str]) -> (Value, String) {
    let words = ["evaluate", "--package", package, "--data", "data", "--json"];
    let output = run("host-trainer", root, &[&words, extra].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (
        serde_json::from_slice(&output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn images_and_parts_that_a_model_was_made_with_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [trained_on, held_out] = trained(root);
    package(root, "m.awr", &[]);
    let (json, warnings) = evaluated(root, "m.awr", &[]);
    assert_eq!(json["overlap"]["training"], 0);
    assert!(!warnings.contains("warning"), "{warnings}");

    // Saved again without loss: other bytes, the same pixels.
    let copy = image::open(&trained_on).unwrap();
    std::fs::create_dir(root.join("copies")).unwrap();
    copy.save(root.join("copies/copy.bmp")).unwrap();
    let calibrate = |good: &str, extra: &[&str], words: &[&str]| {
        let all = [
            "calibrate",
            "--package",
            "m.awr",
            "--key",
            "k.key",
            "--good",
            good,
        ];
        fails("host-trainer", root, &[&all, extra].concat(), words);
    };
    calibrate("copies", &[], &["copy.bmp", "trained on", "copy"]);
    // Another image, of a part that was trained on.
    let part = match trained_on.file_name().unwrap().to_str().unwrap() {
        "000.png" | "001.png" => "a",
        _ => "b",
    };
    std::fs::create_dir(root.join("others")).unwrap();
    std::fs::copy(
        root.join("data/test/good/000.png"),
        root.join("others/x.png"),
    )
    .unwrap();
    std::fs::write(root.join("same.csv"), format!("file,group\nx.png,{part}\n")).unwrap();
    calibrate(
        "others",
        &["--groups", "same.csv"],
        &["x.png", "which was trained on"],
    );

    copy.save(root.join("data/test/good/copy.bmp")).unwrap();
    std::fs::copy(&held_out, root.join("data/test/good/held.png")).unwrap();
    let (json, warnings) = evaluated(root, "m.awr", &[]);
    assert!(
        warnings.contains("trained on 1 of the 9 test images"),
        "{warnings}"
    );
    assert!(
        warnings.contains("calibrated on 1 of the 9 test images"),
        "{warnings}"
    );
    let found = ["training", "calibration", "held_out", "parts"];
    assert_eq!(
        found.map(|key| json["overlap"][key].as_u64()),
        [1, 1, 0, 0].map(Some)
    );
    std::fs::write(
        root.join("test.csv"),
        format!("file,group\ntest/good/000.png,{part}\ntest/good/001.png,c\n"),
    )
    .unwrap();
    let (json, warnings) = evaluated(root, "m.awr", &["--groups", "test.csv"]);
    assert_eq!(
        (&json["overlap"]["parts"], &json["by_part"]),
        (&1.into(), &true.into())
    );
    assert!(
        warnings.contains("1 of the 9 test images show parts"),
        "{warnings}"
    );
}

#[test]
fn an_image_that_is_no_longer_what_it_was_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [trained_on, held_out] = trained(root);
    package(root, "m.awr", &[]);
    for image in [trained_on, held_out] {
        let name = image.file_name().unwrap().to_str().unwrap();
        let kept = std::fs::read(&image).unwrap();
        let refused = |word: &str| {
            let words = [
                "package", "--run", "run", "--key", "k.key", "--name", "n", "--out", "o.awr",
            ];
            fails("host-trainer", root, &words, &[name, word]);
        };
        // A good picture, but another one.
        std::fs::copy(root.join("data/test/good/000.png"), &image).unwrap();
        refused("has changed");
        std::fs::remove_file(&image).unwrap();
        refused("is gone");
        std::fs::write(&image, kept).unwrap();
        package(root, "m.awr", &[]);
    }
}

#[test]
fn figures_are_of_the_inspected_part_and_the_rest_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    trained(root);
    package(root, "whole.awr", &[]);
    package(root, "left.awr", &["--roi-polygon", "0,0 0.5,0 0.5,1 0,1"]);
    // A kind of defect that lies on the right.
    for folder in ["data/test/right", "data/ground_truth/right"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(
        root.join("data/test/good/000.png"),
        root.join("data/test/right/000.png"),
    )
    .unwrap();
    let mask = GrayImage::from_fn(80, 80, |x, y| {
        Luma([if x > 60 && (20..30).contains(&y) {
            255
        } else {
            0
        }])
    });
    mask.save(root.join("data/ground_truth/right/000_mask.png"))
        .unwrap();
    let (whole, _) = evaluated(root, "whole.awr", &[]);
    let (left, _) = evaluated(root, "left.awr", &[]);
    assert_eq!(
        (&whole["inspected_fraction"], &left["inspected_fraction"]),
        (&1.0.into(), &0.5.into())
    );
    assert_eq!(whole["outside"].as_array().map(Vec::len), Some(0));
    assert_eq!(whole["kinds"]["right"]["images"], 1);
    assert_ne!(whole["pixel_auroc"], left["pixel_auroc"]);
    let listed = left["outside"].as_array().unwrap();
    let right: Vec<&Value> = listed
        .iter()
        .filter(|frame| frame["kind"] == "right")
        .collect();
    assert_eq!(right.len(), 1);
    assert_eq!(
        (&right[0]["name"], &right[0]["entirely"]),
        (&"000.png".into(), &true.into())
    );
    let of_kind = &left["kinds"]["right"];
    assert_eq!(
        (&of_kind["images"], &of_kind["frames_outside"]),
        (&0.into(), &1.into())
    );
    assert_eq!(
        (&of_kind["image_auroc"], &of_kind["miss_rate"]),
        (&Value::Null, &Value::Null)
    );
    let text = ok(
        "host-trainer",
        root,
        &["evaluate", "--package", "left.awr", "--data", "data"],
    );
    for words in [
        "50.0 % of the pixels",
        "outside: right/000.png",
        "false rejects up to",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

//! Bad input gives a clear error and exit code 2, and leaves no half-written files.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use integration_tests::{TINY, fails, ok, program, run, synth, tiny_package};

#[test]
fn unusable_data_is_an_error() {
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
        assert!(!root.join("run").exists(), "no run is written");
    };
    train("nowhere", &["no folder at nowhere"]);
    train("empty", &["no images in empty"]);
    train("small", &["none of 1 images", "65×65", "40×80"]);
    train("broken", &["none of 1 images", "a.png"]);
}

#[test]
fn a_broken_image_is_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 3, 1);
    fs::write(root.join("data/train/good/zz.png"), b"no picture").unwrap();
    let all: Vec<&str> = TINY
        .iter()
        .copied()
        .map(|word| if word == "0.5" { "0" } else { word })
        .collect();
    let line = [&["train", "--run", "run", "--iterations", "1"], &all[..]].concat();
    // A quarter is too much to pass over unasked.
    fails(
        "host-trainer",
        root,
        &line,
        &[
            "1 of 4 images cannot be read",
            "--allow-unreadable",
            "zz.png",
        ],
    );
    let output = run(
        "host-trainer",
        root,
        &[&line[..], &["--allow-unreadable"]].concat(),
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("left out data/train/good/zz.png")
            && errors.contains("3 images used, 1 unreadable"),
        "{errors}"
    );
}

#[test]
fn missing_or_broken_weights_and_devices_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 2, 1);
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
fn damaged_unsigned_or_untrusted_packages_are_refused() {
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
fn unusable_calibration_images_and_masks_are_errors() {
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

#[test]
fn a_full_disk_or_a_kill_leaves_the_old_package_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let before = fs::read(root.join("m.awr")).unwrap();
    assert!(before.len() > 50_000, "{}", before.len());
    let package = [
        "package", "--run", "run", "--key", "k.key", "--name", "tiny", "--out", "m.awr", "--onnx",
        "m.onnx",
    ];
    // A limit of 8 KiB on the size of files takes the place of a disk that fills up within the
    // package.
    let limited = Command::new("sh")
        .args(["-c", "ulimit -f 16; trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(program("host-trainer"))
        .args(package)
        .current_dir(root)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(2), "{errors}");
    assert!(errors.contains("cannot write m.awr"), "{errors}");
    assert_eq!(fs::read(root.join("m.awr")).unwrap(), before);
    let partial = |root: &std::path::Path| {
        let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
        names
            .filter(|entry| entry.file_name().to_string_lossy().contains("partial"))
            .count()
    };
    assert_eq!(partial(root), 0);
    assert!(!root.join("m.onnx").exists());

    let started = Instant::now();
    ok("host-trainer", root, &package);
    let whole = started.elapsed();
    for round in 0..8 {
        let mut running = Command::new(program("host-trainer"))
            .args(package)
            .current_dir(root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * round / 7);
        running.kill().ok();
        running.wait().unwrap();
        ok(
            "host-trainer",
            root,
            &["inspect-package", "m.awr", "--trust", "k.key.pub"],
        );
    }
}

#[test]
fn unusable_images_never_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 8, 3);
    for number in [1, 2, 5] {
        fs::write(root.join(format!("data/train/good/{number:03}.png")), b"x").unwrap();
    }
    let train = [
        "train",
        "--run",
        "run",
        "--iterations",
        "1",
        "--allow-unreadable",
    ];
    let output = run("host-trainer", root, &[&train[..], TINY].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("5 images used, 3 unreadable"), "{errors}");
    ok("host-trainer", root, &["keygen", "--out", "k.key"]);
    // Package from another folder than the one in which training ran.
    fs::create_dir(root.join("elsewhere")).unwrap();
    ok(
        "host-trainer",
        &root.join("elsewhere"),
        &[
            "package", "--run", "../run", "--key", "../k.key", "--name", "t", "--out", "../m.awr",
        ],
    );
    fs::write(root.join("data/test/good/000.png"), b"x").unwrap();
    image::GrayImage::new(40, 80)
        .save(root.join("data/test/good/001.png"))
        .unwrap();
    let calibrate = run(
        "host-trainer",
        root,
        &[
            "calibrate",
            "--package",
            "m.awr",
            "--good",
            "data/test/good",
            "--key",
            "k.key",
            "--allow-unreadable",
        ],
    );
    let errors = String::from_utf8_lossy(&calibrate.stderr);
    assert!(calibrate.status.success(), "{errors}");
    assert!(errors.contains("2 images used, 1 unreadable"), "{errors}");
    let evaluate = run(
        "host-trainer",
        root,
        &[
            "evaluate",
            "--package",
            "m.awr",
            "--data",
            "data",
            "--json",
            "--record",
            "k.key",
            "--allow-unreadable",
        ],
    );
    let errors = String::from_utf8_lossy(&evaluate.stderr);
    assert!(
        evaluate.status.success() && errors.contains("000.png"),
        "{errors}"
    );
    let found: serde_json::Value = serde_json::from_slice(&evaluate.stdout).unwrap();
    assert_eq!(found["skipped_images"], 1);
    let shown = ok(
        "host-trainer",
        root,
        &["inspect-package", "m.awr", "--json"],
    );
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["evaluation"]["image_auroc"], found["image_auroc"]);
    assert_eq!(shown["evaluation"]["data"], "data");
}

#[test]
fn images_that_a_model_was_trained_on_are_reported_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    for entry in fs::read_dir(root.join("data/train/good")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!(
            "data/test/good/t{}",
            path.file_name().unwrap().to_string_lossy()
        );
        fs::copy(&path, root.join(name)).unwrap();
    }
    let output = run(
        "host-trainer",
        root,
        &["evaluate", "--package", "m.awr", "--data", "data"],
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    // Half of the four are held out.
    assert!(errors.contains("trained on 2 of the"), "{errors}");
    let calibrate = [
        "calibrate",
        "--package",
        "m.awr",
        "--good",
        "data/test/good",
        "--key",
        "k.key",
    ];
    fails("host-trainer", root, &calibrate, &["was trained on"]);
    for entry in fs::read_dir(root.join("data/test/good")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with('t') {
            fs::remove_file(path).unwrap();
        }
    }
    ok("host-trainer", root, &calibrate);
    let output = run(
        "host-trainer",
        root,
        &["evaluate", "--package", "m.awr", "--data", "data"],
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("calibrated on 2 of the 7 test images"),
        "{errors}"
    );
    fs::write(root.join("g.csv"), "file,group\nelsewhere/a.png,1\n").unwrap();
    fails(
        "host-trainer",
        root,
        &[
            "calibrate",
            "--package",
            "m.awr",
            "--good",
            "data/test/good",
            "--key",
            "k.key",
            "--groups",
            "g.csv",
        ],
        &["g.csv", "names none of the 2 images"],
    );
}

#[test]
fn a_region_of_interest_is_packaged_and_an_empty_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let package = |extra: &[&str]| {
        let line = [
            "package", "--run", "run", "--key", "k.key", "--name", "t", "--out", "r.awr",
        ];
        run("host-trainer", root, &[&line[..], extra].concat())
    };
    image::GrayImage::new(80, 80)
        .save(root.join("black.png"))
        .unwrap();
    let refused = package(&["--roi-mask", "black.png"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no pixel to inspect"));
    assert!(!root.join("r.awr").exists());
    let refused = package(&["--roi-polygon", "0,0 2,0 1,1"]);
    assert_eq!(refused.status.code(), Some(2));
    let made = package(&["--roi-polygon", "0,0 0.5,0 0.5,1 0,1"]);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    ok(
        "host-trainer",
        root,
        &[
            "evaluate",
            "--package",
            "r.awr",
            "--data",
            "data",
            "--maps",
            "maps",
        ],
    );
    let shown = ok("host-trainer", root, &["inspect-package", "r.awr"]);
    assert!(shown.contains("1 polygons"), "{shown}");
}

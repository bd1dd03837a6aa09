//! `recommend` prints a command that runs, and `reproduce` resumes a study.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{fails, ok, program, run, synth};

#[test]
fn the_command_of_recommend_can_be_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 4, 1);
    let printed = ok(
        "host-trainer",
        root,
        &["recommend", "--data", "data", "--frame-ms", "2", "--json"],
    );
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["surface"]["images"], 4);
    let settings = report["settings"].as_array().unwrap();
    for option in ["size", "colour", "lighting", "quiet", "width"] {
        let said = settings.iter().find(|advice| advice["option"] == option);
        let why = said.and_then(|advice| advice["why"].as_str());
        assert!(why.is_some_and(|why| why.len() > 10), "{option}: {why:?}");
    }
    let command = report["command"].as_str().unwrap().to_owned();
    let command = command.replace("host-trainer ", "") + " --iterations 1 --batch 2";
    let words: Vec<&str> = command.split_whitespace().collect();
    ok("host-trainer", root, &words);
    let text = ok("host-trainer", root, &["recommend", "--data", "data"]);
    assert!(text.contains("--lighting 0.3") && text.contains("note: 4 good images"));
}

const STUDY: &[&str] = &[
    "reproduce",
    "--data",
    "data",
    "--out",
    "study",
    "--experiments",
    "activation,resize",
    "--seeds",
    "1",
    "--width",
    "4",
    "--iterations",
    "2",
    "--batch",
    "2",
    "--device",
    "cpu",
];

/// Names of the runs in the table of results.
fn finished_runs(root: &Path) -> Vec<String> {
    let table = std::fs::read_to_string(root.join("study/results.csv")).unwrap_or_default();
    let rows = table.lines().skip(1);
    rows.filter_map(|row| row.split(',').next().map(str::to_owned))
        .collect()
}

/// Images of 40 px can be scaled to 256 px, but are too small to be scored at their native size.
#[test]
fn a_failed_run_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, mask) in [
        ("train/good/a.png", false),
        ("train/good/b.png", false),
        ("test/good/a.png", false),
        ("test/hole/a.png", false),
        ("ground_truth/hole/a_mask.png", true),
    ] {
        let path = root.join("small").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixel = |x: u32, y: u32| match mask {
            true => image::Luma([if x < 9 && y < 9 { 255 } else { 0 }]),
            false => image::Luma([(x * 31 + y * 17) as u8]),
        };
        image::GrayImage::from_fn(40, 40, pixel).save(path).unwrap();
    }
    let study = STUDY.iter().map(|&word| match word {
        "data" => "small",
        "activation,resize" => "resize",
        word => word,
    });
    let study: Vec<&str> = study.collect();
    let output = run("host-trainer", root, &study);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("error: 1 runs failed: small-native-size-0"),
        "{errors}"
    );
    assert_eq!(finished_runs(root), ["small-direct-0"]);
}

#[test]
fn a_study_is_resumed_after_a_kill_and_shared_by_processes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 3, 2);
    fails(
        "host-trainer",
        root,
        &["reproduce", "--out", "study"],
        &["no data"],
    );
    let start = || {
        let mut command = Command::new(program("host-trainer"));
        command.args(STUDY).current_dir(root);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // The runs: the paper's settings, tanh, no activation, native size.
    let listed = ok("host-trainer", root, &[STUDY, &["--list"]].concat());
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.lines().all(|line| line.contains("--only data-")));
    let mut first = start();
    let since = Instant::now();
    while finished_runs(root).is_empty() {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "no run has finished"
        );
        thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    // A run of the killed process may go on. No other process starts that run meanwhile.
    let mut both = [start(), start()];
    for process in &mut both {
        assert!(process.wait().unwrap().success());
    }
    // If it was not finished, the same command finishes it later.
    ok("host-trainer", root, STUDY);
    let runs = finished_runs(root);
    let different: HashSet<&String> = runs.iter().collect();
    assert_eq!((runs.len(), different.len()), (4, 4), "{runs:?}");
    let listed = ok("host-trainer", root, &[STUDY, &["--list"]].concat());
    assert_eq!(listed, "");
    // Runs of another study are not added to the table.
    let other = STUDY
        .iter()
        .map(|&word| if word == "4" { "8" } else { word });
    let other: Vec<&str> = other.collect();
    fails(
        "host-trainer",
        root,
        &other,
        &["width 4", "width 8", "--out"],
    );
    let page = std::fs::read_to_string(root.join("study/index.html")).unwrap();
    assert!(page.contains("Output activation (Fig. 15)") && page.contains("<svg"));
    ok("host-trainer", root, STUDY);
    for figure in ["activation.svg", "activation.png", "resize.svg"] {
        assert!(
            root.join("study/figures").join(figure).is_file(),
            "{figure}"
        );
    }
}

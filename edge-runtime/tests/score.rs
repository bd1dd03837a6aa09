//! `edge-runtime score` as a user runs it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "../../scoring/tests/common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use common::{key, manifest, package};
use ed25519_dalek::SigningKey;
use image::{GrayImage, Luma};
use proto::manifest::Manifest;
use scoring::package::{key_id, write_key_pair};

/// A folder with a package and two images, plain.png and spot.png.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut Manifest)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = manifest();
        change(&mut manifest);
        let fixture = Self { folder };
        std::fs::write(fixture.path("model.awr"), package(&manifest)).unwrap();
        let plain = GrayImage::from_pixel(97, 80, Luma([128]));
        let mut spot = plain.clone();
        for (x, y) in (40..52).flat_map(|x| (30..42).map(move |y| (x, y))) {
            spot.put_pixel(x, y, Luma([255]));
        }
        plain.save(fixture.path("plain.png")).unwrap();
        spot.save(fixture.path("spot.png")).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn score(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_edge-runtime"))
            .args(["score", "--package", "model.awr"])
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.score(&[&["--json"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn scores(&self) -> [f64; 2] {
        let found = self.json(&["plain.png", "spot.png"]);
        [0, 1].map(|image| found["images"][image]["score"].as_f64().unwrap())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_exit_code_distinguishes_ok_ng_and_failure() {
    let fixture = Fixture::new(|_| ());
    let [plain, spot] = fixture.scores();
    assert!(plain < spot, "{plain} {spot}");
    let between = ((plain + spot) / 2.0).to_string();
    let code = |arguments: &[&str]| fixture.score(arguments).status.code();
    assert_eq!(
        code(&["plain.png", "spot.png"]),
        Some(0),
        "far below the package's threshold"
    );
    assert_eq!(code(&["--threshold", &between, "plain.png"]), Some(0));
    assert_eq!(
        code(&["--threshold", &between, "plain.png", "spot.png"]),
        Some(1)
    );
    assert_eq!(
        code(&["--threshold", &between, "spot.png", "missing.png"]),
        Some(2)
    );
    assert_eq!(code(&["--threshold", "-1", "spot.png"]), Some(2));
}

#[test]
fn a_broken_image_is_named_and_the_others_are_still_scored() {
    let fixture = Fixture::new(|_| ());
    std::fs::write(fixture.path("broken.png"), b"\x89PNG\r\n\x1a\nxx").unwrap();
    let output = fixture.score(&["broken.png", "plain.png"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("error: broken.png") && text.contains("hint: "),
        "{text}"
    );
    let table = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| {
        table
            .lines()
            .find(|line| line.ends_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("broken.png").starts_with("FAILED"), "{table}");
    assert!(row("plain.png").starts_with("OK"), "{table}");
}

#[test]
fn the_json_object_has_every_field() {
    let fixture = Fixture::new(|_| ());
    let found = fixture.json(&[
        "--threshold",
        "0",
        "--out",
        "found",
        "spot.png",
        "missing.png",
    ]);
    assert_eq!(found["schema"], 1);
    assert_eq!(found["package"]["signer"], key_id(&key().verifying_key()));
    assert_eq!(found["package"]["scoring"], "full");
    assert_eq!(found["package"]["threshold"], 0.0);
    let image = &found["images"][0];
    assert_eq!(
        (&image["image"], &image["verdict"]),
        (&"spot.png".into(), &"NG".into())
    );
    assert_eq!(image["regions"][0]["peak"], image["score"]);
    for picture in ["heat_map", "overlay"] {
        let path = fixture.path(image[picture].as_str().unwrap());
        let picture = image::open(&path).unwrap();
        assert_eq!((picture.width(), picture.height()), (97, 80));
    }
    assert!(
        found["images"][1]["error"]
            .as_str()
            .unwrap()
            .contains("missing.png")
    );
    let left = std::fs::read_dir(fixture.path("found")).unwrap().count();
    assert_eq!(left, 2, "no temporary files are left");
}

#[test]
fn without_a_threshold_there_is_a_score_but_no_verdict() {
    let fixture = Fixture::new(|manifest| manifest.threshold = None);
    let output = fixture.score(&["plain.png"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "no verdict must not pass for OK"
    );
    assert!(stderr(&output).contains("no verdicts"));
    let calibrated = Fixture::new(|_| ());
    let other_mode = calibrated.score(&["--scoring", "tiles", "plain.png"]);
    assert_eq!(
        other_mode.status.code(),
        Some(2),
        "a threshold belongs to its scoring mode"
    );
}

#[test]
fn only_the_signers_asked_for_are_trusted() {
    let fixture = Fixture::new(|_| ());
    let pair = |name: &str, seed| {
        write_key_pair(&fixture.path(name), &SigningKey::from_bytes(&[seed; 32])).unwrap()
    };
    pair("right", 42);
    pair("wrong", 7);
    let named = fixture.score(&["plain.png"]);
    assert!(
        stderr(&named).contains(&key_id(&key().verifying_key())),
        "the signer is named"
    );
    let refused = fixture.score(&["--trust", "wrong.pub", "plain.png"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty() && stderr(&refused).contains("--trust"));
    let accepted = fixture.score(&["--trust", "wrong.pub", "--trust", "right.pub", "plain.png"]);
    assert_eq!(accepted.status.code(), Some(0));
}

#[test]
fn a_mask_hides_the_defect() {
    let fixture = Fixture::new(|_| ());
    let [plain, spot] = fixture.scores();
    let between = ((plain + spot) / 2.0).to_string();
    // The spot is at the upper left; its halo of 14 px ends well before the last columns.
    let mask = GrayImage::from_fn(97, 80, |x, _| Luma([if x >= 80 { 255 } else { 0 }]));
    mask.save(fixture.path("mask.png")).unwrap();
    let hidden = fixture.score(&[
        "--threshold",
        &between,
        "--roi-mask",
        "mask.png",
        "spot.png",
    ]);
    assert_eq!(hidden.status.code(), Some(0), "{}", stderr(&hidden));
}

#[test]
fn a_mask_that_hides_everything_is_refused_at_once() {
    let fixture = Fixture::new(|_| ());
    GrayImage::new(97, 80)
        .save(fixture.path("mask.png"))
        .unwrap();
    let refused = fixture.score(&["--roi-mask", "mask.png", "plain.png", "spot.png"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty(), "nothing is scored");
    let text = stderr(&refused);
    assert!(
        text.contains("mask.png") && text.contains("no pixel"),
        "{text}"
    );
}

#[test]
fn pictures_are_never_written_into_a_folder_of_images() {
    let fixture = Fixture::new(|_| ());
    std::fs::create_dir(fixture.path("in")).unwrap();
    std::fs::copy(fixture.path("plain.png"), fixture.path("in/plain.png")).unwrap();
    let refused = fixture.score(&["--out", "./in", "in"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--out"), "{}", stderr(&refused));
    assert_eq!(std::fs::read_dir(fixture.path("in")).unwrap().count(), 1);
}

#[test]
fn a_pipe_given_as_an_image_fails_instead_of_blocking() {
    let fixture = Fixture::new(|_| ());
    let made = Command::new("mkfifo")
        .arg(fixture.path("pipe.png"))
        .status();
    assert!(made.unwrap().success());
    let output = fixture.score(&["pipe.png"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not a regular file"));
}

#[test]
fn a_frame_smaller_than_a_tile_is_a_failure_with_both_sizes() {
    let fixture = Fixture::new(|_| ());
    GrayImage::new(64, 200)
        .save(fixture.path("small.png"))
        .unwrap();
    let output = fixture.score(&["small.png"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("65×65") && text.contains("64×200"), "{text}");
}

#[test]
fn what_is_left_out_of_a_folder_is_counted_and_named() {
    let fixture = Fixture::new(|_| ());
    let image = std::fs::read(fixture.path("plain.png")).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = fixture.path("part").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for name in [
        "a.png",
        ".trashed-1-b.png",
        "batch/c.png",
        ".ipynb_checkpoints/d.png",
    ] {
        put(name, &image);
    }
    put("e.webp", b"RIFF");
    put("broken.png", b"\x89PNG\r\n\x1a\nxx");
    let small = GrayImage::from_pixel(20, 20, Luma([9]));
    small.save(fixture.path("part/small.png")).unwrap();
    let found = fixture.json(&["part"]);
    let account = &found["account"];
    let count = |name: &str| account[name].as_u64().unwrap();
    assert_eq!(
        [
            "used",
            "unreadable",
            "too_small",
            "hidden",
            "nested",
            "unsupported"
        ]
        .map(count),
        [1, 1, 1, 2, 1, 1]
    );
    let said = stderr(&fixture.score(&["part"]));
    for words in [
        "images: 1 image used, 1 unreadable, 1 too small, 2 hidden, 1 in folders below, not read, \
         1 of other formats, not read",
        "left out part/.trashed-1-b.png: hidden",
        "left out part/batch: 1 image in a folder below",
        "left out part/e.webp: not a PNG",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let all = std::fs::remove_file(fixture.path("part/a.png"));
    all.and_then(|()| std::fs::remove_file(fixture.path("part/broken.png")))
        .unwrap();
    std::fs::remove_file(fixture.path("part/small.png")).unwrap();
    let said = stderr(&fixture.score(&["part"]));
    assert!(
        said.contains("found none but 1 in folders below and 2 hidden"),
        "{said}"
    );
}

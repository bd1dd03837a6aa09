//! Data sets as people have them: what is used, what is refused, and what the programs say. Each
//! case of a kind is a small set made here; the figures of a set that is read rightly are those of
//! the same set in the plain layout.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use image::{
    DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage,
};
use integration_tests::{TINY, ok, run, tiny_package};
use serde_json::Value;

/// Side of the images in pixels.
const SIDE: u32 = 80;

/// The path of a tiny package, made once.
fn package() -> &'static str {
    static FOLDER: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        tiny_package(folder.path());
        let path = folder.path().join("m.awr").display().to_string();
        (folder, path)
    });
    path
}

/// Whether a pixel of the defect image of this number is in its defect.
fn in_defect(number: u32, x: u32, y: u32) -> bool {
    (20 + 5 * number..36 + 5 * number).contains(&x) && (30..42).contains(&y)
}

/// A grey texture; each seed gives another.
fn texture(width: u32, height: u32, seed: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, y| {
        let mixed =
            (x ^ seed.wrapping_mul(0x9E37)).wrapping_mul(0x85EB_CA77) ^ y.wrapping_mul(0xC2B2_AE3D);
        Luma([100 + (mixed >> 13) as u8 % 40])
    })
}

/// The texture with a bright defect.
fn defective(number: u32) -> GrayImage {
    let mut picture = texture(SIDE, SIDE, 50 + number);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if in_defect(number, x, y) {
            pixel.0[0] = 230;
        }
    }
    picture
}

/// The mask of that defect, of these values.
fn mask(number: u32, good: u8, defect: u8) -> DynamicImage {
    let value = |x, y| {
        if in_defect(number, x, y) {
            defect
        } else {
            good
        }
    };
    GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([value(x, y)])).into()
}

fn plain_mask(number: u32) -> DynamicImage {
    mask(number, 0, 255)
}

/// A folder with a data set.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A plain set: six images to train on, four good and four defective test images, masks.
    fn plain() -> Self {
        let set = Self::without_masks();
        set.masks(
            |number| format!("ground_truth/cut/{number:03}_mask.png"),
            plain_mask,
        );
        set
    }

    fn without_masks() -> Self {
        let set = Self::new();
        set.good_in("train/good", 0..6);
        set.good_in("test/good", 10..14);
        for number in 0..4 {
            set.save(
                format!("test/cut/{number:03}.png"),
                &defective(number).into(),
            );
        }
        set
    }

    fn good_in(&self, folder: &str, seeds: std::ops::Range<u32>) {
        for (number, seed) in seeds.enumerate() {
            let picture = texture(SIDE, SIDE, seed);
            self.save(format!("{folder}/{number:03}.png"), &picture.into());
        }
    }

    fn masks(&self, name: impl Fn(u32) -> String, picture: impl Fn(u32) -> DynamicImage) {
        for number in 0..4 {
            self.save(name(number), &picture(number));
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn save(&self, name: impl AsRef<Path>, picture: &DynamicImage) {
        let name = name.as_ref();
        match name
            .extension()
            .and_then(OsStr::to_str)
            .map(str::to_lowercase)
            .as_deref()
        {
            Some("bmp") => self.save_as(name, picture, ImageFormat::Bmp),
            Some("tif") => self.save_as(name, picture, ImageFormat::Tiff),
            _ => self.save_as(name, picture, ImageFormat::Png),
        }
    }

    fn save_as(&self, name: impl AsRef<Path>, picture: &DynamicImage, format: ImageFormat) {
        picture.save_with_format(self.at(name), format).unwrap();
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    fn rename(&self, from: &str, to: impl AsRef<Path>) {
        fs::rename(self.path().join(from), self.at(to)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run("host-trainer", self.path(), arguments)
    }

    /// Evaluates the set: the JSON, and what was said.
    fn evaluate(&self, more: &[&str]) -> (Value, String) {
        let output = self.run(
            &[
                &["evaluate", "--json", "--package", package(), "--data", "."],
                more,
            ]
            .concat(),
        );
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }

    /// What is said when the command fails.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        said
    }

    fn evaluation_refused(&self) -> String {
        self.refused(&["evaluate", "--package", package(), "--data", "."])
    }

    /// The account of the images to train on, and what was said.
    fn recommend(&self) -> (Value, String) {
        let output = self.run(&["recommend", "--json", "--data", "."]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        (json, said)
    }

    /// Trains for an iteration: the JSON, and what was said.
    fn train(&self, more: &[&str]) -> (Value, String) {
        let output = self.run(&Self::training(more));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }

    fn training<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let tiny = TINY
            .iter()
            .map(|word| if *word == "data" { "." } else { word });
        let first = ["train", "--run", "run", "--iterations", "1", "--json"];
        first
            .into_iter()
            .chain(tiny)
            .chain(more.iter().copied())
            .collect()
    }
}

/// The arguments of a training of an iteration, with this run folder.
fn in_run<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = Set::training(more).into_iter();
    words
        .map(|word| if word == "run" { run } else { word })
        .collect()
}

/// The figures that masks and labels decide.
fn figures(json: &Value) -> Value {
    let names = [
        "pixel_auroc",
        "aupro",
        "image_auroc",
        "with_ground_truth",
        "good_images",
    ];
    names.map(|name| json[name].clone()).into()
}

fn plain_figures() -> Value {
    figures(&Set::plain().evaluate(&[]).0)
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

#[test]
fn masks_of_every_unambiguous_convention_give_the_figures_of_plain_ones() {
    let plain = plain_figures();
    assert_eq!(plain[3], 4);
    let deep = |value: u16| {
        move |number| {
            let value = move |x, y| if in_defect(number, x, y) { value } else { 0 };
            ImageBuffer::from_fn(SIDE, SIDE, |x, y| Luma([value(x, y)])).into()
        }
    };
    let colour = |value: [u8; 3]| {
        move |number| {
            let value = move |x, y| {
                if in_defect(number, x, y) {
                    value
                } else {
                    [0; 3]
                }
            };
            RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb(value(x, y))).into()
        }
    };
    let alpha = |value: u8| {
        move |number| {
            let opacity = move |x, y| if in_defect(number, x, y) { 255 } else { 0 };
            RgbaImage::from_fn(SIDE, SIDE, |x, y| {
                Rgba([value, value, value, opacity(x, y)])
            })
            .into()
        }
    };
    type Mask = Box<dyn Fn(u32) -> DynamicImage>;
    let conventions: [(&str, Mask); 10] = [
        ("values 0 and 1: 4", Box::new(|number| mask(number, 0, 1))),
        (
            "values 0 and 127: 4",
            Box::new(|number| mask(number, 0, 127)),
        ),
        ("values 0 and 1: 4", Box::new(deep(1))),
        ("values 0 and 255: 4", Box::new(deep(255))),
        ("masks: 4 matched", Box::new(deep(65_535))),
        ("colour 255,0,0 on black: 4", Box::new(colour([255, 0, 0]))),
        ("colour 0,0,255 on black: 4", Box::new(colour([0, 0, 255]))),
        ("colour 128,0,0 on black: 4", Box::new(colour([128, 0, 0]))),
        ("a transparent background: 4", Box::new(alpha(0))),
        ("a transparent background: 4", Box::new(alpha(255))),
    ];
    for (words, picture) in conventions {
        let set = Set::without_masks();
        set.masks(
            |number| format!("ground_truth/cut/{number:03}_mask.png"),
            picture,
        );
        let (json, said) = set.evaluate(&[]);
        assert_eq!(figures(&json), plain, "{words}");
        has(&said, &[words]);
        assert_eq!(json["account"]["masks"]["matched"], 4);
    }
    for format in [ImageFormat::Jpeg, ImageFormat::Tiff] {
        let set = Set::without_masks();
        for number in 0..4 {
            let name = format!("ground_truth/cut/{number:03}_mask.png");
            set.save_as(name, &plain_mask(number), format);
        }
        assert_eq!(
            figures(&set.evaluate(&[]).0),
            plain,
            "{format:?} under .png"
        );
    }
}

#[test]
fn masks_that_say_nothing_or_everything_are_named() {
    let set = Set::plain();
    set.save("ground_truth/cut/002_mask.png", &mask(2, 0, 0));
    let (json, said) = set.evaluate(&[]);
    has(
        &said,
        &[
            "warning: 1 defect image whose mask marks nothing",
            "002.png",
            "1 empty",
        ],
    );
    assert_eq!(
        (
            &json["with_ground_truth"],
            &json["account"]["masks"]["empty"]
        ),
        (&3.into(), &1.into())
    );
    let set = Set::without_masks();
    set.masks(
        |number| format!("ground_truth/cut/{number:03}_mask.png"),
        |n| mask(n, 255, 0),
    );
    let (json, said) = set.evaluate(&[]);
    has(
        &said,
        &["marks nearly everything", "000.png", "--invert-masks"],
    );
    assert_eq!(json["account"]["masks"]["nearly_everything"], 4);
    let (json, _) = set.evaluate(&["--invert-masks"]);
    assert_eq!(figures(&json), plain_figures());
}

#[test]
fn all_masks_that_cannot_be_used_are_named_before_scoring() {
    let set = Set::plain();
    set.write("ground_truth/cut/000_mask.png", b"\x89PNG\r\n\x1a\nxx");
    set.save(
        "ground_truth/cut/001_mask.png",
        &DynamicImage::from(GrayImage::new(40, 40)),
    );
    set.save("ground_truth/cut/002_mask.png", &mask(2, 1, 2));
    let out = [
        "evaluate",
        "--package",
        package(),
        "--data",
        ".",
        "--maps",
        "maps",
    ];
    let said = set.refused(&out);
    let words = [
        "error: 3 of 4 masks",
        "000_mask.png",
        "001_mask.png",
        "80×80",
        "40×40",
        "002_mask.png",
    ];
    has(&said, &words);
    assert!(!set.path().join("maps").exists(), "nothing was scored");
}

#[test]
fn masks_are_found_under_other_names_and_in_other_folders() {
    let plain = plain_figures();
    type Name = fn(u32) -> String;
    let names: [(&str, Name); 9] = [
        ("Mask", |n| format!("ground_truth/cut/{n:03}_Mask.png")),
        ("upper", |n| format!("ground_truth/cut/{n:03}_mask.PNG")),
        ("bmp", |n| format!("ground_truth/cut/{n:03}_mask.bmp")),
        ("tif", |n| format!("ground_truth/cut/{n:03}_mask.tif")),
        ("same", |n| format!("ground_truth/cut/{n:03}.png")),
        ("Ground_Truth", |n| {
            format!("Ground_Truth/cut/{n:03}_mask.png")
        }),
        ("gt", |n| format!("gt/cut/{n:03}_gt.png")),
        ("masks", |n| format!("masks/cut/{n:03}_mask.png")),
        ("loco", |n| format!("ground_truth/cut/{n:03}/000.png")),
    ];
    for (what, name) in names {
        let set = Set::without_masks();
        set.masks(name, plain_mask);
        let (json, _) = set.evaluate(&[]);
        assert_eq!(figures(&json), plain, "{what}");
        assert_eq!(json["account"]["masks"]["unmatched"], 0, "{what}");
    }
    let set = Set::plain();
    set.rename(
        "ground_truth/cut/002_mask.png",
        "ground_truth/cut/2_mask.png",
    );
    let (json, said) = set.evaluate(&[]);
    has(
        &said,
        &[
            "3 matched, 1 of no image, 1 defect image without",
            "2_mask.png: a mask of no test",
        ],
    );
    assert_eq!(json["with_ground_truth"], 3);
}

#[test]
fn folders_of_good_images_are_known_by_other_names() {
    let plain = plain_figures();
    for name in ["Good", "GOOD", "OK", "ok", "normal", "good "] {
        let set = Set::plain();
        set.rename("test/good", format!("test/{name}"));
        let (json, said) = set.evaluate(&[]);
        assert_eq!(figures(&json), plain, "{name}");
        has(
            &said,
            &[&format!(
                "warning: ./test/{name} is taken as the good images"
            )],
        );
        set.rename("train/good", format!("train/{name}"));
        set.save("screenshot.png", &texture(SIDE, SIDE, 99).into());
        let (json, said) = set.train(&[]);
        assert_eq!(
            (&json["account"]["used"], &json["account"]["stray"]),
            (&6.into(), &1.into())
        );
        has(&said, &["screenshot.png: beside the folder to train on"]);
    }
}

#[test]
fn what_a_test_set_lacks_is_said() {
    let (json, said) = Set::without_masks().evaluate(&[]);
    has(&said, &["warning: no masks", "4 defect images without"]);
    assert!(json["pixel_auroc"].is_null() && json["image_auroc"].is_number());
    let set = Set::plain();
    fs::remove_dir_all(set.path().join("test/good")).unwrap();
    let (json, said) = set.evaluate(&[]);
    has(&said, &["warning: no folder of good test images"]);
    assert!(json["image_auroc"].is_null());
    let set = Set::plain();
    fs::remove_dir_all(set.path().join("test/cut")).unwrap();
    let (json, said) = set.evaluate(&[]);
    has(&said, &["warning: no defect images", "4 of no image"]);
    assert!(json["pixel_auroc"].is_null() && json["false_reject_rate"].is_number());
}

#[test]
fn other_layouts_are_read_or_refused_and_never_misread() {
    let set = Set::plain();
    set.rename("train/good", "flat");
    fs::remove_dir(set.path().join("train")).unwrap();
    set.rename("flat", "train");
    has(
        &set.train(&[]).1,
        &["6 images directly in ./train are taken as good images"],
    );
    // A logo beside `test`, and no images to train on.
    fs::remove_dir_all(set.path().join("run")).unwrap();
    fs::remove_dir_all(set.path().join("train")).unwrap();
    set.save("logo.png", &texture(SIDE, SIDE, 3).into());
    for command in [Set::training(&[]), vec!["recommend", "--data", "."]] {
        has(
            &set.refused(&command),
            &["no folder of good images to use here", "1 image beside"],
        );
    }
    fs::create_dir_all(set.path().join("train/good")).unwrap();
    has(&set.refused(&Set::training(&[])), &["no images in ."]);
    let set = Set::plain();
    set.rename("test/cut/000.png", "test/x000.png");
    let (json, said) = set.evaluate(&[]);
    has(
        &said,
        &[
            "warning: 1 image directly in ./test",
            "x000.png: in no folder of a kind",
        ],
    );
    assert_eq!(json["kinds"]["cut"]["images"], 3);
    let set = Set::new();
    set.good_in("normal", 0..4);
    set.good_in("abnormal", 20..22);
    has(
        &set.train(&[]).1,
        &["./normal is taken as the good images", "4 images used"],
    );
    has(
        &set.evaluation_refused(),
        &["no test folder", "it has abnormal, normal"],
    );
}

#[test]
fn folders_below_and_hidden_files_are_counted_and_not_used() {
    let set = Set::plain();
    set.rename("test/cut/000.png", "test/cut/batch1/000.png");
    set.rename("train/good/000.png", "train/good/batch1/000.png");
    set.save(
        "test/.ipynb_checkpoints/000.png",
        &texture(SIDE, SIDE, 3).into(),
    );
    set.save(
        "train/good/.trashed-1790000000-bad.png",
        &texture(SIDE, SIDE, 4).into(),
    );
    let (json, said) = set.evaluate(&[]);
    let account = &json["account"];
    let counts = ["used", "nested", "hidden"].map(|name| account[name].as_u64().unwrap());
    assert_eq!(counts, [7, 1, 1]);
    has(&said, &["1 in folders below, not read", "test/cut/batch1"]);
    assert_eq!(account["kinds"], serde_json::json!({"cut": 3, "good": 4}));
    let (json, _) = set.train(&[]);
    let counts = ["used", "nested", "hidden"].map(|name| json["account"][name].as_u64().unwrap());
    assert_eq!(counts, [5, 1, 1]);
    let set = Set::new();
    set.good_in("train/good/batch1", 0..3);
    has(
        &set.refused(&Set::training(&[])),
        &["no images in .", "3 in folders below", "batch1"],
    );
}

#[test]
fn names_of_any_bytes_work_and_no_map_is_overwritten() {
    let set = Set::plain();
    set.rename("ground_truth/cut", "ground_truth/<b>x & \"y\"");
    set.rename("test/cut", "test/<b>x & \"y\"");
    for number in 0..4 {
        let path = format!("test/good/{number:03}.bmp");
        set.save(path, &texture(SIDE, SIDE, 30 + number).into());
    }
    for (number, name) in [&b"l\xf6t"[..], b"l\xf5t", "лот".as_bytes()]
        .into_iter()
        .enumerate()
    {
        let folder = Path::new("test").join(OsStr::from_bytes(name));
        set.save(folder.join("0.png"), &defective(number as u32).into());
    }
    let (json, _) = set.evaluate(&["--maps", "maps", "--out", "report"]);
    assert_eq!(json["account"]["kinds"].as_object().unwrap().len(), 5);
    assert_eq!(json["images"], 15);
    let page = fs::read_to_string(set.path().join("report/report.html")).unwrap();
    assert!(
        !page.contains("<b>x &") && page.contains("&lt;b&gt;x &amp;"),
        "escaped"
    );
    let frames = fs::read(set.path().join("maps/frames.json")).unwrap();
    let frames: Value = serde_json::from_slice(&frames).unwrap();
    let mut maps: Vec<&str> = frames
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["map"].as_str().unwrap())
        .collect();
    maps.sort_unstable();
    maps.dedup();
    assert_eq!(maps.len(), 15);
    has(
        &maps.join("\n"),
        &["good/000.png.tiff", "good/000.bmp.tiff"],
    );
    let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
    let folders = fs::read_dir(set.path().join("maps"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    assert_eq!(
        folders
            .filter(|path| path.is_dir())
            .map(|path| count(&path))
            .sum::<usize>(),
        15
    );
    // Training, packaging and scoring from such a folder.
    let odd = Path::new(OsStr::from_bytes(b"l\xf6t")).to_owned();
    set.rename("train/good", odd.join("train/good"));
    let folder = set.path().join(&odd);
    ok("host-trainer", &folder, &in_run("../run", &[]));
    let command = ok(
        "host-trainer",
        set.path(),
        &["recommend", "--data", "test/good"],
    );
    has(&command, &["host-trainer train --data test/good"]);
    ok("host-trainer", set.path(), &["keygen", "--out", "k.key"]);
    let line = [
        "package", "--run", "run", "--key", "k.key", "--name", "t", "--out", "t.awr", "--json",
    ];
    let made: Value = serde_json::from_str(&ok("host-trainer", set.path(), &line)).unwrap();
    assert_eq!(made["account"]["used"], 3);
    assert!(made["threshold"]["value"].is_number());
    let scored = run(
        "edge-runtime",
        &folder,
        &[
            "score",
            "-p",
            "../t.awr",
            "--json",
            "--out",
            "maps",
            "train/good",
        ],
    );
    let scored: Value = serde_json::from_slice(&scored.stdout).unwrap();
    assert_eq!(scored["account"]["used"], 6);
}

#[test]
fn sets_that_teach_nothing_are_refused_and_odd_ones_are_named() {
    let shades = |values: [u8; 3]| {
        let set = Set::new();
        for (number, value) in values.into_iter().enumerate() {
            let picture = GrayImage::from_pixel(SIDE, SIDE, Luma([value]));
            set.save(format!("{number}.png"), &picture.into());
        }
        set
    };
    for (values, word) in [
        ([0; 3], "black"),
        ([255; 3], "white"),
        ([128, 129, 130], "even"),
    ] {
        let set = shades(values);
        for command in [Set::training(&[]), vec!["recommend", "--data", "."]] {
            has(&set.refused(&command), &["error: all 3 images are", word]);
        }
    }
    let copies = Set::new();
    for number in 0..4 {
        copies.save(format!("{number}.png"), &texture(SIDE, SIDE, 7).into());
    }
    copies.save("4.bmp", &texture(SIDE, SIDE, 7).into());
    let (json, said) = copies.recommend();
    has(
        &said,
        &[
            "4 images with the pixels of another",
            "1 is the number of parts",
        ],
    );
    assert_eq!(json["account"]["copies"], 4);
    has(
        &copies.refused(&Set::training(&[])),
        &["holding out", "of 1 parts"],
    );
    let sizes = Set::new();
    for number in 0..4 {
        sizes.save(format!("{number}.png"), &texture(90, 70, number).into());
    }
    sizes.save("turned.png", &texture(70, 90, 9).into());
    sizes.save("wide.png", &texture(150, 70, 9).into());
    has(
        &sizes.recommend().1,
        &["turned.png", "turned?", "images of 3 sizes", "wide.png"],
    );
}

#[test]
fn depth_and_colour_are_those_of_the_set() {
    let twelve = |seed| {
        let grey = texture(SIDE, SIDE, seed);
        let value = |x, y| u16::from(grey.get_pixel(x, y).0[0]) * 16;
        DynamicImage::from(ImageBuffer::from_fn(SIDE, SIDE, |x, y| Luma([value(x, y)])))
    };
    let set = Set::new();
    for number in 0..4 {
        set.save(format!("{number}.png"), &twelve(number));
    }
    let (json, said) = set.recommend();
    assert_eq!(json["account"]["bits"], 12);
    has(json["command"].as_str().unwrap(), &["--bits 12"]);
    has(&said, &["16-bit files with values of 12 bits"]);
    has(&set.train(&[]).1, &["have 12 bits and are scaled by that"]);
    let recorded = fs::read_to_string(set.path().join("run/run.json")).unwrap();
    has(&recorded, &["\"bits\": 12"]);
    set.save("grey.png", &texture(SIDE, SIDE, 8).into());
    has(&set.recommend().1, &["1 image of 8 bits", "grey.png"]);
    // Grey stored as colour is grey, and one colour image does not turn the set.
    let set = Set::new();
    for number in 0..4 {
        set.save(format!("{number}.png"), &texture(SIDE, SIDE, number).into());
    }
    for number in 4..8 {
        let grey = DynamicImage::from(texture(SIDE, SIDE, number));
        set.save(format!("{number}.png"), &grey.to_rgb8().into());
    }
    let mut tinted = DynamicImage::from(texture(SIDE, SIDE, 9)).to_rgb8();
    tinted.pixels_mut().for_each(|pixel| pixel.0[2] /= 2);
    set.save("tinted.png", &tinted.into());
    let (_, said) = set.train(&[]);
    has(
        &said,
        &[
            "1 of 9 images are in colour",
            "tinted.png",
            "all are taken as grey",
        ],
    );
    let recorded = fs::read_to_string(set.path().join("run/run.json")).unwrap();
    has(&recorded, &["\"colour\": \"Grey\""]);
}

#[test]
fn lists_of_parts_are_read_as_programs_save_them() {
    let set = Set::new();
    set.good_in(".", 0..8);
    let plain: String = (0..8)
        .map(|n| format!("{n:03}.png,part{}\n", n / 4))
        .collect();
    let plain = format!("file,group\n{plain}");
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(plain.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let semicolon = plain.replace(',', ";").replace('\n', "\r\n");
    let good: [(&str, Vec<u8>); 9] = [
        ("plain", plain.clone().into()),
        (
            "bom",
            format!("\u{feff}{}", plain.replace('\n', "\r\n")).into(),
        ),
        ("utf16", utf16),
        ("semicolon", semicolon.into()),
        ("backslash", plain.replace("\n0", "\n.\\0").into()),
        ("caps", plain.replace("file,group", "File,Group").into()),
        ("cr", plain.replace('\n', "\r").into()),
        (
            "extra",
            plain
                .replace('\n', ",2026\n")
                .replace("group,2026", "group,date")
                .into(),
        ),
        ("quoted", plain.replace("part0", "\"part0\"").into()),
    ];
    for (what, content) in good {
        set.write("g.csv", content);
        let run = format!("run-{what}");
        let output = set.run(&in_run(&run, &["--groups", "g.csv"]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && !said.contains("in no group"),
            "{what}: {said}"
        );
        // Two parts of four images: one of them is held out whole.
        has(&said, &["4 images to train on, 4 held out"]);
    }
    let wrong: [(String, &[&str]); 3] = [
        (
            plain.clone() + "000.png,part1\n",
            &["line 10", "000.png", "line 2"],
        ),
        (plain.replace("part1", ""), &["line 6", "empty"]),
        (plain.replace("file,group\n", ""), &["line 1", "file,group"]),
    ];
    for (content, words) in wrong {
        set.write("g.csv", content);
        has(&set.refused(&Set::training(&["--groups", "g.csv"])), words);
    }
    set.write("g.csv", plain.replace("007", "7"));
    let (_, said) = set.train(&["--groups", "g.csv"]);
    has(
        &said,
        &[
            "1 of 8 images are in no group",
            "line 9: there is no file 7.png",
        ],
    );
}

#[test]
fn regions_smaller_than_the_maps_pixels_do_not_vanish() {
    let set = Set::without_masks();
    // The package scores 80×80 px, so of this image every fourth pixel.
    set.save("test/cut/000.png", &texture(4 * SIDE, 4 * SIDE, 3).into());
    let speck = GrayImage::from_fn(4 * SIDE, 4 * SIDE, |x, y| {
        Luma([if x == 100 && y == 101 { 255 } else { 0 }])
    });
    set.save("ground_truth/cut/000_mask.png", &speck.into());
    let (json, said) = set.evaluate(&[]);
    has(&said, &["1 defect regions are smaller or thinner"]);
    assert_eq!(json["account"]["masks"]["small_regions"], 1);
    assert!(json["pixel_auroc"].is_number(), "the speck counts");
}

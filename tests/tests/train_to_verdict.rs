//! From a folder of images to verdicts, with the programs that users run.

use host_trainer::network::{Architecture, layer_shapes};
use host_trainer::train::Checkpoint;
use integration_tests::{TINY, fails, ok, run, synth, tiny_package};

#[test]
fn a_model_is_trained_packaged_evaluated_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let text = ok(
        "host-trainer",
        root,
        &["inspect-package", "m.awr", "--trust", "k.key.pub"],
    );
    assert!(
        text.contains("tiny 1") && text.contains("false rejects per 10,000"),
        "{text}"
    );
    let json = ok(
        "host-trainer",
        root,
        &[
            "evaluate",
            "--package",
            "m.awr",
            "--data",
            "data",
            "--out",
            "report",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in [
        "pixel_auroc",
        "aupro",
        "image_auroc",
        "image_aupr",
        "pixel_aupr",
        "f1_max",
        "false_reject_rate",
        "miss_rate",
        "frame_ms",
    ] {
        assert!(json[key].is_number(), "{key} in {json}");
    }
    let kinds: Vec<_> = json["kinds"].as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["fibre", "hole", "scratch", "smear", "stain"]);
    let page = std::fs::read_to_string(root.join("report/report.html")).unwrap();
    assert_eq!(page.matches("<section").count(), 7);
    let fetched = ["src=\"http", "href=\"http", "url(http", "<script"];
    assert!(
        fetched.iter().all(|from| !page.contains(from)),
        "the page must load nothing from the network"
    );
    // The package's threshold does not apply in another scoring mode, so the report must not state
    // its promise.
    ok(
        "host-trainer",
        root,
        &[
            "evaluate",
            "--package",
            "m.awr",
            "--data",
            "data",
            "--scoring",
            "tiles",
            "--out",
            "tiles",
        ],
    );
    let tiles = std::fs::read_to_string(root.join("tiles/report.html")).unwrap();
    assert!(page.contains("false rejects per 10,000"));
    assert!(!tiles.contains("false rejects per 10,000") && tiles.contains("none in force"));
    // The camera's program scores the same images; its exit code is 0 for OK and 1 for NG.
    let image = "data/test/good/000.png";
    let scored = |extra: &[&str]| {
        run(
            "edge-runtime",
            root,
            &[&["score", "--package", "m.awr", image, "--json"], extra].concat(),
        )
    };
    let ng = scored(&["--threshold", "0", "--out", "maps"]);
    assert_eq!(ng.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&ng.stdout).unwrap();
    assert_eq!(json["images"][0]["verdict"], "NG");
    assert!(!json["images"][0]["regions"].as_array().unwrap().is_empty());
    assert!(
        root.join("maps/000.heat.png").is_file() && root.join("maps/000.overlay.png").is_file()
    );
    assert_eq!(scored(&["--threshold", "1000"]).status.code(), Some(0));
    ok("station", root, &["check", "m.awr", "--trust", "k.key.pub"]);
}

#[test]
fn a_package_can_score_relative_to_good_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let package = |name: &str, extra: &[&str]| {
        let all = [
            "package", "--run", "run", "--key", "k.key", "--name", "n", "--out", name,
        ];
        ok("host-trainer", root, &[&all, extra].concat());
        ok("host-trainer", root, &["inspect-package", name])
    };
    let text = package("r.awr", &["--normalise", "--smooth", "2"]);
    assert!(
        text.contains("above what 2 good images score at the same place"),
        "{text}"
    );
    // The threshold is in the same unit as the normalised scores, so it is above 1.
    let json = ok(
        "host-trainer",
        root,
        &["evaluate", "--package", "r.awr", "--data", "data", "--json"],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["threshold"].as_f64().unwrap() > 1.0, "{json}");
}

/// A variation model needs at least 72 good images in colour. With them, it is packaged and used
/// for the verdict.
#[test]
fn a_package_can_score_by_variation_model_and_segmentation_network() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let all = [
        "package",
        "--run",
        "run",
        "--key",
        "k.key",
        "--name",
        "n",
        "--out",
        "v.awr",
        "--variation",
    ];
    fails("host-trainer", root, &all, &["at least 72 good images"]);

    let good = root.join("data/train/good");
    let one = std::fs::read(good.join("000.png")).unwrap();
    let one = image::load_from_memory(&one).unwrap().to_rgb8();
    for index in 0..80u32 {
        // The same part with another position, brightness and sensor noise.
        let mut part = one.clone();
        let (width, height) = one.dimensions();
        for (x, y, pixel) in part.enumerate_pixels_mut() {
            let noise = (x * 31 + y * 17 + index * 101).wrapping_mul(2_654_435_761) >> 28;
            let from = ((x + index * 5 % 13) % width, (y + index * 7 % 11) % height);
            pixel.0 = one
                .get_pixel(from.0, from.1)
                .0
                .map(|value| value.saturating_add((index % 8 + noise) as u8));
        }
        part.save(good.join(format!("n{index:03}.png"))).unwrap();
    }
    let train = [
        "train",
        "--data",
        "data",
        "--run",
        "many",
        "--width",
        "4",
        "--iterations",
        "2",
        "--batch",
        "2",
        "--tiles",
        "4",
        "--size",
        "96",
        "--hold-out",
        "0.06",
        "--threads",
        "1",
    ];
    ok("host-trainer", root, &train);
    let mut all = all.map(str::to_owned);
    all[2] = "many".into();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ok("host-trainer", root, &all);
    let text = ok("host-trainer", root, &["inspect-package", "v.awr"]);
    assert!(text.contains("standard deviations from how"), "{text}");
    let json = ok(
        "host-trainer",
        root,
        &["evaluate", "--package", "v.awr", "--data", "data", "--json"],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    // The scores are in standard deviations, of which good parts reach a few.
    let threshold = json["threshold"].as_f64().unwrap();
    assert!((0.5..30.0).contains(&threshold), "{json}");

    // With a segmentation network, and checked as by a camera.
    let segmentation = [
        "--segmentation",
        "--segmentation-steps",
        "100",
        "--segmentation-weight",
        "0.3",
    ];
    let text = ok("host-trainer", root, &[&all[..], &segmentation].concat());
    assert!(text.contains("segmentation: pixel AUROC"), "{text}");
    let text = ok("host-trainer", root, &["inspect-package", "v.awr"]);
    assert!(text.contains("and a segmentation network's"), "{text}");
    ok("station", root, &["check", "v.awr", "--trust", "k.key.pub"]);
    // Another package of the same run can take over the network unchanged.
    let mut again = all.clone();
    let out = again.iter().position(|word| *word == "v.awr").unwrap();
    again[out] = "w.awr";
    let from = ["--segmentation-from", "v.awr", "--segmentation-weight"];
    let text = ok(
        "host-trainer",
        root,
        &[&again[..], &from, &["0.3"]].concat(),
    );
    assert!(text.contains("segmentation: pixel AUROC"), "{text}");
    let maps = ["v.awr", "w.awr"].map(|package| {
        let text = ok(
            "host-trainer",
            root,
            &["evaluate", "--package", package, "--data", "data", "--json"],
        );
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["pixel"].clone()
    });
    assert_eq!(maps[0], maps[1]);
    // It can do so with other settings, without training.
    let contrast = ["0.3", "--local-contrast", "0.5"];
    ok(
        "host-trainer",
        root,
        &[&again[..], &from, &contrast].concat(),
    );
    let text = ok("host-trainer", root, &["inspect-package", "w.awr"]);
    assert!(text.contains("local contrast 0.5"), "{text}");
    let contrast = ["0.3", "--local-contrast", "1.5"];
    let wrong = [&again[..], &from, &contrast].concat();
    fails("host-trainer", root, &wrong, &["from 0 to 1", "1.5"]);
    // A weight of 0 is refused, because the network then has no effect.
    let none = [&again[..], &from, &["0"]].concat();
    fails("host-trainer", root, &none, &["brings nothing here"]);
    let smaller = train.map(|word| match word {
        "many" => "smaller",
        "96" => "80",
        word => word,
    });
    ok("host-trainer", root, &smaller);
    let mut other = again.clone();
    other[2] = "smaller";
    fails(
        "host-trainer",
        root,
        &[&other[..], &["--segmentation-from", "v.awr"]].concat(),
        &["another input size"],
    );
    let alone = all.iter().filter(|word| **word != "--variation").copied();
    let alone: Vec<&str> = alone.chain(["--segmentation"]).collect();
    fails("host-trainer", root, &alone, &["required arguments"]);
}

/// An 8-bit package is smaller and passes the same parity gate. Tests in `host-trainer` cover that
/// it is refused if it costs quality.
#[test]
fn a_package_in_8_bits_gives_nearly_the_same_scores() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    tiny_package(root);
    let text = ok(
        "host-trainer",
        root,
        &[
            "package", "--run", "run", "--key", "k.key", "--name", "tiny", "--out", "i.awr",
            "--int8",
        ],
    );
    assert!(text.contains("int8: pixel AUROC"), "{text}");
    let bytes = |name: &str| std::fs::metadata(root.join(name)).unwrap().len();
    assert!(bytes("i.awr") < bytes("m.awr"));
    let scores = |package: &str| -> Vec<f64> {
        let output = run(
            "edge-runtime",
            root,
            &[
                "score",
                "--package",
                package,
                "data/test/hole/000.png",
                "data/test/good/000.png",
                "--json",
            ],
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let frames = json["images"].as_array().unwrap();
        frames
            .iter()
            .map(|frame| frame["score"].as_f64().unwrap())
            .collect()
    };
    let (plain, int8) = (scores("m.awr"), scores("i.awr"));
    assert_eq!(plain.len(), 2);
    for (plain, int8) in plain.iter().zip(&int8) {
        assert!(
            plain != int8 && (int8 / plain - 1.0).abs() < 0.05,
            "{int8} instead of {plain}"
        );
    }
}

#[test]
fn a_resumed_run_ends_where_an_uninterrupted_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 4, 1);
    let train = |run: &str, iterations: &str, extra: &[&str]| {
        ok(
            "host-trainer",
            root,
            &[
                &["train", "--run", run, "--iterations", iterations],
                TINY,
                extra,
            ]
            .concat(),
        );
    };
    train("whole", "7", &[]);
    train("again", "7", &[]);
    train("parts", "3", &[]);
    train("parts", "7", &["--resume", "--workers", "2"]);
    let weights = |run: &str| -> Vec<Vec<f32>> {
        let saved = Checkpoint::open(&root.join(run).join("checkpoint.safetensors")).unwrap();
        assert_eq!(saved.progress.iterations, 7);
        layer_shapes(3, 4)
            .iter()
            .flat_map(|layer| ["", ".first", ".second"].map(|part| (layer.clone(), part)))
            .map(|(layer, part)| {
                saved
                    .values(
                        &format!("{}.weight{part}", layer.name),
                        &layer.weight_size(),
                    )
                    .unwrap()
            })
            .collect()
    };
    assert_eq!(weights("whole"), weights("again"));
    assert_eq!(weights("whole"), weights("parts"));
    let losses = |run: &str| std::fs::read_to_string(root.join(run).join("losses.csv")).unwrap();
    assert_eq!(losses("whole"), losses("parts"));
    fails(
        "host-trainer",
        root,
        &[&["train", "--run", "whole"], TINY].concat(),
        &["already holds a run", "--resume"],
    );
    let other = [
        &["train", "--run", "whole", "--resume", "--seed", "9"],
        TINY,
    ]
    .concat();
    fails("host-trainer", root, &other, &["seed differs", "found 9"]);
}

#[test]
fn averages_are_resumed_and_packaged() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 4, 1);
    let train = |run: &str, iterations: &str, extra: &[&str]| {
        let all = ["train", "--run", run, "--iterations", iterations];
        ok("host-trainer", root, &[&all, TINY, extra].concat());
    };
    train("plain", "6", &[]);
    train("whole", "6", &["--average", "0.9"]);
    train("parts", "4", &["--average", "0.9"]);
    train("parts", "6", &["--average", "0.9", "--resume"]);
    let saved =
        |run: &str| Checkpoint::open(&root.join(run).join("checkpoint.safetensors")).unwrap();
    let size = layer_shapes(3, 4)[0].weight_size();
    let average = |run: &str| saved(run).values("conv1.weight.average", &size).unwrap();
    assert_eq!(average("whole"), average("parts"));
    // Averaging does not change the trained weights, only the packaged ones.
    let weights = |run: &str| saved(run).values("conv1.weight", &size).unwrap();
    assert_eq!(weights("plain"), weights("whole"));
    let packaged = |run: &str| {
        saved(run).layers(&Architecture::paper(4)).unwrap()[0]
            .weight
            .clone()
    };
    assert_eq!(packaged("plain"), weights("plain"));
    assert_eq!(packaged("whole"), average("whole"));
    assert_ne!(average("whole"), weights("whole"));
    // The learning rate of a schedule depends on the number of iterations, so it cannot be resumed
    // with another.
    train("falling", "4", &["--schedule", "cosine"]);
    let longer = ["train", "--run", "falling", "--iterations", "6", "--resume"];
    let longer = [&longer, TINY, &["--schedule", "cosine"]].concat();
    fails(
        "host-trainer",
        root,
        &longer,
        &["iterations differs", "cosine"],
    );
}

#[test]
fn a_narrow_network_is_trained_with_a_wide_one_as_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 4, 1);
    let wide = [
        "train",
        "--run",
        "wide",
        "--iterations",
        "30",
        "--width",
        "8",
    ];
    let words: Vec<&str> = TINY.to_vec();
    let without = |options: &[&str]| -> Vec<&str> {
        let pairs = words.chunks(2).filter(|pair| !options.contains(&pair[0]));
        pairs.flatten().copied().collect()
    };
    ok(
        "host-trainer",
        root,
        &[&wide, &without(&["--width"])[..]].concat(),
    );
    let narrow = [
        "train",
        "--run",
        "narrow",
        "--iterations",
        "150",
        "--teacher",
        "wide",
    ];
    ok(
        "host-trainer",
        root,
        &[&narrow, &without(&["--loss"])[..]].concat(),
    );
    let losses = std::fs::read_to_string(root.join("narrow/losses.csv")).unwrap();
    let losses: Vec<f64> = losses
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).unwrap().parse().unwrap())
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[140..]));
    assert!(last < 0.7 * first, "{first} to {last}");
    ok("host-trainer", root, &["keygen", "--out", "k.key"]);
    ok(
        "host-trainer",
        root,
        &[
            "package", "--run", "narrow", "--key", "k.key", "--name", "n", "--out", "n.awr",
        ],
    );
    let text = ok("host-trainer", root, &["inspect-package", "n.awr"]);
    assert!(
        text.contains("distance from a network of width 8"),
        "{text}"
    );
    // The teacher's maps are for frames of its own size only.
    let other = [
        "train",
        "--run",
        "other",
        "--teacher",
        "wide",
        "--size",
        "72",
    ];
    let other = [&other, &without(&["--loss", "--size"])[..]].concat();
    fails(
        "host-trainer",
        root,
        &other,
        &["the teacher sees", "--size"],
    );
}

#[test]
fn every_mode_trains_and_packages() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    synth(root, 4, 1);
    ok("host-trainer", root, &["keygen", "--out", "k.key"]);
    let cases: [&[&str]; 5] = [
        &["--mode", "denoising"],
        &["--mode", "reconstruction"],
        &["--mode", "reconstruction", "--loss", "ssim"],
        &["--activation", "tanh", "--noise", "opaque,speckle"],
        &[
            "--loss",
            "perceptual",
            "--features",
            "random:3",
            "--without",
            "morphological",
        ],
    ];
    for (index, extra) in cases.into_iter().enumerate() {
        let name = format!("run{index}");
        // --loss may be given only once.
        let settings: Vec<&str> = if extra.contains(&"--loss") {
            TINY.iter()
                .copied()
                .filter(|word| !["--loss", "l2"].contains(word))
                .collect()
        } else {
            TINY.to_vec()
        };
        ok(
            "host-trainer",
            root,
            &[
                &["train", "--run", &name, "--iterations", "2"],
                &settings[..],
                extra,
            ]
            .concat(),
        );
        let out = format!("{name}.awr");
        ok(
            "host-trainer",
            root,
            &[
                "package", "--run", &name, "--key", "k.key", "--name", "x", "--out", &out,
            ],
        );
        ok(
            "host-trainer",
            root,
            &["evaluate", "--package", &out, "--data", "data"],
        );
    }
}

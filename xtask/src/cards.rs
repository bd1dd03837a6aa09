//! `cargo xtask cards`: measures the released models again and writes their cards,
//! `models/NAME/README.md`.
//!
//! In: `models/NAME/card.toml` with the texts that no program can know, the package's manifest, and
//! what `host-trainer evaluate` finds with the package on the model's data set, and on the frames
//! beside the card where there are any. Out: the cards, or with `--check` which are out of date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use proto::manifest::Manifest;
use serde::Deserialize;

use crate::setup;
use crate::workspace::{build_all, target};

/// The only key whose packages get a card.
const KEY: &str = "models/samples-only.key.pub";
/// Lines of prose end here.
const LINE_CHARS: usize = 100;
/// In the place of a figure that cannot be given.
const NONE: &str = "–";

/// The command line.
struct Options {
    data: PathBuf,
    /// Names of models; empty for all of them.
    only: Vec<String>,
    check: bool,
    program: Option<PathBuf>,
}

/// `card.toml`. Prose is Markdown, in which `{name}` stands for a figure of [`named_figures`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    /// Name of the data set's folder.
    data: String,
    /// What the model is for and how it scores.
    summary: String,
    /// What the picture shows.
    caption: String,
    /// Where the images come from, and the licence.
    sources: String,
    /// More rows of the training table: name and value.
    settings: Vec<[String; 2]>,
    /// The commands that made the package.
    commands: String,
    /// What the threshold rests on.
    threshold: String,
    /// Why the false rejects at the threshold say nothing, which then are not shown.
    false_rejects: Option<String>,
    /// How far the figures carry.
    quality: String,
    /// What the frames beside the card are. Without it, the model has none.
    frames: Option<String>,
    /// Other ways to score and train, with their figures, which are not measured again.
    comparisons: String,
    /// What the model cannot do.
    limits: String,
}

/// What `host-trainer evaluate --json` prints, as far as a card shows it.
#[derive(Deserialize)]
struct Evaluation {
    #[serde(flatten)]
    total: Figures,
    good_images: u64,
    skipped_images: u64,
    kinds: BTreeMap<String, Figures>,
}

/// Figures of all frames, or of one kind of defect.
#[derive(Deserialize)]
struct Figures {
    images: u64,
    with_ground_truth: u64,
    pixel_auroc: Option<f64>,
    aupro: Option<f64>,
    pixel_aupr: Option<f64>,
    f1_max: Option<f64>,
    f1_max_threshold: Option<f64>,
    normal_scores: Option<NormalScores>,
    image_auroc: Option<f64>,
    image_aupr: Option<f64>,
    false_reject_rate: Option<f64>,
    miss_rate: Option<f64>,
}

/// Scores of defect-free pixels.
#[derive(Deserialize)]
struct NormalScores {
    median: f64,
    p99: f64,
    p99_9: f64,
}

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let program = match &options.program {
        Some(program) => std::path::absolute(program)?,
        None => {
            setup::run(root, None)?;
            build_all(root)?;
            target(root).join("debug").join("host-trainer")
        }
    };
    let data = std::path::absolute(&options.data)?;
    let mut out_of_date = Vec::new();
    for name in chosen(root, &options.only)? {
        let folder = root.join("models").join(&name);
        let text = measured_card(root, &program, &name, &data)
            .with_context(|| format!("the card of {name}"))?;
        let path = folder.join("README.md");
        if !options.check {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            out_of_date.push(name);
        }
    }
    if !out_of_date.is_empty() {
        bail!(
            "the cards of {} are out of date: run `cargo xtask cards` without --check",
            out_of_date.join(", ")
        );
    }
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut data = None;
    let mut options = Options {
        data: PathBuf::new(),
        only: Vec::new(),
        check: false,
        program: None,
    };
    let mut words = arguments.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word {
            "--data" => data = Some(PathBuf::from(value()?)),
            "--only" => options.only.push(value()?.to_owned()),
            "--check" => options.check = true,
            "--program" => options.program = Some(PathBuf::from(value()?)),
            other => bail!("unknown option {other}; `cargo xtask help` lists them"),
        }
    }
    options.data = data.context("--data FOLDER is needed: where the models' data sets are")?;
    Ok(options)
}

/// Names of the models that have a `card.toml`, or of those in `only`.
fn chosen(root: &Path, only: &[String]) -> Result<Vec<String>> {
    let models = root.join("models");
    let mut names = Vec::new();
    for entry in fs::read_dir(&models).with_context(|| format!("reading {}", models.display()))? {
        let path = entry?.path();
        if path.join("card.toml").is_file() {
            let name = path.file_name().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        bail!(
            "no models/{unknown}/card.toml; the models are {}",
            names.join(", ")
        );
    }
    names.retain(|name| only.is_empty() || only.contains(name));
    Ok(names)
}

/// Measures a model and returns its card.
fn measured_card(root: &Path, program: &Path, name: &str, data: &Path) -> Result<String> {
    let folder = root.join("models").join(name);
    let package = folder.join(format!("{name}.awr"));
    let path = folder.join("card.toml");
    let texts = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let texts: Texts =
        toml::from_str(&texts).with_context(|| format!("reading {}", path.display()))?;
    let mut inspect = Command::new(program);
    inspect.arg("inspect-package").arg(&package);
    let manifest: Manifest = printed(root, &mut inspect)?;
    let evaluated = |data: &Path| -> Result<Evaluation> {
        let mut evaluate = Command::new(program);
        evaluate.arg("evaluate").arg("--package").arg(&package);
        evaluate.arg("--data").arg(data);
        let found: Evaluation = printed(root, &mut evaluate)?;
        ensure!(
            found.skipped_images == 0,
            "{} images of {} cannot be read",
            found.skipped_images,
            data.display()
        );
        Ok(found)
    };
    let found = evaluated(&data.join(&texts.data))?;
    let frames = match texts.frames {
        Some(_) => Some(evaluated(&folder.join("frames"))?),
        None => None,
    };
    card(name, &texts, &manifest, &found, frames.as_ref())
}

/// What a command of host-trainer prints with `--json`. Packages of other signers are refused.
fn printed<T: for<'a> Deserialize<'a>>(root: &Path, command: &mut Command) -> Result<T> {
    command.arg("--trust").arg(root.join(KEY)).arg("--json");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", command.get_program().display()))?;
    let words: Vec<_> = command.get_args().map(|word| word.display()).collect();
    ensure!(output.status.success(), "`host-trainer {words:?}` failed");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("unexpected output of `host-trainer {words:?}`"))
}

/// The whole text of a card.
fn card(
    name: &str,
    texts: &Texts,
    manifest: &Manifest,
    found: &Evaluation,
    frames: Option<&Evaluation>,
) -> Result<String> {
    let figures = named_figures(manifest, found);
    let prose = |text: &str| -> Result<String> { Ok(wrapped(&filled(text, &figures)?)) };
    let mut blocks = vec![
        "<!-- Generated by `cargo xtask cards` from card.toml and a new evaluation: do not edit. -->"
            .to_owned(),
        format!("# {name}"),
        prose(&texts.summary)?,
        "![Input, anomaly map, pixels above a score in red, ground truth](example.jpg)".to_owned(),
        prose(&format!("*{}*", texts.caption.trim()))?,
        "## Data and licence".to_owned(),
        prose(&texts.sources)?,
        prose(&counts(manifest, found))?,
        "## Training".to_owned(),
        training_table(manifest, &texts.settings),
        shell(&texts.commands),
        "## Threshold".to_owned(),
        prose(&promise(manifest)?)?,
        prose(&texts.threshold)?,
        "## Quality".to_owned(),
        prose(&texts.quality)?,
        prose("Measured with the package itself, on {images} test images:")?,
        quality_table(&found.total, texts.false_rejects.as_deref()),
        kinds_table(&found.kinds),
        wrapped(
            "Times depend on the machine and are in \
             [benchmarks](../../edge-runtime/BENCHMARKS.md). To measure the model again, with the \
             data set in the folder `DATA`:",
        ),
        shell(&format!(
            "host-trainer evaluate --package models/{name}/{name}.awr \\\n  --data DATA/{}\n\
             cargo xtask cards --data DATA --only {name} --check",
            texts.data
        )),
    ];
    if let (Some(text), Some(frames)) = (&texts.frames, frames) {
        blocks.push("## Quality on the frames in this folder".to_owned());
        blocks.push(prose(text)?);
        blocks.push(frames_table(&frames.total));
        blocks.push(shell(&format!(
            "host-trainer evaluate --package models/{name}/{name}.awr \\\n  --data models/{name}/frames"
        )));
    }
    blocks.extend([
        "## Other ways to score and train".to_owned(),
        prose(&texts.comparisons)?,
        "## What it cannot do".to_owned(),
        prose(&texts.limits)?,
    ]);
    Ok(blocks.join("\n\n") + "\n")
}

/// How many images the model was trained on and is measured on.
fn counts(manifest: &Manifest, found: &Evaluation) -> String {
    let held_out = match manifest.training.held_out_images {
        0 => "none are held out".to_owned(),
        count => format!("{count} more are held out"),
    };
    let defective = found.total.images - found.good_images;
    let with_ground_truth = match found.total.with_ground_truth {
        count if count == defective => "all of them with a ground truth".to_owned(),
        count => format!("{count} of them with a ground truth"),
    };
    format!(
        "The model is trained on {} good images; {held_out}. It is measured on {} test images: {} \
         good and {defective} defective, {with_ground_truth}.",
        manifest.training.file_ids.len(),
        found.total.images,
        found.good_images,
    )
}

fn training_table(manifest: &Manifest, more: &[[String; 2]]) -> String {
    let training = &manifest.training;
    let mut rows = vec![
        [
            "mode, loss, activation".to_owned(),
            format!(
                "{}, {}, {}",
                format!("{:?}", training.mode).to_lowercase(),
                training.loss,
                training.activation
            ),
        ],
        ["features".to_owned(), training.features.clone()],
        ["noise".to_owned(), rounded(&training.noise)],
        ["width".to_owned(), manifest.network.width.to_string()],
        ["iterations".to_owned(), training.iterations.to_string()],
        ["batch".to_owned(), format!("{} tiles", training.batch)],
        ["seed".to_owned(), training.seed.to_string()],
    ];
    rows.extend_from_slice(more);
    table(&["setting", "value"], &rows)
}

/// Rounds the percentages of a text to tenths: some packages say "±30.000002 %", because the
/// trainer computed with single precision.
fn rounded(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let number = word
            .strip_prefix('±')
            .and_then(|number| number.parse::<f64>().ok());
        number.map_or_else(
            || word.to_owned(),
            |number| format!("±{}", (number * 10.0).round() / 10.0),
        )
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The threshold, and the bound on its false rejects.
fn promise(manifest: &Manifest) -> Result<String> {
    let threshold = manifest
        .threshold
        .as_ref()
        .context("the package has no threshold")?;
    let unit = match manifest.normal_map.is_some() || manifest.variation.is_some() {
        true => "standard deviations",
        false => "(sum of |A| over channels)",
    };
    let bound = match threshold.promise {
        None => "without a promise".to_owned(),
        Some(promise) => format!(
            "at most {:.1} false rejects per 10,000 good parts in the long run, at {} % confidence",
            // Rounded up, so that the card promises no more than the package.
            (promise.max_false_rejects_per_10_000 * 10.0).ceil() / 10.0,
            (promise.confidence * 1000.0).round() / 10.0
        ),
    };
    Ok(format!(
        "**{:.4}** {unit}: {bound}, from {} good parts.",
        threshold.value, threshold.parts
    ))
}

fn quality_table(total: &Figures, false_rejects: Option<&str>) -> String {
    let mut rows = vec![
        ["pixel AUROC", &figure(total.pixel_auroc)].map(str::to_owned),
        ["AUPRO (30 %)", &figure(total.aupro)].map(str::to_owned),
        ["pixel AUPR", &figure(total.pixel_aupr)].map(str::to_owned),
        [
            "F1-max over pixels",
            &format!(
                "{} at {}",
                figure(total.f1_max),
                figure(total.f1_max_threshold)
            ),
        ]
        .map(str::to_owned),
        ["image AUROC", &figure(total.image_auroc)].map(str::to_owned),
        ["image AUPR", &figure(total.image_aupr)].map(str::to_owned),
    ];
    if let Some(normal) = &total.normal_scores {
        rows.push([
            "scores of defect-free pixels".to_owned(),
            format!(
                "median {:.4}, 99 % below {:.4}, 99.9 % below {:.4}",
                normal.median, normal.p99, normal.p99_9
            ),
        ]);
    }
    rows.push([
        "false rejects at the threshold".to_owned(),
        false_rejects.map_or_else(|| percent(total.false_reject_rate), str::to_owned),
    ]);
    rows.push([
        "misses at the threshold".to_owned(),
        percent(total.miss_rate),
    ]);
    table(&["figure", "value"], &rows)
}

fn kinds_table(kinds: &BTreeMap<String, Figures>) -> String {
    let rows: Vec<_> = kinds
        .iter()
        .map(|(name, kind)| {
            [
                name.clone(),
                kind.images.to_string(),
                kind.with_ground_truth.to_string(),
                figure(kind.pixel_auroc),
                figure(kind.aupro),
                figure(kind.pixel_aupr),
                figure(kind.image_auroc),
                percent(kind.miss_rate),
            ]
        })
        .collect();
    let head = [
        "kind",
        "frames",
        "with ground truth",
        "pixel AUROC",
        "AUPRO",
        "pixel AUPR",
        "image AUROC",
        "misses",
    ];
    table(&head, &rows)
}

/// The table that a test in `tests/tests/cards.rs` measures again.
fn frames_table(total: &Figures) -> String {
    let rows = [
        ["pixel AUROC", &figure(total.pixel_auroc)].map(str::to_owned),
        ["AUPRO (30 %)", &figure(total.aupro)].map(str::to_owned),
        ["pixel AUPR", &figure(total.pixel_aupr)].map(str::to_owned),
        ["image AUROC", &figure(total.image_auroc)].map(str::to_owned),
        ["image AUPR", &figure(total.image_aupr)].map(str::to_owned),
    ];
    table(&["figure", "value"], &rows)
}

/// A table in Markdown.
fn table<const COLUMNS: usize>(head: &[&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let mut lines = vec![
        line(head.map(str::to_owned).to_vec()),
        format!("|{}", "---|".repeat(COLUMNS)),
    ];
    for row in rows {
        lines.push(line(
            row.iter().map(|cell| cell.replace('|', "\\|")).collect(),
        ));
    }
    lines.join("\n")
}

fn shell(commands: &str) -> String {
    format!("```sh\n{}\n```", commands.trim())
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.3}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(
        || NONE.to_owned(),
        |value| format!("{:.1} %", 100.0 * value),
    )
}

/// The figures that `card.toml` may name: `{aupro}` of all frames, `{crack.aupro}` of one kind.
fn named_figures(manifest: &Manifest, found: &Evaluation) -> BTreeMap<String, String> {
    let training = &manifest.training;
    let mut named = BTreeMap::from([
        ("good_images".to_owned(), found.good_images.to_string()),
        (
            "training_images".to_owned(),
            training.file_ids.len().to_string(),
        ),
        (
            "held_out_images".to_owned(),
            training.held_out_images.to_string(),
        ),
        (
            "parts".to_owned(),
            manifest
                .threshold
                .as_ref()
                .map_or(0, |threshold| threshold.parts)
                .to_string(),
        ),
    ]);
    let kinds = found.kinds.iter();
    let kinds = kinds.map(|(name, kind)| (format!("{name}."), kind));
    for (prefix, figures) in kinds.chain([(String::new(), &found.total)]) {
        named.extend(
            [
                ("images", figures.images.to_string()),
                ("with_ground_truth", figures.with_ground_truth.to_string()),
                ("pixel_auroc", figure(figures.pixel_auroc)),
                ("aupro", figure(figures.aupro)),
                ("pixel_aupr", figure(figures.pixel_aupr)),
                ("image_auroc", figure(figures.image_auroc)),
                ("image_aupr", figure(figures.image_aupr)),
                ("false_rejects", percent(figures.false_reject_rate)),
                ("misses", percent(figures.miss_rate)),
            ]
            .map(|(name, value)| (format!("{prefix}{name}"), value)),
        );
    }
    named.insert(
        "defective_images".to_owned(),
        (found.total.images - found.good_images).to_string(),
    );
    named
}

/// Puts figures in the places of their `{names}`.
fn filled(text: &str, figures: &BTreeMap<String, String>) -> Result<String> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .context("card.toml: a `{` without its `}`")?;
        let value = figures.get(name).with_context(|| {
            let names: Vec<_> = figures.keys().map(String::as_str).collect();
            format!(
                "card.toml: there is no {{{name}}}, only {}",
                names.join(", ")
            )
        })?;
        done += before;
        done += value;
        rest = after;
    }
    Ok(done + rest)
}

/// Breaks the lines of paragraphs. Tables, pictures and lists stay as they are.
fn wrapped(text: &str) -> String {
    let blocks = text.trim().split("\n\n").map(|block| {
        if block.starts_with(['|', '!', '#', '-']) {
            return block.to_owned();
        }
        let mut lines: Vec<String> = Vec::new();
        for word in block.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE_CHARS => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines.join("\n")
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"{
        "schema": 1, "images": 24, "with_ground_truth": 11, "pixel_auroc": 0.99833,
        "aupro": 0.99389, "pixel_aupr": 0.71739, "f1_max": 0.66934, "f1_max_threshold": 0.12067842,
        "normal_scores": { "median": 0.0055088704, "p99": 0.036222987, "p99_9": 0.2136864 },
        "image_auroc": 1.0, "image_aupr": null, "false_reject_rate": 0.25, "miss_rate": 0.0,
        "threshold": 0.06163622, "half_precision": false, "frame_ms": 15.3, "good_images": 4,
        "skipped_images": 0,
        "kinds": { "cut": {
            "images": 4, "with_ground_truth": 2, "pixel_auroc": 0.9984, "aupro": 0.996,
            "pixel_aupr": 0.434, "f1_max": 0.5, "f1_max_threshold": 0.1, "normal_scores": null,
            "image_auroc": 1.0, "image_aupr": 1.0, "false_reject_rate": 0.25, "miss_rate": 0.125
        } }
    }"#;

    #[test]
    fn tables_show_what_evaluate_prints() {
        let found: Evaluation = serde_json::from_str(PRINTED).unwrap();
        let quality = quality_table(&found.total, None);
        for row in [
            "| pixel AUROC | 0.998 |",
            "| F1-max over pixels | 0.669 at 0.121 |",
            "| image AUPR | – |",
            "| scores of defect-free pixels | median 0.0055, 99 % below 0.0362, 99.9 % below 0.2137 |",
            "| false rejects at the threshold | 25.0 % |",
        ] {
            assert!(quality.contains(row), "`{row}` in {quality}");
        }
        let quality = quality_table(&found.total, Some("these very frames"));
        assert!(quality.contains("| false rejects at the threshold | these very frames |"));
        assert_eq!(
            kinds_table(&found.kinds).lines().last(),
            Some("| cut | 4 | 2 | 0.998 | 0.996 | 0.434 | 1.000 | 12.5 % |")
        );
        assert!(frames_table(&found.total).contains("| AUPRO (30 %) | 0.994 |"));
    }

    #[test]
    fn figures_replace_their_names_and_unknown_names_are_refused() {
        let figures = BTreeMap::from([("cut.aupro".to_owned(), "0.996".to_owned())]);
        let text = filled("AUPRO {cut.aupro} here", &figures).unwrap();
        assert_eq!(text, "AUPRO 0.996 here");
        let error = filled("{hole.aupro}", &figures).unwrap_err().to_string();
        assert!(
            error.contains("hole.aupro") && error.contains("cut.aupro"),
            "{error}"
        );
    }

    #[test]
    fn prose_is_wrapped_and_tables_are_not() {
        let word = "word ".repeat(30);
        let row = format!("| {word} |");
        let text = wrapped(&format!("{word}\n\n{row}"));
        let (prose, table) = text.split_once("\n\n").unwrap();
        assert_eq!(prose.lines().map(str::len).collect::<Vec<_>>(), [99, 49]);
        assert_eq!(table, row);
    }

    #[test]
    fn noise_loses_the_digits_of_single_precision() {
        assert_eq!(
            rounded("all twelve algorithms; lighting ±30.000002 %"),
            "all twelve algorithms; lighting ±30 %"
        );
    }
}

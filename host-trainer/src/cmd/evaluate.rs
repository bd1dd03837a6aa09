//! `host-trainer evaluate`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use edge_runtime::infer::{Half, Tuning};
use edge_runtime::inspect::region::Region;
use edge_runtime::inspect::verdict::Verdict;
use edge_runtime::inspector::{Inspection, Inspector};
use edge_runtime::io::atomic::write_atomic;
use edge_runtime::io::picture::tiff;
use edge_runtime::package::key_id;
use host_trainer::dataset::{TestItem, digest_of_files, test_items};
use host_trainer::evaluate::{Report, Summary, evaluate, html};
use host_trainer::package::{Draft, file_id};
use proto::manifest::EvaluationSummary;
use serde::Serialize;

use super::package::{ScoringMode, facts, open, signing_key};
use super::progress;

/// Measure a package on a labelled data set, with the code that the camera runs.
///
/// DATA is in MVTec AD's layout: test/good, test/<kind>, ground_truth/<kind>/<name>_mask.png. Images without a mask
/// count for image metrics only.
#[derive(Args)]
pub(crate) struct Evaluate {
    /// The package.
    #[arg(long)]
    package: PathBuf,
    /// The data set.
    #[arg(long)]
    data: PathBuf,
    /// Folder for report.html and metrics.json; also for temporary data, which can take gigabytes with many large
    /// frames (without --out they are in the system's temporary folder).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Accept only packages signed by this public key; may be given several times.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Score in another mode than the package's (its threshold does not apply then).
    #[arg(long)]
    scoring: Option<ScoringMode>,
    /// Score in half precision, as a camera with `half_precision = true` does. Where the processor has no arithmetic for it, that is
    /// emulated, some hundred times slower.
    #[arg(long, conflicts_with = "record")]
    half: bool,
    /// Folder for every frame's verdict, score and regions (frames.json) and its exact anomaly map (32-bit float TIFF,
    /// as MVTec's evaluation scripts read them).
    #[arg(long)]
    maps: Option<PathBuf>,
    /// Record the main figures in the package, signed anew with this key.
    #[arg(long, value_name = "SIGNING.key", conflicts_with = "scoring")]
    record: Option<PathBuf>,
    /// Most frames shown in the report.
    #[arg(long, default_value_t = 300)]
    rows: usize,
}

impl Evaluate {
    pub(crate) fn run(self) -> Result<()> {
        let package = open(&self.package, &self.trust)?;
        if self.trust.is_empty() {
            eprintln!(
                "signed by {}; --trust KEY.pub checks whose that is",
                key_id(package.signer())
            );
        }
        let key = self.record.as_deref().map(signing_key).transpose()?;
        let tuning = Tuning {
            half: if self.half { Half::Always } else { Half::Off },
            ..Tuning::default()
        };
        let mut inspector = Inspector::tuned(&package, &tuning)?;
        if let Some(mode) = self.scoring {
            inspector = inspector.with_scoring(mode.scoring());
        }
        let items = test_items(&self.data)?;
        let bar = progress::bar(items.len(), "scoring");
        let rows = if self.out.is_some() { self.rows } else { 0 };
        let scratch = scratch(self.out.as_deref());
        let mut frames = Vec::new();
        let mut written = Ok(());
        let evaluation = evaluate(
            &inspector,
            &items,
            rows,
            &scratch,
            &mut |done| bar.set_position(done as u64),
            &mut |item, found| {
                if let (Some(folder), Ok(())) = (&self.maps, &written) {
                    written = write_map(folder, item, found).map(|entry| frames.push(entry));
                }
            },
        )?;
        written?;
        bar.finish_and_clear();
        for line in &evaluation.skipped {
            eprintln!("skipped {line}");
        }
        let trained_on = &package.manifest().training.file_ids;
        let seen = evaluation.digests.iter().map(file_id);
        let seen = seen.filter(|id| trained_on.contains(id)).count();
        if seen > 0 {
            eprintln!(
                "warning: the model was trained on {seen} of the {} test images; the figures flatter it",
                evaluation.digests.len()
            );
        }
        let good = evaluation.frames.iter().zip(&evaluation.digests);
        let good: Vec<[u8; 32]> = good
            .filter(|(frame, _)| !frame.defect)
            .map(|(_, digest)| *digest)
            .collect();
        let threshold = package.manifest().threshold.as_ref();
        if threshold.is_some_and(|t| t.calibration_digest == digest_of_files(&good)) {
            eprintln!(
                "warning: the threshold was calibrated on these very good frames; their false rejects say nothing"
            );
        }
        if let Some(folder) = &self.maps {
            let json = serde_json::to_string_pretty(&frames)?;
            write_atomic(&folder.join("frames.json"), json.as_bytes())?;
        }
        if let Some(folder) = &self.out {
            let manifest = inspector.manifest();
            let report = Report {
                title: format!("{} {}", manifest.name, manifest.version),
                subtitle: format!(
                    "{}: {} test frames{}",
                    self.data_name(),
                    evaluation.summary.total.images,
                    if evaluation.summary.half_precision {
                        ", scored in half precision"
                    } else {
                        ""
                    }
                ),
                facts: facts(manifest, package.signer(), inspector.threshold().is_some()),
            };
            let page = html(&report, &evaluation);
            write_atomic(&folder.join("report.html"), page.as_bytes())?;
            let json = serde_json::to_string_pretty(&evaluation.summary)?;
            write_atomic(&folder.join("metrics.json"), json.as_bytes())?;
        }
        if let Some(key) = &key {
            let mut draft = Draft::from_package(&package);
            draft.manifest.evaluation = Some(EvaluationSummary {
                data: self.data_name(),
                data_digest: digest_of_files(&evaluation.digests),
                images: evaluation.summary.total.images as u32,
                pixel_auroc: evaluation.summary.total.pixel_auroc,
                aupro: evaluation.summary.total.aupro,
                image_auroc: evaluation.summary.total.image_auroc,
            });
            write_atomic(&self.package, &draft.sign(key)?)?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&evaluation.summary)?);
        } else {
            print(&evaluation.summary);
            if let Some(folder) = &self.out {
                println!("report: {}", folder.join("report.html").display());
            }
        }
        Ok(())
    }

    fn data_name(&self) -> String {
        let name = self.data.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Where temporary data goes: where the report will be, because the system's temporary folder is often in memory, and a
/// thousand large maps need gigabytes.
fn scratch(out: Option<&Path>) -> PathBuf {
    let beside = out.and_then(|out| std::path::absolute(out).ok());
    let exists = beside.and_then(|out| {
        let mut folders = out.ancestors().filter(|folder| folder.is_dir());
        folders.next().map(Path::to_owned)
    });
    exists.unwrap_or_else(std::env::temp_dir)
}

/// What is said of a frame beside its map.
#[derive(Serialize)]
struct FrameEntry {
    image: String,
    kind: String,
    map: String,
    verdict: Option<Verdict>,
    score: f32,
    regions: Vec<Region>,
}

fn write_map(folder: &Path, item: &TestItem, found: &Inspection) -> Result<FrameEntry> {
    let stem = item.image.file_stem().unwrap_or_default().to_string_lossy();
    let map = format!("{}/{stem}.tiff", item.kind);
    write_atomic(&folder.join(&map), &tiff(&found.map)?)?;
    Ok(FrameEntry {
        image: item.image.display().to_string(),
        kind: item.kind.clone(),
        map,
        verdict: found.verdict,
        score: found.score,
        regions: found.regions.clone(),
    })
}

fn print(summary: &Summary) {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    let percent = |value: Option<f64>| {
        value.map_or_else(|| "–".to_owned(), |v| format!("{:.1} %", 100.0 * v))
    };
    println!(
        "{:<12} {:>6} {:>11} {:>6} {:>10} {:>11} {:>10} {:>7}",
        "kind",
        "frames",
        "pixel AUROC",
        "AUPRO",
        "pixel AUPR",
        "image AUROC",
        "image AUPR",
        "misses"
    );
    for (name, kind) in summary
        .kinds
        .iter()
        .map(|(n, k)| (n.as_str(), k))
        .chain([("all", &summary.total)])
    {
        println!(
            "{name:<12} {:>6} {:>11} {:>6} {:>10} {:>11} {:>10} {:>7}",
            kind.images,
            figure(kind.pixel_auroc),
            figure(kind.aupro),
            figure(kind.pixel_aupr),
            figure(kind.image_auroc),
            figure(kind.image_aupr),
            percent(kind.miss_rate)
        );
    }
    if summary.half_precision {
        println!("scored in half precision");
    }
    println!("F1-max over pixels {}", figure(summary.total.f1_max));
    if let Some(normal) = &summary.total.normal_scores {
        println!(
            "scores of defect-free pixels: median {:.4}, 99 % below {:.4}, 99.9 % below {:.4}",
            normal.median, normal.p99, normal.p99_9
        );
    }
    match summary.threshold {
        Some(threshold) => println!(
            "threshold {threshold:.4}: false rejects {}, misses {}",
            percent(summary.total.false_reject_rate),
            percent(summary.total.miss_rate)
        ),
        None => println!("no threshold in force: false rejects and misses cannot be said"),
    }
    if let Some(ms) = summary.frame_ms {
        println!("{ms:.1} ms a frame (median)");
    }
}

//! `host-trainer evaluate`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use host_trainer::dataset::{Groups, TestItem, test_items};
use host_trainer::evaluate::{Report, evaluate, html};
use host_trainer::package::Draft;
use scoring::infer::{Half, Tuning};
use scoring::inspect::region::Region;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};
use scoring::io::atomic::write_atomic;
use scoring::io::picture::tiff;
use scoring::package::key_id;
use serde::Serialize;

use super::arguments::ScoringMode;
use super::keys::{signing_key, verified_package};
use super::notices::report_ungrouped;
use super::progress;
use super::text::{evaluation_table, manifest_facts};

/// Measure a package on a labelled data set, with the code that the camera runs.
///
/// The data set is in MVTec AD's layout: test/good, test/<kind>,
/// ground_truth/<kind>/<name>_mask.png. Images without a mask count for image metrics only.
#[derive(Args)]
pub(crate) struct Evaluate {
    /// The package.
    #[arg(long)]
    package: PathBuf,
    /// Folder of the data set.
    #[arg(long)]
    data: PathBuf,
    /// CSV (file,group) with paths relative to --data: images of one group show the same part.
    /// Verdicts are then counted by part, and intervals allow for it.
    #[arg(long)]
    groups: Option<PathBuf>,
    /// Folder for report.html and metrics.json. Temporary data, which can take gigabytes with many
    /// large frames, is kept there too (without --out in the system's temporary folder).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Accept only packages signed by this public key; may be given several times.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Score in another mode than the package's; its threshold does not apply then.
    #[arg(long)]
    scoring: Option<ScoringMode>,
    /// Score in half precision, as a camera with `half_precision = true` does. Emulated, and very
    /// slow, if the processor has no arithmetic for it.
    #[arg(long, conflicts_with = "record")]
    half: bool,
    /// Folder for the verdict, score and regions of every frame (frames.json) and its exact anomaly
    /// map (32-bit float TIFF, as MVTec's evaluation scripts read them).
    #[arg(long)]
    maps: Option<PathBuf>,
    /// Record the main figures in the package and sign it again with this key.
    #[arg(long, value_name = "SIGNING.key", conflicts_with = "scoring")]
    record: Option<PathBuf>,
    /// Most frames to show in the report.
    #[arg(long, default_value_t = 300)]
    rows: usize,
}

impl Evaluate {
    pub(crate) fn run(self) -> Result<()> {
        let package = verified_package(&self.package, &self.trust)?;
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
        let groups = match &self.groups {
            Some(path) => Groups::read(path, &self.data)?,
            None => Groups::default(),
        };
        let files: Vec<PathBuf> = items.iter().map(|item| item.image.clone()).collect();
        report_ungrouped(&groups, &files)?;
        let bar = progress::bar(items.len(), "scoring");
        let rows = if self.out.is_some() { self.rows } else { 0 };
        let scratch = scratch(self.out.as_deref());
        let mut frames = Vec::new();
        let mut written = Ok(());
        let evaluation = evaluate(
            &inspector,
            &items,
            &groups,
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
        for warning in evaluation.summary.overlap.warnings(evaluation.images.len()) {
            eprintln!("warning: {warning}");
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
                facts: manifest_facts(manifest, package.signer(), inspector.threshold().is_some()),
            };
            let page = html(&report, &evaluation);
            write_atomic(&folder.join("report.html"), page.as_bytes())?;
            let json = serde_json::to_string_pretty(&evaluation.summary)?;
            write_atomic(&folder.join("metrics.json"), json.as_bytes())?;
        }
        if let Some(key) = &key {
            let mut draft = Draft::from_package(&package);
            draft.record_evaluation(self.data_name(), &evaluation);
            write_atomic(&self.package, &draft.sign(key)?)?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&evaluation.summary)?);
        } else {
            println!("{}", evaluation_table(&evaluation.summary));
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

/// Folder for temporary data: where the report will be, because the system's temporary folder is
/// often in memory, and many large maps need gigabytes.
fn scratch(out: Option<&Path>) -> PathBuf {
    let beside = out.and_then(|out| std::path::absolute(out).ok());
    let exists = beside.and_then(|out| {
        let mut folders = out.ancestors().filter(|folder| folder.is_dir());
        folders.next().map(Path::to_owned)
    });
    exists.unwrap_or_else(std::env::temp_dir)
}

/// The entry of a frame in frames.json.
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

//! `host-trainer evaluate`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use host_trainer::dataset::{Account, Found, Groups, Survey, TestItem, check_masks, test_items};
use host_trainer::evaluate::{Report, Summary, evaluate, html};
use host_trainer::package::Draft;
use scoring::infer::{Half, Tuning};
use scoring::inspect::region::Region;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{Inspection, Inspector};
use scoring::io::atomic::write_atomic;
use scoring::io::picture::tiff;
use scoring::io::text::path_text;
use scoring::package::key_id;
use serde::Serialize;

use super::arguments::ScoringMode;
use super::keys::{signing_key, verified_package};
use super::notices::{report_account, report_ungrouped};
use super::progress;
use super::text::{evaluation_table, manifest_facts};

/// Measure a package on a labelled data set, with the code that the camera runs.
///
/// The data set is in MVTec AD's layout: test/good, test/<kind>,
/// ground_truth/<kind>/<name>_mask.png. Images without a mask count for image metrics only. All
/// images and masks are read before scoring begins; what was used of them, what was left out and
/// why is printed, and is `account` in JSON.
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
    /// Exchange defects and good pixels in all masks: for masks that are black where a defect is.
    #[arg(long)]
    invert_masks: bool,
    /// Go on if more than a tenth of the images cannot be read.
    #[arg(long)]
    allow_unreadable: bool,
}

/// What `--json` prints and metrics.json has: the figures, and what they were measured on.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    account: &'a Account,
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
        let (items, mut account) = self.items(&inspector)?;
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
        let names = map_names(&items);
        let mut evaluation = evaluate(
            &inspector,
            &items,
            &groups,
            rows,
            &scratch,
            &mut |done| bar.set_position(done as u64),
            &mut |item, found| {
                if let (Some(folder), Ok(())) = (&self.maps, &written) {
                    let map = &names[item.image.as_path()];
                    written = write_map(folder, map, item, found).map(|entry| frames.push(entry));
                }
            },
        )?;
        written?;
        bar.finish_and_clear();
        for line in &evaluation.skipped {
            eprintln!("left out {line}");
        }
        if let Some(masks) = &mut account.masks {
            masks.small_regions = evaluation.small_regions;
        }
        evaluation.summary.skipped_images += account.images.unusable();
        if evaluation.small_regions > 0 {
            eprintln!(
                "note: {} defect regions are smaller or thinner than the pixels of the anomaly map; \
                 each counts as the map's pixels that it touches",
                evaluation.small_regions
            );
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
            let output = Output {
                summary: &evaluation.summary,
                account: &account,
            };
            let json = serde_json::to_string_pretty(&output)?;
            write_atomic(&folder.join("metrics.json"), json.as_bytes())?;
        }
        if let Some(key) = &key {
            let mut draft = Draft::from_package(&package);
            draft.record_evaluation(self.data_name(), &evaluation);
            write_atomic(&self.package, &draft.sign(key)?)?;
        }
        if self.json {
            let output = Output {
                summary: &evaluation.summary,
                account: &account,
            };
            println!("{}", serde_json::to_string_pretty(&output)?);
        } else {
            println!("{}", evaluation_table(&evaluation.summary));
            if let Some(folder) = &self.out {
                println!("report: {}", folder.join("report.html").display());
            }
        }
        Ok(())
    }

    /// The test images that can be used, with their masks, all of which were read.
    fn items(&self, inspector: &Inspector) -> Result<(Vec<TestItem>, Account)> {
        let Found { items, mut account } = test_items(&self.data)?;
        let files: Vec<PathBuf> = items.iter().map(|item| item.image.clone()).collect();
        let bar = progress::bar(files.len(), "reading images");
        let reading = inspector.reading();
        let size = inspector.manifest().input.size;
        let survey = Survey::of(&files, size, reading, &mut |done| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        // What was found until an error helps to understand it.
        let checked = survey.account(&mut account, self.allow_unreadable);
        let usable: HashSet<&Path> = survey
            .images
            .iter()
            .map(|image| image.file.as_path())
            .collect();
        let mut items: Vec<TestItem> = items
            .into_iter()
            .filter(|item| usable.contains(item.image.as_path()))
            .collect();
        let checked = checked.and_then(|()| {
            let bar = progress::bar(items.len(), "reading masks");
            let checked = check_masks(
                &mut items,
                &survey,
                self.invert_masks,
                &mut account,
                &mut |done| {
                    bar.set_position(done as u64);
                },
            );
            bar.finish_and_clear();
            checked
        });
        account.bits = survey.bits();
        check_depth(reading.bits, &mut account);
        report_account("test set", &account);
        checked?;
        Ok((items, account))
    }

    fn data_name(&self) -> String {
        let name = self.data.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Warns of 16-bit values of another number of bits than the package's files have.
fn check_depth(expected: u8, account: &mut Account) {
    if let Some(found) = account.bits.filter(|found| *found < expected) {
        account.warn(format!(
            "the values in 16-bit files have {found} bits, those that the model was trained on \
             {expected}: they are darker to the model than they look"
        ));
    }
}

/// A name for each image's map below the folder of maps: its own name below `test`, with the ending
/// of a map instead of its own, unless another image has the same name then.
fn map_names(items: &[TestItem]) -> HashMap<PathBuf, PathBuf> {
    let plain = |item: &TestItem| item.place().with_extension("tiff");
    let mut counts: HashMap<PathBuf, usize> = HashMap::new();
    for item in items {
        *counts.entry(plain(item)).or_default() += 1;
    }
    let mut taken: HashSet<PathBuf> = HashSet::new();
    let mut names = HashMap::new();
    // Plain names first: a longer one gives way to them.
    let (alone, others): (Vec<&TestItem>, Vec<&TestItem>) =
        items.iter().partition(|item| counts[&plain(item)] == 1);
    for item in alone.into_iter().chain(others) {
        let mut name = plain(item);
        let mut longer = item.place().into_os_string();
        while !taken.insert(name.clone()) || counts.get(&name).is_some_and(|count| *count > 1) {
            longer.push(".tiff");
            name = longer.clone().into();
        }
        names.insert(item.image.clone(), name);
    }
    names
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

fn write_map(folder: &Path, map: &Path, item: &TestItem, found: &Inspection) -> Result<FrameEntry> {
    write_atomic(&folder.join(map), &tiff(&found.map)?)?;
    Ok(FrameEntry {
        image: path_text(&item.image),
        kind: item.kind.clone(),
        map: path_text(map),
        verdict: found.verdict,
        score: found.score,
        regions: found.regions.clone(),
    })
}

//! `edge-runtime score`: scores image files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use proto::manifest::Scoring;
use scoring::inspect::preprocess::PreprocessError;
use scoring::inspect::roi::check;
use scoring::inspect::verdict::Verdict;
use scoring::inspector::{InspectError, Inspection, Inspector};
use scoring::io::account::ImageAccount;
use scoring::io::decode::{DecodeError, Orientation};
use scoring::io::image_file::{read_picture_as, read_roi_mask};
use scoring::io::listing::{Listing, images_within};
use scoring::package::{self, Trust, key_id, read_public_key};

use super::output::{Entry, Header, Output, PictureFiles, picture_names};

/// Distance between the paper's tiles (section IV-G: about 50 % overlap).
const REFERENCE_STRIDE_PX: u16 = 32;

const EXAMPLES: &str = "\
Examples:
  edge-runtime score --package leather.awr part-17.png
  edge-runtime score --package leather.awr --out found captured/
  edge-runtime score --package leather.awr --json *.png > scores.json";

/// Score images with a model package and print the verdict, score and defect regions of each.
///
/// The score of an image is the highest value of its anomaly map. The image is NG if the score is
/// greater than the package's threshold, and OK otherwise. A package without a threshold gives
/// scores but no verdicts. At the end it is said how many images were used and what was left out of
/// folders (`account` in JSON).
///
/// Exit codes: 0 every image is OK; 1 at least one is NG; 2 something failed: an image could not be
/// read (the others are still scored), or there is no threshold.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Score {
    /// Model package, as written by `host-trainer package`
    #[arg(long, short, value_name = "PACKAGE")]
    package: PathBuf,
    /// Images (PNG, JPEG, BMP, TIFF; 8 or 16 bit; grey or colour), or folders of them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Write a heat map of every image into this folder, and an overlay with the defects in red.
    /// Colours end at twice the threshold, or at the image's highest score if there is none
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Use this threshold instead of the package's
    #[arg(long, value_name = "SCORE", value_parser = threshold)]
    threshold: Option<f32>,
    /// Score in this mode instead of the package's. The package's threshold then does not apply
    #[arg(long, value_enum)]
    scoring: Option<ScoringMode>,
    /// Accept only packages signed by this public key; may be given several times. Without it, any
    /// valid signature is accepted, and the signer is printed
    #[arg(long, value_name = "KEY.pub")]
    trust: Vec<PathBuf>,
    /// Inspect only where this image is white, instead of the package's region of interest. It is
    /// stretched over the frame
    #[arg(long, value_name = "PNG")]
    roi_mask: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScoringMode {
    /// The paper's 65-pixel tiles at 50 % overlap, averaged (slow, the reference)
    Tiles,
    /// One pass over the whole frame (fast)
    Full,
}

fn threshold(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("expected a number of at least 0, found {text}")),
    }
}

/// The verdicts of all images in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summary {
    /// Every image is OK.
    AllOk,
    /// At least one image is NG, and none failed.
    SomeNg,
    /// At least one image has no verdict.
    SomeFailed,
}

impl Score {
    pub(crate) fn run(&self) -> Result<Summary> {
        if let Some(out) = &self.out {
            refuse_folder_of_images(out, &self.images)?;
        }
        let mut account = ImageAccount::default();
        let images = expand(&self.images, &mut account)?;
        let (inspector, signer) = self.inspector()?;
        if let Some(folder) = &self.out {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create folder {}", folder.display()))?;
        }
        let names = picture_names(&images);
        let mut output = Output::begin(self.json, Header::new(&inspector, signer))?;
        let (mut ng, mut failed) = (0usize, 0usize);
        for (path, name) in images.iter().zip(&names) {
            match self.score_one(&inspector, path, name) {
                Ok((found, pictures, turned)) => {
                    account.used += 1;
                    account.orientation_applied += usize::from(turned);
                    match found.verdict {
                        Some(Verdict::Ok) => {}
                        Some(Verdict::Ng) => ng += 1,
                        None => failed += 1,
                    }
                    output.add(Entry::scored(path, &found, pictures))?;
                }
                Err(error) => {
                    super::report(&error);
                    count_failure(&mut account, path, &error);
                    failed += 1;
                    output.add(Entry::failed(path, &error))?;
                }
            }
        }
        output.finish(&account)?;
        // Those that failed were named as they came.
        let left = account
            .left_out
            .iter()
            .filter(|left| !left.reason.starts_with(FAILED));
        for left in left.take(NAMED) {
            eprintln!("left out {}: {}", left.file, left.reason);
        }
        eprintln!("images: {}", account.in_words());
        if inspector.threshold().is_none() {
            eprintln!("error: no verdicts: the package has no threshold for this way of scoring");
            eprintln!(
                "hint: give --threshold SCORE, or calibrate the package with `host-trainer calibrate`"
            );
        }
        Ok(match (failed, ng) {
            (0, 0) => Summary::AllOk,
            (0, _) => Summary::SomeNg,
            _ => Summary::SomeFailed,
        })
    }

    /// Loads the package, applies the options, and returns the inspector and the signer's key id.
    fn inspector(&self) -> Result<(Inspector, String)> {
        let trust = if self.trust.is_empty() {
            Trust::AnySigner
        } else {
            let keys: Result<Vec<_>, _> = self
                .trust
                .iter()
                .map(|path| read_public_key(path))
                .collect();
            Trust::Only(keys?)
        };
        let package = package::read(&self.package, &trust)?;
        let signer = key_id(package.signer());
        if self.trust.is_empty() {
            eprintln!(
                "signed by {signer} (any valid signature is accepted; restrict it with --trust KEY.pub)"
            );
        }
        let mut inspector = Inspector::new(&package)
            .with_context(|| format!("package {}", self.package.display()))?;
        if let Some(mode) = self.scoring {
            inspector = inspector.with_scoring(match mode {
                ScoringMode::Full => Scoring::FullyConvolutional,
                ScoringMode::Tiles => Scoring::AveragedTiles {
                    stride_px: REFERENCE_STRIDE_PX,
                },
            });
        }
        if let Some(threshold) = self.threshold {
            inspector = inspector.with_threshold(threshold);
        }
        if let Some(path) = &self.roi_mask {
            let roi = read_roi_mask(path)?;
            check(&roi).with_context(|| format!("--roi-mask {}", path.display()))?;
            inspector = inspector.with_roi(roi);
        }
        Ok((inspector, signer))
    }

    fn score_one(
        &self,
        inspector: &Inspector,
        path: &Path,
        name: &OsStr,
    ) -> Result<(Inspection, Option<PictureFiles>, bool)> {
        let picture = read_picture_as(path, inspector.reading())?;
        let stated = picture.orientation != Orientation::NoTransforms;
        if stated && !picture.oriented {
            eprintln!(
                "note: {}: the orientation that it states is not applied, as when this package was \
                 made",
                path.display()
            );
        }
        let turned = stated && picture.oriented;
        let frame = picture.frame;
        let found = inspector
            .inspect(&frame)
            .with_context(|| path.display().to_string())?;
        let pictures = match &self.out {
            Some(folder) => Some(PictureFiles::write(
                folder,
                name,
                &frame,
                &found,
                inspector.threshold(),
            )?),
            None => None,
        };
        Ok((found, pictures, turned))
    }
}

/// Begins the reason of an image that failed, in the account.
const FAILED: &str = "failed: ";
/// Most files left out that are named; --json names more.
const NAMED: usize = 10;

/// Counts an image that has no score.
fn count_failure(account: &mut ImageAccount, path: &Path, error: &anyhow::Error) {
    let small = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(InspectError::Preprocess(PreprocessError::TooSmall { .. }))
        )
    });
    let pages = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(DecodeError::Pages { pages, .. }) => Some(*pages as usize),
        _ => None,
    });
    account.pages_ignored += pages.unwrap_or(0);
    let reason = format!("{FAILED}{error:#}");
    if small {
        account.too_small(path, reason);
    } else {
        account.unreadable(path, reason);
    }
}

/// Refuses to write pictures into a folder of images, where they would be scored the next time.
fn refuse_folder_of_images(out: &Path, images: &[PathBuf]) -> Result<()> {
    let Ok(out) = out.canonicalize() else {
        return Ok(()); // It does not exist yet.
    };
    for folder in images.iter().filter(|path| path.is_dir()) {
        if folder.canonicalize().is_ok_and(|folder| folder == out) {
            bail!(
                "expected --out to be another folder than that of the images, found {} for both",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Replaces folders by the images in them, in the order of their names. What is left out of them is
/// added to the account.
fn expand(given: &[PathBuf], account: &mut ImageAccount) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in given {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let listing = Listing::of(path);
        let mut inside =
            listing.with_context(|| format!("cannot list folder {}", path.display()))?;
        account.beside(&inside);
        for folder in &inside.folders {
            account.nested(folder, images_within(folder));
        }
        if inside.images.is_empty() {
            bail!(
                "expected images in folder {}, found none{}",
                path.display(),
                match (account.nested, account.hidden) {
                    (0, 0) => String::new(),
                    (nested, hidden) => format!(
                        " but {nested} in folders below and {hidden} hidden, which are not read"
                    ),
                }
            );
        }
        images.append(&mut inside.images);
    }
    Ok(images)
}

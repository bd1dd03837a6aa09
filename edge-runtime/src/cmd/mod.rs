//! The commands, one file each: arguments in, library calls, text out.

pub(crate) mod bench;
mod output;
pub(crate) mod pair;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod score;

use std::io::{IsTerminal, Write};

use edge_runtime::config::ConfigError;
use scoring::inspect::preprocess::PreprocessError;
use scoring::inspector::InspectError;
use scoring::io::decode::DecodeError;
use scoring::io::image_file::ImageFileError;
use scoring::package::{FileError, KeyError, PackageError};
use scoring::source::SourceError;

/// Prints an error with its causes on one line, and a hint on a second line if there is one.
pub(crate) fn report(error: &anyhow::Error) {
    let text = format!("{error:#}").replace(['\n', '\r'], " ");
    eprintln!("error: {text}");
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}

/// What can be done about an error.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(PackageError::Untrusted { .. }) = cause.downcast_ref() {
            return Some(
                "give the signer's public key with --trust, or have the package signed by a \
                 trusted key",
            );
        }
        if cause.is::<PackageError>() {
            return Some("copy the package again, or make it again with `host-trainer package`");
        }
        if let Some(FileError::Read { .. }) = cause.downcast_ref() {
            return Some("`host-trainer package` writes packages; check the path");
        }
        if cause.is::<KeyError>() {
            return Some(
                "`host-trainer keygen` writes a key and, beside it, the NAME.pub that --trust takes",
            );
        }
        if let Some(InspectError::Parity(_)) = cause.downcast_ref() {
            return Some(
                "do not inspect with it on this machine; package the model again with this version",
            );
        }
        if let Some(PreprocessError::TooSmall { .. }) = cause.downcast_ref() {
            return Some(
                "the package scores frames as captured; give larger ones, or train with --size 256",
            );
        }
        if let Some(ConfigError::Read { .. }) = cause.downcast_ref() {
            return Some("a small configuration to start from is in the README");
        }
        if cause.is::<SourceError>() {
            return Some("check [capture] in the configuration");
        }
        if let Some(ImageFileError::Decode { source, .. }) = cause.downcast_ref() {
            return match source {
                DecodeError::Damaged { .. } => Some("copy it again from where it was written"),
                DecodeError::TooLarge { .. } => Some("it is whole: crop it, or make it smaller"),
                DecodeError::Pages { .. } | DecodeError::NoSuchPage { .. } => None,
                _ => Some("8 or 16 bit PNG, JPEG, BMP and TIFF are read"),
            };
        }
        None
    })
}

/// A progress bar on standard error for a task that takes `total` seconds. Nothing is shown if
/// standard error is not a terminal.
fn progress(quiet: bool, total: f64) -> impl Fn(f64) {
    let shown = !quiet && std::io::stderr().is_terminal();
    move |done: f64| {
        if shown {
            let cells = ((done / total).min(1.0) * 30.0) as usize;
            let bar = "█".repeat(cells);
            eprint!("\r{bar:<30} {done:.0} of {total:.0} s ");
            if done >= total {
                eprint!("\r\x1b[K");
            }
            std::io::stderr().flush().ok();
        }
    }
}

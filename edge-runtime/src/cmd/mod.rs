//! One file a command: arguments in, library calls, text out.

mod output;
pub(crate) mod score;

use edge_runtime::inspect::preprocess::PreprocessError;
use edge_runtime::inspector::InspectError;
use edge_runtime::io::image_file::ImageFileError;
use edge_runtime::package::{FileError, KeyError, PackageError};

/// Prints an error with its causes on one line, and what can be done about it on a second one where that is known.
pub(crate) fn report(error: &anyhow::Error) {
    let text = format!("{error:#}").replace(['\n', '\r'], " ");
    eprintln!("error: {text}");
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(PackageError::Untrusted { .. }) = cause.downcast_ref() {
            return Some("give the signer's public key with --trust, or have the package signed by a trusted key");
        }
        if cause.is::<PackageError>() {
            return Some("copy the package again, or write it anew with `host-trainer package`");
        }
        if let Some(FileError::Read { .. }) = cause.downcast_ref() {
            return Some("`host-trainer package` writes packages; check the path");
        }
        if cause.is::<KeyError>() {
            return Some("`host-trainer keygen` writes a key and, beside it, the NAME.pub that --trust takes");
        }
        if let Some(InspectError::Parity(_)) = cause.downcast_ref() {
            return Some("do not inspect with it on this machine; package the model anew with this version");
        }
        if let Some(PreprocessError::TooSmall { .. }) = cause.downcast_ref() {
            return Some("the package scores frames as captured; give larger ones, or train with --size 256");
        }
        if let Some(ImageFileError::Decode { .. }) = cause.downcast_ref() {
            return Some("8 or 16 bit PNG, JPEG, BMP and TIFF are read");
        }
        None
    })
}

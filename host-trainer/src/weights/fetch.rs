//! Downloads torchvision's VGG-11 where there is a network.

use crate::dataset::hex;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::pth::{ImportError, Imported, import_weights};

/// torchvision's file.
const URL: &str = "https://download.pytorch.org/models/vgg11-8a719046.pth";
/// torchvision puts the first hexadecimal digits of a file's SHA-256 into its name.
const DIGEST: &str = "8a719046";
/// Larger than the file (507 MB); a server that sends more is not the one meant.
const LIMIT: u64 = 600 << 20;

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No network, or the server does not have it.
    #[error(
        "cannot download {URL} ({0}); fetch it on a machine with a network and run \
         `host-trainer import-weights vgg11-8a719046.pth OUT.safetensors`"
    )]
    Download(String),
    /// Another file than expected.
    #[error("expected a file whose SHA-256 begins with {DIGEST}, found {0}")]
    Digest(String),
    /// The temporary file failed.
    #[error("cannot keep the download in a temporary file")]
    Io(#[from] io::Error),
    /// It cannot be converted.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Downloads, checks and converts; `on_progress` is told the bytes received and, if known, their total.
pub fn fetch_vgg11(
    out: &Path,
    on_progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Imported, FetchError> {
    let failed = |error: ureq::Error| FetchError::Download(error.to_string());
    let mut response = ureq::get(URL).call().map_err(failed)?;
    let total = response.body().content_length();
    let mut reader = response.body_mut().with_config().limit(LIMIT).reader();
    let mut file = tempfile::NamedTempFile::new()?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        let count = reader
            .read(&mut block)
            .map_err(|error| FetchError::Download(error.to_string()))?;
        if count == 0 {
            break;
        }
        digest.update(&block[..count]);
        file.write_all(&block[..count])?;
        received += count as u64;
        on_progress(received, total);
    }
    let digest = hex(&digest.finalize());
    if !digest.starts_with(DIGEST) {
        return Err(FetchError::Digest(digest));
    }
    file.flush()?;
    Ok(import_weights(file.path(), out)?)
}

//! Downloads torchvision's VGG-11.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::dataset::hex;

use super::pth::{ImportError, Imported, import_weights};

/// Address of torchvision's file.
const URL: &str = "https://download.pytorch.org/models/vgg11-8a719046.pth";
/// First hexadecimal digits of the file's SHA-256, which torchvision puts into its name.
const DIGEST: &str = "8a719046";
/// Most bytes that are accepted; the file has 507 MB.
const MAX_BYTES: u64 = 600 << 20;

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no network, or the server does not have the file.
    #[error(
        "cannot download {URL} ({0}); fetch it on a machine with a network and run \
         `host-trainer import-weights vgg11-8a719046.pth OUT.safetensors`"
    )]
    Download(String),
    /// The file is not the expected one.
    #[error("expected a file whose SHA-256 begins with {DIGEST}, found {0}")]
    Digest(String),
    /// The temporary file cannot be written.
    #[error("cannot write the download to a temporary file")]
    Io(#[from] io::Error),
    /// The file cannot be converted.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Downloads, checks and converts the file. `on_progress` gets the bytes received and, if known,
/// their total.
pub fn fetch_vgg11(
    out: &Path,
    on_progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Imported, FetchError> {
    let failed = |error: ureq::Error| FetchError::Download(error.to_string());
    let mut response = ureq::get(URL).call().map_err(failed)?;
    let total = response.body().content_length();
    let mut reader = response.body_mut().with_config().limit(MAX_BYTES).reader();
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

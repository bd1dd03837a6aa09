//! Downloads sets of perceptual features, and keeps them in the user's data folder.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use crate::dataset::hex;

use super::pth::{ImportError, Imported, import_weights};

/// A set of features that torchvision publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightSet {
    /// SqueezeNet 1.1: 5 MB, and quick to train with.
    Squeezenet,
    /// VGG-11, the paper's: 507 MB.
    Vgg11,
}

impl WeightSet {
    /// All sets, in the order in which they are preferred.
    pub const ALL: [Self; 2] = [Self::Squeezenet, Self::Vgg11];

    /// The name of torchvision's file, which ends in the first digits of its SHA-256.
    pub fn file(self) -> &'static str {
        match self {
            Self::Squeezenet => "squeezenet1_1-b8a52dc0.pth",
            Self::Vgg11 => "vgg11-8a719046.pth",
        }
    }

    fn url(self) -> String {
        format!("https://download.pytorch.org/models/{}", self.file())
    }

    /// First hexadecimal digits of the file's SHA-256.
    fn digest(self) -> &'static str {
        let stem = self.file().trim_end_matches(".pth");
        stem.rsplit_once('-').map_or("", |(_, digest)| digest)
    }

    /// Most bytes that are accepted.
    fn most_bytes(self) -> u64 {
        match self {
            Self::Squeezenet => 8 << 20,
            Self::Vgg11 => 600 << 20,
        }
    }

    /// Where the set is kept in the user's data folder; `None` where there is no such folder.
    pub fn kept_at(self) -> Option<PathBuf> {
        let folders = etcetera::choose_base_strategy().ok()?;
        let stem = self.file().trim_end_matches(".pth");
        let file = format!("{stem}.safetensors");
        let folder = folders.data_dir().join("awr").join("features");
        Some(folder.join(file))
    }

    /// The set's file, if it was fetched.
    pub fn fetched(self) -> Option<PathBuf> {
        self.kept_at().filter(|path| path.is_file())
    }

    /// The file of the set to use, if one was fetched.
    pub fn any_fetched() -> Option<PathBuf> {
        Self::ALL.into_iter().find_map(Self::fetched)
    }
}

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no network, or the server does not have the file.
    #[error(
        "cannot download {url} ({reason}); fetch it on a machine with a network and run \
         `host-trainer import-weights {file} OUT.safetensors`"
    )]
    Download {
        /// The address.
        url: String,
        /// The file's name.
        file: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// The file is not the expected one.
    #[error("expected a file whose SHA-256 begins with {expected}, found {found}")]
    Digest {
        /// The expected digits.
        expected: &'static str,
        /// The digest.
        found: String,
    },
    /// The temporary file cannot be written.
    #[error("cannot write the download to a temporary file")]
    Io(#[from] io::Error),
    /// The file cannot be converted.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Downloads, checks and converts a set. `on_progress` gets the bytes received and, if known, their
/// total.
pub fn fetch(
    set: WeightSet,
    out: &Path,
    on_progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Imported, FetchError> {
    let failed = |reason: String| FetchError::Download {
        url: set.url(),
        file: set.file(),
        reason,
    };
    let response = ureq::get(set.url()).call();
    let mut response = response.map_err(|error| failed(error.to_string()))?;
    let total = response.body().content_length();
    let body = response.body_mut().with_config();
    let mut reader = body.limit(set.most_bytes()).reader();
    let mut file = tempfile::NamedTempFile::new()?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        let count = reader
            .read(&mut block)
            .map_err(|error| failed(error.to_string()))?;
        if count == 0 {
            break;
        }
        digest.update(&block[..count]);
        file.write_all(&block[..count])?;
        received += count as u64;
        on_progress(received, total);
    }
    let found = hex(&digest.finalize());
    let expected = set.digest();
    if !found.starts_with(expected) {
        return Err(FetchError::Digest { expected, found });
    }
    file.flush()?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(import_weights(file.path(), out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_come_from_the_names_of_the_files() {
        assert_eq!(WeightSet::Vgg11.digest(), "8a719046");
        assert_eq!(WeightSet::Squeezenet.digest(), "b8a52dc0");
    }
}

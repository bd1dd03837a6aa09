//! JSON with a checksum, so that a damaged file is told from one that says something else.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is damaged.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

/// A value as a file holds it. Earlier versions wrote no checksum and ignore it.
#[derive(Serialize, Deserialize)]
struct Checked<T> {
    #[serde(flatten)]
    value: T,
    /// SHA-256 of the value as compact JSON, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
}

fn checksum<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let text = serde_json::to_vec(value)?;
    Ok(secure::hex(&<[u8; 32]>::from(Sha256::digest(text))))
}

/// A value, which must be a JSON object, with its checksum.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let check = Some(checksum(value)?);
    serde_json::to_vec_pretty(&Checked { value, check })
}

/// The value in a file; `None` if there is no file.
pub(super) fn read<T: Serialize + DeserializeOwned>(path: &Path) -> Result<Option<T>, Unusable> {
    match std::fs::read(path) {
        Ok(text) => match from_json(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Unusable::Damaged(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unusable::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The value in a text; `None` if that is damaged.
fn from_json<T: Serialize + DeserializeOwned>(text: &[u8]) -> Option<T> {
    let Checked { value, check } = serde_json::from_slice(text).ok()?;
    let intact = match check {
        Some(found) => checksum(&value).ok()? == found,
        None => true,
    };
    intact.then_some(value)
}

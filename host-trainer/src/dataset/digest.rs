//! SHA-256 of files and of sets of files.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::DatasetError;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file's bytes.
pub fn file_digest(file: &Path) -> Result<[u8; 32], DatasetError> {
    let bytes = fs::read(file).map_err(|source| DatasetError::Read {
        path: file.to_owned(),
        source,
    })?;
    Ok(Sha256::digest(&bytes).into())
}

/// One digest for a set of files, independent of their names and order: SHA-256 over their sorted
/// digests.
pub fn digest_of_files(digests: &[[u8; 32]]) -> [u8; 32] {
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    Sha256::digest(sorted.concat()).into()
}

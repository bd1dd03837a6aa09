//! Digests of files and parts as manifests and run folders write them.

use sha2::{Digest, Sha256};

/// The first 8 bytes of a digest, by which manifests name images.
pub fn file_id(digest: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|index| digest[index])
}

/// The identity of a part in a manifest: a hash of its name in the groups file, so that packages do
/// not pass on serial numbers.
pub fn part_id(name: &str) -> [u8; 8] {
    file_id(&Sha256::digest(name).into())
}

/// Reads a SHA-256 in hexadecimal.
pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

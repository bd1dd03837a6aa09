//! Digests of files as manifests and run folders write them.

/// The first 8 bytes of a file's SHA-256, by which manifests name training images.
pub fn file_id(digest: &[u8; 32]) -> [u8; 8] {
    std::array::from_fn(|index| digest[index])
}

/// Reads a SHA-256 in hexadecimal.
pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

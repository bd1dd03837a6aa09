//! Public keys and their texts.

/// A party's static public key (Curve25519).
pub type PublicKey = [u8; 32];

/// Returns the id by which people know a key: its first 8 bytes in hexadecimal.
pub fn key_id(key: &PublicKey) -> String {
    hex(&short_id(key))
}

/// Returns the bytes of [`key_id`], as messages carry them.
pub fn short_id(key: &PublicKey) -> [u8; 8] {
    std::array::from_fn(|index| key[index])
}

/// Formats bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses 32 bytes in hexadecimal. Upper and lower case are accepted.
pub fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        // `from_str_radix` would accept a sign.
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

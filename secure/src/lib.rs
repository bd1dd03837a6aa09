//! Who may talk to whom, and how nobody else listens: the layer between a TCP stream and the frames of `proto`.
//!
//! ```text
//! TCP stream → handshake (Noise XX; XXpsk3 to pair) → peer's key → access list → role
//!                                                   ↘ stream::{Reader, Writer}: plain bytes again
//! ```
//! In: byte streams, key files. Out: byte streams, whose they are, and the role. Knows nothing of the messages that go
//! through.
//! Noise is the framework of <https://noiseprotocol.org/noise.html> (revision 34), by the `snow` library:
//! Curve25519, ChaCha20-Poly1305, BLAKE2s.

#![forbid(unsafe_code)]

pub mod access;
pub mod file;
pub mod handshake;
pub mod identity;
pub mod pairing;
pub mod stream;
pub mod tcp;

/// A party's static public key (Curve25519).
pub type PublicKey = [u8; 32];

/// A key's name for people: its first 8 bytes in hexadecimal.
pub fn key_id(key: &PublicKey) -> String {
    hex(&short_id(key))
}

/// The same as messages have it.
pub fn short_id(key: &PublicKey) -> [u8; 8] {
    std::array::from_fn(|index| key[index])
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way back, for 32 bytes.
pub fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        // from_str_radix takes a sign.
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

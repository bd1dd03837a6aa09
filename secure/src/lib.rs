//! Encrypted links between cameras and stations: keys, pairing, roles, Noise sessions, and the byte
//! streams that they run on.
//!
//! ```text
//! TCP stream → handshake (Noise XX; XXpsk3 to pair) → peer's key → access list → role
//!                                                   ↘ stream::{Reader, Writer}: plain bytes
//! ```
//! In: byte streams and key files. Out: byte streams, the key of whoever is at the other end, and
//! its role. The crate knows nothing of the messages that pass through it, except the names of the
//! roles.
//!
//! | Module | Subject |
//! |---|---|
//! | [`identity`] | a party's own key pair and its file |
//! | [`pairing`] | one-time codes, and the ticket that a camera keeps of one |
//! | [`access`] | a camera's access list: keys, roles and names |
//! | [`handshake`] | from a byte stream to a Noise session |
//! | [`stream`] | plain bytes over a session |
//! | [`tcp`] | a station's encrypted connection over TCP |
//! | [`serial`] | a serial port as a byte stream, which is not encrypted |
//! | [`file`] | files that are written whole or not at all |
//!
//! Noise is specified at <https://noiseprotocol.org/noise.html> (revision 34). The `snow` library
//! implements it, here with Curve25519, ChaCha20-Poly1305 and BLAKE2s.

#![forbid(unsafe_code)]

pub mod access;
pub mod file;
pub mod handshake;
pub mod identity;
mod key;
mod noise;
pub mod pairing;
pub mod serial;
pub mod stream;
pub mod tcp;

pub use key::{PublicKey, from_hex, hex, key_id, short_id};

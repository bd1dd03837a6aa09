//! What handshakes, identities and streams share of the Noise framework: the names of the two
//! patterns, key pairs, and the keys of an agreed session.

use std::sync::Arc;

use snow::{Builder, StatelessTransportState};

use crate::key::PublicKey;

/// Handshake between parties that know each other.
pub(crate) const SESSION_PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
/// Handshake with a pairing code as the pre-shared key.
pub(crate) const PAIRING_PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
/// Longest Noise message, tag included (Noise, section 3).
pub(crate) const MAX_RECORD_BYTES: usize = 65_535;

/// Keys of an agreed session.
pub(crate) type SessionKeys = Arc<StatelessTransportState>;

/// A finished handshake.
#[derive(Debug, Clone)]
pub struct Channel {
    pub(crate) keys: SessionKeys,
    /// The peer's key.
    pub remote: PublicKey,
}

/// Generates a key pair and returns its secret and its public half.
pub(crate) fn generate_key_pair() -> Result<([u8; 32], PublicKey), snow::Error> {
    let pair = Builder::new(SESSION_PATTERN.parse()?).generate_keypair()?;
    let half = |bytes: Vec<u8>| bytes.try_into().map_err(|_| snow::Error::Input);
    Ok((half(pair.private)?, half(pair.public)?))
}

/// Computes the public half of a secret key.
pub(crate) fn public_key_of(secret: &[u8; 32]) -> Result<PublicKey, snow::Error> {
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    let curve = snow::params::DHChoice::Curve25519;
    let mut dh = DefaultResolver
        .resolve_dh(&curve)
        .ok_or(snow::Error::Input)?;
    dh.set(secret);
    dh.pubkey().try_into().map_err(|_| snow::Error::Input)
}

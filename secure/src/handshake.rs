//! From a TCP connection to two parties that know each other's keys.
//!
//! The station begins with eight bytes, which are the handshake's prologue too, so that nobody can change them on the
//! way; then come the three messages of Noise XX (session) or XXpsk3 (pairing), each behind its length (u16,
//! big-endian), as all messages after them ([`crate::stream`]):
//!
//! ```text
//! "AWRS"  version 1  intent (0 session, 1 pairing)  0 0
//! → e      ← e, ee, s, es      → s, se (, psk); the payload is the station's name when it pairs
//! ```
//! A camera proves its key before it learns the station's; a station that expects another key says nothing more.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use snow::{Builder, HandshakeState, StatelessTransportState};

use crate::PublicKey;
use crate::identity::Identity;
use crate::pairing::Code;
use crate::stream::MAX_RECORD_BYTES;

const SESSION: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
const PAIRING: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
/// What a link begins with.
pub const MAGIC: [u8; 4] = *b"AWRS";
/// Version of this layer.
pub const VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 8;
/// Longest message of a handshake: keys, tags, and a name.
const MAX_HANDSHAKE_BYTES: usize = 512;
/// Longest payload of the last one.
const MAX_PAYLOAD_BYTES: usize = 128;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection fails.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
    /// The peer was silent for too long.
    #[error("the peer did not finish the handshake in time")]
    TimedOut,
    /// The peer speaks something else.
    #[error("expected an encrypted link, found the bytes {0:02x?}")]
    NotSecure([u8; PREAMBLE_BYTES]),
    /// The peer speaks another version of this layer.
    #[error("expected version {VERSION} of the encrypted link, found {0}")]
    Version(u8),
    /// A length that no message has.
    #[error("expected a handshake message of at most {MAX_HANDSHAKE_BYTES} bytes, found {0}")]
    Length(usize),
    /// Keys, codes or bytes do not fit: a wrong code, a replay, a change on the way.
    #[error("the handshake failed: wrong code, replayed or altered")]
    Crypto(#[source] snow::Error),
    /// The camera has another key than the one that was pinned.
    #[error(
        "the camera's key is {}, and {} is pinned: another device, or somebody in between",
        crate::key_id(found),
        crate::key_id(expected)
    )]
    WrongKey {
        /// The pinned key.
        expected: PublicKey,
        /// The peer's.
        found: PublicKey,
    },
    /// Somebody wants to pair, and no code was given out.
    #[error("no pairing code is in force")]
    NoCode,
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        Self::Crypto(error)
    }
}

/// Keys of a session that was agreed on.
pub(crate) type Keys = Arc<StatelessTransportState>;

/// A finished handshake.
#[derive(Debug, Clone)]
pub struct Channel {
    pub(crate) keys: Keys,
    /// The peer's key.
    pub remote: PublicKey,
}

/// What a station wants.
#[derive(Debug, Clone)]
pub enum Intent {
    /// Talk to a camera that knows it.
    Session,
    /// Be let in, under this name.
    Pair {
        /// The camera's code.
        code: Code,
        /// The station's name.
        name: String,
    },
}

/// What a camera learned in a handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The session.
    pub channel: Channel,
    /// The name under which the station wants to be let in, if it paired: it knew the code.
    pub pairs_as: Option<String>,
}

fn builder<'a>(
    pattern: &str,
    secret: &'a [u8; 32],
    prologue: &'a [u8],
) -> Result<Builder<'a>, snow::Error> {
    Builder::new(pattern.parse()?)
        .local_private_key(secret)?
        .prologue(prologue)
}

/// A new key pair: secret, public.
pub(crate) fn generate() -> Result<([u8; 32], PublicKey), snow::Error> {
    let pair = Builder::new(SESSION.parse()?).generate_keypair()?;
    let half = |bytes: Vec<u8>| bytes.try_into().map_err(|_| snow::Error::Input);
    Ok((half(pair.private)?, half(pair.public)?))
}

/// The public half of a secret one.
pub(crate) fn public_of(secret: &[u8; 32]) -> Result<PublicKey, snow::Error> {
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    let curve = snow::params::DHChoice::Curve25519;
    let mut dh = DefaultResolver
        .resolve_dh(&curve)
        .ok_or(snow::Error::Input)?;
    dh.set(secret);
    dh.pubkey().try_into().map_err(|_| snow::Error::Input)
}

/// A station's side. `pinned`: the camera's key, if it is known. The stream may time out; `deadline` counts.
pub fn connect<S: Read + Write>(
    stream: &mut S,
    identity: &Identity,
    pinned: Option<&PublicKey>,
    intent: &Intent,
    deadline: Instant,
) -> Result<Channel, HandshakeError> {
    let [a, b, c, d] = MAGIC;
    let pairs = matches!(intent, Intent::Pair { .. });
    let preamble = [a, b, c, d, VERSION, u8::from(pairs), 0, 0];
    let pattern = if pairs { PAIRING } else { SESSION };
    let mut builder = builder(pattern, identity.secret(), &preamble)?;
    let (key, name);
    if let Intent::Pair { code, name: own } = intent {
        key = code.key();
        builder = builder.psk(3, &key)?;
        name = own.as_bytes();
    } else {
        name = &[];
    }
    let mut noise = builder.build_initiator()?;
    let mut wire = preamble.to_vec();
    wire.extend(message(&mut noise, &[])?);
    stream.write_all(&wire).map_err(HandshakeError::Io)?;
    receive(stream, &mut noise, deadline)?;
    let found = remote(&noise)?;
    if let Some(expected) = pinned.copied().filter(|expected| *expected != found) {
        return Err(HandshakeError::WrongKey { expected, found });
    }
    let last = message(&mut noise, name)?;
    stream.write_all(&last).map_err(HandshakeError::Io)?;
    finish(noise)
}

/// A camera's side. `code` is asked for the key of the pairing code in force when somebody wants to pair.
pub fn accept<S: Read + Write>(
    stream: &mut S,
    identity: &Identity,
    code: impl FnOnce() -> Option<[u8; 32]>,
    deadline: Instant,
) -> Result<Accepted, HandshakeError> {
    let mut preamble = [0; PREAMBLE_BYTES];
    read_exact(stream, &mut preamble, deadline)?;
    let [magic @ .., version, intent, _, _] = preamble;
    if magic != MAGIC {
        return Err(HandshakeError::NotSecure(preamble));
    }
    if version != VERSION || intent > 1 {
        return Err(HandshakeError::Version(version));
    }
    let pairs = intent == 1;
    let pattern = if pairs { PAIRING } else { SESSION };
    let mut builder = builder(pattern, identity.secret(), &preamble)?;
    let key;
    if pairs {
        key = code().ok_or(HandshakeError::NoCode)?;
        builder = builder.psk(3, &key)?;
    }
    let mut noise = builder.build_responder()?;
    receive(stream, &mut noise, deadline)?;
    let answer = message(&mut noise, &[])?;
    stream.write_all(&answer).map_err(HandshakeError::Io)?;
    let payload = receive(stream, &mut noise, deadline)?;
    let pairs_as = pairs.then(|| String::from_utf8_lossy(&payload).into_owned());
    Ok(Accepted {
        channel: finish(noise)?,
        pairs_as,
    })
}

fn remote(noise: &HandshakeState) -> Result<PublicKey, HandshakeError> {
    let key = noise
        .get_remote_static()
        .and_then(|key| key.try_into().ok());
    key.ok_or(HandshakeError::Crypto(snow::Error::Input))
}

fn finish(noise: HandshakeState) -> Result<Channel, HandshakeError> {
    let remote = remote(&noise)?;
    let keys = Arc::new(noise.into_stateless_transport_mode()?);
    Ok(Channel { keys, remote })
}

/// The next message of the handshake, behind its length.
fn message(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut wire = vec![0; 2 + MAX_HANDSHAKE_BYTES];
    let length = noise.write_message(payload, &mut wire[2..])?;
    wire.truncate(2 + length);
    wire[..2].copy_from_slice(&(length as u16).to_be_bytes());
    Ok(wire)
}

fn receive<S: Read>(
    stream: &mut S,
    noise: &mut HandshakeState,
    deadline: Instant,
) -> Result<Vec<u8>, HandshakeError> {
    let mut length = [0; 2];
    read_exact(stream, &mut length, deadline)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::Length(length));
    }
    let mut wire = [0; MAX_HANDSHAKE_BYTES];
    read_exact(stream, &mut wire[..length], deadline)?;
    let mut payload = [0; MAX_RECORD_BYTES];
    let length = noise.read_message(&wire[..length], &mut payload)?;
    if length > MAX_PAYLOAD_BYTES {
        return Err(HandshakeError::Length(length));
    }
    Ok(payload[..length].to_vec())
}

/// However slowly the bytes drip in: the deadline is for all of them.
fn read_exact<S: Read>(
    stream: &mut S,
    mut wanted: &mut [u8],
    deadline: Instant,
) -> Result<(), HandshakeError> {
    while !wanted.is_empty() {
        if Instant::now() >= deadline {
            return Err(HandshakeError::TimedOut);
        }
        match stream.read(wanted) {
            Ok(0) => return Err(HandshakeError::Io(ErrorKind::UnexpectedEof.into())),
            Ok(count) => wanted = &mut wanted[count..],
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(HandshakeError::Io(error)),
            },
        }
    }
    Ok(())
}

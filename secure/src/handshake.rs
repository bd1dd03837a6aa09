//! From a byte stream to two parties that know each other's keys.
//!
//! The station begins with a preamble of eight bytes. They are the handshake's prologue too, so a
//! change on the way is detected. Then follow the three messages of Noise XX (session) or XXpsk3
//! (pairing), each after its length (u16, big-endian), like all records after them
//! ([`crate::stream`]):
//!
//! ```text
//! "AWRS"  version 1  intent (0 session, 1 pairing)  0 0
//! → e      ← e, ee, s, es      → s, se (, psk); the payload is the station's name when it pairs
//! ```
//! A camera proves its key before it learns the station's. A station that expects another key ends
//! the handshake there and does not reveal its own.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snow::{Builder, HandshakeState};

use crate::identity::Identity;
use crate::key::{PublicKey, key_id};
pub use crate::noise::Channel;
use crate::noise::{MAX_RECORD_BYTES, PAIRING_PATTERN, SESSION_PATTERN};
use crate::pairing::Code;

/// First bytes of an encrypted link.
pub const MAGIC: [u8; 4] = *b"AWRS";
/// Version of this layer.
pub const VERSION: u8 = 1;
/// Longest time for a camera to wait for a station's first message.
pub const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(2);
/// Length of what a station sends before the handshake.
const PREAMBLE_BYTES: usize = 8;
/// Longest message of a handshake: keys, tags, and a name.
const MAX_HANDSHAKE_BYTES: usize = 512;
/// Longest payload of a handshake's last message.
const MAX_PAYLOAD_BYTES: usize = 128;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
    /// The deadline passed before the handshake was finished.
    #[error("the peer did not finish the handshake in time")]
    TimedOut,
    /// The peer does not speak this protocol.
    #[error("expected an encrypted link, found the bytes {0:02x?}")]
    NotSecure([u8; PREAMBLE_BYTES]),
    /// The peer speaks another version of this layer.
    #[error("expected version {VERSION} of the encrypted link, found {0}")]
    Version(u8),
    /// A message or a payload is longer than any may be.
    #[error("expected a handshake message of at most {MAX_HANDSHAKE_BYTES} bytes, found {0}")]
    Length(usize),
    /// Keys, codes or bytes do not match: a wrong code, a replay, or a change on the way.
    #[error("the handshake failed: replayed or altered, or a wrong code")]
    Crypto(#[source] snow::Error),
    /// The peer has finished a pairing handshake with another code than the one in force. Only a
    /// camera finds this, and only after it has proved its own key.
    #[error("wrong pairing code")]
    WrongCode,
    /// The camera's key differs from the pinned one.
    #[error(
        "the camera's key is {}, and {} is pinned: another device, or somebody in between",
        key_id(found),
        key_id(expected)
    )]
    WrongKey {
        /// The pinned key.
        expected: PublicKey,
        /// The camera's key.
        found: PublicKey,
    },
    /// A station asks to pair, and no pairing code is in force.
    #[error("no pairing code is in force")]
    NoCode,
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        Self::Crypto(error)
    }
}

/// What a station wants.
#[derive(Debug, Clone)]
pub enum Intent {
    /// A session with a camera that has the station in its access list.
    Session,
    /// Pairing: a place in the access list.
    Pair {
        /// The code that the camera issued.
        code: Code,
        /// The station's name in the access list.
        name: String,
    },
}

/// What a camera learns from a handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The session.
    pub channel: Channel,
    /// The name that the station asks for, if it paired: it has proved that it knows the code.
    pub pairs_as: Option<String>,
}

fn builder<'a>(
    pairs: bool,
    identity: &'a Identity,
    prologue: &'a [u8],
) -> Result<Builder<'a>, snow::Error> {
    let pattern = if pairs {
        PAIRING_PATTERN
    } else {
        SESSION_PATTERN
    };
    Builder::new(pattern.parse()?)
        .local_private_key(identity.secret())?
        .prologue(prologue)
}

/// Performs a station's side of the handshake. `pinned` is the camera's key, if it is known. Reads
/// of the stream may time out; `deadline` is what ends the handshake.
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
    let mut builder = builder(pairs, identity, &preamble)?;
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
    wire.extend(write_message(&mut noise, &[])?);
    stream.write_all(&wire).map_err(HandshakeError::Io)?;
    read_message(stream, &mut noise, deadline)?;
    let found = remote_key(&noise)?;
    if let Some(expected) = pinned.copied().filter(|expected| *expected != found) {
        return Err(HandshakeError::WrongKey { expected, found });
    }
    let last = write_message(&mut noise, name)?;
    stream.write_all(&last).map_err(HandshakeError::Io)?;
    finish(noise)
}

/// Performs a camera's side of the handshake. `code` is called when a station asks to pair and
/// returns the key of the pairing code in force. The station's first message must be there within
/// [`FIRST_MESSAGE_WITHIN`], because a station sends it at once and needs no key for it.
pub fn accept<S: Read + Write>(
    stream: &mut S,
    identity: &Identity,
    code: impl FnOnce() -> Option<[u8; 32]>,
    deadline: Instant,
) -> Result<Accepted, HandshakeError> {
    let first_deadline = deadline.min(Instant::now() + FIRST_MESSAGE_WITHIN);
    let mut preamble = [0; PREAMBLE_BYTES];
    read_exact(stream, &mut preamble, first_deadline)?;
    let [magic @ .., version, intent, _, _] = preamble;
    if magic != MAGIC {
        return Err(HandshakeError::NotSecure(preamble));
    }
    if version != VERSION || intent > 1 {
        return Err(HandshakeError::Version(version));
    }
    let pairs = intent == 1;
    let mut builder = builder(pairs, identity, &preamble)?;
    let key;
    if pairs {
        key = code().ok_or(HandshakeError::NoCode)?;
        builder = builder.psk(3, &key)?;
    }
    let mut noise = builder.build_responder()?;
    read_message(stream, &mut noise, first_deadline)?;
    let answer = write_message(&mut noise, &[])?;
    stream.write_all(&answer).map_err(HandshakeError::Io)?;
    let payload = match read_message(stream, &mut noise, deadline) {
        // The code enters the handshake with its last message.
        Err(HandshakeError::Crypto(_)) if pairs => return Err(HandshakeError::WrongCode),
        payload => payload?,
    };
    let pairs_as = pairs.then(|| String::from_utf8_lossy(&payload).into_owned());
    Ok(Accepted {
        channel: finish(noise)?,
        pairs_as,
    })
}

fn remote_key(noise: &HandshakeState) -> Result<PublicKey, HandshakeError> {
    let key = noise
        .get_remote_static()
        .and_then(|key| key.try_into().ok());
    key.ok_or(HandshakeError::Crypto(snow::Error::Input))
}

fn finish(noise: HandshakeState) -> Result<Channel, HandshakeError> {
    let remote = remote_key(&noise)?;
    let keys = Arc::new(noise.into_stateless_transport_mode()?);
    Ok(Channel { keys, remote })
}

/// Returns the handshake's next message, after its length.
fn write_message(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut wire = vec![0; 2 + MAX_HANDSHAKE_BYTES];
    let length = noise.write_message(payload, &mut wire[2..])?;
    wire.truncate(2 + length);
    wire[..2].copy_from_slice(&(length as u16).to_be_bytes());
    Ok(wire)
}

/// Receives the handshake's next message and returns its payload.
fn read_message<S: Read>(
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

/// Fills `wanted`. The deadline covers all of it, however slowly bytes arrive.
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

//! A station's way to a camera over TCP: connection, handshake, two halves.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::PublicKey;
use crate::handshake::{HandshakeError, Intent, connect};
use crate::identity::Identity;
use crate::stream::{Reader, Writer};

/// The reading half looks up so often: nothing has come then ([`io::ErrorKind::WouldBlock`] or `TimedOut`).
pub const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// A camera takes what it is sent within so long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The two do not agree.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// An encrypted link.
pub struct Link {
    /// What the camera says.
    pub reader: Reader<TcpStream>,
    /// What it is told.
    pub writer: Writer<TcpStream>,
    /// The camera's key.
    pub remote: PublicKey,
}

/// Connects within `timeout`, handshake included. `pinned`: the camera's key, if it is known.
pub fn open(
    address: SocketAddr,
    identity: &Identity,
    pinned: Option<&PublicKey>,
    intent: &Intent,
    timeout: Duration,
) -> Result<Link, LinkError> {
    let failed = |source| LinkError::Connect { address, source };
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
    let reader = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(READ_TIMEOUT)))
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
        .and_then(|()| stream.try_clone())
        .map_err(failed)?;
    let channel = connect(&mut stream, identity, pinned, intent, deadline)?;
    Ok(Link {
        reader: Reader::new(reader, &channel),
        writer: Writer::new(stream, &channel),
        remote: channel.remote,
    })
}

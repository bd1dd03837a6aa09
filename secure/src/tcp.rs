//! A station's encrypted connection to a camera over TCP: connects, performs the handshake, and
//! returns a reading and a writing half.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::handshake::{HandshakeError, Intent, connect};
use crate::identity::Identity;
use crate::key::PublicKey;
use crate::stream::{Reader, Writer};

/// Longest time that a read waits for bytes. It then fails with [`io::ErrorKind::WouldBlock`] or
/// `TimedOut`.
pub const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// Longest time that a write waits for the camera to accept bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The TCP connection failed.
    #[error("cannot connect to {address}")]
    Connect {
        /// Address of the camera.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// An encrypted link.
pub struct Link {
    /// The bytes from the camera.
    pub reader: Reader<TcpStream>,
    /// The bytes to the camera.
    pub writer: Writer<TcpStream>,
    /// The camera's key.
    pub remote: PublicKey,
}

/// Connects within `timeout`, handshake included. `pinned` is the camera's key, if it is known.
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

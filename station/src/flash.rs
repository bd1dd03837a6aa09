//! Transfers a package to a camera, in chunks of which several are on their way at once, over links
//! that may break.
//!
//! In: a package's bytes and a way to connect. Out: progress, and whether the camera has activated
//! the package. It uses the recovery exchange, so that a camera of any version can be flashed;
//! chunks are compressed only if the camera is known to understand that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use miniz_oxide::deflate::compress_to_vec;
use proto::message::ToCamera;
use proto::recovery::{Request, Response};
use sha2::{Digest, Sha256};

use crate::client::{Client, Refused};

/// Size of a chunk over TCP: large, so that there are few answers.
const TCP_CHUNK_BYTES: usize = 64 << 10;
/// Size of a chunk over a serial line: about a second, so that the progress bar moves and a broken
/// link costs little.
const SERIAL_CHUNK_BYTES: usize = 8 << 10;
/// Chunks that may be on their way without an answer.
const MAX_UNANSWERED: usize = 4;
/// Level of compression, low enough not to slow a network down.
const COMPRESSION_LEVEL: u8 = 1;
/// Pause before another try after a broken link.
const PAUSE: Duration = Duration::from_secs(1);
/// Time without any progress after which broken links are an error.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The state of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The camera has received this number of bytes.
    Transferred(u64),
    /// The link broke; another try follows.
    Reconnecting,
    /// The camera has received everything; it verifies and activates the package.
    Activating,
}

/// What a transfer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferOptions {
    /// The link is a slow serial line.
    pub(crate) is_serial: bool,
    /// The camera understands compressed chunks.
    pub(crate) can_inflate: bool,
}

/// Transfers a package until the camera has activated it. `connect` is called again when the link
/// breaks; `report` is called with the progress.
pub(crate) fn flash(
    package: &[u8],
    options: TransferOptions,
    mut connect: impl FnMut() -> Result<Client>,
    mut report: impl FnMut(Progress),
) -> Result<()> {
    let sha256: [u8; 32] = Sha256::digest(package).into();
    let mut reached = 0;
    let mut last_progress = Instant::now();
    loop {
        let tried = connect().and_then(|mut client| {
            send(&mut client, package, sha256, options, &mut |offset| {
                if offset > reached {
                    reached = offset;
                    last_progress = Instant::now();
                }
                report(Progress::Transferred(offset));
            })?;
            report(Progress::Activating);
            client.request(&Request::FlashEnd)?;
            client.receive_response()
        });
        match tried {
            Ok(Response::Done) => return Ok(()),
            Ok(other) => bail!("unexpected answer from the camera: {other:?}"),
            Err(error) if error.is::<Refused>() || last_progress.elapsed() > GIVE_UP_AFTER => {
                return Err(error);
            }
            // Includes a lost last answer: at the next try, the camera says that it has everything.
            Err(_) => {
                report(Progress::Reconnecting);
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Sends a package from where the camera wants to continue, up to its end.
fn send(
    client: &mut Client,
    package: &[u8],
    sha256: [u8; 32],
    options: TransferOptions,
    received: &mut dyn FnMut(u64),
) -> Result<()> {
    let total_bytes = package.len() as u64;
    client.request(&Request::FlashBegin {
        total_bytes,
        sha256,
    })?;
    let mut next = continues(client.receive_response()?)?;
    let mut offset = next;
    received(offset);
    let chunk_bytes = if options.is_serial {
        SERIAL_CHUNK_BYTES
    } else {
        TCP_CHUNK_BYTES
    };
    // Where each unanswered chunk ends.
    let mut unanswered = VecDeque::new();
    while offset < total_bytes {
        if next < total_bytes && unanswered.len() < MAX_UNANSWERED {
            let start = usize::try_from(next)?;
            let end = package.len().min(start + chunk_bytes);
            send_chunk(client, next, &package[start..end], options)?;
            next = end as u64;
            unanswered.push_back(next);
            continue;
        }
        offset = continues(client.receive_response()?)?;
        if unanswered.pop_front() != Some(offset) {
            bail!("the camera continues at byte {offset}, which is not where the last chunk ended");
        }
        received(offset);
    }
    Ok(())
}

/// Sends a chunk, compressed if that makes it smaller.
fn send_chunk(
    client: &mut Client,
    offset_bytes: u64,
    bytes: &[u8],
    options: TransferOptions,
) -> Result<()> {
    if options.can_inflate {
        let deflated = compress_to_vec(bytes, COMPRESSION_LEVEL);
        if deflated.len() < bytes.len() * 19 / 20 {
            return client.send(&ToCamera::FlashDeflated {
                offset_bytes,
                plain_bytes: bytes.len() as u32,
                deflated,
            });
        }
    }
    client.request(&Request::FlashChunk {
        offset_bytes,
        bytes: bytes.to_vec(),
    })
}

/// Returns the byte at which the camera wants the transfer to continue.
fn continues(response: Response) -> Result<u64> {
    match response {
        Response::Continue { offset_bytes } => Ok(offset_bytes),
        other => bail!("unexpected answer from the camera: {other:?}"),
    }
}

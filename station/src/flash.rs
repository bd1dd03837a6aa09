//! Transfers a package to a camera, in chunks of which several are on their way at once, over links
//! that may break.
//!
//! In: a package's bytes and a way to connect. Out: progress, and whether the camera has activated
//! the package. It uses the recovery exchange, so that a camera of any version can be flashed;
//! chunks are compressed only if the camera is known to understand that. When a serial line loses a
//! frame, the transfer continues in the same session where the camera says that it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use miniz_oxide::deflate::compress_to_vec;
use proto::message::ToCamera;
use proto::recovery::{Request, Response};
use sha2::{Digest, Sha256};

use crate::client::{Client, Refused};
use crate::exchange::accepted;

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
    let mut refused_at = None;
    loop {
        let tried = connect().and_then(|mut client| {
            loop {
                let sent = send(&mut client, package, sha256, options, &mut |offset| {
                    if offset > reached {
                        reached = offset;
                        last_progress = Instant::now();
                    }
                    report(Progress::Transferred(offset));
                })?;
                if let Sent::Whole = sent {
                    report(Progress::Activating);
                    if let Some(response) = client.exchange(&Request::FlashEnd)? {
                        return Ok(response);
                    }
                    // Lost: at the next try, the camera says that it has everything.
                    continue;
                }
                // A chunk that comes after a lost one is refused. The same refusal again, at the
                // same place, is meant.
                if let Sent::Refused(reason) = sent
                    && refused_at.replace(reached) == Some(reached)
                {
                    return Err(Refused(reason).into());
                }
                if last_progress.elapsed() > GIVE_UP_AFTER {
                    bail!(
                        "the serial line loses too many frames: no progress for {} s",
                        GIVE_UP_AFTER.as_secs()
                    );
                }
                client.fence()?;
            }
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

/// How sending a package ended.
enum Sent {
    /// The camera has all of it.
    Whole,
    /// A frame was lost on a serial line.
    Lost,
    /// The camera refused a chunk on a serial line, perhaps because one before it was lost.
    Refused(String),
}

/// Sends a package from where the camera wants to continue, up to its end.
fn send(
    client: &mut Client,
    package: &[u8],
    sha256: [u8; 32],
    options: TransferOptions,
    received: &mut dyn FnMut(u64),
) -> Result<Sent> {
    let total_bytes = package.len() as u64;
    let begin = Request::FlashBegin {
        total_bytes,
        sha256,
    };
    let mut next = continues(client.exchange_again(&begin)?)?;
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
        let response = match client.receive_response(chunk_bytes * unanswered.len())? {
            None => return Ok(Sent::Lost),
            Some(Response::Refused { reason }) if options.is_serial => {
                return Ok(Sent::Refused(reason));
            }
            Some(response) => response,
        };
        offset = continues(accepted(response)?)?;
        if unanswered.pop_front() != Some(offset) {
            if options.is_serial {
                return Ok(Sent::Lost);
            }
            bail!("the camera continues at byte {offset}, which is not where the last chunk ended");
        }
        received(offset);
    }
    Ok(Sent::Whole)
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

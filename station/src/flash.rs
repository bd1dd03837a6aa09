//! Bringing a package to a camera: in pieces, several under way at once, over links that break.
//!
//! In: a package's bytes and a way to connect. Out: progress, and what the camera made of it. The recovery exchange
//! carries it, so a camera of any version can be flashed; pieces are compressed only where the camera is known to
//! understand it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use miniz_oxide::deflate::compress_to_vec;
use proto::message::ToCamera;
use proto::recovery::{Request, Response};
use sha2::{Digest, Sha256};

use crate::client::{Client, Refused};

/// A piece over TCP: few answers for much.
const TCP_PIECE_BYTES: usize = 64 << 10;
/// A piece over a serial line: a second or so, for the bar to move and a break to cost little.
const SERIAL_PIECE_BYTES: usize = 8 << 10;
/// Pieces under way without an answer.
const UNDER_WAY: usize = 4;
/// Fast enough compression not to slow a network down.
const COMPRESSION: u8 = 1;
/// A broken link is tried again after so long,
const PAUSE: Duration = Duration::from_secs(1);
/// for so long without a byte of progress.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many bytes are there.
    At(u64),
    /// The link broke, and is tried again.
    Again,
    /// Everything is there; the camera verifies and tries it.
    Trying,
}

/// How to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    /// Over a slow line.
    pub(crate) is_serial: bool,
    /// The camera understands compressed pieces.
    pub(crate) deflates: bool,
}

/// Sends a package until the camera has it and inspects with it. `connect` is called again when the link breaks.
pub(crate) fn flash(
    package: &[u8],
    how: How,
    mut connect: impl FnMut() -> Result<Client>,
    mut tell: impl FnMut(Progress),
) -> Result<()> {
    let sha256: [u8; 32] = Sha256::digest(package).into();
    let mut reached = 0;
    let mut moved = Instant::now();
    loop {
        let tried = connect().and_then(|mut client| {
            send(&mut client, package, sha256, how, &mut |offset| {
                if offset > reached {
                    reached = offset;
                    moved = Instant::now();
                }
                tell(Progress::At(offset));
            })?;
            tell(Progress::Trying);
            client.request(&Request::FlashEnd)?;
            client.response()
        });
        match tried {
            Ok(Response::Done) => return Ok(()),
            Ok(other) => bail!("the camera answers {other:?}"),
            Err(error) if error.is::<Refused>() || moved.elapsed() > GIVE_UP_AFTER => {
                return Err(error);
            }
            // Also when the last answer was lost: the camera says then that it has everything.
            Err(_) => {
                tell(Progress::Again);
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn send(
    client: &mut Client,
    package: &[u8],
    sha256: [u8; 32],
    how: How,
    sent: &mut dyn FnMut(u64),
) -> Result<()> {
    let total_bytes = package.len() as u64;
    client.request(&Request::FlashBegin {
        total_bytes,
        sha256,
    })?;
    let mut next = continues(client.response()?)?;
    let mut taken = next;
    sent(taken);
    let piece_bytes = if how.is_serial {
        SERIAL_PIECE_BYTES
    } else {
        TCP_PIECE_BYTES
    };
    let mut under_way = VecDeque::new();
    while taken < total_bytes {
        if next < total_bytes && under_way.len() < UNDER_WAY {
            let start = usize::try_from(next)?;
            let end = package.len().min(start + piece_bytes);
            send_piece(client, next, &package[start..end], how)?;
            next = end as u64;
            under_way.push_back(next);
            continue;
        }
        let offset = continues(client.response()?)?;
        if under_way.pop_front() != Some(offset) {
            bail!("the camera is at byte {offset}, which is not where it was sent to");
        }
        taken = offset;
        sent(taken);
    }
    Ok(())
}

/// Compressed where it pays.
fn send_piece(client: &mut Client, offset_bytes: u64, bytes: &[u8], how: How) -> Result<()> {
    if how.deflates {
        let deflated = compress_to_vec(bytes, COMPRESSION);
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

fn continues(response: Response) -> Result<u64> {
    match response {
        Response::Continue { offset_bytes } => Ok(offset_bytes),
        other => bail!("the camera answers {other:?}"),
    }
}

//! Transfer of a package from a station, in pieces, resumable.
//!
//! In: announcements and pieces from stations. Out: a file on disk ([`super::incoming`]), and the
//! offset at which the station continues.

use std::time::{Duration, Instant};

use proto::limits::MAX_CHUNK_BYTES;

use super::error::UpdateError;
use super::incoming::Incoming;
use super::slots::Sha256;
use super::update::{Transfer, Updater};

/// Time without a piece after which another station may replace a transfer.
const STALLED_AFTER: Duration = Duration::from_secs(30);

impl Updater {
    /// Begins or resumes a transfer. Returns the offset at which the station should start to send.
    pub fn flash_begin(
        &self,
        station: &str,
        total_bytes: u64,
        sha256: Sha256,
    ) -> Result<u64, UpdateError> {
        let _working = self.work()?;
        let mut state = self.state();
        if let Some(transfer) = &state.transfer
            && transfer.station != station
            && transfer.last_piece.elapsed() < STALLED_AFTER
        {
            return Err(UpdateError::Busy(transfer.station.clone()));
        }
        state.offered = None;
        // The package is in a slot already, perhaps because an answer was lost: nothing needs to be
        // sent.
        if state.store.slots().slot_holding(&sha256).is_some() {
            state.transfer = None;
            state.offered = Some(sha256);
            return Ok(total_bytes);
        }
        let same = state
            .transfer
            .take()
            .filter(|transfer| transfer.incoming.sha256() == sha256);
        let incoming = match same {
            Some(transfer) => transfer.incoming,
            None => Incoming::begin(state.store.folder(), total_bytes, sha256)?,
        };
        let offset_bytes = incoming.offset_bytes();
        state.transfer = Some(Transfer {
            station: station.to_owned(),
            last_piece: Instant::now(),
            incoming,
        });
        Ok(offset_bytes)
    }

    /// Takes the next piece. Returns the offset at which to continue.
    pub fn flash_chunk(
        &self,
        station: &str,
        offset_bytes: u64,
        bytes: &[u8],
    ) -> Result<u64, UpdateError> {
        let mut state = self.state();
        let transfer = state.transfer.as_mut().ok_or(UpdateError::NotBegun)?;
        if transfer.station != station {
            return Err(UpdateError::Busy(transfer.station.clone()));
        }
        transfer.last_piece = Instant::now();
        Ok(transfer.incoming.take(offset_bytes, bytes)?)
    }

    /// Takes the next piece, compressed.
    pub fn flash_deflated(
        &self,
        station: &str,
        offset_bytes: u64,
        plain_bytes: u32,
        deflated: &[u8],
    ) -> Result<u64, UpdateError> {
        let expected = plain_bytes as usize;
        let limit = expected.min(MAX_CHUNK_BYTES);
        let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, limit);
        let bytes = bytes.ok().filter(|bytes| bytes.len() == expected);
        let bytes = bytes.ok_or(UpdateError::Deflate { expected })?;
        self.flash_chunk(station, offset_bytes, &bytes)
    }
}

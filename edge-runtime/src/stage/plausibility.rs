//! Whether frames can show parts. In: raw frames and what they are scored as. Out: why a frame is
//! implausible. Shared by the scoring threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use proto::manifest::ImageStatistics;
use scoring::inspect::frame::Frame;
use scoring::inspect::plausibility::{Exposure, FrozenWatch, Implausible, check, fingerprint};

/// Checks frames. With several scoring threads they come in nearly the right order, and identical
/// frames are identical in any.
#[derive(Debug)]
pub struct Plausibility {
    exposure: bool,
    frozen: Mutex<FrozenWatch>,
    /// The last frame was implausible.
    implausible: AtomicBool,
}

impl Plausibility {
    /// With `exposure`, brightness and contrast are checked. A number of `identical_frames` in a
    /// row is a frozen sensor; 0 for a replay, whose frames may repeat.
    pub fn new(exposure: bool, identical_frames: u32) -> Self {
        Self {
            exposure,
            frozen: Mutex::new(FrozenWatch::new(identical_frames)),
            implausible: AtomicBool::new(false),
        }
    }

    /// Checks a frame by its raw bytes and by what it was scored as. Where its verdict is NG, a
    /// gross defect may be why it looks unlike any good part. Logs the first implausible frame in a
    /// row.
    pub(super) fn check(
        &self,
        raw: &[u8],
        prepared: &Frame,
        calibrated: Option<&ImageStatistics>,
        is_ng: bool,
    ) -> Result<(), Implausible> {
        let found = match self.judge(raw, prepared, calibrated) {
            Err(reason) if is_ng && reason.may_be_a_defect() => Ok(()),
            found => found,
        };
        let was = self.implausible.swap(found.is_err(), Ordering::Relaxed);
        match &found {
            Err(reason) if !was => tracing::error!(%reason, "implausible frame"),
            Ok(()) if was => tracing::info!("frames are plausible again"),
            _ => {}
        }
        found
    }

    fn judge(
        &self,
        raw: &[u8],
        prepared: &Frame,
        calibrated: Option<&ImageStatistics>,
    ) -> Result<(), Implausible> {
        // The lock is held for the fingerprint too, so that frames are compared one after another.
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if !frozen.is_off() {
            frozen.add(fingerprint(raw))?;
        }
        drop(frozen);
        if !self.exposure {
            return Ok(());
        }
        check(Exposure::of(prepared), calibrated)
    }
}

//! Writes messages to a stream that may be slow or stuck. In: payloads. Out: frames.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::frame::encode;
use proto::message::{FromCamera, Message, cut_text};

/// Time-out of a single write; between two writes, `send` checks whether the session is over.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_millis(200);
/// A station that accepts no data for this time is considered gone.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Once the session is over, a frame that takes longer than this is abandoned: the program must
/// stop in time, and the next session must not wait. The peer receives a damaged frame, and its
/// content is sent again in the next session.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Writes a payload in its frame.
pub(super) fn send(writer: &mut impl Write, payload: &[u8], over: &AtomicBool) -> io::Result<()> {
    let wire = encode(payload).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let started = Instant::now();
    let mut accepted_at = started;
    let mut left = &wire[..];
    while !left.is_empty() {
        match writer.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                left = &left[count..];
                accepted_at = Instant::now();
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut
                    if accepted_at.elapsed() < STALLED_AFTER => {}
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
        if !left.is_empty() && over.load(Ordering::Relaxed) && started.elapsed() > CUT_AFTER {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    loop {
        match writer.flush() {
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut
                    if accepted_at.elapsed() < STALLED_AFTER => {}
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
            Ok(()) => return Ok(()),
        }
        if over.load(Ordering::Relaxed) && started.elapsed() > CUT_AFTER {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Sends the reason for ending the link, as far as the peer still accepts data.
pub(super) fn goodbye(writer: &mut impl Write, reason: &str) {
    let reason = cut_text(reason);
    // The link is closed in any case, so a stuck peer must not delay this for long.
    let over = AtomicBool::new(true);
    send(writer, &FromCamera::Goodbye { reason }.encode(), &over).ok();
}

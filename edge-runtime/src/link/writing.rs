//! Messages onto a stream that may be slow, or stuck. In: payloads. Out: frames.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::frame::encode;
use proto::message::{FromCamera, Message, cut_text};

/// A stream's write must end within about so long, for `send` to look up.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_millis(200);
/// A station that takes nothing for so long has gone.
const TAKES_NOTHING: Duration = Duration::from_secs(10);
/// A frame that takes longer than this is cut short once the session is over: the program must stop in time, and the
/// next session must not wait. The peer sees a damaged frame, and what was in it is sent again.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Writes a payload in its frame.
pub(super) fn send(writer: &mut impl Write, payload: &[u8], over: &AtomicBool) -> io::Result<()> {
    let wire = encode(payload).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let begun = Instant::now();
    let mut taken_at = begun;
    let mut left = &wire[..];
    while !left.is_empty() {
        match writer.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                left = &left[count..];
                taken_at = Instant::now();
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut
                    if taken_at.elapsed() < TAKES_NOTHING => {}
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
        if !left.is_empty() && over.load(Ordering::Relaxed) && begun.elapsed() > CUT_AFTER {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    loop {
        match writer.flush() {
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut
                    if taken_at.elapsed() < TAKES_NOTHING => {}
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
            Ok(()) => return Ok(()),
        }
        if over.load(Ordering::Relaxed) && begun.elapsed() > CUT_AFTER {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Says why the link ends, as far as the peer takes it.
pub(super) fn goodbye(writer: &mut impl Write, reason: &str) {
    let reason = cut_text(reason);
    // The link is closed anyway.
    let over = AtomicBool::new(true);
    send(writer, &FromCamera::Goodbye { reason }.encode(), &over).ok();
}

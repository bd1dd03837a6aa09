//! Accepts stations on a TCP socket and serves the station on a serial line.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secure::handshake::{Channel, HandshakeError};
use secure::stream::{Reader, Writer};

use super::LinkContext;
use super::access_control::{Caller, Refusal};
use super::places::{Handshakes, Sessions};
use super::session::{LinkKind, serve};
use super::writing::{WRITE_TIMEOUT, goodbye};
use crate::stage::supervise::panic_text;

/// Time-out of a single read; between two reads, a session checks whether it is over.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// Listens on an address; an error names the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Accepts stations until the program stops. Each session runs in its own thread, and at most
/// `max_stations` run at the same time ([`Sessions`] decides which).
pub fn serve_tcp(context: &Arc<LinkContext>, listener: &TcpListener) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let (sessions, handshakes) = (Sessions::new(context.max_stations), Handshakes::default());
    std::thread::scope(|scope| {
        while !context.stop.load(Ordering::Relaxed) {
            let Ok((stream, peer)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            // Checked before anything that takes time: addresses that fail often are ignored, and
            // pending handshakes occupy no session.
            if !context.access_control.allows(peer.ip()) {
                continue;
            }
            let Some(handshake) = handshakes.take(peer.ip()) else {
                let reason = "too many handshakes at the same time";
                let peer = peer.ip().to_string();
                context.access_control.report_refusal(&peer, reason);
                continue;
            };
            let Ok(reader) = prepare(&stream) else {
                continue;
            };
            let sessions = &sessions;
            scope.spawn(move || {
                contained(|| {
                    let authenticated = authenticate(context, stream, peer);
                    drop(handshake);
                    let Some((channel, mut writer, caller)) = authenticated else {
                        return;
                    };
                    match sessions.take(&channel.remote, caller.role) {
                        Ok(place) => {
                            let reader = Reader::new(reader, &channel);
                            let displaced = &place.displaced;
                            serve(context, LinkKind::Tcp, &caller, displaced, reader, writer);
                        }
                        Err(refusal) => {
                            tracing::warn!(%peer, station = caller.name, %refusal, "no session");
                            goodbye(&mut writer, &refusal.to_string());
                        }
                    }
                });
            });
        }
    });
}

/// Runs a session. A panic ends this session only: the thread that accepts stations must end
/// without an error, because the last reports are written after it.
fn contained(session: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(session)) {
        let reason = panic_text(&*panic);
        tracing::error!(reason, "a session with a station failed");
    }
}

/// Runs the handshake. A refused station is sent the reason, as far as it can understand it.
fn authenticate(
    context: &LinkContext,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Channel, Writer<TcpStream>, Caller)> {
    let (channel, caller) = context.access_control.authenticate(&mut stream, peer.ip());
    let Some(channel) = channel else {
        // An old station without encryption, or another program.
        if let Err(Refusal::Handshake(HandshakeError::NotSecure(_))) = caller {
            goodbye(
                &mut stream,
                "this camera speaks encrypted links only: pair the station",
            );
        }
        return None;
    };
    let mut writer = Writer::new(stream, &channel);
    match caller {
        Ok(caller) => Some((channel, writer, caller)),
        Err(refusal) => {
            goodbye(&mut writer, &crate::error_text::one_line(&refusal));
            None
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.try_clone()
}

/// Serves a serial line until the program stops, and reopens it when it fails.
pub fn serve_serial(context: &LinkContext, line: &crate::config::SerialLine) {
    let (path, baud) = (line.path.as_path(), line.baud);
    let caller = Caller {
        name: None,
        role: line.role.into(),
        key: None,
    };
    let kind = LinkKind::Serial {
        recovery: line.recovery,
        pictures: line.carries_pictures(),
        baud,
    };
    let never_displaced = AtomicBool::new(false);
    let mut failed = false;
    while !context.stop.load(Ordering::Relaxed) {
        match secure::serial::open(path, baud) {
            Ok(port) => {
                if std::mem::take(&mut failed) {
                    tracing::info!(path = %path.display(), "serial line is back");
                }
                contained(|| serve(context, kind, &caller, &never_displaced, &port, &port));
            }
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::error!(error = crate::error_text::one_line(&error), "serial line");
                }
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use proto::message::Role;

    use super::*;

    #[test]
    fn a_session_that_panics_gives_its_place_back() {
        let sessions = Sessions::new(2);
        std::thread::scope(|scope| {
            for key in 0..8 {
                let sessions = &sessions;
                scope.spawn(move || {
                    contained(|| {
                        let _place = sessions.take(&[key; 32], Role::Watch);
                        panic!("a session fails");
                    });
                });
            }
        });
        // The scope has ended without a panic, and all places are free.
        let places = [8, 9].map(|key| sessions.take(&[key; 32], Role::Watch));
        assert!(places.iter().all(Result::is_ok));
    }
}

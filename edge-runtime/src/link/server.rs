//! Where stations come in: a listening TCP socket, a serial line.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secure::handshake::{Channel, HandshakeError};
use secure::stream::{Reader, Writer};

use super::LinkContext;
use super::door::{Caller, Refusal};
use super::session::{Kind, serve};
use super::writing::{WRITE_TIMEOUT, goodbye};

/// Handshakes at the same time.
const MAX_HANDSHAKES: usize = 8;
/// The reading half looks up so often.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// Listens, with an error that names the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Accepts stations until everything stops. Sessions run in their own threads, at most `max_stations`.
pub fn serve_tcp(context: &Arc<LinkContext>, listener: &TcpListener) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let (running, trying) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        while !context.stop.load(Ordering::Relaxed) {
            let Ok((stream, peer)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            // Before anything that costs time: whoever fails often is not heard, whoever waits takes no place.
            if !context.door.hears(peer.ip()) || trying.load(Ordering::Relaxed) >= MAX_HANDSHAKES {
                continue;
            }
            let Ok(reader) = prepare(&stream) else {
                continue;
            };
            trying.fetch_add(1, Ordering::Relaxed);
            let (running, trying) = (&running, &trying);
            scope.spawn(move || {
                let entered = enter(context, stream, peer);
                trying.fetch_sub(1, Ordering::Relaxed);
                let Some((channel, mut writer, caller)) = entered else {
                    return;
                };
                if running.fetch_add(1, Ordering::Relaxed) >= context.max_stations {
                    tracing::warn!(%peer, "too many stations");
                    goodbye(&mut writer, "too many stations are connected");
                } else {
                    let reader = Reader::new(reader, &channel);
                    serve(context, Kind::Tcp, &caller, reader, writer);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// Handshake; whoever is refused is told why, as far as it can understand it.
fn enter(
    context: &LinkContext,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Channel, Writer<TcpStream>, Caller)> {
    let (channel, caller) = context.door.enter(&mut stream, peer.ip());
    let Some(channel) = channel else {
        // A station from before there was encryption, or another program.
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
            goodbye(&mut writer, &crate::reporting::one_line(&refusal));
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

/// Serves the serial line until everything stops; opens it anew when it fails.
#[cfg(feature = "serial")]
pub fn serve_serial(context: &LinkContext, line: &crate::config::SerialLine) {
    let (path, baud) = (line.path.as_path(), line.baud);
    let caller = Caller {
        name: None,
        role: line.role.into(),
        key: None,
    };
    let kind = Kind::Serial {
        recovery: line.recovery,
    };
    let mut told = false;
    while !context.stop.load(Ordering::Relaxed) {
        match crate::io::serial::open(path, baud) {
            Ok(port) => {
                if std::mem::take(&mut told) {
                    tracing::info!(path = %path.display(), "serial line is back");
                }
                serve(context, kind, &caller, &port, &port);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(error = crate::reporting::one_line(&error), "serial line");
                }
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

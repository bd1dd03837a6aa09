//! Where stations come in: a listening TCP socket, a serial line.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::LinkContext;
use super::session::{Kind, serve};
use super::writing::{WRITE_TIMEOUT, goodbye};

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
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while !context.stop.load(Ordering::Relaxed) {
            let Ok((mut stream, peer)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            if running.load(Ordering::Relaxed) >= context.max_stations {
                tracing::warn!(%peer, "too many stations");
                goodbye(&mut stream, "too many stations are connected");
                continue;
            }
            let Ok(reader) = prepare(&stream) else {
                continue;
            };
            running.fetch_add(1, Ordering::Relaxed);
            let running = &running;
            scope.spawn(move || {
                serve(context, Kind::Tcp, reader, stream);
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
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
pub fn serve_serial(context: &LinkContext, path: &std::path::Path, baud: u32) {
    let mut told = false;
    while !context.stop.load(Ordering::Relaxed) {
        match crate::io::serial::open(path, baud) {
            Ok(port) => {
                if std::mem::take(&mut told) {
                    tracing::info!(path = %path.display(), "serial line is back");
                }
                serve(context, Kind::Serial, &port, &port);
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

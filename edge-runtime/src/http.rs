//! Serves metrics and health over HTTP: `GET /metrics` and `GET /health`.
//!
//! One thread answers one request at a time, each within a second. Small server libraries keep a
//! thread for every slow client, and clients of the metrics port must never take processor time or
//! memory from the line.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::message::Mode;

use crate::line::readiness::{Condition, Readiness};
use crate::metrics::Metrics;

/// Time that a client has to send its request, and again to accept the answer.
const CLIENT_TIME: Duration = Duration::from_secs(1);
/// Longest request head that is read.
const MAX_REQUEST_BYTES: usize = 4_096;

/// Answers requests until `stop` is set.
pub fn serve(listener: &TcpListener, metrics: &Metrics, readiness: &Readiness, stop: &AtomicBool) {
    // Polls instead of blocking, so that `stop` is noticed.
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Err(error) = answer(stream, metrics, readiness) {
                    tracing::debug!(%peer, %error, "metrics client");
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Listens on an address; an error names the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, metrics: &Metrics, readiness: &Readiness) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(CLIENT_TIME))?;
    let started = Instant::now();
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = CLIENT_TIME.saturating_sub(started.elapsed());
        if left.is_zero() || request.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or(&[]);
    let mut words = line.split(|&byte| byte == b' ');
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => {
            metrics.health(Mode::Inspect);
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ("200 OK", kind, metrics.encode())
        }
        (Some(b"GET"), Some(b"/health")) => {
            let ready = readiness.is_ready() && readiness.journal_ok();
            let status = if ready {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let conditions: Vec<String> = Condition::ALL
                .iter()
                .map(|&condition| {
                    let ok = !readiness.is_failing(condition);
                    format!("\"{}\":{ok}", condition.name())
                })
                .collect();
            let body = format!(
                "{{\"ready\":{ready},\"capturing\":{},\"journal\":{},\"gate\":{},\
                 \"conditions\":{{{}}}}}\n",
                readiness.capturing(),
                readiness.journal_ok(),
                readiness.gate_ok(),
                conditions.join(",")
            );
            (status, "application/json", body)
        }
        (Some(b"GET"), _) => (
            "404 Not Found",
            "text/plain",
            "there are /metrics and /health\n".to_owned(),
        ),
        _ => (
            "405 Method Not Allowed",
            "text/plain",
            "GET only\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_stalled_client_does_not_keep_the_next_one_waiting_for_long() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::new());
        let metrics = Metrics::new("top", Arc::clone(&readiness));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&listener, &metrics, &readiness, &stop));
            let _stalled = TcpStream::connect(address).unwrap();
            let ask = |path: &str| {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text
            };
            assert!(ask("/metrics").contains("awr_frames_total 0"));
            assert!(ask("/health").starts_with("HTTP/1.1 503"));
            readiness.set_capturing(true);
            assert!(ask("/health").starts_with("HTTP/1.1 200"));
            readiness.set_failing(Condition::Inspecting, true);
            let observing = ask("/health");
            assert!(observing.starts_with("HTTP/1.1 503"));
            assert!(observing.contains("\"ready\":false,\"capturing\":true,\"journal\":true"));
            assert!(
                observing.contains("\"golden\":true")
                    && observing.contains("\"inspecting\":false}}")
            );
            assert!(ask("/x").starts_with("HTTP/1.1 404"));
            stop.store(true, Ordering::Relaxed);
        });
    }
}

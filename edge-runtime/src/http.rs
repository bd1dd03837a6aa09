//! Serves metrics and health over HTTP: `/metrics` and `/health`, by GET and HEAD (RFC 9110).
//!
//! One thread answers one request at a time, each within a second. Small server libraries keep a
//! thread for every slow client, and clients of the metrics port must never take processor time or
//! memory from the line.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::message::Mode;

use crate::line::readiness::{Condition, Readiness};
use crate::metrics::Metrics;

/// Time that a client has to send its request, and again to accept the answer.
const CLIENT_TIME: Duration = Duration::from_secs(1);
/// Longest request head that is read. A browser sends the cookies of everything on this host.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// After a request that was not read to its end, time for the client to read the answer: closing at
/// once would discard it.
const LINGER: Duration = Duration::from_millis(200);

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
    let Some(head) = read_head(&mut stream)? else {
        return Ok(());
    };
    let (request, response) = match &head {
        Head::Whole(head) => {
            let request = Request::parse(head);
            let response =
                request.map_or_else(bad_request, |request| respond(request, metrics, readiness));
            (request, response)
        }
        Head::TooLong => (None, too_long()),
    };
    let Response { status, kind, body } = response;
    let allow = if status == NOT_ALLOWED {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if request.is_none_or(|request| request.method != b"HEAD") {
        stream.write_all(body.as_bytes())?;
    }
    if request.is_none_or(|request| !request.is_read()) {
        linger(&mut stream);
    }
    Ok(())
}

/// The head of a request.
enum Head {
    Whole(Vec<u8>),
    TooLong,
}

/// Reads up to the empty line that ends a request's head; `None` if the client leaves before.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<Head>> {
    let started = Instant::now();
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    let ends = |head: &[u8]| {
        let has = |end: &[u8]| head.windows(end.len()).any(|bytes| bytes == end);
        has(b"\r\n\r\n") || has(b"\n\n")
    };
    while !ends(&head) {
        if head.len() > MAX_REQUEST_BYTES {
            return Ok(Some(Head::TooLong));
        }
        let left = CLIENT_TIME.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Some(Head::Whole(head)))
}

/// Discards what the client still sends, for a short time.
fn linger(stream: &mut TcpStream) {
    let started = Instant::now();
    let mut buffer = [0; 1_024];
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    loop {
        let left = LINGER.saturating_sub(started.elapsed());
        // A time-out of zero is refused.
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if !matches!(stream.read(&mut buffer), Ok(1..)) {
            return;
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request<'a> {
    method: &'a [u8],
    /// The path without query and trailing slash.
    path: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses a request line: method, target and version. `None` if it is none.
    fn parse(head: &'a [u8]) -> Option<Self> {
        let line = head.split(|&byte| byte == b'\n').next()?.trim_ascii_end();
        let mut words = line.split(|&byte| byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let valid = !method.is_empty() && version.starts_with(b"HTTP/1.");
        if !valid || words.next().is_some() {
            return None;
        }
        let path = match target.strip_prefix(b"http://") {
            // To a proxy, a client sends the whole address.
            Some(rest) => &rest[rest.iter().position(|&byte| byte == b'/')?..],
            None => target,
        };
        let path = path.split(|byte| b"?#".contains(byte)).next()?;
        let path = path.strip_suffix(b"/").unwrap_or(path);
        Some(Self { method, path })
    }

    /// Whether a request by this method ends with its head.
    fn is_read(&self) -> bool {
        [&b"GET"[..], b"HEAD"].contains(&self.method)
    }
}

/// An answer.
struct Response {
    status: &'static str,
    /// Media type of the body.
    kind: &'static str,
    body: String,
}

const NOT_ALLOWED: &str = "405 Method Not Allowed";

fn text(status: &'static str, body: &str) -> Response {
    Response {
        status,
        kind: "text/plain; charset=utf-8",
        body: body.to_owned(),
    }
}

fn bad_request() -> Response {
    text(
        "400 Bad Request",
        "expected GET or HEAD, a path and HTTP/1\n",
    )
}

fn too_long() -> Response {
    text(
        "431 Request Header Fields Too Large",
        "expected a request of at most 16 KiB\n",
    )
}

fn respond(request: Request<'_>, metrics: &Metrics, readiness: &Readiness) -> Response {
    match request.path {
        _ if !request.is_read() => text(NOT_ALLOWED, "GET and HEAD only\n"),
        b"/metrics" => {
            metrics.health(Mode::Inspect);
            Response {
                status: "200 OK",
                kind: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: metrics.encode(),
            }
        }
        b"/health" => health(readiness),
        _ => text("404 Not Found", "there are /metrics and /health\n"),
    }
}

fn health(readiness: &Readiness) -> Response {
    let ready = readiness.is_ready() && readiness.journal_ok();
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
    Response {
        status: if ready {
            "200 OK"
        } else {
            "503 Service Unavailable"
        },
        kind: "application/json",
        body,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;

    use super::*;

    /// Serves while `clients` runs, which gets a function from a request to the answer.
    fn served(clients: impl FnOnce(&dyn Fn(&[u8]) -> String, SocketAddr, &Readiness)) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::new());
        let metrics = Metrics::new("top", Arc::clone(&readiness));
        let stop = AtomicBool::new(false);
        let ask = |request: &[u8]| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&listener, &metrics, &readiness, &stop));
            let outcome = catch_unwind(AssertUnwindSafe(|| clients(&ask, address, &readiness)));
            stop.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }

    #[test]
    fn a_stalled_client_does_not_keep_the_next_one_waiting_for_long() {
        served(|ask, address, readiness| {
            let _stalled = TcpStream::connect(address).unwrap();
            let ask =
                |path: &str| ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
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
        });
    }

    #[test]
    fn a_query_is_ignored_and_head_has_the_length_of_the_body_without_the_body() {
        served(|ask, _, _| {
            for target in [
                "/metrics",
                "/metrics?x",
                "/metrics?name[]=a&b=%2F",
                "/metrics/",
                "/metrics/?a=/health",
                "http://camera:9751/metrics?x",
            ] {
                let whole = ask(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
                assert!(whole.starts_with("HTTP/1.1 200"), "{target}: {whole}");
                let (head, body) = whole.split_once("\r\n\r\n").unwrap();
                assert!(body.contains("awr_frames_total 0") && body.ends_with("# EOF\n"));
                assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            }
            for (target, status) in [("/metrics?x", 200), ("/health", 503), ("/x", 404)] {
                let get = ask(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
                let head = ask(format!("HEAD {target} HTTP/1.0\r\n\r\n").as_bytes());
                assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
                let type_of = |text: &str| {
                    let line = text.lines().find(|line| line.starts_with("Content-Type"));
                    line.unwrap().to_owned()
                };
                assert_eq!(type_of(&head), type_of(&get));
                assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "));
                assert!(length.unwrap().parse::<usize>().unwrap() > 0);
            }
            // As with `printf 'GET /health HTTP/1.0\n\n' | nc`.
            assert!(ask(b"GET /health HTTP/1.0\n\n").contains("\"ready\""));
        });
    }

    #[test]
    fn other_methods_and_what_is_no_request_get_an_error_and_a_long_one_is_not_kept() {
        served(|ask, _, _| {
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "PRI"] {
                let request =
                    format!("{method} /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
                let answer = ask(request.as_bytes());
                assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
                assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"));
            }
            let nonsense: [&[u8]; 5] = [
                b"\r\n\r\n",
                b"GET\r\n\r\n",
                b"GET /metrics\r\n\r\n",
                b"GET /metrics HTTP/1.1 x\r\n\r\n",
                b"\x16\x03\x01\x02\0\x01\xfc\x03\x03\n\n",
            ];
            for request in nonsense {
                let answer = ask(request);
                assert!(answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer}");
            }
            let long = [b"GET /metrics?", &[b'x'; 60_000][..], b" HTTP/1.1\r\n\r\n"].concat();
            assert!(ask(&long).starts_with("HTTP/1.1 431"));
            let cookies = format!(
                "GET /health HTTP/1.1\r\nCookie: {}\r\n\r\n",
                "x".repeat(12_000)
            );
            assert!(ask(cookies.as_bytes()).starts_with("HTTP/1.1 503"));
        });
    }
}

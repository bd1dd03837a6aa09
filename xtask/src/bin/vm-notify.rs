//! `vm-notify SOCKET`: takes systemd's place for a program whose `NOTIFY_SOCKET` is SOCKET, and
//! prints each line that the program sends.
//!
//! It runs in the guest of `cargo xtask vm-test`.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).map(|path| print_all(&path)) {
        Some(Err(error)) => eprintln!("error: {error}"),
        _ => eprintln!("error: vm-notify SOCKET"),
    }
    ExitCode::FAILURE
}

fn print_all(path: &str) -> io::Result<()> {
    let socket = UnixDatagram::bind(path)?;
    let mut message = [0; 4_096];
    loop {
        let length = socket.recv(&mut message)?;
        let mut output = io::stdout().lock();
        output.write_all(&message[..length])?;
        if !message[..length].ends_with(b"\n") {
            output.write_all(b"\n")?;
        }
        output.flush()?;
    }
}

//! A serial port between a camera and a station, as a byte stream. It is not encrypted; framing is
//! that of `proto`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serial2::{CharSize, FlowControl, Parity, SerialPort, Settings, StopBits};

/// Longest time that a read waits for the first byte. It is short so that the reading thread
/// notices a request to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// Longest time that a write waits for room, for the same reason.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// A serial port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open serial port {} at {baud} baud", path.display())]
pub struct SerialError {
    /// The port.
    pub path: PathBuf,
    /// Requested speed in bits per second.
    pub baud: u32,
    /// The system's error.
    pub source: std::io::Error,
}

/// Opens a port in raw mode, so that every byte passes unchanged: 8 data bits, no parity, 1 stop
/// bit, no flow control. A read that gets no byte for 100 ms fails with
/// [`std::io::ErrorKind::TimedOut`], and so does a write that finds no room for 200 ms.
pub fn open(path: &Path, baud: u32) -> Result<SerialPort, SerialError> {
    let settings = |mut settings: Settings| {
        settings.set_raw();
        settings.set_char_size(CharSize::Bits8);
        settings.set_parity(Parity::None);
        settings.set_stop_bits(StopBits::One);
        settings.set_flow_control(FlowControl::None);
        settings.set_baud_rate(baud)?;
        Ok(settings)
    };
    let port = SerialPort::open(path, settings).and_then(|mut port| {
        port.set_read_timeout(READ_TIMEOUT)?;
        port.set_write_timeout(WRITE_TIMEOUT)?;
        Ok(port)
    });
    port.map_err(|source| SerialError {
        path: path.to_owned(),
        baud,
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::ffi::OsStrExt;

    use rustix::pty;

    use super::*;

    /// Opens a pseudo-terminal and returns our end and the path of the other.
    fn terminal() -> (File, PathBuf) {
        let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
        pty::grantpt(&ours).unwrap();
        pty::unlockpt(&ours).unwrap();
        let name = pty::ptsname(&ours, Vec::new()).unwrap();
        (
            File::from(ours),
            PathBuf::from(OsStr::from_bytes(name.as_bytes())),
        )
    }

    #[test]
    fn every_byte_passes_unchanged_both_ways() {
        let (mut ours, path) = terminal();
        let port = open(&path, 115_200).unwrap();
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let mut received = vec![0; all.len()];

        ours.write_all(&all).unwrap();
        port.read_exact(&mut received).unwrap();
        assert_eq!(received, all);

        received.fill(0);
        port.write_all(&all).unwrap();
        ours.read_exact(&mut received).unwrap();
        assert_eq!(received, all);
    }

    #[test]
    fn a_read_without_data_times_out() {
        let (_ours, path) = terminal();
        let port = open(&path, 9_600).unwrap();
        let error = port.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn an_error_names_a_missing_port() {
        let error = open(Path::new("/dev/no-such-port"), 9_600).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot open serial port /dev/no-such-port at 9600 baud"
        );
        assert_eq!(error.source.kind(), ErrorKind::NotFound);
    }
}

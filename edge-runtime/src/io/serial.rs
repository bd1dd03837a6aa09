//! The serial port of a camera: a byte stream and nothing more; framing is the link's business.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serial2::{CharSize, FlowControl, Parity, SerialPort, Settings, StopBits};

/// How long a read waits for the first byte, so that whoever reads can look up and stop.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a write waits for room, for the same reason.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// Why a port does not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot open serial port {} at {baud} baud", path.display())]
pub struct SerialError {
    /// The port.
    pub path: PathBuf,
    /// Speed asked for, in bits per second.
    pub baud: u32,
    /// The system's words.
    pub source: std::io::Error,
}

/// Opens a port raw (every byte passes unchanged): 8 data bits, no parity, 1 stop bit, no flow control. A read that
/// finds nothing for 100 ms ends in [`std::io::ErrorKind::TimedOut`], a write that finds no room for 200 ms too.
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

    /// Both ends of a pseudo-terminal: ours, and the path of the other.
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
    fn silence_ends_in_a_time_out() {
        let (_ours, path) = terminal();
        let port = open(&path, 9_600).unwrap();
        let error = port.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_port_that_is_not_there_is_named() {
        let error = open(Path::new("/dev/no-such-port"), 9_600).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot open serial port /dev/no-such-port at 9600 baud"
        );
        assert_eq!(error.source.kind(), ErrorKind::NotFound);
    }
}

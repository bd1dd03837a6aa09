//! Pseudo-terminals, in place of serial lines.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Opens a pseudo-terminal: our end, and the path of the end for the program under test.
pub(crate) fn terminal() -> (File, PathBuf) {
    use rustix::pty;
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let ours = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&ours).unwrap();
    pty::unlockpt(&ours).unwrap();
    // Raw mode, so that bytes that we write are not echoed before the program opens its end.
    let mut settings = tcgetattr(&ours).unwrap();
    settings.make_raw();
    tcsetattr(&ours, OptionalActions::Now, &settings).unwrap();
    let name = pty::ptsname(&ours, Vec::new()).unwrap();
    let path = PathBuf::from(OsStr::from_bytes(name.as_bytes()));
    (File::from(ours), path)
}

/// Our end as a reader that times out.
pub(crate) struct TimeoutReader(pub(crate) File);

impl Read for TimeoutReader {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut waiting = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        if poll(&mut waiting, Some(&timeout))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        // EIO means that the program has not opened its end yet.
        self.0
            .read(bytes)
            .or(Err(std::io::ErrorKind::TimedOut.into()))
    }
}

//! Runs commands in the guest: the host's side of `guest/agent.sh`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest answer in bytes, so that a wrong length does not fill the memory.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// Time to wait for an answer beyond the command's limit, which the guest enforces.
const GRACE: Duration = Duration::from_secs(20);

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code; 137 if it exceeded its limit.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without line breaks at the end.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.trim_end_matches('\n').to_owned()
    }
}

/// An open control channel.
pub(crate) struct Control {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        // Short, so that the end of QEMU is noticed soon.
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.set_write_timeout(Some(GRACE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Runs `command` in a shell with `input` as its standard input, for at most `limit`. `alive`
    /// is called now and then while waiting; its error ends the wait.
    pub(crate) fn run(
        &mut self,
        command: &str,
        input: &[u8],
        limit: Duration,
        alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Output> {
        // The guest measures its limit in whole seconds.
        let seconds = limit.as_secs().max(1);
        let header = format!("{seconds} {} {}\n", command.len(), input.len());
        for part in [header.as_bytes(), command.as_bytes(), input] {
            self.stream
                .write_all(part)
                .context("cannot send a command to the guest")?;
        }
        let deadline = Instant::now() + limit + GRACE;
        let end = loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                break at;
            }
            self.receive(deadline, alive)?;
        };
        let line = String::from_utf8_lossy(&self.received[..end]).into_owned();
        self.received.drain(..=end);
        let numbers: Vec<usize> = line.split(' ').flat_map(str::parse).collect();
        let [status, out, err] = numbers[..] else {
            bail!("expected three numbers from the guest's agent, found `{line}`");
        };
        if out.saturating_add(err) > MAX_ANSWER_BYTES {
            bail!(
                "`{command}` wrote {} bytes; at most {MAX_ANSWER_BYTES} can be fetched",
                out + err
            );
        }
        while self.received.len() < out + err {
            self.receive(deadline, alive)?;
        }
        let mut stdout: Vec<u8> = self.received.drain(..out + err).collect();
        let stderr = stdout.split_off(out);
        Ok(Output {
            status: i32::try_from(status)?,
            stdout,
            stderr,
        })
    }

    fn receive(&mut self, deadline: Instant, alive: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                // QEMU closes its sockets shortly before it ends; how it ends says more.
                std::thread::sleep(Duration::from_millis(500));
                alive()?;
                bail!("QEMU closed the control channel");
            }
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                alive()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading from the control channel"),
        }
        if Instant::now() > deadline {
            bail!("the guest does not answer");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_pieces_is_split_into_its_streams() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let agent = std::thread::spawn(move || {
            let mut asked = [0; 20];
            guest.read_exact(&mut asked).unwrap();
            for piece in [&b"3 "[..], b"4 2\nou", b"\nter", b"5 0 0\n"] {
                guest.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            asked
        });
        let mut control = Control::new(host).unwrap();
        let limit = Duration::from_secs(5);
        let output = control.run("true; false", b"in", limit, &mut || Ok(()));
        let output = output.unwrap();
        assert_eq!(output.status, 3);
        assert_eq!(output.stdout, b"ou\nt");
        assert_eq!(output.stderr, b"er");
        let asked = agent.join().unwrap();
        assert_eq!(&asked, b"5 11 2\ntrue; falsein");
    }
}

//! Plain bytes over an encrypted link, in two halves for two threads.
//!
//! A record is a length (u16, big-endian) followed by that many bytes of ciphertext and tag. Both
//! sides number the records, so a record that is missing, repeated or altered ends the link. When
//! the stream below times out in the middle of a record, no byte is lost.

use std::io::{self, ErrorKind, Read, Write};

use crate::noise::{Channel, MAX_RECORD_BYTES, SessionKeys};

const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// Most plain bytes in a record. A record could hold more, but a reader gets its bytes only when
/// the whole record has arrived, which takes time on a slow link.
const MAX_PLAIN_BYTES: usize = 32 << 10;

/// The reading half.
pub struct Reader<R> {
    inner: R,
    keys: SessionKeys,
    number: u64,
    wire: Vec<u8>,
    filled: usize,
    plain: Vec<u8>,
    given: usize,
}

impl<R: Read> Reader<R> {
    /// Reads records from `inner` after a handshake.
    pub fn new(inner: R, channel: &Channel) -> Self {
        Self {
            inner,
            keys: channel.keys.clone(),
            number: 0,
            wire: vec![0; LENGTH_BYTES + MAX_RECORD_BYTES],
            filled: 0,
            plain: Vec::new(),
            given: 0,
        }
    }

    /// Size of the record that has begun, or of its length field while that is incomplete.
    fn needed(&self) -> usize {
        match self.wire[..self.filled] {
            [high, low, ..] => LENGTH_BYTES + usize::from(u16::from_be_bytes([high, low])),
            _ => LENGTH_BYTES,
        }
    }

    /// Decrypts the record that has begun. Returns false if it is not complete.
    fn open_record(&mut self) -> io::Result<bool> {
        let needed = self.needed();
        if self.filled < needed || needed == LENGTH_BYTES {
            return Ok(false);
        }
        if needed < LENGTH_BYTES + TAG_BYTES {
            return Err(invalid("a record shorter than its tag"));
        }
        self.plain.resize(needed, 0);
        let record = &self.wire[LENGTH_BYTES..needed];
        let opened = self
            .keys
            .read_message(self.number, record, &mut self.plain)
            .map_err(|_| invalid("a record that was altered, repeated or left out"))?;
        self.plain.truncate(opened);
        (self.given, self.number) = (0, self.number + 1);
        self.wire.copy_within(needed..self.filled, 0);
        self.filled -= needed;
        Ok(true)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

impl<R: Read> Read for Reader<R> {
    /// Reads the stream below at most once. An incomplete record gives [`ErrorKind::WouldBlock`].
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.given == self.plain.len() && !self.open_record()? {
            if self.filled >= LENGTH_BYTES && self.needed() == LENGTH_BYTES {
                return Err(invalid("an empty record"));
            }
            match self.inner.read(&mut self.wire[self.filled..])? {
                0 => return Ok(0),
                count => self.filled += count,
            }
            self.open_record()?;
        }
        let left = &self.plain[self.given..];
        if left.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = left.len().min(out.len());
        out[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

/// The writing half. Bytes that were accepted but not yet sent are sent by the next calls, at the
/// latest by [`Write::flush`].
pub struct Writer<W> {
    inner: W,
    keys: SessionKeys,
    number: u64,
    wire: Vec<u8>,
    sent: usize,
}

impl<W: Write> Writer<W> {
    /// Writes records to `inner` after a handshake.
    pub fn new(inner: W, channel: &Channel) -> Self {
        Self {
            inner,
            keys: channel.keys.clone(),
            number: 0,
            wire: Vec::new(),
            sent: 0,
        }
    }

    /// Sends what is left of the current record.
    fn push(&mut self) -> io::Result<()> {
        while self.sent < self.wire.len() {
            match self.inner.write(&self.wire[self.sent..])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => self.sent += count,
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let taken = &bytes[..bytes.len().min(MAX_PLAIN_BYTES)];
        if taken.is_empty() {
            return Ok(0);
        }
        self.wire.resize(LENGTH_BYTES + taken.len() + TAG_BYTES, 0);
        let length = self
            .keys
            .write_message(self.number, taken, &mut self.wire[LENGTH_BYTES..])
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.wire[..LENGTH_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
        (self.sent, self.number) = (0, self.number + 1);
        // The bytes are accepted, even if they could not be sent yet.
        match self.push() {
            Err(error) if !is_retryable(&error) => Err(error),
            _ => Ok(taken.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        self.inner.flush()
    }
}

fn is_retryable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

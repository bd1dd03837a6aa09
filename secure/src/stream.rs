//! Plain bytes over an encrypted link, in two halves that two threads can use.
//!
//! A record is a length (u16, big-endian) and so many bytes of ciphertext with its tag. Records are numbered on both
//! sides, so one that is left out, repeated or altered ends the link. A stream that times out in the middle of a record
//! loses nothing.

use std::io::{self, ErrorKind, Read, Write};

use crate::handshake::{Channel, Keys};

/// Longest record (Noise, section 3), and its tag.
pub(crate) const MAX_RECORD_BYTES: usize = 65_535;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// Less than a record can hold: small enough that a slow line is not late with what matters.
const MAX_PLAIN_BYTES: usize = 32 << 10;

/// The reading half.
pub struct Reader<R> {
    inner: R,
    keys: Keys,
    number: u64,
    wire: Vec<u8>,
    filled: usize,
    plain: Vec<u8>,
    given: usize,
}

impl<R: Read> Reader<R> {
    /// Behind a handshake.
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

    /// How many bytes the record needs that has begun.
    fn needed(&self) -> usize {
        match self.wire[..self.filled] {
            [high, low, ..] => LENGTH_BYTES + usize::from(u16::from_be_bytes([high, low])),
            _ => LENGTH_BYTES,
        }
    }

    /// Takes a whole record apart, if there is one.
    fn open(&mut self) -> io::Result<bool> {
        let needed = self.needed();
        if self.filled < needed || needed == LENGTH_BYTES {
            return Ok(false);
        }
        if needed < LENGTH_BYTES + TAG_BYTES {
            return Err(broken("a record shorter than its tag"));
        }
        self.plain.resize(needed, 0);
        let record = &self.wire[LENGTH_BYTES..needed];
        let opened = self
            .keys
            .read_message(self.number, record, &mut self.plain)
            .map_err(|_| broken("a record that was altered, repeated or left out"))?;
        self.plain.truncate(opened);
        (self.given, self.number) = (0, self.number + 1);
        self.wire.copy_within(needed..self.filled, 0);
        self.filled -= needed;
        Ok(true)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

impl<R: Read> Read for Reader<R> {
    /// At most one read of the stream below; an incomplete record is `WouldBlock`.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.given == self.plain.len() && !self.open()? {
            if self.filled >= LENGTH_BYTES && self.needed() == LENGTH_BYTES {
                return Err(broken("an empty record"));
            }
            match self.inner.read(&mut self.wire[self.filled..])? {
                0 => return Ok(0),
                count => self.filled += count,
            }
            self.open()?;
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

/// The writing half. What was taken is sent by the next calls, [`Write::flush`] at the latest.
pub struct Writer<W> {
    inner: W,
    keys: Keys,
    number: u64,
    wire: Vec<u8>,
    sent: usize,
}

impl<W: Write> Writer<W> {
    /// Behind a handshake.
    pub fn new(inner: W, channel: &Channel) -> Self {
        Self {
            inner,
            keys: channel.keys.clone(),
            number: 0,
            wire: Vec::new(),
            sent: 0,
        }
    }

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
        // The bytes are taken, sent or not.
        match self.push() {
            Err(error) if !is_patience(&error) => Err(error),
            _ => Ok(taken.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        self.inner.flush()
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

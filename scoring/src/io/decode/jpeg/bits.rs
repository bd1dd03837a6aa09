//! Reads bits of a JPEG's coded data up to the next marker (ITU-T T.81, F.2.2.5).

use super::check::Fault;

/// Bits of coded data. `0xff 0x00` stands for the value `0xff`; any other `0xff` begins a marker,
/// at which the data end.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte that is not in `word`.
    at: usize,
    /// Bits read ahead, from the highest bit on; the rest is zero.
    word: u64,
    /// How many.
    ahead: u32,
}

/// What lies between the last coded bit and the marker that follows.
pub(super) struct Rest {
    /// Offset of the marker's `0xff`, or of the end of the file.
    pub(super) marker_at: usize,
    /// The bits that fill the last byte are all ones, as they should be, or all zeros.
    pub(super) even_fill: bool,
    /// Whole bytes that belong to nothing.
    pub(super) stray_bytes: usize,
}

impl<'a> Bits<'a> {
    /// Bits from byte `at` on.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            word: 0,
            ahead: 0,
        }
    }

    /// Reads ahead as far as there are data.
    #[inline]
    fn fill(&mut self) {
        // Eight bytes at once, where none of them is 0xff.
        if let Some(next) = self.bytes.get(self.at..self.at + 8)
            && let Ok(next) = <[u8; 8]>::try_from(next)
        {
            let value = u64::from_be_bytes(next);
            let inverse = !value;
            let has_ff =
                inverse.wrapping_sub(0x0101_0101_0101_0101) & !inverse & 0x8080_8080_8080_8080 != 0;
            if !has_ff {
                let bytes = (64 - self.ahead) / 8;
                if bytes > 0 {
                    let taken = value >> (64 - 8 * bytes) << (64 - 8 * bytes);
                    self.word |= taken >> self.ahead;
                    self.ahead += 8 * bytes;
                    self.at += bytes as usize;
                }
                return;
            }
        }
        while self.ahead <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else {
                return;
            };
            let length = match byte {
                0xff if self.bytes.get(self.at + 1) == Some(&0) => 2,
                0xff => return,
                _ => 1,
            };
            self.word |= u64::from(byte) << (56 - self.ahead);
            self.ahead += 8;
            self.at += length;
        }
    }

    /// Makes sure that 32 bits are read ahead, unless the data end before.
    #[inline]
    pub(super) fn prepare(&mut self) {
        if self.ahead < 32 {
            self.fill();
        }
    }

    /// The next 16 bits; zeros after the end. [`Self::prepare`] comes before it.
    #[inline]
    pub(super) fn peek(&self) -> u16 {
        (self.word >> 48) as u16
    }

    /// Takes `count` bits, up to 16, as a number.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u16, Fault> {
        if self.ahead < count {
            self.fill();
        }
        let value = (self.word >> 32 >> (32 - count)) as u16;
        self.skip(count)?;
        Ok(value)
    }

    /// Takes bits that [`Self::prepare`] has read ahead.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) -> Result<(), Fault> {
        if count > self.ahead {
            return Err(Fault::DataEnd);
        }
        self.word <<= count;
        self.ahead -= count;
        Ok(())
    }

    /// Goes to the next marker.
    pub(super) fn finish(mut self) -> Rest {
        let fill = self.ahead % 8;
        let filling = self.word >> 32 >> (32 - fill);
        let even_fill = filling == 0 || filling == (1 << fill) - 1;
        let mut stray_bytes = (self.ahead / 8) as usize;
        loop {
            match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => self.at += 2,
                // Bytes of 0xff may precede a marker.
                (Some(0xff), Some(0xff)) => {
                    self.at += 1;
                    continue;
                }
                (Some(0xff), _) | (None, _) => break,
                _ => self.at += 1,
            }
            stray_bytes += 1;
        }
        Rest {
            marker_at: self.at,
            even_fill,
            stray_bytes,
        }
    }
}

//! LZW as TIFF has it (TIFF 6.0, section 13), checked. A stream has no checksum, but a code that
//! stands for a string must be the longest one that there is: all encoders take it. Damage gives
//! codes that no encoder would have written.

/// Codes of 12 bits.
const CODES: usize = 4_096;
/// Empties the table.
const CLEAR: usize = 256;
/// Ends the data.
const END: usize = 257;
/// The first code of a string.
const FIRST: usize = 258;

/// The strings of codes: each is another one and a byte.
struct Table {
    prefix: Vec<u16>,
    last: Vec<u8>,
    first: Vec<u8>,
    length: Vec<u16>,
    /// Number of the next string.
    next: usize,
    /// For each code and byte, whether there is a string of both.
    known: Vec<u64>,
}

impl Table {
    fn new() -> Self {
        let mut table = Self {
            prefix: vec![0; CODES],
            last: vec![0; CODES],
            first: vec![0; CODES],
            length: vec![1; CODES],
            next: FIRST,
            known: vec![0; CODES * 256 / 64],
        };
        for byte in 0..=u8::MAX {
            table.first[usize::from(byte)] = byte;
            table.last[usize::from(byte)] = byte;
        }
        table
    }

    fn clear(&mut self) {
        self.next = FIRST;
        self.known.fill(0);
    }

    /// Adds a string, unless the table is full. `false` if there is one already.
    fn add(&mut self, prefix: usize, byte: u8) -> bool {
        let at = prefix * 256 + usize::from(byte);
        if self.known[at / 64] >> (at % 64) & 1 == 1 {
            return false;
        }
        if self.next < CODES {
            self.known[at / 64] |= 1 << (at % 64);
            self.prefix[self.next] = prefix as u16;
            self.last[self.next] = byte;
            self.first[self.next] = self.first[prefix];
            self.length[self.next] = self.length[prefix] + 1;
            self.next += 1;
        }
        true
    }

    /// Appends a code's string. `false` if it goes beyond `most` bytes.
    fn write(&self, code: usize, pixels: &mut Vec<u8>, most: usize) -> bool {
        let start = pixels.len();
        let end = start + usize::from(self.length[code]);
        if end > most {
            return false;
        }
        pixels.resize(end, 0);
        let mut code = code;
        for byte in pixels[start..].iter_mut().rev() {
            *byte = self.last[code];
            code = usize::from(self.prefix[code]);
        }
        true
    }
}

/// Unpacks up to `most` bytes, and says how many bytes of data are left. An error says what is
/// wrong.
pub(super) fn unpack(data: &[u8], most: usize) -> Result<(Vec<u8>, usize), &'static str> {
    let mut table = Table::new();
    let mut pixels = Vec::with_capacity(most);
    let (mut ahead, mut count, mut width) = (0_u32, 0, 9);
    let mut before = None;
    let mut bytes = data.iter();
    loop {
        while count < width {
            let Some(&byte) = bytes.next() else {
                // Some writers leave out the end code.
                return Ok((pixels, 0));
            };
            ahead = ahead << 8 | u32::from(byte);
            count += 8;
        }
        count -= width;
        let code = (ahead >> count) as usize & ((1 << width) - 1);
        ahead &= (1 << count) - 1;
        match (code, before) {
            (CLEAR, _) => {
                table.clear();
                (width, before) = (9, None);
                continue;
            }
            (END, _) => return Ok((pixels, bytes.len())),
            (FIRST.., None) => return Err("LZW: a code that does not exist"),
            (_, None) => {}
            (_, Some(before)) => {
                let byte = match code {
                    code if code < table.next => table.first[code],
                    code if code == table.next => table.first[before],
                    _ => return Err("LZW: a code that does not exist"),
                };
                if !table.add(before, byte) {
                    return Err("LZW: a code that no encoder writes there");
                }
                if code >= table.next {
                    return Err("LZW: a code that does not exist");
                }
            }
        }
        if !table.write(code, &mut pixels, most) {
            return Err("LZW: more pixels than there should be");
        }
        before = Some(code);
        // One code before it is needed.
        if table.next >= (1 << width) - 1 && width < 12 {
            width += 1;
        }
    }
}

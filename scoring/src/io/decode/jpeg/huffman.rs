//! Huffman tables of a JPEG (ITU-T T.81, C and F.2.2.3).

use super::bits::Bits;
use super::check::Fault;

/// Bits that are looked up at once; longer codes are rare.
const DIRECT_BITS: u32 = 9;

/// A Huffman table.
#[derive(Clone)]
pub(super) struct Table {
    /// For each value of the next [`DIRECT_BITS`] bits, the code's length (upper byte) and symbol;
    /// 0 where the code is longer.
    direct: Vec<u16>,
    /// For each length, the first number of 16 bits that is beyond its codes.
    limits: [u32; 17],
    /// For each length, index of its first symbol minus its first code.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length, 1 to 16, and the symbols in the order of codes.
    /// `None` if that is no prefix code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            direct: vec![0; 1 << DIRECT_BITS],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.offsets[length as usize] = index as i32 - code as i32;
            for at in code..code + count {
                let &symbol = symbols.get(index)?;
                if length <= DIRECT_BITS {
                    let free = DIRECT_BITS - length;
                    let entry = (length as u16) << 8 | u16::from(symbol);
                    let codes = (at << free) as usize..((at + 1) << free) as usize;
                    table.direct.get_mut(codes)?.fill(entry);
                }
                index += 1;
            }
            code += count;
            if code > 1 << length {
                return None;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        (index == symbols.len()).then_some(table)
    }

    /// The symbol that bits of zeros stand for.
    pub(super) fn of_zeros(&self) -> Option<u8> {
        self.symbols.first().copied()
    }

    /// The next symbol.
    #[inline]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Fault> {
        bits.prepare();
        let next = bits.peek();
        let entry = self.direct[usize::from(next >> (16 - DIRECT_BITS))];
        if entry != 0 {
            bits.skip(u32::from(entry >> 8))?;
            return Ok(entry as u8);
        }
        for length in DIRECT_BITS + 1..=16 {
            if u32::from(next) < self.limits[length as usize] {
                let code = i32::from(next >> (16 - length));
                let index = (code + self.offsets[length as usize]) as usize;
                bits.skip(length)?;
                return self.symbols.get(index).copied().ok_or(Fault::Code);
            }
        }
        Err(Fault::Code)
    }
}

/// The tables that Motion JPEG means where it gives none: for luminance and chrominance, DC and AC
/// (T.81, K.3.3).
pub(super) fn default_tables() -> [[Option<Table>; 4]; 2] {
    const DC: [[u8; 16]; 2] = [
        [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    ];
    const AC: [([u8; 16], &[u8; 162]); 2] = [
        (
            [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
            b"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\
              \x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\
              \x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\
              \x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\
              \x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\
              \x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\
              \xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\xe3\xe4\xe5\
              \xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
        ),
        (
            [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
            b"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\
              \x14\x42\x91\xa1\xb1\xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\
              \xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\
              \x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\
              \x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\
              \x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\
              \xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe2\xe3\xe4\
              \xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
        ),
    ];
    let categories: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let dc = |index: usize| Table::new(&DC[index], &categories);
    let ac = |index: usize| Table::new(&AC[index].0, AC[index].1);
    [[dc(0), dc(1), None, None], [ac(0), ac(1), None, None]]
}

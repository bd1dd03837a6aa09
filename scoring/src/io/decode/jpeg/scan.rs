//! Walks the coded data of one scan (ITU-T T.81, F.2.2 and G.2) without making pixels: every code
//! must exist, every run must end within its block, every value must be one that a picture can
//! have, and the data must end where the last block does.

use super::bits::Bits;
use super::check::{Fault, Tables};
use super::frame::{Component, Frame};
use super::huffman::Table;

/// Bytes that may lie between the coded data and a restart or end marker. Real webcams send a few.
/// Damage that leaves out blocks leaves more.
const MAX_STRAY_BYTES: usize = 16;

/// Bound of the root of the sum of squares of a block's coefficients: the transform keeps it, so it
/// is that of 64 values at the greatest distance from the middle of 0..=255, and a quarter more for
/// encoders that overshoot on purpose. Rounding comes on top. It bounds each coefficient, too.
const MAX_NORM: f32 = 8.0 * 128.0 * 1.25;

/// Zero bytes in a row that are no accident. Where zero bits stand for coefficients, they would be
/// more than a block's, all of them -1.
const HOLE_BYTES: usize = 32;

/// A scan header.
pub(super) struct Scan {
    /// Index in the frame, and numbers of DC and AC table, of each component.
    components: Vec<(usize, u8, u8)>,
    /// First and last coefficient.
    first: u8,
    last: u8,
    /// Bits that are left out of the values, before and after this scan. The first scan of a
    /// coefficient has 0 before.
    before: u8,
    after: u8,
}

impl Scan {
    /// Reads the content of a scan header.
    pub(super) fn read(content: &[u8], frame: &Frame) -> Result<Self, Fault> {
        let wrong = || Fault::Header("scan");
        let (&count, rest) = content.split_first().ok_or_else(wrong)?;
        let (list, end) = rest
            .split_at_checked(2 * usize::from(count))
            .ok_or_else(wrong)?;
        let &[first, last, bits] = end else {
            return Err(wrong());
        };
        let mut components = Vec::<(usize, u8, u8)>::new();
        for entry in list.as_chunks::<2>().0 {
            let index = frame.components.iter().position(|c| c.id == entry[0]);
            let index = index.ok_or_else(wrong)?;
            if components.iter().any(|&(other, ..)| other == index) {
                return Err(wrong());
            }
            components.push((index, entry[1] >> 4, entry[1] & 15));
        }
        if components.is_empty() {
            return Err(wrong());
        }
        let mut scan = Self {
            components,
            first,
            last,
            before: bits >> 4,
            after: bits & 15,
        };
        if !frame.progressive {
            // Sequential frames have one scan for each component, whatever these fields say.
            (scan.first, scan.last, scan.before, scan.after) = (0, 63, 0, 0);
        } else if scan.first > scan.last
            || scan.last > 63
            || scan.after > 13
            || (scan.first == 0 && scan.last != 0)
            || (scan.first > 0 && scan.components.len() != 1)
            || (scan.before != 0 && scan.before != scan.after + 1)
        {
            return Err(wrong());
        }
        Ok(scan)
    }

    /// Notes what the scan delivers. It must refine what came before it.
    fn register(&self, frame: &mut Frame) -> Result<(), Fault> {
        for &(index, ..) in &self.components {
            let missing = &mut frame.components[index].missing_bits;
            if self.first > 0 && missing[0].is_none() {
                return Err(Fault::Order);
            }
            for coefficient in &mut missing[usize::from(self.first)..=usize::from(self.last)] {
                let continues = match *coefficient {
                    None => self.before == 0,
                    Some(bits) => self.before == bits && bits > 0,
                };
                if !continues {
                    return Err(Fault::Order);
                }
                *coefficient = Some(self.after);
            }
        }
        Ok(())
    }

    /// Walks the coded data from byte `at` on, and returns the offset of the marker after them.
    pub(super) fn walk(
        &self,
        bytes: &[u8],
        at: usize,
        frame: &mut Frame,
        tables: &Tables,
    ) -> Result<usize, Fault> {
        self.register(frame)?;
        let (across, down) = match self.components[..] {
            [(only, ..)] => (frame.components[only].columns, frame.components[only].rows),
            _ => (frame.units_across(), frame.units_down()),
        };
        let interleaved = self.components.len() > 1;
        let mut walks = Vec::new();
        for &(index, dc, ac) in &self.components {
            walks.push(Walk::new(self, frame, index, tables, dc, ac)?);
        }
        let holes_show = walks.iter().all(Walk::zeros_are_coefficients);
        let interval = match tables.restart_interval {
            0 => u32::MAX,
            units => units,
        };
        let units = across * down;
        let mut bits = Bits::new(bytes, at);
        let (mut in_interval, mut restarts) = (0, 0_u8);
        for unit in 0..units {
            if in_interval == interval {
                let marker_at = end_of_interval(bits, &mut walks)?;
                if bytes.get(marker_at + 1) != Some(&(0xd0 + restarts % 8)) {
                    return Err(Fault::Restart);
                }
                restarts = restarts.wrapping_add(1);
                bits = Bits::new(bytes, marker_at + 2);
                in_interval = 0;
            }
            in_interval += 1;
            let (column, row) = (unit % across, unit / across);
            for walk in &mut walks {
                let component = &mut frame.components[walk.index];
                if !interleaved {
                    walk.block(&mut bits, component, row * component.stride + column)?;
                    continue;
                }
                for y in 0..component.vertical {
                    let row = row * component.vertical + y;
                    let first = row * component.stride + column * component.horizontal;
                    for block in first..first + component.horizontal {
                        walk.block(&mut bits, component, block)?;
                    }
                }
            }
        }
        let marker_at = end_of_interval(bits, &mut walks)?;
        if holes_show && has_hole(&bytes[at..marker_at]) {
            return Err(Fault::Hole);
        }
        // Some encoders put a restart marker after the last interval, too.
        let restart = 0xd0 + restarts % 8;
        if in_interval == interval && bytes.get(marker_at + 1) == Some(&restart) {
            return Ok(marker_at + 2);
        }
        Ok(marker_at)
    }
}

/// Ends an interval at the next marker, of which it returns the offset.
fn end_of_interval(bits: Bits<'_>, walks: &mut [Walk<'_>]) -> Result<usize, Fault> {
    let rest = bits.finish();
    for walk in walks {
        if walk.end_run > 0 {
            return Err(Fault::Run);
        }
        walk.dc = 0;
    }
    if rest.stray_bytes > MAX_STRAY_BYTES || !rest.even_fill {
        return Err(Fault::Stray(rest.stray_bytes));
    }
    Ok(rest.marker_at)
}

/// Whether a row of zero bytes is no accident.
fn has_hole(coded: &[u8]) -> bool {
    let mut zeros = 0;
    coded.iter().any(|&byte| {
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        zeros >= HOLE_BYTES
    })
}

/// Decodes the blocks of one component in one scan.
struct Walk<'a> {
    index: usize,
    first: u8,
    last: u8,
    progressive: bool,
    refines: bool,
    dc_table: Option<&'a Table>,
    ac_table: Option<&'a Table>,
    /// The value of the last DC coefficient.
    dc: i32,
    /// Divisor of each coefficient in this scan.
    divisors: [u32; 64],
    /// Greatest absolute value of each coefficient as coded.
    greatest: [u16; 64],
    /// Greatest sum of squares of a block's coefficients.
    most_energy: f32,
    /// Blocks, from the current one on, that have no further coefficients.
    end_run: u32,
}

/// Absolute value of a coefficient of `category` bits (T.81, table F.1).
#[inline]
fn magnitude(bits: u16, category: u8) -> u16 {
    let greatest = (1 << category) - 1;
    if bits <= greatest / 2 {
        greatest - bits
    } else {
        bits
    }
}

impl<'a> Walk<'a> {
    fn new(
        scan: &Scan,
        frame: &Frame,
        index: usize,
        tables: &'a Tables,
        dc: u8,
        ac: u8,
    ) -> Result<Self, Fault> {
        let find = |class: usize, number: u8, needed: bool| {
            let table = tables.huffman[class].get(usize::from(number));
            match table.and_then(Option::as_ref) {
                None if needed => Err(Fault::NoTable),
                table => Ok(table),
            }
        };
        let refines = scan.before != 0;
        let table = tables.quantisation[usize::from(frame.components[index].quantisation)];
        let table = table.ok_or(Fault::NoTable)?;
        let divisors = table.map(|divisor| u32::from(divisor) << scan.after);
        let rounding = divisors
            .iter()
            .map(|&divisor| (divisor as f32).powi(2))
            .sum::<f32>();
        let norm = MAX_NORM + rounding.sqrt() / 2.0;
        Ok(Self {
            index,
            first: scan.first,
            last: scan.last,
            progressive: frame.progressive,
            refines,
            dc_table: find(0, dc, scan.first == 0 && !refines)?,
            ac_table: find(1, ac, scan.last > 0)?,
            dc: 0,
            greatest: divisors.map(|divisor| (MAX_NORM / divisor as f32) as u16 + 1),
            divisors,
            most_energy: norm * norm,
            end_run: 0,
        })
    }

    /// Whether a row of zero bits stands for coefficients, of which a picture has no long row. In
    /// other scans it may be a flat surface.
    fn zeros_are_coefficients(&self) -> bool {
        let of_zeros = self.ac_table.and_then(Table::of_zeros).unwrap_or(0);
        self.last > 0 && !self.refines && of_zeros & 15 != 0
    }

    fn block(
        &mut self,
        bits: &mut Bits<'_>,
        component: &mut Component,
        block: u32,
    ) -> Result<(), Fault> {
        if !self.progressive {
            self.dc(bits)?;
            return self.sequential_ac(bits);
        }
        match (self.first, self.refines) {
            (0, false) => self.dc(bits),
            (0, true) => bits.take(1).map(|_| ()),
            (_, refines) => {
                let not_zero = component.not_zero.get_mut(block as usize);
                let not_zero = not_zero.ok_or(Fault::Run)?;
                match refines {
                    false => self.first_ac(bits, not_zero),
                    true => self.refined_ac(bits, not_zero),
                }
            }
        }
    }

    #[inline]
    fn dc(&mut self, bits: &mut Bits<'_>) -> Result<(), Fault> {
        let category = self.dc_table.ok_or(Fault::NoTable)?.symbol(bits)?;
        if category > 11 {
            return Err(Fault::Value);
        }
        if category > 0 {
            let value = i32::from(bits.take(category.into())?);
            let half = 1 << (category - 1);
            self.dc += if value < half {
                value - 2 * half + 1
            } else {
                value
            };
            if self.dc.unsigned_abs() > self.greatest[0].into() {
                return Err(Fault::Value);
            }
        }
        Ok(())
    }

    #[inline]
    fn sequential_ac(&mut self, bits: &mut Bits<'_>) -> Result<(), Fault> {
        let table = self.ac_table.ok_or(Fault::NoTable)?;
        let square = |value: u32, at: usize| ((value * self.divisors[at]) as f32).powi(2);
        let mut energy = square(self.dc.unsigned_abs(), 0);
        let mut at = 1;
        while at < 64 {
            let symbol = table.symbol(bits)?;
            let (run, category) = (usize::from(symbol >> 4), symbol & 15);
            match (run, category) {
                (0, 0) => break,
                (15, 0) => at += 16,
                (_, 1..=10) => {
                    at += run;
                    let Some(&greatest) = self.greatest.get(at) else {
                        return Err(Fault::Run);
                    };
                    let size = magnitude(bits.take(category.into())?, category);
                    if size > greatest {
                        return Err(Fault::Value);
                    }
                    energy += square(size.into(), at);
                    at += 1;
                }
                _ => return Err(Fault::Value),
            }
        }
        if at > 64 {
            return Err(Fault::Run);
        }
        if energy > self.most_energy {
            return Err(Fault::Value);
        }
        Ok(())
    }

    fn first_ac(&mut self, bits: &mut Bits<'_>, not_zero: &mut u64) -> Result<(), Fault> {
        if self.end_run > 0 {
            self.end_run -= 1;
            return Ok(());
        }
        let table = self.ac_table.ok_or(Fault::NoTable)?;
        let mut at = self.first;
        while at <= self.last {
            let symbol = table.symbol(bits)?;
            let (run, category) = (symbol >> 4, symbol & 15);
            match (run, category) {
                (15, 0) => at += 16,
                (_, 0) => {
                    self.end_run = (1 << run) + u32::from(bits.take(run.into())?) - 1;
                    break;
                }
                (_, 1..=10) => {
                    at += run;
                    if at > self.last {
                        return Err(Fault::Run);
                    }
                    let size = magnitude(bits.take(category.into())?, category);
                    if size > self.greatest[usize::from(at)] {
                        return Err(Fault::Value);
                    }
                    *not_zero |= 1 << at;
                    at += 1;
                }
                _ => return Err(Fault::Value),
            }
            if at > self.last + 1 {
                return Err(Fault::Run);
            }
        }
        Ok(())
    }

    fn refined_ac(&mut self, bits: &mut Bits<'_>, not_zero: &mut u64) -> Result<(), Fault> {
        let table = self.ac_table.ok_or(Fault::NoTable)?;
        let mut at = self.first;
        while self.end_run == 0 && at <= self.last {
            let symbol = table.symbol(bits)?;
            let (mut run, category) = (symbol >> 4, symbol & 15);
            match (run, category) {
                (15, 0) => {}
                (_, 0) => {
                    self.end_run = (1 << run) + u32::from(bits.take(run.into())?);
                    break;
                }
                (_, 1) => {
                    bits.take(1)?;
                }
                _ => return Err(Fault::Value),
            }
            // Coefficients that are known take a bit each; the others are the run's.
            while at <= self.last {
                if *not_zero >> at & 1 == 1 {
                    bits.take(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                at += 1;
            }
            if category == 1 {
                if at > self.last {
                    return Err(Fault::Run);
                }
                *not_zero |= 1 << at;
            }
            at += 1;
        }
        if self.end_run > 0 {
            let rest = not_zero.checked_shr(at.into()).unwrap_or(0);
            let known = (rest & (u64::MAX >> (63 - (self.last.max(at) - at)))).count_ones();
            for _ in 0..if at > self.last { 0 } else { known } {
                bits.take(1)?;
            }
            self.end_run -= 1;
        }
        Ok(())
    }
}

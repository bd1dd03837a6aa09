//! The right-hand side of a matrix product in the layout that a kernel takes: panels of a few
//! columns each. In: rows of values, in order. Out: packed panels.

use std::alloc::Layout;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use tract_onnx::prelude::tract_linalg::mmm::{MMMInputFormat, MMMInputValue, PackedExoticFact};
use tract_onnx::prelude::tract_linalg::pack::{PackedFormat, PackedI8K4};
use tract_onnx::tract_core::internal::*;

use super::image::Value;
use super::operand::Operand;

/// Layout of a kernel's panels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PanelFormat {
    /// Rows of a panel one after the other.
    Plain(PackedFormat),
    /// Four rows at a time, with their values of one column next to each other.
    Interleaved(PackedI8K4),
}

impl PanelFormat {
    pub(super) fn of(format: &dyn MMMInputFormat, operand: Operand) -> Option<Self> {
        if let Some(format) = format.downcast_ref::<PackedFormat>() {
            return (format.dt == operand.datum()).then(|| Self::Plain(format.clone()));
        }
        let format = format.downcast_ref::<PackedI8K4>()?;
        (operand == Operand::I8).then(|| Self::Interleaved(format.clone()))
    }

    fn format(&self) -> Box<dyn MMMInputFormat> {
        match self {
            Self::Plain(format) => Box::new(format.clone()),
            Self::Interleaved(format) => Box::new(format.clone()),
        }
    }

    /// Columns of a panel.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Plain(format) => format.r,
            Self::Interleaved(format) => format.r,
        }
    }

    pub(super) fn alignment_bytes(&self) -> usize {
        match self {
            Self::Plain(format) => format.alignment_bytes,
            Self::Interleaved(format) => format.align,
        }
    }

    /// Rows that are packed together.
    pub(super) fn group(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Interleaved(_) => GROUP_ROWS,
        }
    }
}

/// Rows that [`PanelFormat::Interleaved`] packs together.
const GROUP_ROWS: usize = 4;
/// Most rows that a kernel takes at a time.
const STEP_ROWS: usize = 64;

/// The right-hand side of a product, in panels as wide as the kernel computes at a time.
#[derive(Debug)]
pub(super) struct Panels {
    packed: Arc<Blob>,
    panel_bytes: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) format: PanelFormat,
    /// Rows of an incomplete group.
    pending: Vec<u8>,
}

/// Exclusive access to panels for filling them. It is acquired once for many rows, because checking
/// that nobody else reads the panels takes as long as writing a row.
#[derive(Debug)]
pub(super) struct PanelWriter<'a> {
    packed: &'a mut [u8],
    panel_bytes: usize,
    depth: usize,
    columns: usize,
    format: &'a PanelFormat,
    pending: &'a mut [u8],
}

impl Panels {
    /// Empty panels in this layout.
    pub(super) fn new(format: &PanelFormat, depth: usize, columns: usize) -> TractResult<Self> {
        let (packed, panel_bytes) = match format {
            PanelFormat::Plain(format) => {
                let empty = format.new_packed_buffer(depth, columns)?;
                (empty.packed, empty.panel_bytes)
            }
            PanelFormat::Interleaved(format) => {
                // Some kernels (AMX) walk panels in steps of 64 rows, beyond the end of the last
                // one. What they read there is multiplied by 0.
                let bytes = format.len(depth, columns) + STEP_ROWS * format.r;
                let nothing = vec![0u8; bytes];
                let blob = Blob::from_bytes_alignment(&nothing, format.align)?;
                (Arc::new(blob), format.single_panel_len(depth))
            }
        };
        let pending = match format {
            PanelFormat::Plain(_) => Vec::new(),
            PanelFormat::Interleaved(_) => vec![0; GROUP_ROWS * columns],
        };
        Ok(Self {
            packed,
            panel_bytes,
            depth,
            columns,
            format: format.clone(),
            pending,
        })
    }

    /// `depth` rows of the first `columns` columns, starting `offset_bytes` into each panel.
    pub(super) fn rows(&self, offset_bytes: usize, depth: usize, columns: usize) -> PanelRows {
        PanelRows {
            packed: Arc::clone(&self.packed),
            panel_bytes: self.panel_bytes,
            offset_bytes,
            fact: PackedExoticFact {
                format: self.format.format(),
                mn: columns.to_dim(),
                k: depth,
            },
            columns,
        }
    }

    /// For filling the panels.
    pub(super) fn writer(&mut self) -> TractResult<PanelWriter<'_>> {
        let packed = Arc::get_mut(&mut self.packed).context("the panels are in use")?;
        Ok(PanelWriter {
            packed: packed.as_bytes_mut(),
            panel_bytes: self.panel_bytes,
            depth: self.depth,
            columns: self.columns,
            format: &self.format,
            pending: &mut self.pending,
        })
    }
}

impl PanelWriter<'_> {
    /// Writes row `row` of all panels. Rows must come in order.
    pub(super) fn set_row<T: Value>(&mut self, row: usize, line: &[T]) -> TractResult<()> {
        let operand = match self.format {
            PanelFormat::Plain(format) => format.dt,
            PanelFormat::Interleaved(_) => i8::datum_type(),
        };
        ensure!(
            row < self.depth && line.len() <= self.columns && T::datum_type() == operand,
            "row {row} of {} columns does not fit {}×{} of {operand:?}",
            line.len(),
            self.depth,
            self.columns
        );
        let width = self.format.width();
        if self.format.group() == GROUP_ROWS {
            let line: &[u8] = bytemuck::cast_slice(line);
            let start = row % GROUP_ROWS * self.columns;
            self.pending[start..start + line.len()].copy_from_slice(line);
            if row % GROUP_ROWS + 1 < GROUP_ROWS && row + 1 < self.depth {
                return Ok(());
            }
            // Rows left over from an earlier group do no harm: weights beyond the depth are 0.
            let lines = [0, 1, 2, 3].map(|index| {
                let start = index * self.columns;
                &self.pending[start..start + line.len()]
            });
            write_group(
                lines,
                self.packed,
                self.panel_bytes,
                row / GROUP_ROWS,
                width,
            );
            return Ok(());
        }
        let panel = self.panel_bytes / size_of::<T>();
        let packed: &mut [T] = bytemuck::cast_slice_mut(self.packed);
        match width {
            2 => write_row::<T, 2>(line, packed, panel, row),
            3 => write_row::<T, 3>(line, packed, panel, row),
            4 => write_row::<T, 4>(line, packed, panel, row),
            5 => write_row::<T, 5>(line, packed, panel, row),
            6 => write_row::<T, 6>(line, packed, panel, row),
            8 => write_row::<T, 8>(line, packed, panel, row),
            12 => write_row::<T, 12>(line, packed, panel, row),
            16 => write_row::<T, 16>(line, packed, panel, row),
            _ => {
                for (index, part) in line.chunks(width).enumerate() {
                    let start = index * panel + row * width;
                    packed[start..start + part.len()].copy_from_slice(part);
                }
            }
        }
        Ok(())
    }
}

/// Writes four rows as group `group` of all panels.
fn write_group(lines: [&[u8]; 4], packed: &mut [u8], panel: usize, group: usize, width: usize) {
    match width {
        8 => write_group_of::<8>(lines, packed, panel, group),
        16 => write_group_of::<16>(lines, packed, panel, group),
        _ => {
            for (index, start) in (0..lines[0].len()).step_by(width).enumerate() {
                let end = (start + width).min(lines[0].len());
                let parts = lines.map(|line| &line[start..end]);
                let at = index * panel + group * width * GROUP_ROWS;
                interleave(parts, &mut packed[at..at + (end - start) * GROUP_ROWS]);
            }
        }
    }
}

/// For a width that is known at compile time: interleaving becomes a few instructions.
fn write_group_of<const WIDTH: usize>(
    lines: [&[u8]; 4],
    packed: &mut [u8],
    panel: usize,
    group: usize,
) {
    let [a, b, c, d] = lines.map(|line| line.as_chunks::<WIDTH>());
    let mut at = group * WIDTH * GROUP_ROWS;
    let whole = a.0.iter().zip(b.0).zip(c.0).zip(d.0);
    for (((a, b), c), d) in whole {
        let (places, _) = packed[at..].as_chunks_mut::<GROUP_ROWS>();
        if let Some(places) = places.first_chunk_mut::<WIDTH>() {
            for (column, place) in places.iter_mut().enumerate() {
                *place = [a[column], b[column], c[column], d[column]];
            }
        }
        at += panel;
    }
    let rest = [a.1, b.1, c.1, d.1];
    if !rest[0].is_empty() {
        interleave(rest, &mut packed[at..at + rest[0].len() * GROUP_ROWS]);
    }
}

fn interleave([a, b, c, d]: [&[u8]; 4], places: &mut [u8]) {
    let values = a.iter().zip(b).zip(c).zip(d);
    for (place, (((a, b), c), d)) in places.chunks_exact_mut(GROUP_ROWS).zip(values) {
        place.copy_from_slice(&[*a, *b, *c, *d]);
    }
}

/// For a width that is known at compile time: copying a few values becomes a few instructions.
fn write_row<T: bytemuck::Pod, const WIDTH: usize>(
    line: &[T],
    packed: &mut [T],
    panel: usize,
    row: usize,
) {
    let (parts, rest) = line.as_chunks::<WIDTH>();
    let mut start = row * WIDTH;
    for part in parts {
        if let Some(place) = packed[start..].first_chunk_mut::<WIDTH>() {
            *place = *part;
        }
        start += panel;
    }
    // Written as a whole array, because a copy of variable length would be a call that takes longer
    // than all the other copies. The columns beyond the rest are computed and ignored.
    if !rest.is_empty()
        && let Some(place) = packed[start..].first_chunk_mut::<WIDTH>()
    {
        *place = std::array::from_fn(|column| rest.get(column).copied().unwrap_or(T::zeroed()));
    }
}

/// Some rows of panels, in the form that tract takes.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub(super) struct PanelRows {
    packed: Arc<Blob>,
    panel_bytes: usize,
    offset_bytes: usize,
    fact: PackedExoticFact,
    columns: usize,
}

impl Display for PanelRows {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.fact, f)
    }
}

impl MMMInputValue for PanelRows {
    fn format(&self) -> &dyn MMMInputFormat {
        &*self.fact.format
    }

    fn scratch_panel_buffer_layout(&self) -> Option<Layout> {
        None
    }

    fn panel_bytes(&self, index: usize, _buffer: Option<*mut u8>) -> TractResult<*const u8> {
        let start = index * self.panel_bytes + self.offset_bytes;
        let panel = self.packed.as_bytes().get(start..);
        Ok(panel.context("no such panel")?.as_ptr())
    }

    fn mn(&self) -> usize {
        self.columns
    }

    fn k(&self) -> usize {
        self.fact.k
    }

    fn exotic_fact(&self) -> &dyn ExoticFact {
        &self.fact
    }

    fn extract_at_mn_f16(&self, _column: usize, _slice: &mut [f16]) -> TractResult<()> {
        bail!("products by vectors are not asked for")
    }

    fn extract_at_mn_f32(&self, _column: usize, _slice: &mut [f32]) -> TractResult<()> {
        bail!("products by vectors are not asked for")
    }
}

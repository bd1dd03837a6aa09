//! Products of matrices by tract's kernels: packed weights (rows) by packed pixels (columns), of f32 or f16 plus bias, through
//! LeakyReLU, or of 8-bit values as plain sums; stored as rows. In: packed operands. Out: a block of rows.
//!
//! The only place of this crate with `unsafe`: tract's kernels take pointers, and what they may touch is checked here.

use std::alloc::Layout;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use tract_onnx::prelude::tract_linalg::BinOp;
use tract_onnx::prelude::tract_linalg::mmm::{
    AsInputValue, FusedSpec, MMMInputFormat, MMMInputValue, MatMatMul, MmmDispatch,
    PackedExoticFact, Query,
};
use tract_onnx::prelude::tract_linalg::pack::{PackedFormat, PackedI8K4};
use tract_onnx::tract_core::internal::*;

use super::image::Value;

/// What a product's operands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operand {
    /// Summed up in f32.
    F32,
    /// Summed up in f16.
    F16,
    /// Summed up in 32-bit integers, exactly.
    I8,
}

impl Operand {
    /// Its type.
    fn datum(self) -> DatumType {
        match self {
            Self::F32 => f32::datum_type(),
            Self::F16 => f16::datum_type(),
            Self::I8 => i8::datum_type(),
        }
    }

    /// The type of its sums.
    pub(super) fn sum(self) -> DatumType {
        match self {
            Self::F32 => f32::datum_type(),
            Self::F16 => f16::datum_type(),
            Self::I8 => i32::datum_type(),
        }
    }
}

/// How a kernel wants its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Columns {
    /// A row of a panel after the other.
    Rows(PackedFormat),
    /// Four rows at a time, their values of a column beside each other.
    Fours(PackedI8K4),
}

impl Columns {
    fn of(format: &dyn MMMInputFormat, operand: Operand) -> Option<Self> {
        if let Some(format) = format.downcast_ref::<PackedFormat>() {
            return (format.dt == operand.datum()).then(|| Self::Rows(format.clone()));
        }
        let format = format.downcast_ref::<PackedI8K4>()?;
        (operand == Operand::I8).then(|| Self::Fours(format.clone()))
    }

    fn format(&self) -> Box<dyn MMMInputFormat> {
        match self {
            Self::Rows(format) => Box::new(format.clone()),
            Self::Fours(format) => Box::new(format.clone()),
        }
    }

    /// Columns of a panel.
    fn width(&self) -> usize {
        match self {
            Self::Rows(format) => format.r,
            Self::Fours(format) => format.r,
        }
    }

    fn alignment_bytes(&self) -> usize {
        match self {
            Self::Rows(format) => format.alignment_bytes,
            Self::Fours(format) => format.align,
        }
    }

    /// Rows that go together.
    fn group(&self) -> usize {
        match self {
            Self::Rows(_) => 1,
            Self::Fours(_) => FOUR,
        }
    }
}

/// Rows of [`Columns::Fours`].
const FOUR: usize = 4;
/// Most rows that a kernel takes at a time.
const STEP: usize = 64;

/// One of tract's kernels, with the form that its operands must have.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    operand: Operand,
    mmm: Box<dyn MatMatMul>,
    packing: usize,
    rows: Box<dyn MMMInputFormat>,
    columns: Columns,
}

impl Kernel {
    /// Whether this processor has kernels of its own for such operands: portable ones know no instructions for f16.
    pub(super) fn native(operand: Operand) -> bool {
        let kernels = Self::suitable(operand);
        kernels.iter().any(|kernel| kernel.mmm.arch().is_some())
    }

    /// All that this processor can run and that lose no precision, for products of more than one column.
    pub(super) fn suitable(operand: Operand) -> Vec<Self> {
        let query = Query {
            store: Some(operand.sum()),
            allow_extractor: false,
            ..Query::plain(operand.sum(), None, None, None)
        };
        let suitable = MmmDispatch::native().suitable(&query).into_iter();
        // Some cannot apply what follows our products.
        let after = After::new(&[0.1], Some(0.01), operand);
        let fuses = |mmm: &dyn MatMatMul| {
            let bias = FusedSpec::BinPerRow(after.bias.view(), BinOp::Add);
            let leaks = |leak| mmm.can_fuse(&FusedSpec::LeakyRelu(leak));
            operand == Operand::I8 || after.leak.as_ref().is_some_and(leaks) && mmm.can_fuse(&bias)
        };
        // Half precision without instructions for it is for measuring what it does.
        let usable = |mmm: &dyn MatMatMul| !mmm.emulated() || operand == Operand::F16;
        let kernels = suitable.filter(|(mmm, ..)| mmm.nr() > 1 && usable(&**mmm) && fuses(&**mmm));
        let mut kernels: Vec<Self> = kernels
            .filter_map(|(mmm, packing, _)| {
                let (rows, columns) = &mmm.packings()[packing];
                let columns = Columns::of(&**columns, operand)?;
                Some(Self {
                    operand,
                    rows: rows.clone(),
                    columns,
                    mmm,
                    packing,
                })
            })
            .collect();
        // Portable ones are for processors that have none of their own.
        if kernels.iter().any(|kernel| kernel.mmm.arch().is_some()) {
            kernels.retain(|kernel| kernel.mmm.arch().is_some());
        }
        kernels
    }

    /// The one of these that tract's own rules choose for a product of this size.
    pub(super) fn by_rule(suitable: &[Self], [rows, depth, columns]: [usize; 3]) -> Option<&Self> {
        let chosen = MmmDispatch::native().preferred_kernel(
            suitable.first()?.operand.sum(),
            Some(rows),
            Some(depth),
            Some(columns),
        )?;
        suitable
            .iter()
            .find(|kernel| kernel.name() == chosen.name())
    }

    /// What it multiplies.
    pub(super) fn operand(&self) -> Operand {
        self.operand
    }

    /// Whether products may begin at any multiple of so many rows of panels.
    pub(super) fn begins_at(&self, rows: usize) -> bool {
        let bytes = rows * self.columns.width() * self.operand.datum().size_of();
        rows.is_multiple_of(self.columns.group())
            && bytes.is_multiple_of(self.columns.alignment_bytes())
    }

    /// Whether it is of those for instructions that add four products of 8-bit values at a time (VNNI, dot products of ARMv8.2): others
    /// widen them first, which takes two to three times as long as products of f32s.
    pub(super) fn takes_fours(&self) -> bool {
        matches!(self.columns, Columns::Fours(_))
    }

    /// tract's name for it.
    pub(super) fn name(&self) -> &str {
        self.mmm.name()
    }

    /// Packs weights, `rows` × `depth`, once and for all.
    pub(super) fn pack_weights<T: Value>(
        &self,
        rows: usize,
        depth: usize,
        weights: &[T],
    ) -> TractResult<Weights> {
        ensure!(
            T::datum_type() == self.operand.datum(),
            "{:?} is not multiplied by {:?}",
            T::datum_type(),
            self.operand
        );
        let weights = Tensor::from_shape(&[rows, depth], weights)?;
        Ok(Weights {
            rows,
            depth,
            packed: self.rows.prepare_one(&weights, 1, 0)?,
        })
    }

    /// An empty right-hand side.
    pub(super) fn panels(&self, depth: usize, columns: usize) -> TractResult<Panels> {
        let (packed, panel_bytes) = match &self.columns {
            Columns::Rows(format) => {
                let empty = format.new_packed_buffer(depth, columns)?;
                (empty.packed, empty.panel_bytes)
            }
            Columns::Fours(format) => {
                // Some kernels (AMX) walk panels in steps of 64 rows, past the end of the last one; what they find there is
                // multiplied by 0.
                let bytes = format.len(depth, columns) + STEP * format.r;
                let nothing = vec![0u8; bytes];
                let blob = Blob::from_bytes_alignment(&nothing, format.align)?;
                (Arc::new(blob), format.single_panel_len(depth))
            }
        };
        let pending = match self.columns {
            Columns::Rows(_) => Vec::new(),
            Columns::Fours(_) => vec![0; FOUR * columns],
        };
        Ok(Panels {
            packed,
            panel_bytes,
            depth,
            columns,
            format: self.columns.clone(),
            pending,
        })
    }

    /// `out[r][c] = leaky(bias[r] + Σ weights[r][k] · panels[first + k][c])` for the first `columns` columns, or the sums
    /// alone where nothing is to follow; rows of `out` are `columns` long.
    pub(super) fn multiply(
        &self,
        weights: &Weights,
        panels: &Panels,
        first: usize,
        columns: usize,
        after: Option<&After>,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let offset_bytes = first * self.columns.width() * self.operand.datum().size_of();
        ensure!(
            first + weights.depth <= panels.depth
                && (1..=panels.columns).contains(&columns)
                && panels.format == self.columns
                && (first == 0 || self.begins_at(first))
                && weights.packed.format().dyn_eq(&*self.rows)
                && after.is_none_or(|after| {
                    after.bias.datum_type() == self.operand.sum()
                        && after.bias.len() == weights.rows
                })
                && out.datum_type() == self.operand.sum()
                && out.len() >= weights.rows * columns,
            "a product of {}×{} by {}×{columns} does not fit its operands",
            weights.rows,
            weights.depth,
            panels.depth,
        );
        let part = Part {
            packed: Arc::clone(&panels.packed),
            panel_bytes: panels.panel_bytes,
            offset_bytes,
            fact: PackedExoticFact {
                format: self.columns.format(),
                mn: columns.to_dim(),
                k: weights.depth,
            },
            columns,
        };
        // SAFETY: `out` is exclusively ours and has room for rows × columns, which are its strides here; the kernel is one
        // that this processor can run; both operands are in its packing and long enough, checked above, with room for a
        // whole step of rows after them (`panels`).
        #[expect(unsafe_code, reason = "tract's kernels are called through pointers")]
        unsafe {
            let store = self
                .mmm
                .c_from_data_and_strides(out.datum_type().size_of(), columns as isize, 1)
                .wrap(&out.view_mut());
            let mut steps = tvec!(FusedSpec::AddMatMul {
                a: AsInputValue::Borrowed(&*weights.packed),
                b: AsInputValue::Borrowed(&part),
                packing: self.packing,
            });
            if let Some(after) = after {
                steps.push(FusedSpec::BinPerRow(after.bias.view(), BinOp::Add));
                if let Some(leak) = &after.leak {
                    steps.push(FusedSpec::LeakyRelu(leak));
                }
            }
            steps.push(FusedSpec::Store(store));
            self.mmm.run(weights.rows, columns, &steps)
        }
    }
}

/// The left-hand side of a product.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    pub(super) rows: usize,
    pub(super) depth: usize,
    packed: Box<dyn MMMInputValue>,
}

/// What follows a product.
#[derive(Debug, Clone)]
pub(super) struct After {
    bias: Tensor,
    leak: Option<Tensor>,
}

impl After {
    /// A bias for each row, and the slope of LeakyReLU for negative values, for products of such operands.
    pub(super) fn new(bias: &[f32], leak: Option<f32>, operand: Operand) -> Self {
        if operand == Operand::F16 {
            let bias: Vec<f16> = bias.iter().copied().map(f16::from_f32).collect();
            return Self {
                bias: tensor1(&bias),
                leak: leak.map(|leak| tensor0(f16::from_f32(leak))),
            };
        }
        Self {
            bias: tensor1(bias),
            leak: leak.map(tensor0),
        }
    }
}

/// The right-hand side of a product: in panels of so many columns as the kernel takes at a time.
#[derive(Debug)]
pub(super) struct Panels {
    packed: Arc<Blob>,
    panel_bytes: usize,
    depth: usize,
    columns: usize,
    format: Columns,
    /// Rows that wait until there are four of them.
    pending: Vec<u8>,
}

/// Panels while they are filled. Taken once for many rows: to make sure that nobody else reads them takes as long as a row.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    packed: &'a mut [u8],
    panel_bytes: usize,
    depth: usize,
    columns: usize,
    format: &'a Columns,
    pending: &'a mut [u8],
}

impl Panels {
    /// To be filled.
    pub(super) fn filling(&mut self) -> TractResult<Filling<'_>> {
        let packed = Arc::get_mut(&mut self.packed).context("the panels are in use")?;
        Ok(Filling {
            packed: packed.as_bytes_mut(),
            panel_bytes: self.panel_bytes,
            depth: self.depth,
            columns: self.columns,
            format: &self.format,
            pending: &mut self.pending,
        })
    }
}

impl Filling<'_> {
    /// Fills row `row` of all panels with `line`. Rows must come in order.
    pub(super) fn set_row<T: Value>(&mut self, row: usize, line: &[T]) -> TractResult<()> {
        let operand = match self.format {
            Columns::Rows(format) => format.dt,
            Columns::Fours(_) => i8::datum_type(),
        };
        ensure!(
            row < self.depth && line.len() <= self.columns && T::datum_type() == operand,
            "row {row} of {} columns does not fit {}×{} of {operand:?}",
            line.len(),
            self.depth,
            self.columns
        );
        let width = self.format.width();
        if self.format.group() == FOUR {
            let line: &[u8] = bytemuck::cast_slice(line);
            let start = row % FOUR * self.columns;
            self.pending[start..start + line.len()].copy_from_slice(line);
            if row % FOUR + 1 < FOUR && row + 1 < self.depth {
                return Ok(());
            }
            // What is left of an earlier group is multiplied by no weight: those beyond the depth are 0.
            let lines = [0, 1, 2, 3].map(|index| {
                let start = index * self.columns;
                &self.pending[start..start + line.len()]
            });
            fours(lines, self.packed, self.panel_bytes, row / FOUR, width);
            return Ok(());
        }
        let panel = self.panel_bytes / size_of::<T>();
        let packed: &mut [T] = bytemuck::cast_slice_mut(self.packed);
        match width {
            2 => scatter::<T, 2>(line, packed, panel, row),
            3 => scatter::<T, 3>(line, packed, panel, row),
            4 => scatter::<T, 4>(line, packed, panel, row),
            5 => scatter::<T, 5>(line, packed, panel, row),
            6 => scatter::<T, 6>(line, packed, panel, row),
            8 => scatter::<T, 8>(line, packed, panel, row),
            12 => scatter::<T, 12>(line, packed, panel, row),
            16 => scatter::<T, 16>(line, packed, panel, row),
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

/// Four rows into group `group` of all panels.
fn fours(lines: [&[u8]; 4], packed: &mut [u8], panel: usize, group: usize, width: usize) {
    match width {
        8 => fours_of::<8>(lines, packed, panel, group),
        16 => fours_of::<16>(lines, packed, panel, group),
        _ => {
            for (index, start) in (0..lines[0].len()).step_by(width).enumerate() {
                let end = (start + width).min(lines[0].len());
                let parts = lines.map(|line| &line[start..end]);
                let at = index * panel + group * width * FOUR;
                interleave(parts, &mut packed[at..at + (end - start) * FOUR]);
            }
        }
    }
}

/// For the usual widths, known when it is compiled: a few instructions interleave a panel's values.
fn fours_of<const WIDTH: usize>(lines: [&[u8]; 4], packed: &mut [u8], panel: usize, group: usize) {
    let [a, b, c, d] = lines.map(|line| line.as_chunks::<WIDTH>());
    let mut at = group * WIDTH * FOUR;
    let whole = a.0.iter().zip(b.0).zip(c.0).zip(d.0);
    for (((a, b), c), d) in whole {
        let (places, _) = packed[at..].as_chunks_mut::<FOUR>();
        if let Some(places) = places.first_chunk_mut::<WIDTH>() {
            for (column, place) in places.iter_mut().enumerate() {
                *place = [a[column], b[column], c[column], d[column]];
            }
        }
        at += panel;
    }
    let rest = [a.1, b.1, c.1, d.1];
    if !rest[0].is_empty() {
        interleave(rest, &mut packed[at..at + rest[0].len() * FOUR]);
    }
}

fn interleave([a, b, c, d]: [&[u8]; 4], places: &mut [u8]) {
    let values = a.iter().zip(b).zip(c).zip(d);
    for (place, (((a, b), c), d)) in places.chunks_exact_mut(FOUR).zip(values) {
        place.copy_from_slice(&[*a, *b, *c, *d]);
    }
}

/// For the usual widths, known when it is compiled: copies of a few values become a few instructions.
fn scatter<T: bytemuck::Pod, const WIDTH: usize>(
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
    // A call that copies the few that are left can take longer than all the others together: 20 bytes 0.15 µs on an Intel Xeon of
    // family 6, model 207 with glibc 2.36. The columns beyond them are computed and thrown away.
    if !rest.is_empty()
        && let Some(place) = packed[start..].first_chunk_mut::<WIDTH>()
    {
        *place = std::array::from_fn(|column| rest.get(column).copied().unwrap_or(T::zeroed()));
    }
}

/// Some rows of panels, as tract wants to see them.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Part {
    packed: Arc<Blob>,
    panel_bytes: usize,
    offset_bytes: usize,
    fact: PackedExoticFact,
    columns: usize,
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.fact, f)
    }
}

impl MMMInputValue for Part {
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

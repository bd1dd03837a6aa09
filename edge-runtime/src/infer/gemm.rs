//! Products of matrices by tract's kernels: packed weights (rows) by packed pixels (columns), plus bias, through
//! LeakyReLU, stored as rows. In: packed operands. Out: a block of rows.
//!
//! The only place of this crate with `unsafe`: tract's kernels take pointers, and what they may touch is checked here.

use std::alloc::Layout;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use tract_onnx::prelude::tract_linalg::BinOp;
use tract_onnx::prelude::tract_linalg::mmm::{
    AsInputValue, EagerPackedInput, FusedSpec, MMMInputFormat, MMMInputValue, MatMatMul,
    MmmDispatch, PackedExoticFact, Query,
};
use tract_onnx::prelude::tract_linalg::pack::PackedFormat;
use tract_onnx::tract_core::internal::*;

/// One of tract's kernels for f32, with the form that its operands must have.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    mmm: Box<dyn MatMatMul>,
    packing: usize,
    rows: PackedFormat,
    columns: PackedFormat,
}

impl Kernel {
    /// All that this processor can run and that lose no precision, for products of more than one column.
    pub(super) fn suitable() -> Vec<Self> {
        let query = Query {
            store: Some(f32::datum_type()),
            allow_extractor: false,
            ..Query::plain(f32::datum_type(), None, None, None)
        };
        let plain = |format: &dyn MMMInputFormat| {
            let format = format.downcast_ref::<PackedFormat>()?;
            (format.dt == f32::datum_type()).then(|| format.clone())
        };
        let suitable = MmmDispatch::native().suitable(&query).into_iter();
        // Some cannot apply what follows our products.
        let leak = tensor0(0.01f32);
        let fuses = |mmm: &dyn MatMatMul| {
            let bias = FusedSpec::BinPerRow(leak.view(), BinOp::Add);
            mmm.can_fuse(&FusedSpec::LeakyRelu(&leak)) && mmm.can_fuse(&bias)
        };
        let kernels = suitable.filter(|(mmm, ..)| mmm.nr() > 1 && !mmm.emulated() && fuses(&**mmm));
        let mut kernels: Vec<Self> = kernels
            .filter_map(|(mmm, packing, _)| {
                let (rows, columns) = &mmm.packings()[packing];
                let (rows, columns) = (plain(&**rows)?, plain(&**columns)?);
                Some(Self {
                    mmm,
                    packing,
                    rows,
                    columns,
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
            f32::datum_type(),
            Some(rows),
            Some(depth),
            Some(columns),
        )?;
        suitable
            .iter()
            .find(|kernel| kernel.name() == chosen.name())
    }

    /// Whether products may begin at any multiple of so many rows of panels.
    pub(super) fn begins_at(&self, rows: usize) -> bool {
        (rows * self.columns.r * size_of::<f32>()).is_multiple_of(self.columns.alignment_bytes)
    }

    /// tract's name for it.
    pub(super) fn name(&self) -> &str {
        self.mmm.name()
    }

    /// Packs weights, `rows` × `depth`, once and for all.
    pub(super) fn pack_weights(
        &self,
        rows: usize,
        depth: usize,
        weights: &[f32],
    ) -> TractResult<Weights> {
        let weights = Tensor::from_shape(&[rows, depth], weights)?;
        Ok(Weights {
            rows,
            depth,
            packed: self.rows.pack_tensor(&weights, 1, 0)?,
        })
    }

    /// An empty right-hand side.
    pub(super) fn panels(&self, depth: usize, columns: usize) -> TractResult<Panels> {
        let EagerPackedInput {
            packed,
            panel_bytes,
            ..
        } = self.columns.new_packed_buffer(depth, columns)?;
        Ok(Panels {
            packed,
            panel_bytes,
            depth,
            columns,
            format: self.columns.clone(),
        })
    }

    /// `out[r][c] = leaky(bias[r] + Σ weights[r][k] · panels[first + k][c])` for the first `columns` columns; rows of
    /// `out` are `columns` long.
    pub(super) fn multiply(
        &self,
        weights: &Weights,
        panels: &Panels,
        first: usize,
        columns: usize,
        after: &After,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let offset_bytes = first * self.columns.r * size_of::<f32>();
        ensure!(
            first + weights.depth <= panels.depth
                && (1..=panels.columns).contains(&columns)
                && panels.format == self.columns
                && offset_bytes.is_multiple_of(self.columns.alignment_bytes)
                && weights
                    .packed
                    .format()
                    .dyn_eq(&self.rows as &dyn MMMInputFormat)
                && after.bias.len() == weights.rows
                && out.datum_type() == f32::datum_type()
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
                format: Box::new(self.columns.clone()),
                mn: columns.to_dim(),
                k: weights.depth,
            },
            columns,
        };
        // SAFETY: `out` is exclusively ours and has room for rows × columns, which are its strides here; the kernel is one
        // that this processor can run; both operands are in its packing and long enough. All checked above.
        #[expect(unsafe_code, reason = "tract's kernels are called through pointers")]
        unsafe {
            let store = self
                .mmm
                .c_from_data_and_strides(size_of::<f32>(), columns as isize, 1)
                .wrap(&out.view_mut());
            let mut steps = tvec!(
                FusedSpec::AddMatMul {
                    a: AsInputValue::Borrowed(&*weights.packed),
                    b: AsInputValue::Borrowed(&part),
                    packing: self.packing,
                },
                FusedSpec::BinPerRow(after.bias.view(), BinOp::Add)
            );
            if let Some(leak) = &after.leak {
                steps.push(FusedSpec::LeakyRelu(leak));
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
    /// A bias for each row, and the slope of LeakyReLU for negative values.
    pub(super) fn new(bias: &[f32], leak: Option<f32>) -> Self {
        Self {
            bias: tensor1(bias),
            leak: leak.map(tensor0),
        }
    }
}

/// The right-hand side of a product: in panels of so many columns as the kernel takes at a time, row after row.
#[derive(Debug)]
pub(super) struct Panels {
    packed: Arc<Blob>,
    panel_bytes: usize,
    depth: usize,
    columns: usize,
    format: PackedFormat,
}

impl Panels {
    /// Fills row `row` of all panels with `line`.
    pub(super) fn set_row(&mut self, row: usize, line: &[f32]) -> TractResult<()> {
        ensure!(
            row < self.depth && line.len() <= self.columns,
            "row {row} of {} columns does not fit {}×{}",
            line.len(),
            self.depth,
            self.columns
        );
        let width = self.format.r;
        let panel = self.panel_bytes / size_of::<f32>();
        let packed = Arc::get_mut(&mut self.packed).context("the panels are in use")?;
        let packed: &mut [f32] = bytemuck::cast_slice_mut(packed.as_bytes_mut());
        match width {
            2 => scatter::<2>(line, packed, panel, row),
            3 => scatter::<3>(line, packed, panel, row),
            4 => scatter::<4>(line, packed, panel, row),
            5 => scatter::<5>(line, packed, panel, row),
            6 => scatter::<6>(line, packed, panel, row),
            8 => scatter::<8>(line, packed, panel, row),
            12 => scatter::<12>(line, packed, panel, row),
            16 => scatter::<16>(line, packed, panel, row),
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

/// For the usual widths, known when it is compiled: copies of a few values become a few instructions.
fn scatter<const WIDTH: usize>(line: &[f32], packed: &mut [f32], panel: usize, row: usize) {
    let (parts, rest) = line.as_chunks::<WIDTH>();
    let mut start = row * WIDTH;
    for part in parts {
        if let Some(place) = packed[start..].first_chunk_mut::<WIDTH>() {
            *place = *part;
        }
        start += panel;
    }
    if !rest.is_empty() {
        packed[start..start + rest.len()].copy_from_slice(rest);
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

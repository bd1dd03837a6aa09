//! Matrix products by tract's kernels: packed weights (rows) by panels (columns). Products of f32
//! and f16 get a bias and LeakyReLU, products of 8-bit values are plain sums. In: packed operands.
//! Out: a block of rows.
//!
//! This is the only place of this crate with `unsafe`: tract's kernels take pointers, and what they
//! may access is checked here.

use tract_onnx::prelude::tract_linalg::BinOp;
use tract_onnx::prelude::tract_linalg::mmm::{
    AsInputValue, FusedSpec, MMMInputFormat, MMMInputValue, MatMatMul, MmmDispatch, Query,
};
use tract_onnx::tract_core::internal::*;

use super::image::Value;
use super::operand::Operand;
use super::packing::{PanelFormat, Panels};

/// One of tract's kernels, with the layout of its operands.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    operand: Operand,
    mmm: Box<dyn MatMatMul>,
    packing: usize,
    rows: Box<dyn MMMInputFormat>,
    columns: PanelFormat,
}

impl Kernel {
    /// Whether this processor has kernels of its own for such operands. Portable kernels have no
    /// instructions for f16.
    pub(super) fn has_native(operand: Operand) -> bool {
        let kernels = Self::suitable(operand);
        kernels.iter().any(|kernel| kernel.mmm.arch().is_some())
    }

    /// All kernels that this processor can run, that lose no precision, and that compute more than
    /// one column.
    pub(super) fn suitable(operand: Operand) -> Vec<Self> {
        let query = Query {
            store: Some(operand.sum()),
            allow_extractor: false,
            ..Query::plain(operand.sum(), None, None, None)
        };
        let suitable = MmmDispatch::native().suitable(&query).into_iter();
        // Some kernels cannot apply our epilogue.
        let epilogue = Epilogue::new(&[0.1], Some(0.01), operand);
        let fuses = |mmm: &dyn MatMatMul| {
            let bias = FusedSpec::BinPerRow(epilogue.bias.view(), BinOp::Add);
            let leaks = |leak| mmm.can_fuse(&FusedSpec::LeakyRelu(leak));
            operand == Operand::I8
                || epilogue.leak.as_ref().is_some_and(leaks) && mmm.can_fuse(&bias)
        };
        // Emulated half precision is only for measuring what half precision does to scores.
        let usable = |mmm: &dyn MatMatMul| !mmm.emulated() || operand == Operand::F16;
        let kernels = suitable.filter(|(mmm, ..)| mmm.nr() > 1 && usable(&**mmm) && fuses(&**mmm));
        let mut kernels: Vec<Self> = kernels
            .filter_map(|(mmm, packing, _)| {
                let (rows, columns) = &mmm.packings()[packing];
                let columns = PanelFormat::of(&**columns, operand)?;
                Some(Self {
                    operand,
                    rows: rows.clone(),
                    columns,
                    mmm,
                    packing,
                })
            })
            .collect();
        // Portable kernels are for processors that have none of their own.
        if kernels.iter().any(|kernel| kernel.mmm.arch().is_some()) {
            kernels.retain(|kernel| kernel.mmm.arch().is_some());
        }
        kernels
    }

    /// The kernel among these that tract's own rules select for a product of this size.
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

    /// Type of its operands.
    pub(super) fn operand(&self) -> Operand {
        self.operand
    }

    /// Whether a product may start at any multiple of this number of panel rows.
    pub(super) fn can_start_at(&self, rows: usize) -> bool {
        let bytes = rows * self.columns.width() * self.operand.datum().size_of();
        rows.is_multiple_of(self.columns.group())
            && bytes.is_multiple_of(self.columns.alignment_bytes())
    }

    /// Whether its instructions add four products of 8-bit values at a time (VNNI, ARMv8.2 dot
    /// products). Other kernels widen the values first, which is slower than products of f32.
    pub(super) fn has_dot_products(&self) -> bool {
        matches!(self.columns, PanelFormat::Interleaved(_))
    }

    /// tract's name of the kernel.
    pub(super) fn name(&self) -> &str {
        self.mmm.name()
    }

    /// Packs weights, `rows` × `depth`.
    pub(super) fn pack_weights<T: Value>(
        &self,
        rows: usize,
        depth: usize,
        weights: &[T],
    ) -> TractResult<PackedWeights> {
        ensure!(
            T::datum_type() == self.operand.datum(),
            "{:?} is not multiplied by {:?}",
            T::datum_type(),
            self.operand
        );
        let weights = Tensor::from_shape(&[rows, depth], weights)?;
        Ok(PackedWeights {
            rows,
            depth,
            packed: self.rows.prepare_one(&weights, 1, 0)?,
        })
    }

    /// An empty right-hand side.
    pub(super) fn panels(&self, depth: usize, columns: usize) -> TractResult<Panels> {
        Panels::new(&self.columns, depth, columns)
    }

    /// `out[r][c] = leaky(bias[r] + Σ weights[r][k] · panels[first + k][c])` for the first
    /// `columns` columns; the plain sums without an epilogue. Rows of `out` are `columns` long.
    pub(super) fn multiply(
        &self,
        weights: &PackedWeights,
        panels: &Panels,
        first: usize,
        columns: usize,
        epilogue: Option<&Epilogue>,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let offset_bytes = first * self.columns.width() * self.operand.datum().size_of();
        ensure!(
            first + weights.depth <= panels.depth
                && (1..=panels.columns).contains(&columns)
                && panels.format == self.columns
                && (first == 0 || self.can_start_at(first))
                && weights.packed.format().dyn_eq(&*self.rows)
                && epilogue.is_none_or(|epilogue| {
                    epilogue.bias.datum_type() == self.operand.sum()
                        && epilogue.bias.len() == weights.rows
                })
                && out.datum_type() == self.operand.sum()
                && out.len() >= weights.rows * columns,
            "a product of {}×{} by {}×{columns} does not fit its operands",
            weights.rows,
            weights.depth,
            panels.depth,
        );
        let rows = panels.rows(offset_bytes, weights.depth, columns);
        // SAFETY: The kernel was selected because this processor can run it. `out` is borrowed
        // exclusively and has room for rows × columns, which are the strides given here. Both
        // operands are in the layout that the kernel packs by, and the checks above keep the
        // product within them. Kernels that read a whole step of rows beyond the last panel find
        // that much room, which `Panels::new` allocates.
        #[expect(unsafe_code, reason = "tract's kernels are called through pointers")]
        unsafe {
            let store = self
                .mmm
                .c_from_data_and_strides(out.datum_type().size_of(), columns as isize, 1)
                .wrap(&out.view_mut());
            let mut steps = tvec!(FusedSpec::AddMatMul {
                a: AsInputValue::Borrowed(&*weights.packed),
                b: AsInputValue::Borrowed(&rows),
                packing: self.packing,
            });
            if let Some(epilogue) = epilogue {
                steps.push(FusedSpec::BinPerRow(epilogue.bias.view(), BinOp::Add));
                if let Some(leak) = &epilogue.leak {
                    steps.push(FusedSpec::LeakyRelu(leak));
                }
            }
            steps.push(FusedSpec::Store(store));
            self.mmm.run(weights.rows, columns, &steps)
        }
    }
}

/// The left-hand side of a product, packed.
#[derive(Debug, Clone)]
pub(super) struct PackedWeights {
    pub(super) rows: usize,
    pub(super) depth: usize,
    packed: Box<dyn MMMInputValue>,
}

/// Bias and LeakyReLU, applied by the kernel after the product.
#[derive(Debug, Clone)]
pub(super) struct Epilogue {
    bias: Tensor,
    leak: Option<Tensor>,
}

impl Epilogue {
    /// A bias for each row, and the negative slope of LeakyReLU, in the type of the operands.
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

//! The matrix products that a layer over panels consists of: packed weights, with what follows each
//! product.

use tract_onnx::tract_core::internal::*;

use super::definition::Definition;
use super::gemm::{Epilogue, Kernel, PackedWeights};
use super::rescale::{Format, Quantised, Rescale};

/// A product and what follows it.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) weights: PackedWeights,
    pub(super) finish: Finish,
}

#[derive(Debug)]
pub(super) enum Finish {
    /// Applied by the kernel.
    Fused(Box<Epilogue>),
    /// Applied to the sums.
    Rescale(Rescale),
}

#[derive(Debug)]
pub(super) enum Products {
    /// One product for all output channels.
    Down(Product),
    /// One product for each of [`PARITIES`](super::definition::PARITIES), with the index of its
    /// first shift.
    Phases(Box<[(usize, Product); 4]>),
    /// One product for all taps; row (channel · taps + tap).
    Taps(Product),
}

impl Definition<'_> {
    /// The product by all weights of a convolution, in the order input, tap.
    pub(super) fn full_product(
        &self,
        kernel: &Kernel,
        quantised: Option<&Quantised>,
    ) -> TractResult<Product> {
        match quantised {
            None => self.float_product(kernel, 1, self.weights.to_vec()),
            Some(found) => self.quantised_product(kernel, 1, found, found.weights.clone()),
        }
    }

    /// The product whose row (output · groups + group) has the weights of all inputs for each tap
    /// of the group, in that order.
    pub(super) fn tap_product(
        &self,
        kernel: &Kernel,
        groups: &[&[[usize; 2]]],
        quantised: Option<&Quantised>,
    ) -> TractResult<Product> {
        match quantised {
            None => self.float_product(
                kernel,
                groups.len(),
                self.gather_weights(self.weights, groups),
            ),
            Some(found) => {
                let rows = self.gather_weights(&found.weights, groups);
                self.quantised_product(kernel, groups.len(), found, rows)
            }
        }
    }

    fn float_product(
        &self,
        kernel: &Kernel,
        groups: usize,
        rows: Vec<f32>,
    ) -> TractResult<Product> {
        let (bias, leak) = self.bias_and_leak(groups);
        let count = bias.len();
        let depth = rows.len() / count.max(1);
        let weights = match self.from {
            Format::F16 => {
                let halves: Vec<f16> = rows.into_iter().map(f16::from_f32).collect();
                kernel.pack_weights(count, depth, &halves)?
            }
            _ => kernel.pack_weights(count, depth, &rows)?,
        };
        let finish = if self.from == self.to {
            Finish::Fused(Box::new(Epilogue::new(&bias, leak, self.operand())))
        } else {
            Finish::Rescale(Rescale::new(vec![1.0; count], bias, leak, self.to))
        };
        Ok(Product { weights, finish })
    }

    fn quantised_product(
        &self,
        kernel: &Kernel,
        groups: usize,
        quantised: &Quantised,
        rows: Vec<i8>,
    ) -> TractResult<Product> {
        let finish = self.rescale(groups, quantised, &rows)?;
        let count = self.bias.len() * groups;
        Ok(Product {
            weights: kernel.pack_weights(count, rows.len() / count.max(1), &rows)?,
            finish: Finish::Rescale(finish),
        })
    }
}

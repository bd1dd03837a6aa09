//! Sums of products in f32 by vector instructions: for each output, weights times lines of an image
//! that start at given indices of a slice. In: weights in blocks of as many outputs as registers
//! can hold sums of. Out: a line of sums for each output.
//!
//! `pulp` selects the instructions at run time (AVX-512, AVX2, NEON). A sum adds its products in
//! the order of its weights, with fused multiply-add, as tract's kernels do, so the results are the
//! same to the last bit.

use pulp::{Arch, Simd, WithSimd};

/// Outputs of a block with 32 registers: three vectors of places give 24 sums, which leaves room
/// for the vectors and weights.
pub(super) const WIDE: usize = 8;
/// Outputs of a block with 16 registers, for two vectors of places.
const NARROW: usize = 4;
/// Remaining outputs are computed in blocks of three (the last layer of a colour network has three)
/// and of one.
const THREE: usize = 3;

/// Values beyond the last one that may be read; they do not affect the result.
pub(super) const SLACK: usize = 32;

/// Weights of a product, in blocks of outputs.
#[derive(Debug, Clone)]
pub(super) struct BlockedWeights {
    depth: usize,
    blocks: Vec<OutputBlock>,
}

/// The weights of some consecutive outputs.
#[derive(Debug, Clone)]
pub(super) struct OutputBlock {
    /// Index of the first output.
    pub(super) first: usize,
    /// Number of outputs.
    pub(super) outputs: usize,
    /// Depth × outputs.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

struct CountRegisters;

impl WithSimd for CountRegisters {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::REGISTER_COUNT
    }
}

impl BlockedWeights {
    /// From rows of weights, one for each output, and as many biases.
    pub(super) fn new(rows: &[f32], bias: &[f32], arch: Arch) -> Self {
        let depth = rows.len() / bias.len().max(1);
        let most = match arch.dispatch(CountRegisters) {
            32.. => WIDE,
            _ => NARROW,
        };
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < bias.len() {
            let outputs = match bias.len() - first {
                left if left >= most => most,
                left if left >= THREE => THREE,
                _ => 1,
            };
            let weights = (0..depth)
                .flat_map(|step| (first..first + outputs).map(move |row| rows[row * depth + step]));
            blocks.push(OutputBlock {
                first,
                outputs,
                weights: weights.collect(),
                bias: bias[first..first + outputs].to_vec(),
            });
            first += outputs;
        }
        Self { depth, blocks }
    }

    /// The blocks in order.
    pub(super) fn blocks(&self) -> &[OutputBlock] {
        &self.blocks
    }

    /// Products in a sum.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

/// The lines that a block of weights is multiplied by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// The values, with [`SLACK`] after the last line.
    pub(super) source: &'a [f32],
    /// Start of each line; one for each step of the weights' depth.
    pub(super) starts: &'a [usize],
    /// Values of a line.
    pub(super) length: usize,
}

/// `out[output][place] = leaky(bias[output] + Σ weights[output][k] · source[starts[k] + place])`.
/// Lines of `out` are as long as the input lines. Without a slope there is no LeakyReLU. A line
/// that reaches beyond `source` ends the sums of its places.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    block: &OutputBlock,
    lines: Lines<'_>,
    leak: Option<f32>,
    out: &mut [f32],
) {
    let wide = S::REGISTER_COUNT >= 32;
    match block.outputs {
        WIDE => sums::<S, 3, WIDE>(simd, block, lines, leak, out),
        NARROW => sums::<S, 2, NARROW>(simd, block, lines, leak, out),
        THREE if wide => sums::<S, 6, THREE>(simd, block, lines, leak, out),
        THREE => sums::<S, 3, THREE>(simd, block, lines, leak, out),
        _ => sums::<S, 8, 1>(simd, block, lines, leak, out),
    }
}

/// In tiles of `VECTORS` vectors of places and `OUTPUTS` outputs; the last places in single
/// vectors.
#[inline(always)]
fn sums<S: Simd, const VECTORS: usize, const OUTPUTS: usize>(
    simd: S,
    block: &OutputBlock,
    lines: Lines<'_>,
    leak: Option<f32>,
    out: &mut [f32],
) {
    let (weights, _) = block.weights.as_chunks::<OUTPUTS>();
    let Some(bias) = block.bias.first_chunk::<OUTPUTS>() else {
        return;
    };
    let mut at = 0;
    while at < lines.length {
        if lines.length - at >= VECTORS * S::F32_LANES {
            let sums = tile::<S, VECTORS, OUTPUTS>(simd, weights, lines, at);
            store(simd, sums, bias, leak, lines.length, at, out);
            at += VECTORS * S::F32_LANES;
        } else {
            let sums = tile::<S, 1, OUTPUTS>(simd, weights, lines, at);
            store(simd, sums, bias, leak, lines.length, at, out);
            at += S::F32_LANES;
        }
    }
}

/// The loops run over arrays by value, without an index: otherwise the compiler keeps the sums in
/// memory.
#[inline(always)]
fn tile<S: Simd, const VECTORS: usize, const OUTPUTS: usize>(
    simd: S,
    weights: &[[f32; OUTPUTS]],
    lines: Lines<'_>,
    at: usize,
) -> [[S::f32s; VECTORS]; OUTPUTS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; OUTPUTS];
    let Some(source) = lines.source.get(at..) else {
        return sums;
    };
    for (&start, weights) in lines.starts.iter().zip(weights) {
        let Some(values) = source.get(start..start.wrapping_add(VECTORS * S::F32_LANES)) else {
            break;
        };
        let (values, _) = S::as_simd_f32s(values);
        let Some(&values) = values.first_chunk::<VECTORS>() else {
            break;
        };
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = simd.mul_add_e_f32s(weight, value, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const VECTORS: usize, const OUTPUTS: usize>(
    simd: S,
    sums: [[S::f32s; VECTORS]; OUTPUTS],
    bias: &[f32; OUTPUTS],
    leak: Option<f32>,
    length: usize,
    at: usize,
    out: &mut [f32],
) {
    let zero = simd.splat_f32s(0.0);
    for ((sums, bias), line) in sums.into_iter().zip(bias).zip(out.chunks_exact_mut(length)) {
        let bias = simd.splat_f32s(*bias);
        let Some(places) = line.get_mut(at..) else {
            return;
        };
        for (sum, place) in sums.into_iter().zip(places.chunks_mut(S::F32_LANES)) {
            let mut value = simd.add_f32s(sum, bias);
            if let Some(leak) = leak {
                let leaked = simd.mul_f32s(value, simd.splat_f32s(leak));
                value = simd.select_f32s(simd.less_than_f32s(value, zero), leaked, value);
            }
            match S::as_mut_simd_f32s(place) {
                ([place], _) => *place = value,
                (_, rest) => simd.partial_store_f32s(rest, value),
            }
        }
    }
}

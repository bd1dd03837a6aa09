//! Sums of products by vector instructions, of f32: for each output, weights by lines of an image that lie at given places of a
//! slice. In: weights in blocks of as many outputs as registers hold sums of. Out: a line of sums for each output.
//!
//! `pulp` chooses the instructions when the program runs (AVX-512, AVX2, NEON). A sum's products are added up in the order of its
//! weights, fused to one rounding each, as tract's kernels do it: the results are the same to the last bit.

use pulp::{Arch, Simd, WithSimd};

/// Outputs that are summed up at the same time where there are 32 registers: with three vectors of places 24 sums, which leaves
/// room for the vectors and weights.
pub(super) const WIDE: usize = 8;
/// Where there are 16: with two vectors of places.
const NARROW: usize = 4;
/// What is left over goes by threes (the last layer of a colour network has that many) and by ones.
const THREE: usize = 3;

/// So many values beyond the last may be read, and count for nothing.
pub(super) const SLACK: usize = 32;

/// Weights of a product: outputs by depth.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    depth: usize,
    blocks: Vec<Block>,
}

/// Some of the outputs.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The first of them, and how many they are.
    pub(super) first: usize,
    pub(super) outputs: usize,
    /// Depth by outputs.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

struct Registers;

impl WithSimd for Registers {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::REGISTER_COUNT
    }
}

impl Weights {
    /// Of rows of weights, one for each output, and as many biases.
    pub(super) fn new(rows: &[f32], bias: &[f32], arch: Arch) -> Self {
        let depth = rows.len() / bias.len().max(1);
        let most = match arch.dispatch(Registers) {
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
            blocks.push(Block {
                first,
                outputs,
                weights: weights.collect(),
                bias: bias[first..first + outputs].to_vec(),
            });
            first += outputs;
        }
        Self { depth, blocks }
    }

    /// In order.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Products that a sum is made of.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

/// What a block of weights is multiplied by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// Where they lie, with [`SLACK`] after the last.
    pub(super) source: &'a [f32],
    /// Where each begins: as many as the weights are deep.
    pub(super) starts: &'a [usize],
    /// Values of a line.
    pub(super) length: usize,
}

/// `out[output][place] = leaky(bias[output] + Σ weights[output][k] · source[starts[k] + place])`, lines of `out` as long as those
/// that are multiplied. Without a slope there is no LeakyReLU. A line that is not all there ends the sums of its places.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    block: &Block,
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

/// By tiles of `VECTORS` vectors of places and `OUTPUTS` outputs, the last places by single vectors.
#[inline(always)]
fn sums<S: Simd, const VECTORS: usize, const OUTPUTS: usize>(
    simd: S,
    block: &Block,
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

/// Its loops are over arrays by value and without an index: with one the compiler keeps the sums in memory, three times as slow.
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

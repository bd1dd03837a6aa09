//! A layer of f32 where its image lies: the rows that a few of its output's are made of are laid out so that each weight multiplies a
//! line of consecutive values, and [`vector`](super::vector) sums them up. Nothing is repeated for each tap, as in panels, and sums
//! are stored as they lie in registers: of the narrow layers and of the first and the last, that is most of the time.

use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::*;

use super::idle::Idle;
use super::image::Image;
use super::layer::{Definition, Kind, PARITIES};
use super::rescale::{Quantised, Rescale};
use super::vector::{Block, Lines, SLACK, WIDE, Weights, multiply};

/// Bytes of laid-out rows that a thread works on: they should stay in its cache.
const SOURCE_BYTES: usize = 512 << 10;

/// A layer where its image lies.
#[derive(Debug)]
pub(super) struct Direct {
    kind: Kind,
    inputs: usize,
    /// Beyond the image's edges.
    zero: f32,
    arch: Arch,
    /// One for a convolution; for a transposed one as many as [`PARITIES`], in that order.
    products: Vec<Product>,
    idle: Idle<Scratch>,
}

#[derive(Debug)]
struct Product {
    weights: Weights,
    /// Slope of LeakyReLU, unless it follows with the rest of `finish`.
    leak: Option<f32>,
    /// What follows sums of 8-bit values, or makes such.
    finish: Option<Rescale>,
    /// What each weight of an output multiplies: of a channel, a convolution's tap (row, column), or the image moved by so many
    /// rows and columns.
    steps: Vec<(usize, [isize; 2])>,
}

/// What a thread needs besides.
#[derive(Debug, Default)]
struct Scratch {
    source: Vec<f32>,
    starts: Vec<usize>,
    /// Outputs of even columns, and of odd ones.
    halves: [Vec<f32>; 2],
}

/// How the rows of a band lie.
#[derive(Debug, Clone, Copy)]
struct Layout {
    kind: Kind,
    /// From the start of a line to that of the next.
    line: usize,
    /// From the start of a channel's plane to that of the next: a convolution has one for even and one for odd columns of odd rows,
    /// and the same of even rows.
    plane: usize,
    channel: usize,
}

/// What is beside the image's first column, to be multiplied as 0.
fn margin(kind: Kind) -> usize {
    match kind {
        Kind::Down | Kind::Up => 0,
        Kind::WideUp => 1,
    }
}

impl Layout {
    /// For `count` rows of a convolution's output or of a transposed one's input, each of `columns`.
    fn new(kind: Kind, count: usize, columns: usize) -> Self {
        let margin = margin(kind);
        // What is beyond the last column is the same place as what is before the first of the next row.
        let line = margin + columns + 1;
        let plane = (margin + count + 1) * line;
        let planes = match kind {
            Kind::Down => 4,
            Kind::Up | Kind::WideUp => 1,
        };
        Self {
            kind,
            line,
            plane,
            channel: planes * plane,
        }
    }

    /// Where what a step multiplies begins.
    fn start(&self, (channel, [row, column]): (usize, [isize; 2])) -> usize {
        let [row, column] = match self.kind {
            Kind::Down => {
                let even_row = row == 1;
                let even_column = column == 1;
                let plane = 2 * usize::from(even_row) + usize::from(!even_column);
                // Odd rows and columns begin before the first even one.
                return channel * self.channel
                    + plane * self.plane
                    + usize::from(row == 2) * self.line
                    + usize::from(column == 2);
            }
            Kind::Up | Kind::WideUp => {
                [row, column].map(|by| (by + margin(self.kind) as isize).unsigned_abs())
            }
        };
        channel * self.channel + row * self.line + column
    }
}

impl Definition<'_> {
    /// The product by the weights of these taps of a transposed convolution, or by all where none are named.
    fn direct_product(
        &self,
        steps: Vec<(usize, [isize; 2])>,
        quantised: Option<&Quantised>,
        taps: &[[usize; 2]],
        arch: Arch,
    ) -> TractResult<Product> {
        let chosen = |all: &[f32]| match taps {
            [] => all.to_vec(),
            taps => self.spread(all, &[taps]),
        };
        let none = vec![0.0; self.bias.len()];
        let (weights, leak, finish) = match quantised {
            Some(found) => {
                let rows = match taps {
                    [] => found.weights.clone(),
                    taps => self.spread(&found.weights, &[taps]),
                };
                let finish = self.rescale(1, found, &rows)?;
                let rows: Vec<f32> = rows.into_iter().map(f32::from).collect();
                (Weights::new(&rows, &none, arch), None, Some(finish))
            }
            None if self.by_levels() => {
                let scale = vec![1.0; self.bias.len()];
                let finish = Rescale::new(scale, self.bias.to_vec(), self.leak, self.to);
                let weights = Weights::new(&chosen(self.weights), &none, arch);
                (weights, None, Some(finish))
            }
            None => {
                let weights = Weights::new(&chosen(self.weights), self.bias, arch);
                (weights, self.leak, None)
            }
        };
        Ok(Product {
            weights,
            leak,
            finish,
            steps,
        })
    }
}

impl Product {
    /// A block's outputs of such lines.
    #[inline(always)]
    fn multiply<S: Simd>(&self, simd: S, block: &Block, lines: Lines<'_>, out: &mut [f32]) {
        multiply(simd, block, lines, self.leak, out);
        let values = out.get_mut(..block.outputs * lines.length);
        if let (Some(finish), Some(values)) = (&self.finish, values) {
            finish.apply_to(block.first, values, lines.length);
        }
    }
}

impl Direct {
    /// Of values in f32, by these instructions.
    pub(super) fn new(definition: &Definition<'_>, arch: Arch) -> TractResult<Self> {
        let [inputs, _] = definition.channels;
        let kind = definition.kind;
        let quantised = definition.quantised()?;
        let products = match kind {
            Kind::Down => {
                let steps = (0..inputs * 9)
                    .map(|step| (step / 9, [step % 9 / 3, step % 3].map(|tap| tap as isize)));
                vec![definition.direct_product(steps.collect(), quantised.as_ref(), &[], arch)?]
            }
            Kind::Up | Kind::WideUp => {
                let product = |&parity: &[usize; 2]| {
                    let (first, taps) = kind.phase(parity);
                    let blocks = kind.blocks().iter().skip(first).take(taps.len());
                    let steps =
                        blocks.flat_map(|&moved| (0..inputs).map(move |channel| (channel, moved)));
                    definition.direct_product(steps.collect(), quantised.as_ref(), &taps, arch)
                };
                PARITIES
                    .iter()
                    .map(product)
                    .collect::<TractResult<Vec<_>>>()?
            }
        };
        Ok(Self {
            kind,
            inputs,
            zero: f32::from(definition.from.zero_point()),
            arch,
            products,
            idle: Idle::default(),
        })
    }

    /// Rows of a band that keep what is laid out in a thread's cache.
    pub(super) fn rows_wanted(&self, columns: usize) -> usize {
        let row =
            Layout::new(self.kind, 1, columns).channel - Layout::new(self.kind, 0, columns).channel;
        let row_bytes = self.inputs * row * size_of::<f32>();
        // The nearest number: of the widest layers a few rows, for each few of which all weights are read.
        ((SOURCE_BYTES + row_bytes / 2) / row_bytes).max(1)
    }

    /// Rows `first..first + count` of a convolution's output or of a transposed one's input. Rows of `out` are one value longer
    /// than what comes out is wide.
    pub(super) fn band(
        &self,
        image: &Image<'_, f32>,
        first: usize,
        count: usize,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let mut scratch = self.idle.take().unwrap_or_default();
        let [_, height, width] = image.size();
        let columns = match self.kind {
            Kind::Down => self.kind.output_side(&width),
            Kind::Up | Kind::WideUp => width,
        };
        let layout = Layout::new(self.kind, count, columns);
        let needed = self.inputs * layout.channel + SLACK;
        if scratch.source.len() < needed {
            scratch.source.resize(needed, 0.0);
        }
        let length = count * layout.line;
        let out_rows = match self.kind {
            Kind::Down => count,
            Kind::Up | Kind::WideUp => {
                // A block of outputs at a time.
                for half in &mut scratch.halves {
                    if half.len() < WIDE * length {
                        half.resize(WIDE * length, 0.0);
                    }
                }
                (2 * count).min(self.kind.output_side(&height) - 2 * first)
            }
        };
        let mut out = out.try_as_plain_ram_mut()?;
        self.arch.dispatch(Band {
            layer: self,
            image,
            first,
            count,
            columns,
            layout,
            out_rows,
            scratch: &mut scratch,
            out: out.as_slice_mut::<f32>()?,
        });
        self.idle.keep(scratch);
        Ok(())
    }
}

/// The work on a band, compiled for each set of instructions.
struct Band<'a> {
    layer: &'a Direct,
    image: &'a Image<'a, f32>,
    first: usize,
    count: usize,
    columns: usize,
    layout: Layout,
    out_rows: usize,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.layer.kind {
            Kind::Down => self.down(simd),
            Kind::Up | Kind::WideUp => self.up(simd),
        }
    }
}

impl Band<'_> {
    #[inline(always)]
    fn down<S: Simd>(&mut self, simd: S) {
        let Layout { line, plane, .. } = self.layout;
        let zero = self.layer.zero;
        let Scratch { source, starts, .. } = &mut *self.scratch;
        for (channel, planes) in (0..self.layer.inputs).zip(source.chunks_exact_mut(4 * plane)) {
            let (odd, even) = planes.split_at_mut(2 * plane);
            // Of odd rows one more: each is below one and above the next.
            for (below, count, planes) in [(-1, self.count + 1, odd), (0, self.count, even)] {
                let (evens, odds) = planes.split_at_mut(plane);
                let lines = evens
                    .chunks_exact_mut(line)
                    .zip(odds.chunks_exact_mut(line));
                for (index, (evens, odds)) in lines.take(count).enumerate() {
                    let row = 2 * (self.first + index) as isize + below;
                    match self.image.row(channel, row) {
                        Some(source) => part(source, zero, evens, odds),
                        None => {
                            evens.fill(zero);
                            odds.fill(zero);
                        }
                    }
                }
            }
        }
        let length = self.count * line;
        for product in &self.layer.products {
            starts.clear();
            starts.extend(product.steps.iter().map(|&step| self.layout.start(step)));
            let lines = Lines {
                source,
                starts,
                length,
            };
            for block in product.weights.blocks() {
                if let Some(out) = self.out.get_mut(block.first * length..) {
                    product.multiply(simd, block, lines, out);
                }
            }
        }
    }

    #[inline(always)]
    fn up<S: Simd>(&mut self, simd: S) {
        let Layout { line, channel, .. } = self.layout;
        let zero = self.layer.zero;
        let Scratch {
            source,
            starts,
            halves: [evens, odds],
        } = &mut *self.scratch;
        let margin = margin(self.layer.kind);
        for (index, plane) in (0..self.layer.inputs).zip(source.chunks_exact_mut(channel)) {
            for (row, line) in plane.chunks_exact_mut(line).enumerate() {
                let row = (self.first + row) as isize - margin as isize;
                match self.image.row(index, row) {
                    Some(source) => {
                        line[..margin].fill(zero);
                        line[margin..margin + self.columns].copy_from_slice(source);
                        line[margin + self.columns..].fill(zero);
                    }
                    None => line.fill(zero),
                }
            }
        }
        let length = self.count * line;
        starts.clear();
        for product in &self.layer.products {
            starts.extend(product.steps.iter().map(|&step| self.layout.start(step)));
        }
        let out_line = 2 * self.columns;
        let mut starts = starts.as_slice();
        for (down, products) in self.layer.products.chunks_exact(2).enumerate() {
            let [even_product, odd_product] = products else {
                return;
            };
            let (even_starts, rest) = starts.split_at(even_product.weights.depth());
            let (odd_starts, rest) = rest.split_at(odd_product.weights.depth());
            starts = rest;
            let blocks = even_product.weights.blocks().iter();
            for (even, odd) in blocks.zip(odd_product.weights.blocks()) {
                let lines = |starts| Lines {
                    source,
                    starts,
                    length,
                };
                even_product.multiply(simd, even, lines(even_starts), evens);
                odd_product.multiply(simd, odd, lines(odd_starts), odds);
                for output in 0..even.outputs {
                    for index in 0..self.count {
                        if 2 * index + down >= self.out_rows {
                            continue;
                        }
                        let start = output * length + index * line;
                        let end = start + self.columns;
                        let row = (even.first + output) * self.out_rows + 2 * index + down;
                        let out = &mut self.out[row * out_line..][..out_line];
                        join(&evens[start..end], &odds[start..end], out);
                    }
                }
            }
        }
    }
}

/// `evens[x] = source[2x]`, `odds[x] = source[2x - 1]`; `zero` beyond the edges.
#[inline(always)]
fn part(source: &[f32], zero: f32, evens: &mut [f32], odds: &mut [f32]) {
    let (pairs, rest) = source.as_chunks::<2>();
    let columns = pairs.len() + rest.len();
    let Some((before, odds)) = odds.split_first_mut() else {
        return;
    };
    *before = zero;
    for ((pair, even), odd) in pairs.iter().zip(&mut *evens).zip(&mut *odds) {
        [*even, *odd] = *pair;
    }
    if let (Some(last), Some(even)) = (rest.first(), evens.get_mut(pairs.len())) {
        *even = *last;
    }
    evens[columns..].fill(zero);
    odds[pairs.len()..].fill(zero);
}

/// `out[2x] = evens[x]`, `out[2x + 1] = odds[x]`.
#[inline(always)]
fn join(evens: &[f32], odds: &[f32], out: &mut [f32]) {
    let (pairs, _) = out.as_chunks_mut::<2>();
    for (pair, (even, odd)) in pairs.iter_mut().zip(evens.iter().zip(odds)) {
        *pair = [*even, *odd];
    }
}

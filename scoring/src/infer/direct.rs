//! Direct convolution in f32. The input rows that a band depends on are laid out so that each
//! weight multiplies a line of consecutive values, and [`vector`](super::vector) sums the products.
//! Nothing is copied for each tap, as panels require, and sums are stored straight from the
//! registers. That pays for narrow layers and for the first and last one.

use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::*;

use super::buffer_pool::BufferPool;
use super::definition::{Definition, Kind, PARITIES};
use super::image::Image;
use super::rescale::{Quantised, Rescale};
use super::vector::{BlockedWeights, Lines, OutputBlock, SLACK, WIDE, multiply};

/// Bytes of laid-out rows per thread; they should fit its cache.
const SOURCE_BYTES: usize = 512 << 10;

/// A layer computed directly on the image.
#[derive(Debug)]
pub(super) struct DirectLayer {
    kind: Kind,
    inputs: usize,
    /// The value beyond the image's edges.
    padding: f32,
    arch: Arch,
    /// One for a convolution; for a transposed one as many as [`PARITIES`], in that order.
    products: Vec<Product>,
    buffers: BufferPool<Scratch>,
}

#[derive(Debug)]
struct Product {
    weights: BlockedWeights,
    /// Negative slope of LeakyReLU, unless `finish` applies it.
    leak: Option<f32>,
    /// Turns the sums into output values where input or output are levels.
    finish: Option<Rescale>,
    /// What each weight of an output multiplies: a channel, and a convolution's tap (row, column)
    /// or the shift (rows, columns) of a transposed convolution's input.
    steps: Vec<(usize, [isize; 2])>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
struct Scratch {
    source: Vec<f32>,
    starts: Vec<usize>,
    /// Outputs in even columns, and in odd ones.
    halves: [Vec<f32>; 2],
}

/// Layout of a band's rows.
#[derive(Debug, Clone, Copy)]
struct Layout {
    kind: Kind,
    /// Distance between the starts of two lines.
    line: usize,
    /// Distance between the starts of two planes. A convolution has four planes a channel: even and
    /// odd columns of odd rows, and the same of even rows.
    plane: usize,
    channel: usize,
}

/// Padding columns before the first one.
fn margin(kind: Kind) -> usize {
    match kind {
        Kind::Down | Kind::Up => 0,
        Kind::WideUp => 1,
    }
}

impl Layout {
    /// For `count` rows of `columns` values, of a convolution's output or of a transposed
    /// convolution's input.
    fn new(kind: Kind, count: usize, columns: usize) -> Self {
        let margin = margin(kind);
        // The padding after the last column also serves as padding before the first column of the
        // next row.
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

    /// Where the values that a step multiplies start.
    fn start(&self, (channel, [row, column]): (usize, [isize; 2])) -> usize {
        let [row, column] = match self.kind {
            Kind::Down => {
                let even_row = row == 1;
                let even_column = column == 1;
                let plane = 2 * usize::from(even_row) + usize::from(!even_column);
                // Odd rows and columns start before the first even one.
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
    /// The product with the weights of these taps of a transposed convolution, or with all weights
    /// if `taps` is empty.
    fn direct_product(
        &self,
        steps: Vec<(usize, [isize; 2])>,
        quantised: Option<&Quantised>,
        taps: &[[usize; 2]],
        arch: Arch,
    ) -> TractResult<Product> {
        let chosen = |all: &[f32]| match taps {
            [] => all.to_vec(),
            taps => self.gather_weights(all, &[taps]),
        };
        let none = vec![0.0; self.bias.len()];
        let (weights, leak, finish) = match quantised {
            Some(found) => {
                let rows = match taps {
                    [] => found.weights.clone(),
                    taps => self.gather_weights(&found.weights, &[taps]),
                };
                let finish = self.rescale(1, found, &rows)?;
                let rows: Vec<f32> = rows.into_iter().map(f32::from).collect();
                (BlockedWeights::new(&rows, &none, arch), None, Some(finish))
            }
            None if self.uses_levels() => {
                let scale = vec![1.0; self.bias.len()];
                let finish = Rescale::new(scale, self.bias.to_vec(), self.leak, self.to);
                let weights = BlockedWeights::new(&chosen(self.weights), &none, arch);
                (weights, None, Some(finish))
            }
            None => {
                let weights = BlockedWeights::new(&chosen(self.weights), self.bias, arch);
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
    /// Computes a block of outputs from such lines.
    #[inline(always)]
    fn multiply<S: Simd>(&self, simd: S, block: &OutputBlock, lines: Lines<'_>, out: &mut [f32]) {
        multiply(simd, block, lines, self.leak, out);
        let values = out.get_mut(..block.outputs * lines.length);
        if let (Some(finish), Some(values)) = (&self.finish, values) {
            finish.apply_in_place(block.first, values, lines.length);
        }
    }
}

impl DirectLayer {
    /// For definitions in f32, by these instructions.
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
                    let blocks = kind.shifts().iter().skip(first).take(taps.len());
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
            padding: f32::from(definition.from.zero_point()),
            arch,
            products,
            buffers: BufferPool::default(),
        })
    }

    /// Rows of a band whose layout fits a thread's cache.
    pub(super) fn rows_wanted(&self, columns: usize) -> usize {
        let row =
            Layout::new(self.kind, 1, columns).channel - Layout::new(self.kind, 0, columns).channel;
        let row_bytes = self.inputs * row * size_of::<f32>();
        // Rounded to nearest: bands of the widest layers have only a few rows, and each band reads
        // all weights.
        ((SOURCE_BYTES + row_bytes / 2) / row_bytes).max(1)
    }

    /// Computes rows `first..first + count` of a convolution's output, or the output rows that
    /// belong to these rows of a transposed convolution's input. Rows of `out` are one value longer
    /// than the output is wide.
    pub(super) fn band(
        &self,
        image: &Image<'_, f32>,
        first: usize,
        count: usize,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let mut scratch = self.buffers.take().unwrap_or_default();
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
                // Room for one block of outputs.
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
        self.buffers.put_back(scratch);
        Ok(())
    }
}

/// The work on a band, compiled for each instruction set.
struct Band<'a> {
    layer: &'a DirectLayer,
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
        let padding = self.layer.padding;
        let Scratch { source, starts, .. } = &mut *self.scratch;
        for (channel, planes) in (0..self.layer.inputs).zip(source.chunks_exact_mut(4 * plane)) {
            let (odd, even) = planes.split_at_mut(2 * plane);
            // One more odd row: there is one before the first even row.
            for (below, count, planes) in [(-1, self.count + 1, odd), (0, self.count, even)] {
                let (evens, odds) = planes.split_at_mut(plane);
                let lines = evens
                    .chunks_exact_mut(line)
                    .zip(odds.chunks_exact_mut(line));
                for (index, (evens, odds)) in lines.take(count).enumerate() {
                    let row = 2 * (self.first + index) as isize + below;
                    match self.image.row(channel, row) {
                        Some(source) => split_columns(source, padding, evens, odds),
                        None => {
                            evens.fill(padding);
                            odds.fill(padding);
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
        let padding = self.layer.padding;
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
                        line[..margin].fill(padding);
                        line[margin..margin + self.columns].copy_from_slice(source);
                        line[margin + self.columns..].fill(padding);
                    }
                    None => line.fill(padding),
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
                        interleave(&evens[start..end], &odds[start..end], out);
                    }
                }
            }
        }
    }
}

/// `evens[x] = source[2x]`, `odds[x] = source[2x - 1]`; `padding` beyond the edges.
#[inline(always)]
fn split_columns(source: &[f32], padding: f32, evens: &mut [f32], odds: &mut [f32]) {
    let (pairs, rest) = source.as_chunks::<2>();
    let columns = pairs.len() + rest.len();
    let Some((before, odds)) = odds.split_first_mut() else {
        return;
    };
    *before = padding;
    for ((pair, even), odd) in pairs.iter().zip(&mut *evens).zip(&mut *odds) {
        [*even, *odd] = *pair;
    }
    if let (Some(last), Some(even)) = (rest.first(), evens.get_mut(pairs.len())) {
        *even = *last;
    }
    evens[columns..].fill(padding);
    odds[pairs.len()..].fill(padding);
}

/// `out[2x] = evens[x]`, `out[2x + 1] = odds[x]`.
#[inline(always)]
fn interleave(evens: &[f32], odds: &[f32], out: &mut [f32]) {
    let (pairs, _) = out.as_chunks_mut::<2>();
    for (pair, (even, odd)) in pairs.iter_mut().zip(evens.iter().zip(odds)) {
        *pair = [*even, *odd];
    }
}

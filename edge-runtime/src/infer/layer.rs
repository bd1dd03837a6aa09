//! The network's two kinds of layers (paper, IV-C): a 3×3 convolution of stride 2 and padding 1, and the transposed one,
//! each with bias and LeakyReLU in one go, computed a few rows at a time.
//!
//! A transposed convolution of stride 2 is four small convolutions, one for each parity of the output's row and column:
//! an even place sees one pixel of the input, an odd one two. So no product is computed that is added to another
//! afterwards, and nothing of the output's size is kept besides the output. Where there are few output channels (the last
//! layer's three), the products for all nine taps are one small block of rows instead, and are added up.
//!
//! Values may be of half precision or quantised, before, after, or both: where a product's sums are of another type than what comes
//! out, [`rescale`](super::rescale) makes values of them while they are in the cache.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tract_onnx::tract_core::internal::*;

use super::gemm::{After, Kernel, Operand, Panels, Weights};
use super::image::{Image, Output, Value, values};
use super::pool::Pool;
use super::rescale::{Finished, Format, Quantised, Rescale};

/// Bytes of panels that a thread works on: with the block that comes of them they should stay in its cache.
const PANEL_BYTES: usize = 512 << 10;
/// Fewer columns than that do not keep a kernel busy.
const MIN_COLUMNS: usize = 64;
/// Up to so many output channels, a transposed convolution is one product for all taps.
pub(super) const FEW_CHANNELS: usize = 8;

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A convolution.
    Down,
    /// A transposed one.
    Up,
}

/// The taps of a transposed convolution that fall on the output's places of a parity: the rows of panels that they need,
/// of the blocks `lower`, `here`, `right`, `lower right`, and the taps (row, column) in that order.
const PHASES: [(usize, &[[usize; 2]]); 4] = [
    (1, &[[1, 1]]),
    (1, &[[1, 2], [1, 0]]),
    (0, &[[0, 1], [2, 1]]),
    (0, &[[0, 2], [2, 2], [2, 0], [0, 0]]),
];

/// A product and what follows it.
#[derive(Debug)]
struct Product {
    weights: Weights,
    finish: Finish,
}

#[derive(Debug)]
enum Finish {
    /// Done by the kernel.
    Fused(Box<After>),
    /// Done to its sums.
    Rescale(Rescale),
}

#[derive(Debug)]
enum Products {
    /// One, for all output channels.
    Down(Product),
    /// One for each parity.
    Phases(Box<[Product; 4]>),
    /// One for all taps: row (channel · 9 + tap).
    Taps(Product),
}

/// What a thread needs besides.
#[derive(Debug)]
struct Scratch {
    panels: Panels,
    columns: usize,
    /// Sums of a product that are still to be rescaled.
    sums: Tensor,
    blocks: [Tensor; 2],
    /// Three rows of the image.
    lines: Tensor,
}

/// A layer as it is made.
#[derive(Debug)]
pub(super) struct Definition<'a> {
    pub(super) kind: Kind,
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    /// outputs × inputs × 3 × 3, for both kinds.
    pub(super) weights: &'a [f32],
    pub(super) bias: &'a [f32],
    /// Slope of LeakyReLU, in 0..=1.
    pub(super) leak: Option<f32>,
    /// What comes in; where it is quantised, the weights must be recoverable ([`Quantised::recover`]).
    pub(super) from: Format,
    /// What comes out.
    pub(super) to: Format,
}

impl Definition<'_> {
    /// What its products multiply.
    pub(super) fn operand(&self) -> Operand {
        match self.from {
            Format::F32 => Operand::F32,
            Format::F16 => Operand::F16,
            Format::I8(_) => Operand::I8,
        }
    }

    /// All weights, in the order of a convolution's rows: input, tap.
    fn whole(&self, kernel: &Kernel, quantised: Option<&Quantised>) -> TractResult<Product> {
        match quantised {
            None => self.product(kernel, 1, self.weights.to_vec()),
            Some(found) => self.quantised_product(kernel, 1, found, found.weights.clone()),
        }
    }

    /// The product whose row (output · groups + group) has the weights of all inputs for each tap of the group, in that
    /// order.
    fn of_taps(
        &self,
        kernel: &Kernel,
        groups: &[&[[usize; 2]]],
        quantised: Option<&Quantised>,
    ) -> TractResult<Product> {
        match quantised {
            None => self.product(kernel, groups.len(), self.spread(self.weights, groups)),
            Some(found) => {
                let rows = self.spread(&found.weights, groups);
                self.quantised_product(kernel, groups.len(), found, rows)
            }
        }
    }

    /// Output, group, tap, input.
    fn spread<T: Copy>(&self, weights: &[T], groups: &[&[[usize; 2]]]) -> Vec<T> {
        let [inputs, outputs] = self.channels;
        let mut rows = Vec::new();
        for output in 0..outputs {
            for &[row, column] in groups.iter().copied().flatten() {
                let at = |input: usize| ((output * inputs + input) * 3 + row) * 3 + column;
                rows.extend((0..inputs).map(|input| weights[at(input)]));
            }
        }
        rows
    }

    /// Bias and slope that follow a product of so many rows for each output. Where there are several, they are added up
    /// first.
    fn following(&self, groups: usize) -> (Vec<f32>, Option<f32>) {
        match groups {
            1 => (self.bias.to_vec(), self.leak),
            _ => (vec![0.0; self.bias.len() * groups], None),
        }
    }

    fn product(&self, kernel: &Kernel, groups: usize, rows: Vec<f32>) -> TractResult<Product> {
        let (bias, leak) = self.following(groups);
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
            Finish::Fused(Box::new(After::new(&bias, leak, self.operand())))
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
        let Format::I8(from) = self.from else {
            bail!("what comes in is not quantised");
        };
        let (mut bias, leak) = self.following(groups);
        let count = bias.len();
        let depth = rows.len() / count.max(1);
        // One scale for an output channel, whichever taps a product takes of it.
        let scale: Vec<f32> = (0..count)
            .map(|row| quantised.scales[row / groups] * from.scale)
            .collect();
        for ((bias, scale), row) in bias.iter_mut().zip(&scale).zip(rows.chunks_exact(depth)) {
            // Σ (value - zero point) · weight.
            let sum: i32 = row.iter().map(|&weight| i32::from(weight)).sum();
            *bias += -f32::from(from.zero_point) * sum as f32 * scale;
        }
        let to = if groups == 1 { self.to } else { Format::F32 };
        Ok(Product {
            weights: kernel.pack_weights(count, depth, &rows)?,
            finish: Finish::Rescale(Rescale::new(scale, bias, leak, to)),
        })
    }
}

/// A layer, ready to run.
#[derive(Debug)]
pub(super) struct Layer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    kernel: Kernel,
    products: Products,
    /// Bias and slope where they are applied to sums of products.
    sum_bias: Vec<f32>,
    leak: Option<f32>,
    from: Format,
    to: Format,
    idle: Mutex<Vec<Scratch>>,
}

impl Layer {
    /// By a kernel for its operands.
    pub(super) fn new(definition: &Definition<'_>, kernel: Kernel) -> TractResult<Self> {
        let [inputs, outputs] = definition.channels;
        ensure!(
            definition.weights.len() == outputs * inputs * 9 && definition.bias.len() == outputs,
            "weights of {outputs} × {inputs} × 3 × 3 and as many biases are needed"
        );
        ensure!(
            kernel.operand() == definition.operand(),
            "a kernel for {:?} is needed",
            definition.operand()
        );
        let quantised = match definition.from {
            Format::F32 | Format::F16 => None,
            Format::I8(_) => Some(
                Quantised::recover(outputs, definition.weights)
                    .context("the weights are not quantised")?,
            ),
        };
        let quantised = quantised.as_ref();
        let products = match definition.kind {
            Kind::Down => Products::Down(definition.whole(&kernel, quantised)?),
            Kind::Up if outputs <= FEW_CHANNELS && definition.to == Format::F32 => {
                let taps: [[usize; 2]; 9] = std::array::from_fn(|place| [place / 3, place % 3]);
                let taps: Vec<&[[usize; 2]]> = taps.chunks(1).collect();
                Products::Taps(definition.of_taps(&kernel, &taps, quantised)?)
            }
            Kind::Up => {
                let phase = |(_, taps): (usize, &[[usize; 2]])| {
                    definition.of_taps(&kernel, &[taps], quantised)
                };
                let [a, b, c, d] = PHASES;
                Products::Phases(Box::new([phase(a)?, phase(b)?, phase(c)?, phase(d)?]))
            }
        };
        Ok(Self {
            kind: definition.kind,
            inputs,
            outputs,
            kernel,
            products,
            sum_bias: definition.bias.to_vec(),
            leak: definition.leak,
            from: definition.from,
            to: definition.to,
            idle: Mutex::default(),
        })
    }

    /// What is beyond its input's edges.
    fn edge<T: Value>(&self) -> T {
        T::edge(self.from.zero_point())
    }

    /// Channels out.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Rows of panels.
    fn depth(&self) -> usize {
        match self.products {
            Products::Down(_) => self.inputs * 9,
            Products::Phases(_) => self.inputs * 4,
            Products::Taps(_) => self.inputs,
        }
    }

    /// Rows of the blocks that products go to before they come to their places.
    fn block_rows(&self) -> [usize; 2] {
        match self.products {
            Products::Down(_) => [0, 0],
            Products::Phases(_) => [self.outputs; 2],
            Products::Taps(_) => [self.outputs * 9, 0],
        }
    }

    /// Rows of sums that are to be rescaled.
    fn sum_rows(&self) -> usize {
        let product = match &self.products {
            Products::Down(product) | Products::Taps(product) => product,
            Products::Phases(products) => &products[0],
        };
        match product.finish {
            Finish::Fused(_) => 0,
            Finish::Rescale(_) => product.weights.rows,
        }
    }

    /// A side of what comes out.
    pub(super) fn output_side<D: DimLike>(&self, side: &D) -> D {
        match self.kind {
            Kind::Down => (side.clone() + 1) / 2,
            Kind::Up => side.clone() * 2 - 1,
        }
    }

    fn output_size(&self, height: usize, width: usize) -> (usize, usize) {
        (self.output_side(&height), self.output_side(&width))
    }

    /// The rows of an image of this height that rows of what comes out are made of.
    pub(super) fn rows_behind(&self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let (first, end) = match self.kind {
            Kind::Down => ((2 * rows.start).saturating_sub(1), 2 * rows.end),
            // An odd row is made of two.
            Kind::Up => (rows.start / 2, rows.end / 2 + 1),
        };
        first..end.min(height)
    }

    /// At least these rows of what an image becomes, the work spread over the threads of a pool; the others are not to be
    /// looked at.
    pub(super) fn run<I: Value>(
        &self,
        image: &Image<'_, I>,
        rows: &Range<usize>,
        pool: &Pool,
        out: &mut Output,
    ) -> TractResult<()> {
        match self.to {
            Format::F32 => self.run_to::<I, f32>(image, rows, pool, out),
            Format::F16 => self.run_to::<I, f16>(image, rows, pool, out),
            Format::I8(_) => self.run_to::<I, i8>(image, rows, pool, out),
        }
    }

    fn run_to<I: Value, O: Finished>(
        &self,
        image: &Image<'_, I>,
        rows: &Range<usize>,
        pool: &Pool,
        out: &mut Output,
    ) -> TractResult<()> {
        let [channels, height, width] = image.size();
        ensure!(
            channels == self.inputs && self.from.datum() == I::datum_type(),
            "expected an image of {} channels of {:?}, found {channels} of {:?}",
            self.inputs,
            self.from.datum(),
            I::datum_type(),
        );
        // A band is so many rows of a convolution's output or of a transposed one's input.
        let (out_height, out_width) = self.output_size(height, width);
        let (lines, columns, factor) = match self.kind {
            Kind::Down => (out_height, out_width, 1),
            Kind::Up => (height, width, 2),
        };
        let wanted = (PANEL_BYTES / size_of::<I>() / self.depth()).max(MIN_COLUMNS);
        let bands = lines.div_ceil((wanted / columns).max(1));
        // Of equal size, and as many for each thread.
        let bands = bands.next_multiple_of(pool.threads()).min(lines);
        let band = lines.div_ceil(bands);
        out.prepare(
            self.to.datum(),
            factor * band,
            [self.outputs, out_height, out_width],
        )?;
        let work = |(index, out): (usize, &mut Tensor)| {
            let first = index * band;
            let count = band.min(lines - first);
            let columns = (band + 1) * columns;
            self.with_scratch(columns, |scratch| match &self.products {
                Products::Down(product) => {
                    self.down::<I, O>(product, image, first, count, scratch, out)
                }
                Products::Phases(products) => {
                    self.phases::<I, O>(products, image, first, count, scratch, out)
                }
                Products::Taps(product) => self.taps(product, image, first, count, scratch, out),
            })
        };
        let band_rows = factor * band;
        let wanted = |(index, _): &(usize, &mut Tensor)| {
            index * band_rows < rows.end && (index + 1) * band_rows > rows.start
        };
        pool.share(out.bands.iter_mut().enumerate().filter(wanted), work)
    }

    fn with_scratch<T>(
        &self,
        columns: usize,
        work: impl FnOnce(&mut Scratch) -> TractResult<T>,
    ) -> TractResult<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.pop();
        drop(idle);
        let mut scratch = match found.filter(|scratch| scratch.columns >= columns) {
            Some(scratch) => scratch,
            None => Scratch {
                panels: self.kernel.panels(self.depth(), columns)?,
                columns,
                blocks: {
                    let [first, second] = self.block_rows();
                    let block = |rows: usize| Tensor::zero_dt(self.to.datum(), &[rows * columns]);
                    [block(first)?, block(second)?]
                },
                sums: Tensor::zero_dt(self.kernel.operand().sum(), &[self.sum_rows() * columns])?,
                lines: Tensor::zero_dt(self.from.datum(), &[3 * columns])?,
            },
        };
        let done = work(&mut scratch)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(scratch);
        Ok(done)
    }

    /// A product of the panels from row `first` on, finished, to `out`.
    fn multiply<O: Finished>(
        &self,
        product: &Product,
        panels: &Panels,
        first: usize,
        columns: usize,
        sums: &mut Tensor,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let Product { weights, finish } = product;
        let rescale = match finish {
            Finish::Fused(after) => {
                let after = Some(&**after);
                return self
                    .kernel
                    .multiply(weights, panels, first, columns, after, out);
            }
            Finish::Rescale(rescale) => rescale,
        };
        self.kernel
            .multiply(weights, panels, first, columns, None, sums)?;
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<O>()?;
        match self.kernel.operand() {
            Operand::F32 => rescale.apply(values::<f32>(sums)?, columns, out),
            Operand::F16 => rescale.apply(values::<f16>(sums)?, columns, out),
            Operand::I8 => rescale.apply(values::<i32>(sums)?, columns, out),
        }
        Ok(())
    }

    /// Rows `first..first + count` of a convolution.
    fn down<I: Value, O: Finished>(
        &self,
        product: &Product,
        image: &Image<'_, I>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let [_, height, width] = image.size();
        let (_, width) = self.output_size(height, width);
        let columns = count * width;
        let edge = self.edge();
        let Scratch {
            panels,
            lines,
            sums,
            ..
        } = scratch;
        let mut lines = lines.try_as_plain_ram_mut()?;
        let lines = lines.as_slice_mut::<I>()?;
        let (left, lines) = lines.split_at_mut(columns);
        let (here, lines) = lines.split_at_mut(columns);
        let right = &mut lines[..columns];
        for channel in 0..self.inputs {
            for tap_row in 0..3 {
                let taps = left
                    .chunks_exact_mut(width)
                    .zip(here.chunks_exact_mut(width))
                    .zip(right.chunks_exact_mut(width));
                for (index, ((left, here), right)) in taps.enumerate() {
                    let row = 2 * (first + index) as isize + tap_row as isize - 1;
                    match image.row(channel, row) {
                        Some(source) => part(source, edge, left, here, right),
                        None => {
                            left.fill(edge);
                            here.fill(edge);
                            right.fill(edge);
                        }
                    }
                }
                for (tap_column, line) in [&*left, here, right].into_iter().enumerate() {
                    panels.set_row(channel * 9 + tap_row * 3 + tap_column, line)?;
                }
            }
        }
        self.multiply::<O>(product, panels, 0, columns, sums, out)
    }

    /// What the input's rows `first..first + count` and the one below them make of a transposed convolution.
    fn phases<I: Value, O: Finished>(
        &self,
        products: &[Product; 4],
        image: &Image<'_, I>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let [_, height, width] = image.size();
        let columns = count * width;
        let Scratch {
            panels,
            lines,
            sums,
            blocks,
            ..
        } = scratch;
        let mut lines = lines.try_as_plain_ram_mut()?;
        let line = &mut lines.as_slice_mut::<I>()?[..columns];
        // Lower, here, right, lower right.
        for (block, [down, right]) in [[1, 0], [0, 0], [0, 1], [1, 1]].into_iter().enumerate() {
            for channel in 0..self.inputs {
                image.rows_into(channel, first + down, right, self.edge(), line);
                panels.set_row(block * self.inputs + channel, line)?;
            }
        }
        let (out_height, out_width) = self.output_size(height, width);
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<O>()?;
        for (down, products) in products.chunks_exact(2).enumerate() {
            // Even and odd columns, then both into their places.
            for (right, (product, block)) in products.iter().zip(&mut *blocks).enumerate() {
                let first_row = PHASES[2 * down + right].0 * self.inputs;
                self.multiply::<O>(product, panels, first_row, columns, sums, block)?;
            }
            let [even, odd] = [values::<O>(&blocks[0])?, values::<O>(&blocks[1])?];
            for channel in 0..self.outputs {
                for index in 0..count {
                    if 2 * index + down >= out_rows {
                        continue;
                    }
                    let start = channel * columns + index * width;
                    let (even, odd) = (&even[start..start + width], &odd[start..start + width]);
                    let start = (channel * out_rows + 2 * index + down) * out_width;
                    let (pairs, rest) = out[start..start + out_width].as_chunks_mut::<2>();
                    for (pair, (even, odd)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
                        *pair = [*even, *odd];
                    }
                    if let (Some(place), Some(even)) = (rest.first_mut(), even.last()) {
                        *place = *even;
                    }
                }
            }
        }
        Ok(())
    }

    /// The same for few output channels, of which come values that are not quantised.
    fn taps<I: Value>(
        &self,
        product: &Product,
        image: &Image<'_, I>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let [_, height, width] = image.size();
        // The row below is needed too, where there is one.
        let rows = (count + 1).min(height - first);
        let columns = rows * width;
        let Scratch {
            panels,
            lines,
            sums,
            blocks: [block, _],
            ..
        } = scratch;
        let mut lines = lines.try_as_plain_ram_mut()?;
        let line = &mut lines.as_slice_mut::<I>()?[..columns];
        for channel in 0..self.inputs {
            image.rows_into(channel, first, 0, self.edge(), line);
            panels.set_row(channel, line)?;
        }
        self.multiply::<f32>(product, panels, 0, columns, sums, block)?;
        let block = values::<f32>(block)?;
        let (out_height, out_width) = self.output_size(height, width);
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        for channel in 0..self.outputs {
            let bias = self.sum_bias[channel];
            // A row of products by a tap; beyond the lower edge there is none.
            let products = |[tap_row, tap_column]: [usize; 2], row: usize| {
                let start = (channel * 9 + tap_row * 3 + tap_column) * columns + row * width;
                &block[start..start + width]
            };
            for index in 0..count {
                for down in 0..2 {
                    if 2 * index + down >= out_rows {
                        continue;
                    }
                    let start = (channel * out_rows + 2 * index + down) * out_width;
                    let line = &mut out[start..start + out_width];
                    // The tap's row and the input's row that it is for.
                    let first_row = if down == 0 { 1 } else { 2 };
                    let row = |tap_row, row| [1, 2, 0].map(|tap| products([tap_row, tap], row));
                    add_pairs(row(first_row, index), Some(bias), line);
                    if down == 1 {
                        add_pairs(row(0, index + 1), None, line);
                    }
                    let Some(leak) = self.leak else { continue };
                    for place in line.iter_mut().filter(|place| **place < 0.0) {
                        *place *= leak;
                    }
                }
            }
        }
        Ok(())
    }
}

/// `line[2x] += here[x]`, `line[2x + 1] += right[x] + left[x + 1]`; with a bias, the line is that first.
fn add_pairs([here, right, left]: [&[f32]; 3], bias: Option<f32>, line: &mut [f32]) {
    let (pairs, rest) = line.as_chunks_mut::<2>();
    let values = here.iter().zip(right).zip(left.iter().skip(1));
    match bias {
        Some(bias) => {
            for (pair, ((here, right), left)) in pairs.iter_mut().zip(values) {
                *pair = [bias + here, bias + (right + left)];
            }
        }
        None => {
            for (pair, ((here, right), left)) in pairs.iter_mut().zip(values) {
                pair[0] += here;
                pair[1] += right + left;
            }
        }
    }
    if let (Some(place), Some(here)) = (rest.first_mut(), here.last()) {
        *place = bias.unwrap_or(*place) + here;
    }
}

/// `left[x] = source[2x - 1]`, `here[x] = source[2x]`, `right[x] = source[2x + 1]`; `edge` beyond the edges.
fn part<T: Copy>(source: &[T], edge: T, left: &mut [T], here: &mut [T], right: &mut [T]) {
    let (pairs, rest) = source.as_chunks::<2>();
    for ((pair, here), right) in pairs.iter().zip(&mut *here).zip(&mut *right) {
        [*here, *right] = *pair;
    }
    if let (Some(last), Some(here), Some(right)) = (rest.first(), here.last_mut(), right.last_mut())
    {
        *here = *last;
        *right = edge;
    }
    if let Some((first, left)) = left.split_first_mut() {
        *first = edge;
        left.copy_from_slice(&right[..left.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rescale::Quantisation;
    use super::*;

    /// The definitions, in f64 (Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning").
    fn expected(
        kind: Kind,
        [inputs, outputs]: [usize; 2],
        [height, width]: [usize; 2],
        image: &[f32],
        weights: &[f32],
        bias: &[f32],
        leak: Option<f32>,
    ) -> Vec<f64> {
        let side = |side: usize| match kind {
            Kind::Down => (side - 1) / 2 + 1,
            Kind::Up => 2 * side - 1,
        };
        let (out_height, out_width) = (side(height), side(width));
        let mut out = vec![0.0; outputs * out_height * out_width];
        for output in 0..outputs {
            for y in 0..height.max(out_height) {
                for x in 0..width.max(out_width) {
                    for input in 0..inputs {
                        for tap in 0..9 {
                            let (tap_y, tap_x) = (tap / 3, tap % 3);
                            // A convolution gathers what a transposed one spreads.
                            let (from, to) = match kind {
                                Kind::Down => ((2 * y + tap_y, 2 * x + tap_x), (y + 1, x + 1)),
                                Kind::Up => ((y + 1, x + 1), (2 * y + tap_y, 2 * x + tap_x)),
                            };
                            let inside = |(y, x): (usize, usize), height, width| {
                                (1..=height).contains(&y) && (1..=width).contains(&x)
                            };
                            if inside(from, height, width) && inside(to, out_height, out_width) {
                                let value =
                                    image[(input * height + from.0 - 1) * width + from.1 - 1];
                                let weight = weights[(output * inputs + input) * 9 + tap];
                                out[(output * out_height + to.0 - 1) * out_width + to.1 - 1] +=
                                    f64::from(value) * f64::from(weight);
                            }
                        }
                    }
                }
            }
        }
        for (index, value) in out.iter_mut().enumerate() {
            *value += f64::from(bias[index / (out_height * out_width)]);
            if *value < 0.0 {
                *value *= f64::from(leak.unwrap_or(1.0));
            }
        }
        out
    }

    /// Values that a generator draws from a seed, in -1..1.
    fn drawn(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    /// What a layer makes of an image.
    fn run<T: Value>(
        definition: &Definition<'_>,
        kernel: Kernel,
        image: &[T],
        [height, width]: [usize; 2],
        threads: usize,
    ) -> Output {
        let layer = Layer::new(definition, kernel).unwrap();
        let pool = Pool::new(threads).unwrap();
        let mut out = Output::default();
        let frame = Image::of_planes(image, [definition.channels[0], height, width]).unwrap();
        // Twice: what is kept between frames must not show.
        for _ in 0..2 {
            layer
                .run(&frame, &(0..usize::MAX), &pool, &mut out)
                .unwrap();
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Quantised before, after and both, by every kernel for integers.
        #[test]
        fn a_quantised_layer_is_what_its_definition_says_to_half_a_level(
            up in any::<bool>(),
            inputs in 1usize..4,
            outputs in 1usize..21,
            half in (0usize..12, 0usize..40),
            threads in 1usize..4,
            leak in prop::option::of(0.01f32..0.5),
            from in any::<i8>(),
            to in prop::option::of(any::<i8>()),
            which in any::<prop::sample::Index>(),
            seed in any::<u32>(),
        ) {
            let kind = if up { Kind::Up } else { Kind::Down };
            // Kernels take four rows at a time.
            let channels @ [inputs, outputs] = [4 * inputs, outputs];
            let size @ [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let from = Quantisation { scale: 0.01, zero_point: from };
            let to = to.map(|zero_point| Quantisation { scale: 0.05, zero_point });
            let levels = |values: Vec<f32>| -> Vec<i8> {
                values.into_iter().map(|value| (value * 127.0) as i8).collect()
            };
            let image = levels(drawn(seed, inputs * height * width));
            let mut weights = levels(drawn(seed ^ 1, outputs * inputs * 9));
            for row in weights.chunks_exact_mut(inputs * 9) {
                row[5] = 127;
            }
            let scale = |at: usize| 0.002 + (at / (inputs * 9)) as f32 * 1e-4;
            let weights: Vec<f32> = weights
                .iter()
                .enumerate()
                .map(|(at, &level)| f32::from(level) * scale(at))
                .collect();
            let bias = drawn(seed ^ 2, outputs);
            let values: Vec<f32> = image
                .iter()
                .map(|&level| (f32::from(level) - f32::from(from.zero_point)) * from.scale)
                .collect();
            let definition = Definition {
                kind,
                channels,
                weights: &weights,
                bias: &bias,
                leak,
                from: Format::I8(from),
                to: to.map_or(Format::F32, Format::I8),
            };
            let mut kernels = Kernel::suitable(Operand::I8);
            kernels.retain(|kernel| !up || kernel.begins_at(inputs));
            let kernel = which.get(&kernels).clone();
            let name = kernel.name().to_owned();
            let out = run(&definition, kernel, &image, size, threads);
            let expected = expected(kind, channels, size, &values, &weights, &bias, leak);
            let found: Vec<(f64, f64)> = match to {
                None => out.planes().unwrap().iter().map(|&value| (f64::from(value), 1e-3)).collect(),
                Some(to) => {
                    let image = out.image::<i8>().unwrap();
                    let [channels, height, _] = image.size();
                    let rows = (0..channels).flat_map(|channel| {
                        (0..height).map(move |row| (channel, row as isize))
                    });
                    let levels = rows.flat_map(|(channel, row)| image.row(channel, row).unwrap());
                    let value = |&level: &i8| {
                        (f64::from(level) - f64::from(to.zero_point)) * f64::from(to.scale)
                    };
                    levels.map(|level| (value(level), f64::from(to.scale) * 0.51)).collect()
                }
            };
            prop_assert_eq!(found.len(), expected.len());
            for (place, ((found, within), expected)) in found.iter().zip(&expected).enumerate() {
                let expected = to.map_or(*expected, |to| {
                    let level = |level: f64| (level - f64::from(to.zero_point)) * f64::from(to.scale);
                    expected.clamp(level(-128.0), level(127.0))
                });
                prop_assert!((found - expected).abs() < *within, "{} at {}: {} for {}", name, place, found, expected);
            }
        }

        /// More and fewer output channels than `FEW_CHANNELS`, one row, one pixel, many threads, every kernel.
        #[test]
        fn a_layer_is_what_its_definition_says(
            up in any::<bool>(),
            inputs in 4usize..9,
            outputs in 1usize..21,
            half in (0usize..12, 0usize..40),
            threads in 1usize..4,
            leak in prop::option::of(0.01f32..0.5),
            which in any::<prop::sample::Index>(),
            seed in any::<u32>(),
        ) {
            let kind = if up { Kind::Up } else { Kind::Down };
            let [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let image = drawn(seed, inputs * height * width);
            let weights = drawn(seed ^ 1, outputs * inputs * 9);
            let bias = drawn(seed ^ 2, outputs);
            let kernels = Kernel::suitable(Operand::F32);
            let kernel = which.get(&kernels).clone();
            let name = kernel.name().to_owned();
            let channels = [inputs, outputs];
            let definition = Definition {
                kind,
                channels,
                weights: &weights,
                bias: &bias,
                leak,
                from: Format::F32,
                to: Format::F32,
            };
            let out = run(&definition, kernel, &image, [height, width], threads);
            let found = out.planes().unwrap();
            let expected =
                expected(kind, channels, [height, width], &image, &weights, &bias, leak);
            prop_assert_eq!(found.len(), expected.len());
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (f64::from(*found) - expected).abs();
                prop_assert!(off < 1e-4, "{} at {}: {} for {}", name, place, found, expected);
            }
        }

        /// Half precision before, after and both: off by what half precision rounds.
        #[test]
        fn a_layer_of_half_precision_is_what_its_definition_says(
            up in any::<bool>(),
            inputs in 1usize..4,
            outputs in 1usize..21,
            half in (0usize..8, 0usize..20),
            threads in 1usize..4,
            leak in prop::option::of(0.01f32..0.5),
            halves in (1usize..4).prop_map(|which| [which & 1 > 0, which & 2 > 0]),
            seed in any::<u32>(),
        ) {
            let kind = if up { Kind::Up } else { Kind::Down };
            let channels @ [inputs, outputs] = [8 * inputs, outputs];
            let size @ [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let image: Vec<f16> =
                drawn(seed, inputs * height * width).into_iter().map(f16::from_f32).collect();
            let values: Vec<f32> = image.iter().map(|value| value.to_f32()).collect();
            let weights = drawn(seed ^ 1, outputs * inputs * 9);
            let bias = drawn(seed ^ 2, outputs);
            let [from, to] = halves.map(|half| if half { Format::F16 } else { Format::F32 });
            let definition =
                Definition { kind, channels, weights: &weights, bias: &bias, leak, from, to };
            let mut kernels = Kernel::suitable(definition.operand());
            kernels.retain(|kernel| !up || kernel.begins_at(inputs));
            let kernel = kernels.first().expect("there is a portable one").clone();
            let out = match from {
                Format::F16 => run(&definition, kernel, &image, size, threads),
                _ => run(&definition, kernel, &values, size, threads),
            };
            let expected = expected(kind, channels, size, &values, &weights, &bias, leak);
            let found: Vec<f32> = match to {
                Format::F16 => {
                    let image = out.image::<f16>().unwrap();
                    let [channels, height, _] = image.size();
                    let rows = (0..channels)
                        .flat_map(|channel| (0..height).map(move |row| (channel, row as isize)));
                    rows.flat_map(|(channel, row)| image.row(channel, row).unwrap())
                        .map(|value| value.to_f32())
                        .collect()
                }
                _ => out.planes().unwrap(),
            };
            prop_assert_eq!(found.len(), expected.len());
            // Sums of up to 216 products below 1, rounded each time to 11 bits of what is mostly below 16.
            let within = if from == Format::F16 { 0.15 } else { 0.01 };
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (f64::from(*found) - expected).abs();
                prop_assert!(off < within, "at {}: {} for {}", place, found, expected);
            }
        }
    }
}

//! The network's kinds of layers (paper, IV-C): a 3×3 convolution of stride 2 and padding 1, the transposed one, and the 5×5
//! transposed one that bilinear upsampling and a 3×3 convolution are (`host-trainer train --upsampled`), each with bias and
//! LeakyReLU in one go, computed a few rows at a time.
//!
//! A transposed convolution of stride 2 is four small convolutions, one for each parity of the output's row and column:
//! of 3×3, an even place sees one pixel of the input, an odd one two; of 5×5, three and two. So no product is computed that is
//! added to another afterwards, and nothing of the output's size is kept besides the output. Where there are few output
//! channels (the last layer's three), the products for all taps are one small block of rows instead, and are added up.
//!
//! Values may be of half precision or quantised, before, after, or both: where a product's sums are of another type than what comes
//! out, [`rescale`](super::rescale) makes values of them while they are in the cache.

use std::ops::Range;

use tract_onnx::tract_core::internal::*;

use super::gemm::{After, Kernel, Operand, Panels, Weights};
use super::idle::Idle;
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
    /// A convolution of 3×3.
    Down,
    /// A transposed one of 3×3.
    Up,
    /// A transposed one of 5×5.
    WideUp,
}

impl Kind {
    /// A side of its weights.
    pub(super) fn side(self) -> usize {
        match self {
            Self::Down | Self::Up => 3,
            Self::WideUp => 5,
        }
    }

    /// What its products' panels hold, in that order: the image, moved by so many rows and columns. Ordered so that what the
    /// output's places of a parity need lies side by side.
    pub(super) fn blocks(self) -> &'static [[isize; 2]] {
        match self {
            Self::Down => &[],
            Self::Up => &[[1, 0], [0, 0], [0, 1], [1, 1]],
            Self::WideUp => &[
                [-1, 0],
                [-1, 1],
                [0, 0],
                [0, 1],
                [1, 0],
                [1, 1],
                [0, -1],
                [1, -1],
                [-1, -1],
            ],
        }
    }

    /// Of a transposed convolution the tap of a row (or column) of weights by which the image, moved by `by`, comes to the
    /// output's even (`odd` 0) or odd (1) rows (or columns), if one does.
    fn tap(self, odd: usize, by: isize) -> Option<usize> {
        let side = self.side();
        let tap = usize::try_from((side / 2 + odd) as isize - 2 * by).ok()?;
        (tap < side).then_some(tap)
    }

    /// What the output's places of a parity (row, column) are made of: the first of the blocks, and the tap (row, column) of each
    /// from there on.
    fn phase(self, [row, column]: [usize; 2]) -> (usize, Vec<[usize; 2]>) {
        let taps = self
            .blocks()
            .iter()
            .map(|&[down, right]| Some([self.tap(row, down)?, self.tap(column, right)?]));
        let taps: Vec<Option<[usize; 2]>> = taps.collect();
        let first = taps.iter().position(Option::is_some).unwrap_or_default();
        (first, taps[first..].iter().map_while(|tap| *tap).collect())
    }
}

/// Parities of the output's rows and columns.
const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

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
    /// One for each of [`PARITIES`], with the first of the blocks that it multiplies.
    Phases(Box<[(usize, Product); 4]>),
    /// One for all taps: row (channel · taps + tap).
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
    /// outputs × inputs × side × side, for all kinds.
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
        let side = self.kind.side();
        let mut rows = Vec::new();
        for output in 0..outputs {
            for &[row, column] in groups.iter().copied().flatten() {
                let at = |input: usize| ((output * inputs + input) * side + row) * side + column;
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
    idle: Idle<Scratch>,
}

impl Layer {
    /// By a kernel for its operands.
    pub(super) fn new(definition: &Definition<'_>, kernel: Kernel) -> TractResult<Self> {
        let [inputs, outputs] = definition.channels;
        let side = definition.kind.side();
        ensure!(
            definition.weights.len() == outputs * inputs * side * side
                && definition.bias.len() == outputs,
            "weights of {outputs} × {inputs} × {side} × {side} and as many biases are needed"
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
            Kind::Up | Kind::WideUp if outputs <= FEW_CHANNELS && definition.to == Format::F32 => {
                let taps: Vec<[usize; 2]> = (0..side * side)
                    .map(|place| [place / side, place % side])
                    .collect();
                let taps: Vec<&[[usize; 2]]> = taps.chunks(1).collect();
                Products::Taps(definition.of_taps(&kernel, &taps, quantised)?)
            }
            Kind::Up | Kind::WideUp => {
                let phase = |parity| {
                    let (first, taps) = definition.kind.phase(parity);
                    Ok::<_, TractError>((first, definition.of_taps(&kernel, &[&taps], quantised)?))
                };
                let [a, b, c, d] = PARITIES;
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
            idle: Idle::default(),
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
            Products::Phases(_) => self.inputs * self.kind.blocks().len(),
            Products::Taps(_) => self.inputs,
        }
    }

    /// Rows of the blocks that products go to before they come to their places.
    fn block_rows(&self) -> [usize; 2] {
        match &self.products {
            Products::Down(_) => [0, 0],
            Products::Phases(_) => [self.outputs; 2],
            Products::Taps(product) => [product.weights.rows, 0],
        }
    }

    /// Rows of sums that are to be rescaled.
    fn sum_rows(&self) -> usize {
        let product = match &self.products {
            Products::Down(product) | Products::Taps(product) => product,
            Products::Phases(products) => &products[0].1,
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
            Kind::Up | Kind::WideUp => side.clone() * 2 - 1,
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
            // An even one of three.
            Kind::WideUp => ((rows.start / 2).saturating_sub(1), rows.end.div_ceil(2) + 1),
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
            Kind::Up | Kind::WideUp => (height, width, 2),
        };
        let rows_kept = self.depth().max(self.block_rows()[0]);
        let wanted = (PANEL_BYTES / size_of::<I>() / rows_kept).max(MIN_COLUMNS);
        // The nearest number of rows: one of 33 columns would have all weights read twice as often as two.
        let rows_wanted = ((wanted + columns / 2) / columns).max(1);
        let bands = lines.div_ceil(rows_wanted);
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
            // With the rows above and below.
            let columns = (band + 2) * columns;
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
        let kept = self.idle.take();
        let mut scratch = match kept.filter(|scratch| scratch.columns >= columns) {
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
        self.idle.keep(scratch);
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
        let mut filling = panels.filling()?;
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
                    filling.set_row(channel * 9 + tap_row * 3 + tap_column, line)?;
                }
            }
        }
        self.multiply::<O>(product, panels, 0, columns, sums, out)
    }

    /// What the input's rows `first..first + count` and those beside them make of a transposed convolution.
    fn phases<I: Value, O: Finished>(
        &self,
        products: &[(usize, Product); 4],
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
        let mut filling = panels.filling()?;
        for (block, &[down, right]) in self.kind.blocks().iter().enumerate() {
            for channel in 0..self.inputs {
                image.rows_into(channel, first as isize + down, right, self.edge(), line);
                filling.set_row(block * self.inputs + channel, line)?;
            }
        }
        let (out_height, out_width) = self.output_size(height, width);
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<O>()?;
        for (down, products) in products.chunks_exact(2).enumerate() {
            // Even and odd columns, then both into their places.
            for ((first_block, product), block) in products.iter().zip(&mut *blocks) {
                let first_row = first_block * self.inputs;
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
        // The rows beside these are needed too, where there are any.
        let side = self.kind.side();
        let wide = self.kind == Kind::WideUp;
        let begin = if wide { first.saturating_sub(1) } else { first };
        let end = (first + count + 1).min(height);
        let columns = (end - begin) * width;
        let Scratch {
            panels,
            lines,
            sums,
            blocks: [block, _],
            ..
        } = scratch;
        let mut lines = lines.try_as_plain_ram_mut()?;
        let line = &mut lines.as_slice_mut::<I>()?[..columns];
        let mut filling = panels.filling()?;
        for channel in 0..self.inputs {
            image.rows_into(channel, begin as isize, 0, self.edge(), line);
            filling.set_row(channel, line)?;
        }
        self.multiply::<f32>(product, panels, 0, columns, sums, block)?;
        let block = values::<f32>(block)?;
        let (out_height, out_width) = self.output_size(height, width);
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        for channel in 0..self.outputs {
            let bias = self.sum_bias[channel];
            // A row of products by a tap.
            let products = |[tap_row, tap_column]: [usize; 2], row: usize| {
                let tap = tap_row * side + tap_column;
                let start = (channel * side * side + tap) * columns + row * width;
                &block[start..start + width]
            };
            for index in 0..count {
                for down in 0..2 {
                    if 2 * index + down >= out_rows {
                        continue;
                    }
                    let start = (channel * out_rows + 2 * index + down) * out_width;
                    let line = &mut out[start..start + out_width];
                    let mut bias = Some(bias);
                    // Here, below, above.
                    for by in [0, 1, -1] {
                        let row = (first + index) as isize + by;
                        let inside = (begin as isize..end as isize).contains(&row);
                        let Some(tap_row) = self.kind.tap(down, by).filter(|_| inside) else {
                            continue;
                        };
                        let row = row as usize - begin;
                        let of = |tap_column| products([tap_row, tap_column], row);
                        let middle = side / 2;
                        let near = [middle, middle + 1, middle - 1].map(of);
                        add_pairs(near, bias.take(), line);
                        if wide {
                            add_to_even([side - 1, 0].map(of), line);
                        }
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

/// `line[2x] += left[x - 1] + right[x + 1]`.
fn add_to_even([left, right]: [&[f32]; 2], line: &mut [f32]) {
    let (pairs, rest) = line.as_chunks_mut::<2>();
    if let Some((first, pairs)) = pairs.split_first_mut() {
        first[0] += right[1];
        for (pair, (left, right)) in pairs.iter_mut().zip(left.iter().zip(&right[2..])) {
            pair[0] += left + right;
        }
        if let Some(place) = rest.first_mut() {
            *place += left[pairs.len()];
        }
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
            Kind::Up | Kind::WideUp => 2 * side - 1,
        };
        let taps = kind.side();
        let half = taps / 2;
        let (out_height, out_width) = (side(height), side(width));
        let mut out = vec![0.0; outputs * out_height * out_width];
        for output in 0..outputs {
            for y in 0..height.max(out_height) {
                for x in 0..width.max(out_width) {
                    for input in 0..inputs {
                        for tap in 0..taps * taps {
                            let (tap_y, tap_x) = (tap / taps, tap % taps);
                            // A convolution gathers what a transposed one spreads.
                            let (near, far) =
                                ((y + half, x + half), (2 * y + tap_y, 2 * x + tap_x));
                            let (from, to) = match kind {
                                Kind::Down => (far, near),
                                Kind::Up | Kind::WideUp => (near, far),
                            };
                            let inside = |(y, x): (usize, usize), height, width| {
                                (half..half + height).contains(&y)
                                    && (half..half + width).contains(&x)
                            };
                            if inside(from, height, width) && inside(to, out_height, out_width) {
                                let value =
                                    image[(input * height + from.0 - half) * width + from.1 - half];
                                let weight = weights[(output * inputs + input) * taps * taps + tap];
                                let row = output * out_height + to.0 - half;
                                out[row * out_width + to.1 - half] +=
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

    /// Every kind.
    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Down, Kind::Up, Kind::WideUp])
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
            kind in kinds(),
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
            // Kernels take four rows at a time.
            let channels @ [inputs, outputs] = [4 * inputs, outputs];
            let size @ [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let from = Quantisation { scale: 0.01, zero_point: from };
            let to = to.map(|zero_point| Quantisation { scale: 0.05, zero_point });
            let levels = |values: Vec<f32>| -> Vec<i8> {
                values.into_iter().map(|value| (value * 127.0) as i8).collect()
            };
            let image = levels(drawn(seed, inputs * height * width));
            let mut weights = levels(drawn(seed ^ 1, outputs * inputs * kind.side() * kind.side()));
            let depth = inputs * kind.side() * kind.side();
            for row in weights.chunks_exact_mut(depth) {
                row[5] = 127;
            }
            let scale = |at: usize| 0.002 + (at / depth) as f32 * 1e-4;
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
            kernels.retain(|kernel| kind == Kind::Down || kernel.begins_at(inputs));
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
            kind in kinds(),
            inputs in 4usize..9,
            outputs in 1usize..21,
            half in (0usize..12, 0usize..40),
            threads in 1usize..4,
            leak in prop::option::of(0.01f32..0.5),
            which in any::<prop::sample::Index>(),
            seed in any::<u32>(),
        ) {
            let [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let image = drawn(seed, inputs * height * width);
            let weights = drawn(seed ^ 1, outputs * inputs * kind.side() * kind.side());
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
            kind in kinds(),
            inputs in 1usize..4,
            outputs in 1usize..21,
            half in (0usize..8, 0usize..20),
            threads in 1usize..4,
            leak in prop::option::of(0.01f32..0.5),
            halves in (1usize..4).prop_map(|which| [which & 1 > 0, which & 2 > 0]),
            seed in any::<u32>(),
        ) {
            let channels @ [inputs, outputs] = [8 * inputs, outputs];
            let size @ [height, width] = [2 * half.0 + 1, 2 * half.1 + 1];
            let image: Vec<f16> =
                drawn(seed, inputs * height * width).into_iter().map(f16::from_f32).collect();
            let values: Vec<f32> = image.iter().map(|value| value.to_f32()).collect();
            let weights = drawn(seed ^ 1, outputs * inputs * kind.side() * kind.side());
            let bias = drawn(seed ^ 2, outputs);
            let [from, to] = halves.map(|half| if half { Format::F16 } else { Format::F32 });
            let definition =
                Definition { kind, channels, weights: &weights, bias: &bias, leak, from, to };
            let mut kernels = Kernel::suitable(definition.operand());
            kernels.retain(|kernel| kind == Kind::Down || kernel.begins_at(inputs));
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

//! A layer by matrix products over panels: panels of pixels are filled for a band of rows and
//! multiplied by packed weights ([`products`](super::products)), and the results are put in their
//! places.
//!
//! A transposed convolution with few output channels multiplies all taps in one product and adds
//! the rows up afterwards, since a product for each parity would leave most of a kernel's rows
//! idle.
//!
//! Input and output may be f32, half precision or quantised. Where the sums have another type than
//! the output, [`rescale`](super::rescale) converts them while they are in the cache.

use tract_onnx::tract_core::internal::*;

use super::buffer_pool::BufferPool;
use super::definition::{Definition, Kind, PARITIES};
use super::gemm::Kernel;
use super::image::{Image, Value, values};
use super::operand::Operand;
use super::packing::Panels;
use super::products::{Finish, Product, Products};
use super::rescale::{Format, OutputValue};

/// Bytes of panels per thread; with the block that they give they should fit its cache.
const PANEL_BYTES: usize = 512 << 10;
/// Fewest columns that keep a kernel busy.
const MIN_COLUMNS: usize = 64;

/// A thread's buffers.
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

/// A layer computed over panels.
#[derive(Debug)]
pub(super) struct PanelLayer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    kernel: Kernel,
    products: Products,
    /// Bias and negative slope, applied after the rows of several taps are added up.
    sum_bias: Vec<f32>,
    leak: Option<f32>,
    from: Format,
    to: Format,
    buffers: BufferPool<Scratch>,
}

impl PanelLayer {
    /// Packs the weights for a kernel of the layer's operands.
    pub(super) fn new(definition: &Definition<'_>, kernel: Kernel) -> TractResult<Self> {
        let [inputs, outputs] = definition.channels;
        let side = definition.kind.side();
        ensure!(
            kernel.operand() == definition.operand(),
            "a kernel for {:?} is needed",
            definition.operand()
        );
        let quantised = definition.quantised()?;
        let quantised = quantised.as_ref();
        let products = match definition.kind {
            Kind::Down => Products::Down(definition.full_product(&kernel, quantised)?),
            _ if definition.has_few_outputs() && definition.to == Format::F32 => {
                let taps: Vec<[usize; 2]> = (0..side * side)
                    .map(|place| [place / side, place % side])
                    .collect();
                let taps: Vec<&[[usize; 2]]> = taps.chunks(1).collect();
                Products::Taps(definition.tap_product(&kernel, &taps, quantised)?)
            }
            Kind::Up | Kind::WideUp => {
                let phase = |parity| {
                    let (first, taps) = definition.kind.phase(parity);
                    Ok::<_, TractError>((
                        first,
                        definition.tap_product(&kernel, &[&taps], quantised)?,
                    ))
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
            buffers: BufferPool::default(),
        })
    }

    /// The value beyond the input's edges.
    fn padding<T: Value>(&self) -> T {
        T::padding(self.from.zero_point())
    }

    /// Rows of the panels.
    fn depth(&self) -> usize {
        match self.products {
            Products::Down(_) => self.inputs * 9,
            Products::Phases(_) => self.inputs * self.kind.shifts().len(),
            Products::Taps(_) => self.inputs,
        }
    }

    /// Rows of the blocks that hold products before they are put in their places.
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

    /// Rows of a band whose panels fit a thread's cache.
    pub(super) fn rows_wanted<I: Value>(&self, columns: usize) -> usize {
        let rows_kept = self.depth().max(self.block_rows()[0]);
        let wanted = (PANEL_BYTES / size_of::<I>() / rows_kept).max(MIN_COLUMNS);
        // Rounded to nearest: with bands of one row of 33 columns instead of two, all weights would
        // be read twice as often.
        ((wanted + columns / 2) / columns).max(1)
    }

    /// Computes rows `first..first + count` of a convolution's output, or the output rows that
    /// belong to these rows of a transposed convolution's input. No band has more than `columns`
    /// columns.
    pub(super) fn band<I: Value, O: OutputValue>(
        &self,
        image: &Image<'_, I>,
        first: usize,
        count: usize,
        columns: usize,
        out: &mut Tensor,
    ) -> TractResult<()> {
        self.with_scratch(columns, |scratch| match &self.products {
            Products::Down(product) => {
                self.down::<I, O>(product, image, first, count, scratch, out)
            }
            Products::Phases(products) => {
                self.phases::<I, O>(products, image, first, count, scratch, out)
            }
            Products::Taps(product) => self.taps(product, image, first, count, scratch, out),
        })
    }

    fn with_scratch<T>(
        &self,
        columns: usize,
        work: impl FnOnce(&mut Scratch) -> TractResult<T>,
    ) -> TractResult<T> {
        let kept = self.buffers.take();
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
        self.buffers.put_back(scratch);
        Ok(done)
    }

    /// Multiplies by the panels from row `first` on, finishes the sums and stores them in `out`.
    fn multiply<O: OutputValue>(
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
            Finish::Fused(epilogue) => {
                let epilogue = Some(&**epilogue);
                return self
                    .kernel
                    .multiply(weights, panels, first, columns, epilogue, out);
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
    fn down<I: Value, O: OutputValue>(
        &self,
        product: &Product,
        image: &Image<'_, I>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let [_, _, width] = image.size();
        let width = self.kind.output_side(&width);
        let columns = count * width;
        let padding = self.padding();
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
        let mut writer = panels.writer()?;
        for channel in 0..self.inputs {
            for tap_row in 0..3 {
                let taps = left
                    .chunks_exact_mut(width)
                    .zip(here.chunks_exact_mut(width))
                    .zip(right.chunks_exact_mut(width));
                for (index, ((left, here), right)) in taps.enumerate() {
                    let row = 2 * (first + index) as isize + tap_row as isize - 1;
                    match image.row(channel, row) {
                        Some(source) => split_columns(source, padding, left, here, right),
                        None => {
                            left.fill(padding);
                            here.fill(padding);
                            right.fill(padding);
                        }
                    }
                }
                for (tap_column, line) in [&*left, here, right].into_iter().enumerate() {
                    writer.set_row(channel * 9 + tap_row * 3 + tap_column, line)?;
                }
            }
        }
        self.multiply::<O>(product, panels, 0, columns, sums, out)
    }

    /// The output rows of a transposed convolution that belong to the input rows `first..first +
    /// count`.
    fn phases<I: Value, O: OutputValue>(
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
        let mut writer = panels.writer()?;
        for (block, &[down, right]) in self.kind.shifts().iter().enumerate() {
            for channel in 0..self.inputs {
                image.copy_shifted_rows(
                    channel,
                    first as isize + down,
                    right,
                    self.padding(),
                    line,
                );
                writer.set_row(block * self.inputs + channel, line)?;
            }
        }
        let [out_height, out_width] = [height, width].map(|side| self.kind.output_side(&side));
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<O>()?;
        for (down, products) in products.chunks_exact(2).enumerate() {
            // Even and odd columns separately, then both into their places.
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

    /// The same for few output channels and output in f32, by one product for all taps.
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
        // The rows above and below contribute too, if there are any.
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
        let mut writer = panels.writer()?;
        for channel in 0..self.inputs {
            image.copy_shifted_rows(channel, begin as isize, 0, self.padding(), line);
            writer.set_row(channel, line)?;
        }
        self.multiply::<f32>(product, panels, 0, columns, sums, block)?;
        let block = values::<f32>(block)?;
        let [out_height, out_width] = [height, width].map(|side| self.kind.output_side(&side));
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        for channel in 0..self.outputs {
            let bias = self.sum_bias[channel];
            // A row of products by one tap.
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
                    // The row itself, the one below, the one above.
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

/// `line[2x] += here[x]`, `line[2x + 1] += right[x] + left[x + 1]`. With a bias, the line starts
/// from the bias instead of its content.
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

/// `left[x] = source[2x - 1]`, `here[x] = source[2x]`, `right[x] = source[2x + 1]`; `padding`
/// beyond the edges.
fn split_columns<T: Copy>(
    source: &[T],
    padding: T,
    left: &mut [T],
    here: &mut [T],
    right: &mut [T],
) {
    let (pairs, rest) = source.as_chunks::<2>();
    for ((pair, here), right) in pairs.iter().zip(&mut *here).zip(&mut *right) {
        [*here, *right] = *pair;
    }
    if let (Some(last), Some(here), Some(right)) = (rest.first(), here.last_mut(), right.last_mut())
    {
        *here = *last;
        *right = padding;
    }
    if let Some((first, left)) = left.split_first_mut() {
        *first = padding;
        left.copy_from_slice(&right[..left.len()]);
    }
}

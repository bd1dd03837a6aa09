//! A layer by tract's matrix kernels: panels of pixels are filled for a few rows, multiplied by packed weights, and what comes out
//! is put in its place.
//!
//! Where a transposed convolution has few output channels (the last layer's three), the products for all taps are one small block of
//! rows instead of one for each parity, and are added up.
//!
//! Values may be of half precision or quantised, before, after, or both: where a product's sums are of another type than what comes
//! out, [`rescale`](super::rescale) makes values of them while they are in the cache.

use tract_onnx::tract_core::internal::*;

use super::gemm::{After, Kernel, Operand, Panels, Weights};
use super::idle::Idle;
use super::image::{Image, Value, values};
use super::layer::{Definition, Kind, PARITIES};
use super::rescale::{Finished, Format, Quantised, Rescale};

/// Bytes of panels that a thread works on: with the block that comes of them they should stay in its cache.
const PANEL_BYTES: usize = 512 << 10;
/// Fewer columns than that do not keep a kernel busy.
const MIN_COLUMNS: usize = 64;

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

impl Definition<'_> {
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
        let finish = self.rescale(groups, quantised, &rows)?;
        let count = self.bias.len() * groups;
        Ok(Product {
            weights: kernel.pack_weights(count, rows.len() / count.max(1), &rows)?,
            finish: Finish::Rescale(finish),
        })
    }
}

/// A layer by panels.
#[derive(Debug)]
pub(super) struct Panelled {
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

impl Panelled {
    /// By a kernel for its operands.
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
            Kind::Down => Products::Down(definition.whole(&kernel, quantised)?),
            _ if definition.few() && definition.to == Format::F32 => {
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

    /// Rows of a band that keep its panels in a thread's cache.
    pub(super) fn rows_wanted<I: Value>(&self, columns: usize) -> usize {
        let rows_kept = self.depth().max(self.block_rows()[0]);
        let wanted = (PANEL_BYTES / size_of::<I>() / rows_kept).max(MIN_COLUMNS);
        // The nearest number of rows: one of 33 columns would have all weights read twice as often as two.
        ((wanted + columns / 2) / columns).max(1)
    }

    /// Rows `first..first + count` of a convolution's output or of a transposed one's input; no band has more than `columns`.
    pub(super) fn band<I: Value, O: Finished>(
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
        let [_, _, width] = image.size();
        let width = self.kind.output_side(&width);
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
        let [out_height, out_width] = [height, width].map(|side| self.kind.output_side(&side));
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
        let [out_height, out_width] = [height, width].map(|side| self.kind.output_side(&side));
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

//! The network's two kinds of layers (paper, IV-C): a 3×3 convolution of stride 2 and padding 1, and the transposed one,
//! each with bias and LeakyReLU in one go, computed a few rows at a time.
//!
//! A transposed convolution of stride 2 is four small convolutions, one for each parity of the output's row and column:
//! an even place sees one pixel of the input, an odd one two. So no product is computed that is added to another
//! afterwards, and nothing of the output's size is kept besides the output. Where there are few output channels (the last
//! layer's three), the products for all nine taps are one small block of rows instead, and are added up.

use std::sync::{Mutex, PoisonError};

use tract_onnx::tract_core::internal::*;

use super::gemm::{After, Kernel, Panels, Weights};
use super::pool::Pool;

/// Bytes of panels that a thread works on: with the block that comes of them they should stay in its cache.
const PANEL_BYTES: usize = 512 << 10;
/// Fewer columns than that do not keep a kernel busy.
const MIN_COLUMNS: usize = 64;
/// Up to so many output channels, a transposed convolution is one product for all taps.
pub(super) const FEW_CHANNELS: usize = 8;

/// An image of a layer, in bands of rows; in a band the rows of a channel follow each other, so that a product's block is a
/// band. One band is the usual order: channel, row, pixel.
#[derive(Debug, Clone)]
pub(super) struct Image<'a> {
    bands: Vec<&'a [f32]>,
    band: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl<'a> Image<'a> {
    /// Planes as images come and go.
    pub(super) fn of_planes(
        data: &'a [f32],
        [channels, height, width]: [usize; 3],
    ) -> TractResult<Self> {
        ensure!(
            height > 0 && width > 0 && data.len() == channels * height * width,
            "{} values are no {channels} × {height} × {width}",
            data.len()
        );
        Ok(Self {
            bands: vec![data],
            band: height,
            channels,
            height,
            width,
        })
    }

    /// A row of a channel; beyond the upper and lower edge there is none.
    fn row(&self, channel: usize, row: isize) -> Option<&'a [f32]> {
        let row = usize::try_from(row).ok().filter(|&row| row < self.height)?;
        let (band, row) = (row / self.band, row % self.band);
        let rows = self.band.min(self.height - band * self.band);
        let start = (channel * rows + row) * self.width;
        self.bands.get(band)?.get(start..start + self.width)
    }

    /// A channel's rows from `first` on, from their pixel `right` on; 0 beyond the edges.
    fn rows_into(&self, channel: usize, first: usize, right: usize, lines: &mut [f32]) {
        let kept = self.width - right;
        for (index, line) in lines.chunks_exact_mut(self.width).enumerate() {
            match self.row(channel, (first + index) as isize) {
                Some(source) => {
                    line[..kept].copy_from_slice(&source[right..]);
                    line[kept..].fill(0.0);
                }
                None => line.fill(0.0),
            }
        }
    }
}

/// What comes out of a layer; kept for the next frame.
#[derive(Debug, Default)]
pub(super) struct Output {
    bands: Vec<Tensor>,
    band: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Output {
    /// Makes room.
    fn prepare(&mut self, band: usize, [channels, height, width]: [usize; 3]) -> TractResult<()> {
        let size = (band, channels, height, width);
        if size == (self.band, self.channels, self.height, self.width) {
            return Ok(());
        }
        let bands = (0..height).step_by(band).map(|first| {
            let rows = band.min(height - first);
            Tensor::zero::<f32>(&[channels * rows * width])
        });
        *self = Self {
            bands: bands.collect::<TractResult<_>>()?,
            band,
            channels,
            height,
            width,
        };
        Ok(())
    }

    /// To be read.
    pub(super) fn image(&self) -> TractResult<Image<'_>> {
        let bands = self.bands.iter().map(values);
        Ok(Image {
            bands: bands.collect::<TractResult<_>>()?,
            band: self.band,
            channels: self.channels,
            height: self.height,
            width: self.width,
        })
    }

    /// Channels, height and width.
    pub(super) fn size(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Channel, row, pixel.
    pub(super) fn planes(&self) -> TractResult<Vec<f32>> {
        let image = self.image()?;
        let mut planes = Vec::with_capacity(self.channels * self.height * self.width);
        for channel in 0..self.channels {
            for row in 0..self.height {
                planes.extend_from_slice(image.row(channel, row as isize).unwrap_or_default());
            }
        }
        Ok(planes)
    }

    /// The sum of magnitudes over channels, row by row.
    pub(super) fn magnitudes(&self) -> TractResult<Vec<f32>> {
        let image = self.image()?;
        let mut sums = vec![0.0; self.height * self.width];
        for (row, line) in sums.chunks_exact_mut(self.width).enumerate() {
            for channel in 0..self.channels {
                let values = image.row(channel, row as isize).unwrap_or_default();
                for (sum, value) in line.iter_mut().zip(values) {
                    *sum += value.abs();
                }
            }
        }
        Ok(sums)
    }
}

fn values(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

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

#[derive(Debug)]
enum Products {
    /// One, for all output channels.
    Down(Weights),
    /// One for each parity.
    Phases([Weights; 4]),
    /// One for all taps: row (channel · 9 + tap).
    Taps(Weights),
}

/// What a thread needs besides.
#[derive(Debug)]
struct Scratch {
    panels: Panels,
    columns: usize,
    blocks: [Tensor; 2],
    lines: [Vec<f32>; 3],
}

/// A layer, ready to run.
#[derive(Debug)]
pub(super) struct Layer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    kernel: Kernel,
    products: Products,
    after: After,
    /// Bias and slope where they are applied to sums of products.
    sum_bias: Vec<f32>,
    leak: Option<f32>,
    idle: Mutex<Vec<Scratch>>,
}

impl Layer {
    /// `weights` are outputs × inputs × 3 × 3, for both kinds.
    pub(super) fn new(
        kind: Kind,
        [inputs, outputs]: [usize; 2],
        weights: &[f32],
        bias: &[f32],
        leak: Option<f32>,
        kernel: Kernel,
    ) -> TractResult<Self> {
        ensure!(
            weights.len() == outputs * inputs * 9 && bias.len() == outputs,
            "weights of {outputs} × {inputs} × 3 × 3 and as many biases are needed"
        );
        let tap = |output: usize, input: usize, [row, column]: [usize; 2]| {
            weights[((output * inputs + input) * 3 + row) * 3 + column]
        };
        // Output, tap, input.
        let spread = |taps: &[[usize; 2]]| {
            let mut rows = Vec::with_capacity(outputs * inputs * taps.len());
            for output in 0..outputs {
                for &at in taps {
                    rows.extend((0..inputs).map(|input| tap(output, input, at)));
                }
            }
            rows
        };
        let products = match kind {
            Kind::Down => Products::Down(kernel.pack_weights(outputs, inputs * 9, weights)?),
            Kind::Up if outputs <= FEW_CHANNELS => {
                let all: [[usize; 2]; 9] = std::array::from_fn(|place| [place / 3, place % 3]);
                Products::Taps(kernel.pack_weights(outputs * 9, inputs, &spread(&all))?)
            }
            Kind::Up => {
                let phase = |(_, taps): (usize, &[[usize; 2]])| {
                    kernel.pack_weights(outputs, inputs * taps.len(), &spread(taps))
                };
                let [a, b, c, d] = PHASES;
                Products::Phases([phase(a)?, phase(b)?, phase(c)?, phase(d)?])
            }
        };
        let after = match products {
            Products::Taps(_) => After::new(&vec![0.0; outputs * 9], None),
            _ => After::new(bias, leak),
        };
        Ok(Self {
            kind,
            inputs,
            outputs,
            kernel,
            products,
            after,
            sum_bias: bias.to_vec(),
            leak,
            idle: Mutex::default(),
        })
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

    /// The whole image, the work spread over the threads of a pool.
    pub(super) fn run(&self, image: &Image<'_>, pool: &Pool, out: &mut Output) -> TractResult<()> {
        ensure!(
            image.channels == self.inputs,
            "expected an image of {} channels, found {}",
            self.inputs,
            image.channels
        );
        let (height, width) = self.output_size(image.height, image.width);
        // A band is so many rows of a convolution's output or of a transposed one's input.
        let (lines, columns, factor) = match self.kind {
            Kind::Down => (height, width, 1),
            Kind::Up => (image.height, image.width, 2),
        };
        let wanted = (PANEL_BYTES / size_of::<f32>() / self.depth()).max(MIN_COLUMNS);
        let bands = lines.div_ceil((wanted / columns).max(1));
        // Of equal size, and as many for each thread.
        let bands = bands.next_multiple_of(pool.threads()).min(lines);
        let band = lines.div_ceil(bands);
        out.prepare(factor * band, [self.outputs, height, width])?;
        let work = |(index, out): (usize, &mut Tensor)| {
            let first = index * band;
            let count = band.min(lines - first);
            self.with_scratch((band + 1) * columns, |scratch| match &self.products {
                Products::Down(weights) => self.down(weights, image, first, count, scratch, out),
                Products::Phases(weights) => {
                    self.phases(weights, image, first, count, scratch, out)
                }
                Products::Taps(weights) => self.taps(weights, image, first, count, scratch, out),
            })
        };
        pool.share(out.bands.iter_mut().enumerate(), work)
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
                    let block = |rows: usize| Tensor::zero::<f32>(&[rows * columns]);
                    [block(first)?, block(second)?]
                },
                lines: [(); 3].map(|()| vec![0.0; columns]),
            },
        };
        let done = work(&mut scratch)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(scratch);
        Ok(done)
    }

    /// Rows `first..first + count` of a convolution.
    fn down(
        &self,
        weights: &Weights,
        image: &Image<'_>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let (_, width) = self.output_size(image.height, image.width);
        let columns = count * width;
        let Scratch { panels, lines, .. } = scratch;
        for channel in 0..self.inputs {
            for tap_row in 0..3 {
                let [left, here, right] = lines.each_mut().map(|line| &mut line[..columns]);
                let taps = left
                    .chunks_exact_mut(width)
                    .zip(here.chunks_exact_mut(width))
                    .zip(right.chunks_exact_mut(width));
                for (index, ((left, here), right)) in taps.enumerate() {
                    let row = 2 * (first + index) as isize + tap_row as isize - 1;
                    match image.row(channel, row) {
                        Some(source) => part(source, left, here, right),
                        None => {
                            left.fill(0.0);
                            here.fill(0.0);
                            right.fill(0.0);
                        }
                    }
                }
                for (tap_column, line) in lines.iter().enumerate() {
                    let row = channel * 9 + tap_row * 3 + tap_column;
                    panels.set_row(row, &line[..columns])?;
                }
            }
        }
        self.kernel
            .multiply(weights, panels, 0, columns, &self.after, out)
    }

    /// What the input's rows `first..first + count` and the one below them make of a transposed convolution.
    fn phases(
        &self,
        weights: &[Weights; 4],
        image: &Image<'_>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let width = image.width;
        let columns = count * width;
        // Lower, here, right, lower right.
        for (block, [down, right]) in [[1, 0], [0, 0], [0, 1], [1, 1]].into_iter().enumerate() {
            for channel in 0..self.inputs {
                let line = &mut scratch.lines[0][..columns];
                image.rows_into(channel, first + down, right, line);
                let row = block * self.inputs + channel;
                scratch.panels.set_row(row, line)?;
            }
        }
        let (out_height, out_width) = self.output_size(image.height, image.width);
        let out_rows = (2 * count).min(out_height - 2 * first);
        let mut out = out.try_as_plain_ram_mut()?;
        let out = out.as_slice_mut::<f32>()?;
        let Scratch { panels, blocks, .. } = scratch;
        for (down, weights) in weights.chunks_exact(2).enumerate() {
            // Even and odd columns, then both into their places.
            for (right, (weights, block)) in weights.iter().zip(&mut *blocks).enumerate() {
                let first_row = PHASES[2 * down + right].0 * self.inputs;
                self.kernel
                    .multiply(weights, panels, first_row, columns, &self.after, block)?;
            }
            let [even, odd] = [values(&blocks[0])?, values(&blocks[1])?];
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

    /// The same for few output channels.
    fn taps(
        &self,
        weights: &Weights,
        image: &Image<'_>,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        out: &mut Tensor,
    ) -> TractResult<()> {
        let width = image.width;
        // The row below is needed too, where there is one.
        let rows = (count + 1).min(image.height - first);
        let columns = rows * width;
        for channel in 0..self.inputs {
            let line = &mut scratch.lines[0][..columns];
            image.rows_into(channel, first, 0, line);
            scratch.panels.set_row(channel, line)?;
        }
        let Scratch { panels, blocks, .. } = scratch;
        let [block, _] = blocks;
        self.kernel
            .multiply(weights, panels, 0, columns, &self.after, block)?;
        let block = values(block)?;
        let (out_height, out_width) = self.output_size(image.height, image.width);
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

/// `left[x] = source[2x - 1]`, `here[x] = source[2x]`, `right[x] = source[2x + 1]`; 0 beyond the edges.
fn part(source: &[f32], left: &mut [f32], here: &mut [f32], right: &mut [f32]) {
    let (pairs, rest) = source.as_chunks::<2>();
    for ((pair, here), right) in pairs.iter().zip(&mut *here).zip(&mut *right) {
        [*here, *right] = *pair;
    }
    if let (Some(last), Some(here), Some(right)) = (rest.first(), here.last_mut(), right.last_mut())
    {
        *here = *last;
        *right = 0.0;
    }
    if let Some((edge, left)) = left.split_first_mut() {
        *edge = 0.0;
        left.copy_from_slice(&right[..left.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

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
            let mut state = seed;
            let mut draw = |count: usize| -> Vec<f32> {
                let next = |_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                };
                (0..count).map(next).collect()
            };
            let (image, weights) = (draw(inputs * height * width), draw(outputs * inputs * 9));
            let bias = draw(outputs);
            let kernels = Kernel::suitable();
            let kernel = which.get(&kernels).clone();
            let name = kernel.name().to_owned();
            let channels = [inputs, outputs];
            let layer = Layer::new(kind, channels, &weights, &bias, leak, kernel).unwrap();
            let pool = Pool::new(threads).unwrap();
            let mut out = Output::default();
            let frame = Image::of_planes(&image, [inputs, height, width]).unwrap();
            // Twice: what is kept between frames must not show.
            for _ in 0..2 {
                layer.run(&frame, &pool, &mut out).unwrap();
            }
            let found = out.planes().unwrap();
            let expected =
                expected(kind, channels, [height, width], &image, &weights, &bias, leak);
            prop_assert_eq!(found.len(), expected.len());
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (f64::from(*found) - expected).abs();
                prop_assert!(off < 1e-4, "{} at {}: {} for {}", name, place, found, expected);
            }
        }
    }
}

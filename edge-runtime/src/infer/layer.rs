//! The network's kinds of layers (paper, IV-C): a 3×3 convolution of stride 2 and padding 1, the transposed one, and the 5×5
//! transposed one that bilinear upsampling and a 3×3 convolution are (`host-trainer train --upsampled`), each with bias and
//! LeakyReLU in one go, computed a few rows at a time.
//!
//! A transposed convolution of stride 2 is four small convolutions, one for each parity of the output's row and column:
//! of 3×3, an even place sees one pixel of the input, an odd one two; of 5×5, three and two. So no product is computed that is
//! added to another afterwards, and nothing of the output's size is kept besides the output.
//!
//! There are two ways to compute one: by tract's matrix kernels ([`panels`](super::panels)), and where the image lies
//! ([`direct`](super::direct)).

use std::ops::Range;

use pulp::Arch;
use tract_onnx::tract_core::internal::*;

use super::direct::Direct;
use super::gemm::{Kernel, Operand};
use super::image::{Image, Output, Value};
use super::panels::Panelled;
use super::pool::Pool;
use super::rescale::{Finished, Format, Quantised, Rescale};

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

    /// A side of what becomes of an image.
    pub(super) fn output_side<D: DimLike>(self, side: &D) -> D {
        match self {
            Self::Down => (side.clone() + 1) / 2,
            Self::Up | Self::WideUp => side.clone() * 2 - 1,
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
    pub(super) fn tap(self, odd: usize, by: isize) -> Option<usize> {
        let side = self.side();
        let tap = usize::try_from((side / 2 + odd) as isize - 2 * by).ok()?;
        (tap < side).then_some(tap)
    }

    /// What the output's places of a parity (row, column) are made of: the first of the blocks, and the tap (row, column) of each
    /// from there on.
    pub(super) fn phase(self, [row, column]: [usize; 2]) -> (usize, Vec<[usize; 2]>) {
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
pub(super) const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

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
    /// What comes in; where it is quantised, the weights must be recoverable
    /// ([`Quantised::recover`](super::rescale::Quantised::recover)).
    pub(super) from: Format,
    /// What comes out.
    pub(super) to: Format,
}

impl Definition<'_> {
    /// What its products multiply.
    pub(super) fn operand(&self) -> Operand {
        match self.from {
            Format::F32 | Format::Levels(_) => Operand::F32,
            Format::F16 => Operand::F16,
            Format::I8(_) => Operand::I8,
        }
    }

    /// Of weights, in the order: output, group, tap, input.
    pub(super) fn spread<T: Copy>(&self, weights: &[T], groups: &[&[[usize; 2]]]) -> Vec<T> {
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

    /// Whether it is a transposed convolution with so few output channels that most rows of a matrix kernel would be idle.
    pub(super) fn few(&self) -> bool {
        self.kind != Kind::Down && self.channels[1] <= FEW_CHANNELS
    }

    /// Whether it can be computed where the image lies.
    pub(super) fn can_be_direct(&self) -> bool {
        let singles = |format: Format| format.datum() == f32::datum_type();
        singles(self.from) && singles(self.to)
    }

    /// Whether 8-bit values are multiplied or made as f32s.
    pub(super) fn by_levels(&self) -> bool {
        let levels = |format| matches!(format, Format::Levels(_));
        levels(self.from) || levels(self.to)
    }

    /// The weights' whole numbers, where what comes in is quantised.
    pub(super) fn quantised(&self) -> TractResult<Option<Quantised>> {
        match self.from {
            Format::F32 | Format::F16 => Ok(None),
            Format::I8(_) | Format::Levels(_) => {
                let found = Quantised::recover(self.channels[1], self.weights);
                Ok(Some(found.context("the weights are not quantised")?))
            }
        }
    }

    /// Bias and slope that follow a product of so many rows for each output. Where there are several, they are added up
    /// first.
    pub(super) fn following(&self, groups: usize) -> (Vec<f32>, Option<f32>) {
        match groups {
            1 => (self.bias.to_vec(), self.leak),
            _ => (vec![0.0; self.bias.len() * groups], None),
        }
    }

    /// What follows the sums of a product of quantised values by such rows of weights, so many for each output.
    pub(super) fn rescale(
        &self,
        groups: usize,
        quantised: &Quantised,
        rows: &[i8],
    ) -> TractResult<Rescale> {
        let (Format::I8(from) | Format::Levels(from)) = self.from else {
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
        Ok(Rescale::new(scale, bias, leak, to))
    }

    fn check(&self) -> TractResult<()> {
        let [inputs, outputs] = self.channels;
        let side = self.kind.side();
        ensure!(
            self.weights.len() == outputs * inputs * side * side && self.bias.len() == outputs,
            "weights of {outputs} × {inputs} × {side} × {side} and as many biases are needed"
        );
        Ok(())
    }
}

/// Up to so many output channels are few.
pub(super) const FEW_CHANNELS: usize = 8;

/// How a layer is computed.
#[derive(Debug)]
enum Way {
    Panels(Box<Panelled>),
    Direct(Direct),
}

/// A layer, ready to run.
#[derive(Debug)]
pub(super) struct Layer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    from: Format,
    to: Format,
    way: Way,
}

impl Layer {
    /// By a kernel for its operands.
    pub(super) fn by_panels(definition: &Definition<'_>, kernel: Kernel) -> TractResult<Self> {
        definition.check()?;
        Ok(Self::new(
            definition,
            Way::Panels(Box::new(Panelled::new(definition, kernel)?)),
        ))
    }

    /// Where the image lies; only in single precision ([`Definition::can_be_direct`]).
    pub(super) fn direct(definition: &Definition<'_>) -> TractResult<Self> {
        Self::direct_by(definition, Arch::new())
    }

    fn direct_by(definition: &Definition<'_>, arch: Arch) -> TractResult<Self> {
        definition.check()?;
        ensure!(
            definition.can_be_direct(),
            "only a layer of f32 can be computed where the image lies"
        );
        let direct = Direct::new(definition, arch)?;
        Ok(Self::new(definition, Way::Direct(direct)))
    }

    fn new(definition: &Definition<'_>, way: Way) -> Self {
        let [inputs, outputs] = definition.channels;
        Self {
            kind: definition.kind,
            inputs,
            outputs,
            from: definition.from,
            to: definition.to,
            way,
        }
    }

    /// Channels out.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// A side of what comes out.
    pub(super) fn output_side<D: DimLike>(&self, side: &D) -> D {
        self.kind.output_side(side)
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
            Format::F32 | Format::Levels(_) => self.run_to::<I, f32>(image, rows, pool, out),
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
        let [out_height, out_width] = [height, width].map(|side| self.output_side(&side));
        let (lines, columns, factor) = match self.kind {
            Kind::Down => (out_height, out_width, 1),
            Kind::Up | Kind::WideUp => (height, width, 2),
        };
        let (rows_wanted, line) = match &self.way {
            Way::Panels(panelled) => (panelled.rows_wanted::<I>(columns), out_width),
            Way::Direct(direct) => (direct.rows_wanted(columns), out_width + 1),
        };
        let bands = lines.div_ceil(rows_wanted);
        // Of equal size, and as many for each thread.
        let bands = bands.next_multiple_of(pool.threads()).min(lines);
        let band = lines.div_ceil(bands);
        out.prepare(
            self.to.datum(),
            factor * band,
            [self.outputs, out_height, out_width],
            line,
        )?;
        let singles = image.as_f32();
        let work = |(index, out): (usize, &mut Tensor)| {
            let first = index * band;
            let count = band.min(lines - first);
            match (&self.way, &singles) {
                (Way::Direct(direct), Some(image)) => direct.band(image, first, count, out),
                (Way::Direct(_), None) => bail!("an image of f32 is needed"),
                // With the rows above and below.
                (Way::Panels(panelled), _) => {
                    panelled.band::<I, O>(image, first, count, (band + 2) * columns, out)
                }
            }
        };
        let band_rows = factor * band;
        let wanted = |(index, _): &(usize, &mut Tensor)| {
            index * band_rows < rows.end && (index + 1) * band_rows > rows.start
        };
        pool.share(out.bands.iter_mut().enumerate().filter(wanted), work)
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
        layer: &Layer,
        image: &[T],
        [height, width]: [usize; 2],
        threads: usize,
    ) -> Output {
        let pool = Pool::new(threads).unwrap();
        let mut out = Output::default();
        let frame = Image::of_planes(image, [layer.inputs, height, width]).unwrap();
        // Twice: what is kept between frames must not show.
        for _ in 0..2 {
            layer
                .run(&frame, &(0..usize::MAX), &pool, &mut out)
                .unwrap();
        }
        out
    }

    /// The sets of instructions that this processor knows, those with fused products first, and how many these are.
    fn archs() -> (Vec<Arch>, usize) {
        let best = Arch::new();
        #[cfg(target_arch = "x86_64")]
        if let Some(narrow) = pulp::x86::V3::try_new().map(Arch::V3) {
            return (vec![best, narrow, Arch::Scalar], 2);
        }
        #[cfg(target_arch = "aarch64")]
        if let Arch::Neon(_) = best {
            return (vec![best, Arch::Scalar], 1);
        }
        (vec![best], 0)
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
            let layer = Layer::by_panels(&definition, kernel).unwrap();
            let out = run(&layer, &image, size, threads);
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
            // As f32s they come to the same: exactly, where whole numbers come out.
            let definition = Definition {
                from: Format::Levels(from),
                to: to.map_or(Format::F32, Format::Levels),
                ..definition
            };
            let floats: Vec<f32> = image.iter().map(|&level| f32::from(level)).collect();
            for arch in archs().0 {
                let layer = Layer::direct_by(&definition, arch).unwrap();
                let planes = run(&layer, &floats, size, threads).planes().unwrap();
                prop_assert_eq!(planes.len(), found.len());
                for (place, (as_float, (found, _))) in planes.iter().zip(&found).enumerate() {
                    let value = match to {
                        None => f64::from(*as_float),
                        Some(to) => {
                            (f64::from(*as_float) - f64::from(to.zero_point)) * f64::from(to.scale)
                        }
                    };
                    let within = if to.is_some() { 1e-9 } else { 1e-4 };
                    prop_assert!((value - found).abs() < within, "{} at {}: {} for {}", name, place, value, found);
                }
            }
            for (place, ((found, within), expected)) in found.iter().zip(&expected).enumerate() {
                let expected = to.map_or(*expected, |to| {
                    let level = |level: f64| (level - f64::from(to.zero_point)) * f64::from(to.scale);
                    expected.clamp(level(-128.0), level(127.0))
                });
                prop_assert!((found - expected).abs() < *within, "{} at {}: {} for {}", name, place, found, expected);
            }
        }

        /// More and fewer output channels than `FEW_CHANNELS`, one row, one pixel, many threads, every kernel, and where the image lies.
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
            let mut kernels = Kernel::suitable(Operand::F32);
            // Those for matrix extensions of ARM begin at multiples of their own.
            kernels.retain(|kernel| kind == Kind::Down || kernel.begins_at(inputs));
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
            let expected =
                expected(kind, channels, [height, width], &image, &weights, &bias, leak);
            let panelled = Layer::by_panels(&definition, kernel).unwrap();
            let by_panels = run(&panelled, &image, [height, width], threads).planes().unwrap();
            let (archs, fused) = archs();
            let direct = archs.iter().enumerate().map(|(index, &arch)| {
                let layer = Layer::direct_by(&definition, arch).unwrap();
                (format!("direct {index}"), run(&layer, &image, [height, width], threads).planes().unwrap())
            });
            let all: Vec<_> = std::iter::once((name, by_panels)).chain(direct).collect();
            for (name, found) in &all {
                prop_assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let off = (f64::from(*found) - expected).abs();
                    prop_assert!(off < 1e-4, "{} at {}: {} for {}", name, place, found, expected);
                }
            }
            // Which way is fastest must not show in a frame's scores: products are added up as by the kernel that tract's rules choose.
            let ruled = Kernel::by_rule(&kernels, [128, 576, 1_536]);
            if let (Some(kernel), false) = (ruled, definition.few()) {
                let layer = Layer::by_panels(&definition, kernel.clone()).unwrap();
                let planes = run(&layer, &image, [height, width], threads).planes().unwrap();
                for (name, found) in &all[1..=fused] {
                    prop_assert_eq!(&planes, found, "{} and {}", kernel.name(), name);
                }
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
            let layer = Layer::by_panels(&definition, kernel).unwrap();
            let out = match from {
                Format::F16 => run(&layer, &image, size, threads),
                _ => run(&layer, &values, size, threads),
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

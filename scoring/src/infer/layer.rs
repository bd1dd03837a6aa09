//! A layer of the network (paper, IV-C): convolution or transposed convolution, bias and LeakyReLU
//! in one pass, computed in bands of rows. In: an image in bands. Out: the next layer's image.
//!
//! A transposed convolution of stride 2 is computed as four small convolutions, one for each parity
//! of the output's row and column. With a 3×3 filter an even place sees one input pixel and an odd
//! place two; with 5×5 it is three and two. So no partial products are stored and summed
//! afterwards.
//!
//! There are two code paths with the same result: matrix products over packed panels
//! ([`panels`](super::panels)) and direct convolution ([`direct`](super::direct)).

use std::ops::Range;

use pulp::Arch;
use tract_onnx::tract_core::internal::*;

use super::definition::{Definition, Kind};
use super::direct::DirectLayer;
use super::gemm::Kernel;
use super::image::{Image, Output, Value};
use super::panels::PanelLayer;
use super::pool::Pool;
use super::rescale::{Format, OutputValue};

/// Code path that computes a layer.
#[derive(Debug)]
enum Computation {
    Panels(Box<PanelLayer>),
    Direct(DirectLayer),
}

/// A compiled layer, ready to run.
#[derive(Debug)]
pub(super) struct Layer {
    kind: Kind,
    inputs: usize,
    outputs: usize,
    from: Format,
    to: Format,
    computation: Computation,
}

impl Layer {
    /// Computed over panels by a kernel for the layer's operands.
    pub(super) fn by_panels(definition: &Definition<'_>, kernel: Kernel) -> TractResult<Self> {
        definition.check()?;
        Ok(Self::new(
            definition,
            Computation::Panels(Box::new(PanelLayer::new(definition, kernel)?)),
        ))
    }

    /// Computed directly on the image. The layer must pass [`Definition::can_be_direct`].
    pub(super) fn direct(definition: &Definition<'_>) -> TractResult<Self> {
        Self::direct_with(definition, Arch::new())
    }

    fn direct_with(definition: &Definition<'_>, arch: Arch) -> TractResult<Self> {
        definition.check()?;
        ensure!(
            definition.can_be_direct(),
            "only a layer with f32 in and out can be computed directly"
        );
        let direct = DirectLayer::new(definition, arch)?;
        Ok(Self::new(definition, Computation::Direct(direct)))
    }

    fn new(definition: &Definition<'_>, computation: Computation) -> Self {
        let [inputs, outputs] = definition.channels;
        Self {
            kind: definition.kind,
            inputs,
            outputs,
            from: definition.from,
            to: definition.to,
            computation,
        }
    }

    /// Output channels.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Format of the output.
    pub(super) fn format(&self) -> Format {
        self.to
    }

    /// Whether it halves the resolution, as the encoder's layers do.
    pub(super) fn is_down(&self) -> bool {
        self.kind == Kind::Down
    }

    /// Side of the output for an input of this side.
    pub(super) fn output_side<D: DimLike>(&self, side: &D) -> D {
        self.kind.output_side(side)
    }

    /// Rows of an input of this height that the given rows of the output depend on.
    pub(super) fn input_rows(&self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let (first, end) = match self.kind {
            Kind::Down => ((2 * rows.start).saturating_sub(1), 2 * rows.end),
            // An odd row depends on two.
            Kind::Up => (rows.start / 2, rows.end / 2 + 1),
            // An even row depends on three.
            Kind::WideUp => ((rows.start / 2).saturating_sub(1), rows.end.div_ceil(2) + 1),
        };
        first..end.min(height)
    }

    /// Computes at least these rows of the output and shares the work among the pool's threads. The
    /// other rows of `out` hold stale values afterwards.
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

    fn run_to<I: Value, O: OutputValue>(
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
        // A band is a number of rows of a convolution's output, or of a transposed convolution's
        // input.
        let [out_height, out_width] = [height, width].map(|side| self.output_side(&side));
        let (lines, columns, factor) = match self.kind {
            Kind::Down => (out_height, out_width, 1),
            Kind::Up | Kind::WideUp => (height, width, 2),
        };
        let (rows_wanted, line) = match &self.computation {
            Computation::Panels(panels) => (panels.rows_wanted::<I>(columns), out_width),
            Computation::Direct(direct) => (direct.rows_wanted(columns), out_width + 1),
        };
        let bands = lines.div_ceil(rows_wanted);
        // Of equal size, and the same number for each thread.
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
            match (&self.computation, &singles) {
                (Computation::Direct(direct), Some(image)) => direct.band(image, first, count, out),
                (Computation::Direct(_), None) => bail!("expected an image of f32"),
                // Room for the rows above and below.
                (Computation::Panels(panels), _) => {
                    panels.band::<I, O>(image, first, count, (band + 2) * columns, out)
                }
            }
        };
        let band_rows = factor * band;
        let wanted = |(index, _): &(usize, &mut Tensor)| {
            index * band_rows < rows.end && (index + 1) * band_rows > rows.start
        };
        pool.for_each(out.bands.iter_mut().enumerate().filter(wanted), work)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::operand::Operand;
    use super::super::rescale::Quantisation;
    use super::*;

    /// The textbook definitions in f64 (Dumoulin and Visin 2016, "A guide to convolution arithmetic
    /// for deep learning").
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
                            // A convolution gathers, a transposed one scatters.
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

    /// Any kind.
    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Down, Kind::Up, Kind::WideUp])
    }

    /// Pseudo-random values in -1..1.
    fn random_values(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    /// The output of a layer for an image.
    fn run<T: Value>(
        layer: &Layer,
        image: &[T],
        [height, width]: [usize; 2],
        threads: usize,
    ) -> Output {
        let pool = Pool::new(threads).unwrap();
        let mut out = Output::default();
        let frame = Image::from_planes(image, [layer.inputs, height, width]).unwrap();
        // Twice, because buffers are reused from frame to frame and must not show.
        for _ in 0..2 {
            layer
                .run(&frame, &(0..usize::MAX), &pool, &mut out)
                .unwrap();
        }
        out
    }

    /// Instruction sets that this processor has, those with fused multiply-add first, and the
    /// number of these.
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

        /// Input, output or both quantised; by every kernel for integers.
        #[test]
        fn a_quantised_layer_computes_its_definition_to_half_a_level(
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
            let image = levels(random_values(seed, inputs * height * width));
            let mut weights = levels(random_values(seed ^ 1, outputs * inputs * kind.side() * kind.side()));
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
            let bias = random_values(seed ^ 2, outputs);
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
            kernels.retain(|kernel| kind == Kind::Down || kernel.can_start_at(inputs));
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
            // The same layer on levels stored as f32 gives the same values, exactly where the
            // output is quantised.
            let definition = Definition {
                from: Format::Levels(from),
                to: to.map_or(Format::F32, Format::Levels),
                ..definition
            };
            let floats: Vec<f32> = image.iter().map(|&level| f32::from(level)).collect();
            for arch in archs().0 {
                let layer = Layer::direct_with(&definition, arch).unwrap();
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
                    prop_assert!((value - found).abs() < within, "{} at {}: {} instead of {}", name, place, value, found);
                }
            }
            for (place, ((found, within), expected)) in found.iter().zip(&expected).enumerate() {
                let expected = to.map_or(*expected, |to| {
                    let level = |level: f64| (level - f64::from(to.zero_point)) * f64::from(to.scale);
                    expected.clamp(level(-128.0), level(127.0))
                });
                prop_assert!((found - expected).abs() < *within, "{} at {}: {} instead of {}", name, place, found, expected);
            }
        }

        /// More and fewer output channels than `FEW_CHANNELS`, one row, one pixel, many threads,
        /// every kernel and the direct path.
        #[test]
        fn a_layer_computes_its_definition(
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
            let image = random_values(seed, inputs * height * width);
            let weights = random_values(seed ^ 1, outputs * inputs * kind.side() * kind.side());
            let bias = random_values(seed ^ 2, outputs);
            let mut kernels = Kernel::suitable(Operand::F32);
            // Kernels for ARM's matrix extensions start at multiples of their own.
            kernels.retain(|kernel| kind == Kind::Down || kernel.can_start_at(inputs));
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
            let panels = Layer::by_panels(&definition, kernel).unwrap();
            let by_panels = run(&panels, &image, [height, width], threads).planes().unwrap();
            let (archs, fused) = archs();
            let direct = archs.iter().enumerate().map(|(index, &arch)| {
                let layer = Layer::direct_with(&definition, arch).unwrap();
                (format!("direct {index}"), run(&layer, &image, [height, width], threads).planes().unwrap())
            });
            let all: Vec<_> = std::iter::once((name, by_panels)).chain(direct).collect();
            for (name, found) in &all {
                prop_assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let off = (f64::from(*found) - expected).abs();
                    prop_assert!(off < 1e-4, "{} at {}: {} instead of {}", name, place, found, expected);
                }
            }
            // The choice of code path must not show in a frame's scores: products are summed in the
            // same order as by the kernel that tract's rules select.
            let ruled = Kernel::by_rule(&kernels, [128, 576, 1_536]);
            if let (Some(kernel), false) = (ruled, definition.has_few_outputs()) {
                let layer = Layer::by_panels(&definition, kernel.clone()).unwrap();
                let planes = run(&layer, &image, [height, width], threads).planes().unwrap();
                for (name, found) in &all[1..=fused] {
                    prop_assert_eq!(&planes, found, "{} and {}", kernel.name(), name);
                }
            }
        }

        /// Input, output or both in half precision; deviations are its rounding errors.
        #[test]
        fn a_half_precision_layer_computes_its_definition(
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
                random_values(seed, inputs * height * width).into_iter().map(f16::from_f32).collect();
            let values: Vec<f32> = image.iter().map(|value| value.to_f32()).collect();
            let weights = random_values(seed ^ 1, outputs * inputs * kind.side() * kind.side());
            let bias = random_values(seed ^ 2, outputs);
            let [from, to] = halves.map(|half| if half { Format::F16 } else { Format::F32 });
            let definition =
                Definition { kind, channels, weights: &weights, bias: &bias, leak, from, to };
            let mut kernels = Kernel::suitable(definition.operand());
            kernels.retain(|kernel| kind == Kind::Down || kernel.can_start_at(inputs));
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
            // Sums of up to 216 products below 1, each rounded to 11 bits; most sums are below 16.
            let within = if from == Format::F16 { 0.15 } else { 0.01 };
            for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (f64::from(*found) - expected).abs();
                prop_assert!(off < within, "at {}: {} instead of {}", place, found, expected);
            }
        }
    }
}

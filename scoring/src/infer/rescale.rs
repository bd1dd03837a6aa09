//! Converts a product's sums to the values that the next layer takes: half precision, or quantised
//! as in ONNX's QuantizeLinear and DequantizeLinear. There value = scale · (quantised - zero
//! point), with one scale for an image and one for each output channel of weights.

use tract_onnx::tract_core::internal::*;

use super::image::Value;

/// How an image's values are quantised to 8 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantisation {
    /// Difference between two levels.
    pub(super) scale: f32,
    /// The level that stands for 0.
    pub(super) zero_point: i8,
}

/// Format of the values between two layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Format {
    /// Single precision.
    F32,
    /// Half precision (IEEE 754 binary16).
    F16,
    /// Quantised to 8 bits.
    I8(Quantisation),
    /// The same levels, each stored as f32, for processors without instructions for products of
    /// 8-bit values. Sums are exact up to 2²⁴, which is about a thousand products of the largest
    /// levels.
    Levels(Quantisation),
}

impl Format {
    /// Type of the values.
    pub(super) fn datum(&self) -> DatumType {
        match self {
            Self::F32 | Self::Levels(_) => f32::datum_type(),
            Self::F16 => f16::datum_type(),
            Self::I8(_) => i8::datum_type(),
        }
    }

    /// The level that stands for 0.
    pub(super) fn zero_point(&self) -> i8 {
        match self {
            Self::F32 | Self::F16 => 0,
            Self::I8(quantisation) | Self::Levels(quantisation) => quantisation.zero_point,
        }
    }
}

/// Weights in 8 bits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantised {
    /// The weights, row after row.
    pub(super) weights: Vec<i8>,
    /// Difference between two levels, for each row.
    pub(super) scales: Vec<f32>,
}

/// Largest magnitude of a quantised weight; -128 is not used.
const MAX_LEVEL: f32 = 127.0;

impl Quantised {
    /// Recovers the 8-bit weights from a graph's dequantised ones. Each row must be a scale times
    /// whole numbers of which the largest magnitude is 127, as the trainer makes them; otherwise
    /// there are none.
    pub(super) fn recover(rows: usize, weights: &[f32]) -> Option<Self> {
        let depth = weights.len().checked_div(rows)?;
        let mut found = Self {
            weights: Vec::with_capacity(weights.len()),
            scales: Vec::with_capacity(rows),
        };
        for row in weights.chunks_exact(depth.max(1)) {
            let peak = row.iter().fold(0.0f32, |peak, value| peak.max(value.abs()));
            let scale = if peak > 0.0 { peak / MAX_LEVEL } else { 1.0 };
            for value in row {
                let steps = value / scale;
                let whole = steps.round();
                let near = (steps - whole).abs() < 1e-3;
                if !near {
                    return None;
                }
                found.weights.push(whole as i8);
            }
            found.scales.push(scale);
        }
        Some(found)
    }
}

/// What follows the plain sums of a product: scale, bias, LeakyReLU and the output format.
#[derive(Debug, Clone)]
pub(super) struct Rescale {
    /// A factor for each row.
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// Negative slope; 1 without LeakyReLU.
    leak: f32,
    /// The level that stands for 0 in the output.
    zero_point: f32,
    /// Whether the output is levels stored as f32.
    whole: bool,
}

/// 1.5 · 2²³. Adding it rounds a small value to the nearest whole number, halves to even, in the
/// lowest bits.
const ROUND: f32 = 12_582_912.0;

impl Rescale {
    /// For `value = leaky(scale[r] · sum + bias[r])` in the format `to`, with `leak` from 0 to 1.
    pub(super) fn new(scale: Vec<f32>, bias: Vec<f32>, leak: Option<f32>, to: Format) -> Self {
        // LeakyReLU commutes with a positive factor.
        let steps = match to {
            Format::F32 | Format::F16 => 1.0,
            Format::I8(to) | Format::Levels(to) => to.scale.recip(),
        };
        let scaled = |values: Vec<f32>| values.into_iter().map(|value| value * steps).collect();
        Self {
            scale: scaled(scale),
            bias: scaled(bias),
            leak: leak.unwrap_or(1.0),
            zero_point: f32::from(to.zero_point()),
            whole: matches!(to, Format::Levels(_)),
        }
    }

    /// Converts rows of `columns` sums in place; `first` is the index of the first row.
    #[inline(always)]
    pub(super) fn apply_in_place(&self, first: usize, sums: &mut [f32], columns: usize) {
        let factors = self.scale.iter().zip(&self.bias).skip(first);
        for (row, (scale, bias)) in sums.chunks_exact_mut(columns).zip(factors) {
            for sum in &mut *row {
                let value = *sum * scale + bias;
                *sum = higher(value, value * self.leak) + self.zero_point;
            }
            if self.whole {
                for value in row {
                    *value = (clamp_to_i8(*value) + ROUND) - ROUND;
                }
            }
        }
    }

    /// Converts rows of `columns` sums.
    pub(super) fn apply<S: Sum, O: OutputValue>(&self, sums: &[S], columns: usize, out: &mut [O]) {
        let rows = sums
            .chunks_exact(columns)
            .zip(out.chunks_exact_mut(columns));
        for ((sums, out), (scale, bias)) in rows.zip(self.scale.iter().zip(&self.bias)) {
            for (sum, out) in sums.iter().zip(out) {
                let value = sum.as_f32() * scale + bias;
                *out = O::nearest(higher(value, value * self.leak) + self.zero_point);
            }
        }
    }
}

/// The larger of two numbers, in one instruction; `f32::max` also handles NaN.
fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two numbers, in one instruction.
fn lower(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The nearest value that 8 bits can hold.
fn clamp_to_i8(value: f32) -> f32 {
    lower(higher(value, -128.0), 127.0)
}

/// Type of a sum of products.
pub(super) trait Sum: Datum + Copy {
    /// The sum in f32.
    fn as_f32(self) -> f32;
}

impl Sum for f32 {
    fn as_f32(self) -> f32 {
        self
    }
}

impl Sum for f16 {
    fn as_f32(self) -> f32 {
        self.to_f32()
    }
}

impl Sum for i32 {
    fn as_f32(self) -> f32 {
        self as f32
    }
}

/// Type of an output value.
pub(super) trait OutputValue: Value {
    /// The nearest representable value.
    fn nearest(value: f32) -> Self;
}

impl OutputValue for f32 {
    fn nearest(value: f32) -> Self {
        value
    }
}

impl OutputValue for f16 {
    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl OutputValue for i8 {
    fn nearest(value: f32) -> Self {
        (clamp_to_i8(value) + ROUND).to_bits() as i8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_rounded_to_the_nearest_step_and_kept_within_eight_bits(
            sums in prop::collection::vec(-2_000i32..2_000, 1..40),
            scale in 0.001f32..0.2,
            bias in -20f32..20.0,
            step in 0.05f32..2.0,
            zero_point in any::<i8>(),
            leak in prop::option::of(0f32..1.0),
        ) {
            let to = Quantisation { scale: step, zero_point };
            let rescale = Rescale::new(vec![scale], vec![bias], leak, Format::I8(to));
            let mut found = vec![0i8; sums.len()];
            rescale.apply(&sums, sums.len(), &mut found);
            for (sum, found) in sums.iter().zip(found) {
                let value = f64::from(*sum) * f64::from(scale) + f64::from(bias);
                let value = if value < 0.0 { value * f64::from(leak.unwrap_or(1.0)) } else { value };
                let steps = (value / f64::from(step) + f64::from(zero_point)).clamp(-128.0, 127.0);
                // Half a step, and the rounding of f32.
                prop_assert!((f64::from(found) - steps).abs() < 0.501, "{} for {}", found, steps);
            }
        }

        #[test]
        fn quantised_weights_are_found_again_and_others_are_not(
            mut whole in prop::collection::vec(-127i8..=127, 8..40),
            scale in 1e-5f32..10.0,
        ) {
            whole[3] = -127;
            let weights: Vec<f32> = whole.iter().map(|&value| f32::from(value) * scale).collect();
            let found = Quantised::recover(1, &weights).expect("they are quantised");
            prop_assert_eq!(found.weights, whole);
            prop_assert!((found.scales[0] / scale - 1.0).abs() < 1e-6);
            let mut other = weights;
            other[0] = 0.37 * scale;
            prop_assert_eq!(Quantised::recover(1, &other), None);
        }
    }
}

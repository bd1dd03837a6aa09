//! What a layer of the network is, however it is computed: its kind, its shape and its weights.

use tract_onnx::tract_core::internal::*;

use super::operand::Operand;
use super::rescale::{Format, Quantised, Rescale};

/// The kinds of layers that the network consists of (paper, IV-C). All have stride 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A 3×3 convolution with padding 1.
    Down,
    /// A 3×3 transposed convolution.
    Up,
    /// A 5×5 transposed convolution: bilinear upsampling and a 3×3 convolution in one
    /// (`host-trainer train --upsampled`).
    WideUp,
}

impl Kind {
    /// Rows and columns of its filters.
    pub(super) fn side(self) -> usize {
        match self {
            Self::Down | Self::Up => 3,
            Self::WideUp => 5,
        }
    }

    /// Side of the output for an input of this side.
    pub(super) fn output_side<D: DimLike>(self, side: &D) -> D {
        match self {
            Self::Down => (side.clone() + 1) / 2,
            Self::Up | Self::WideUp => side.clone() * 2 - 1,
        }
    }

    /// Shifts (rows, columns) of the input whose copies the panels of a transposed convolution
    /// hold, in this order. It makes the shifts that one phase needs consecutive.
    pub(super) fn shifts(self) -> &'static [[isize; 2]] {
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

    /// The filter's row (or column) that multiplies the input shifted by `by` in the even (`odd` 0)
    /// or odd (`odd` 1) rows (or columns) of a transposed convolution's output, if there is one.
    pub(super) fn tap(self, odd: usize, by: isize) -> Option<usize> {
        let side = self.side();
        let tap = usize::try_from((side / 2 + odd) as isize - 2 * by).ok()?;
        (tap < side).then_some(tap)
    }

    /// One phase of a transposed convolution, the output's places of one parity (row, column): the
    /// index of its first shift, and the filter tap (row, column) of each shift from there on.
    pub(super) fn phase(self, [row, column]: [usize; 2]) -> (usize, Vec<[usize; 2]>) {
        let taps = self
            .shifts()
            .iter()
            .map(|&[down, right]| Some([self.tap(row, down)?, self.tap(column, right)?]));
        let taps: Vec<Option<[usize; 2]>> = taps.collect();
        let first = taps.iter().position(Option::is_some).unwrap_or_default();
        (first, taps[first..].iter().map_while(|tap| *tap).collect())
    }
}

/// Most output channels for which a layer counts as having few.
pub(super) const FEW_CHANNELS: usize = 8;

/// Parities (row, column) of the output's places: the phases of a transposed convolution.
pub(super) const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// A layer before it is compiled into a [`Layer`](super::layer::Layer).
#[derive(Debug)]
pub(super) struct Definition<'a> {
    pub(super) kind: Kind,
    /// Input channels and output channels.
    pub(super) channels: [usize; 2],
    /// Outputs × inputs × side × side, for every kind.
    pub(super) weights: &'a [f32],
    pub(super) bias: &'a [f32],
    /// Negative slope of LeakyReLU, from 0 to 1.
    pub(super) leak: Option<f32>,
    /// Format of the input. If it is quantised, the weights must be recoverable
    /// ([`Quantised::recover`]).
    pub(super) from: Format,
    /// Format of the output.
    pub(super) to: Format,
}

impl Definition<'_> {
    /// What its matrix products multiply.
    pub(super) fn operand(&self) -> Operand {
        match self.from {
            Format::F32 | Format::Levels(_) => Operand::F32,
            Format::F16 => Operand::F16,
            Format::I8(_) => Operand::I8,
        }
    }

    /// Reorders weights to output, group of taps, tap, input.
    pub(super) fn gather_weights<T: Copy>(
        &self,
        weights: &[T],
        groups: &[&[[usize; 2]]],
    ) -> Vec<T> {
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

    /// Whether it is a transposed convolution with so few output channels that most rows of a
    /// matrix kernel would be idle.
    pub(super) fn has_few_outputs(&self) -> bool {
        self.kind != Kind::Down && self.channels[1] <= FEW_CHANNELS
    }

    /// Whether the direct code path can compute it: only f32 in and out.
    pub(super) fn can_be_direct(&self) -> bool {
        let singles = |format: Format| format.datum() == f32::datum_type();
        singles(self.from) && singles(self.to)
    }

    /// Whether its input or output is quantised but stored as f32.
    pub(super) fn uses_levels(&self) -> bool {
        let levels = |format| matches!(format, Format::Levels(_));
        levels(self.from) || levels(self.to)
    }

    /// The 8-bit weights, if the input is quantised.
    pub(super) fn quantised(&self) -> TractResult<Option<Quantised>> {
        match self.from {
            Format::F32 | Format::F16 => Ok(None),
            Format::I8(_) | Format::Levels(_) => {
                let found = Quantised::recover(self.channels[1], self.weights);
                Ok(Some(found.context("the weights are not quantised")?))
            }
        }
    }

    /// Bias and negative slope to apply after a product with `groups` rows per output channel. With
    /// several, the rows are summed first, so nothing is applied yet.
    pub(super) fn bias_and_leak(&self, groups: usize) -> (Vec<f32>, Option<f32>) {
        match groups {
            1 => (self.bias.to_vec(), self.leak),
            _ => (vec![0.0; self.bias.len() * groups], None),
        }
    }

    /// What turns the sums of a quantised product into output values, for these rows of weights,
    /// `groups` of them per output channel.
    pub(super) fn rescale(
        &self,
        groups: usize,
        quantised: &Quantised,
        rows: &[i8],
    ) -> TractResult<Rescale> {
        let (Format::I8(from) | Format::Levels(from)) = self.from else {
            bail!("what comes in is not quantised");
        };
        let (mut bias, leak) = self.bias_and_leak(groups);
        let count = bias.len();
        let depth = rows.len() / count.max(1);
        // One scale per output channel, whichever taps a product takes of it.
        let scale: Vec<f32> = (0..count)
            .map(|row| quantised.scales[row / groups] * from.scale)
            .collect();
        for ((bias, scale), row) in bias.iter_mut().zip(&scale).zip(rows.chunks_exact(depth)) {
            // The sum is Σ (value - zero point) · weight.
            let sum: i32 = row.iter().map(|&weight| i32::from(weight)).sum();
            *bias += -f32::from(from.zero_point) * sum as f32 * scale;
        }
        let to = if groups == 1 { self.to } else { Format::F32 };
        Ok(Rescale::new(scale, bias, leak, to))
    }

    /// Checks that weights and biases have the lengths that the shape asks for.
    pub(super) fn check(&self) -> TractResult<()> {
        let [inputs, outputs] = self.channels;
        let side = self.kind.side();
        ensure!(
            self.weights.len() == outputs * inputs * side * side && self.bias.len() == outputs,
            "weights of {outputs} × {inputs} × {side} × {side} and as many biases are needed"
        );
        Ok(())
    }
}

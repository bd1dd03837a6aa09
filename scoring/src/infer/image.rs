//! Images between layers, in bands of rows: of f32, f16 or quantised values.

use std::ops::Range;

use tract_onnx::tract_core::internal::*;

use super::rescale::Format;

/// Type of a value of a layer's image.
pub(super) trait Value: Datum + bytemuck::Pod {
    /// The value beyond an image's edges: 0, which quantised images store as `zero_point`.
    fn padding(zero_point: i8) -> Self;
}

impl Value for f32 {
    fn padding(_: i8) -> Self {
        0.0
    }
}

impl Value for f16 {
    fn padding(_: i8) -> Self {
        Self::ZERO
    }
}

impl Value for i8 {
    fn padding(zero_point: i8) -> Self {
        zero_point
    }
}

/// An image between layers, in bands of rows. Within a band the rows of each channel are
/// consecutive, so that the output block of a product is a band. An image of one band has the usual
/// order: channel, row, pixel.
#[derive(Debug, Clone)]
pub(super) struct Image<'a, T> {
    bands: Vec<&'a [T]>,
    band: usize,
    channels: usize,
    height: usize,
    width: usize,
    /// Distance between the starts of two rows.
    line: usize,
}

impl<'a, T: Value> Image<'a, T> {
    /// An image of one band, from planes.
    pub(super) fn from_planes(
        data: &'a [T],
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
            line: width,
        })
    }

    /// The same image, if its values are f32.
    pub(super) fn as_f32(&self) -> Option<Image<'a, f32>> {
        let bands = self.bands.iter().copied();
        let bands = bands.map(bytemuck::try_cast_slice::<T, f32>);
        (T::datum_type() == f32::datum_type()).then_some(())?;
        Some(Image {
            bands: bands.collect::<Result<_, _>>().ok()?,
            band: self.band,
            channels: self.channels,
            height: self.height,
            width: self.width,
            line: self.line,
        })
    }

    /// Channels, height and width.
    pub(super) fn size(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// A row of a channel, or nothing above and below the image.
    pub(super) fn row(&self, channel: usize, row: isize) -> Option<&'a [T]> {
        let row = usize::try_from(row).ok().filter(|&row| row < self.height)?;
        let (band, row) = (row / self.band, row % self.band);
        let rows = self.band.min(self.height - band * self.band);
        let start = (channel * rows + row) * self.line;
        self.bands.get(band)?.get(start..start + self.width)
    }

    /// Copies a channel's rows from `first` on, shifted left by `right` pixels (or right, if that
    /// is negative). Places beyond the edges get `padding`.
    pub(super) fn copy_shifted_rows(
        &self,
        channel: usize,
        first: isize,
        right: isize,
        padding: T,
        lines: &mut [T],
    ) {
        let beyond = right.unsigned_abs().min(self.width);
        let kept = self.width - beyond;
        for (index, line) in lines.chunks_exact_mut(self.width).enumerate() {
            match self.row(channel, first + index as isize) {
                Some(source) if right < 0 => {
                    line[..beyond].fill(padding);
                    line[beyond..].copy_from_slice(&source[..kept]);
                }
                Some(source) => {
                    line[..kept].copy_from_slice(&source[beyond..]);
                    line[kept..].fill(padding);
                }
                None => line.fill(padding),
            }
        }
    }
}

/// A layer's output. Its memory is kept for the next frame.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bands: Vec<Tensor>,
    band: usize,
    channels: usize,
    height: usize,
    width: usize,
    line: usize,
}

impl Output {
    /// Makes room for values of a type. `line` is the distance between the starts of two rows, at
    /// least the width.
    pub(super) fn prepare(
        &mut self,
        value: DatumType,
        band: usize,
        [channels, height, width]: [usize; 3],
        line: usize,
    ) -> TractResult<()> {
        let size = (band, channels, height, width, line);
        let kept = (self.band, self.channels, self.height, self.width, self.line);
        if size == kept && self.value() == Some(value) {
            return Ok(());
        }
        let bands = (0..height).step_by(band).map(|first| {
            let rows = band.min(height - first);
            Tensor::zero_dt(value, &[channels * rows * line])
        });
        *self = Self {
            bands: bands.collect::<TractResult<_>>()?,
            band,
            channels,
            height,
            width,
            line,
        };
        Ok(())
    }

    /// Type of the values, once there are any.
    pub(super) fn value(&self) -> Option<DatumType> {
        self.bands.first().map(Tensor::datum_type)
    }

    /// The output as the next layer's image.
    pub(super) fn image<T: Value>(&self) -> TractResult<Image<'_, T>> {
        Ok(Image {
            bands: self.bands.iter().map(values).collect::<TractResult<_>>()?,
            band: self.band,
            channels: self.channels,
            height: self.height,
            width: self.width,
            line: self.line,
        })
    }

    /// Channels, height and width.
    pub(super) fn size(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// All values, in the order channel, row, pixel.
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

    /// These rows of all channels as single precision, in the order channel, row, pixel.
    pub(super) fn rows_in(&self, format: Format, rows: &Range<usize>) -> TractResult<Vec<f32>> {
        match format {
            Format::F32 => self.converted(rows, |value: f32| value),
            Format::F16 => self.converted(rows, f16::to_f32),
            Format::I8(levels) => self.converted(rows, |level: i8| {
                (f32::from(level) - f32::from(levels.zero_point)) * levels.scale
            }),
            Format::Levels(levels) => self.converted(rows, |level: f32| {
                (level - f32::from(levels.zero_point)) * levels.scale
            }),
        }
    }

    fn converted<T: Value>(
        &self,
        rows: &Range<usize>,
        convert: impl Fn(T) -> f32,
    ) -> TractResult<Vec<f32>> {
        let image = self.image::<T>()?;
        let mut values = Vec::with_capacity(self.channels * rows.len() * self.width);
        for channel in 0..self.channels {
            for row in rows.clone() {
                let row = image.row(channel, row as isize).unwrap_or_default();
                values.extend(row.iter().map(|value| convert(*value)));
            }
        }
        Ok(values)
    }

    /// The sum of magnitudes over channels, for each pixel, row by row.
    pub(super) fn magnitudes(&self) -> TractResult<Vec<f32>> {
        let image = self.image::<f32>()?;
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

/// A tensor's values, which must have that type.
pub(super) fn values<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

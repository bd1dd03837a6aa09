//! Square tiles in the network's value range.

/// A square tile: `channels` planes of `side` × `side` values in [-1, 1], plane after plane,
/// row-major. Grey tiles have one plane, so that every colour drawn on them is grey (IV-B).
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    side: usize,
    channels: usize,
    values: Vec<f32>,
}

impl Tile {
    /// A tile of the given values.
    ///
    /// # Panics
    /// If `values` does not have `channels * side * side` elements, which is a bug of the caller.
    pub fn new(side: usize, channels: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), channels * side * side, "values of a tile");
        Self {
            side,
            channels,
            values,
        }
    }

    /// Side in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Number of planes: 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All values, plane after plane.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, mutable.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One plane, row-major.
    pub fn plane(&self, channel: usize) -> &[f32] {
        let area = self.side * self.side;
        &self.values[channel * area..(channel + 1) * area]
    }

    /// One plane, mutable.
    pub fn plane_mut(&mut self, channel: usize) -> &mut [f32] {
        let area = self.side * self.side;
        &mut self.values[channel * area..(channel + 1) * area]
    }

    /// Returns the values.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}

//! Procedural surfaces, from which the built-in features are learned instead of photographs. In: a
//! random generator. Out: windows of a surface.
//!
//! A pattern is a function of the position on an unbounded plane, so that it has any number of
//! windows. It resembles no real material; scales, directions, contrasts, motifs and colours vary
//! widely.

use std::f32::consts::TAU;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::noise::{Tile, lattice, value_noise};

/// Motif of a pattern's component, with values of about -1..1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motif {
    /// Smooth value noise.
    Clouds,
    /// Value noise folded at 0.
    Veins,
    /// Distance to the nearest of scattered points.
    Grains,
    /// Difference between the distances to the two nearest of scattered points.
    Creases,
    /// A wave in one direction, like threads or brush marks.
    Wave,
    /// Two crossed waves, like a weave or mesh.
    Mesh,
    /// Value noise cut off at a level.
    Spots,
}

impl Motif {
    const ALL: [Self; 7] = [
        Self::Clouds,
        Self::Veins,
        Self::Grains,
        Self::Creases,
        Self::Wave,
        Self::Mesh,
        Self::Spots,
    ];
}

/// A motif, stretched and rotated.
#[derive(Debug, Clone)]
struct Component {
    motif: Motif,
    /// Matrix from pixels to the motif's units, by rows.
    to_motif: [[f32; 2]; 2],
    seed: u32,
    octaves: u32,
    /// Largest displacement of positions, in the motif's units.
    displacement: f32,
    /// Level of spots, steepness of creases and waves.
    shape: f32,
}

/// A surface.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The components and their weights.
    components: Vec<(Component, f32)>,
    /// Whether the components are multiplied instead of added.
    product: bool,
    /// Steepness of the tone curve.
    steepness: f32,
    /// The colours of light and dark places and of the tint, 0..1.
    colours: [[f32; 3]; 3],
    /// Where the tint applies, and its weight.
    tint: (Component, f32),
    /// Amplitude of the sensor's noise.
    grain: f32,
}

/// Distances to the nearest and the second nearest point, where each cell has one random point.
fn nearest(x: f32, y: f32, seed: u32) -> (f32, f32) {
    let (column, row) = (x.floor() as i32, y.floor() as i32);
    let (mut first, mut second) = (f32::MAX, f32::MAX);
    for r in row - 1..=row + 1 {
        for c in column - 1..=column + 1 {
            let point_x = c as f32 + lattice(c, r, seed);
            let point_y = r as f32 + lattice(c, r, seed ^ 0x5bd1_e995);
            let distance = (point_x - x).hypot(point_y - y);
            if distance < first {
                (first, second) = (distance, first);
            } else {
                second = second.min(distance);
            }
        }
    }
    (first, second)
}

impl Component {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let motif = Motif::ALL[rng.random_range(0..Motif::ALL.len())];
        // From a pixel or two to about the network's receptive field.
        let size_px = 1.5 * 20f32.powf(rng.random_range(0.0..1.0f32));
        let stretch = if rng.random_bool(0.5) {
            1.0
        } else {
            12f32.powf(rng.random_range(0.0..1.0f32))
        };
        let (sine, cosine) = if rng.random_bool(0.4) {
            [(0.0, 1.0), (1.0, 0.0)][rng.random_range(0..2)]
        } else {
            rng.random_range(0.0..TAU).sin_cos()
        };
        let (along, across) = (1.0 / (size_px * stretch), 1.0 / size_px);
        Self {
            motif,
            to_motif: [
                [along * cosine, along * sine],
                [-across * sine, across * cosine],
            ],
            seed: rng.random(),
            octaves: rng.random_range(1..=3),
            displacement: if rng.random_bool(0.5) {
                0.0
            } else {
                rng.random_range(0.0..0.7)
            },
            shape: rng.random_range(0.0..1.0),
        }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let [a, b] = self.to_motif;
        let (mut u, mut v) = (a[0] * x + a[1] * y, b[0] * x + b[1] * y);
        if self.displacement > 0.0 {
            let (slow_u, slow_v) = (u * 0.3, v * 0.3);
            u += self.displacement * value_noise(slow_u, slow_v, self.seed ^ 1);
            v += self.displacement * value_noise(slow_u, slow_v, self.seed ^ 2);
        }
        let octaves = |fold: bool| {
            let (mut sum, mut weight, mut total) = (0.0, 1.0, 0.0);
            for octave in 0..self.octaves {
                let scale = (1 << octave) as f32;
                let value = value_noise(u * scale, v * scale, self.seed.wrapping_add(octave));
                sum += weight * if fold { 1.0 - 2.0 * value.abs() } else { value };
                total += weight;
                weight *= 0.55;
            }
            sum / total
        };
        // A sine wave, or a clipped one like threads with gaps.
        let wave = |at: f32| {
            let sine = (TAU * at).sin();
            (sine * (1.0 + 6.0 * self.shape)).clamp(-1.0, 1.0)
        };
        match self.motif {
            Motif::Clouds => octaves(false) * 1.6,
            Motif::Veins => octaves(true),
            Motif::Grains => 1.0 - 2.0 * nearest(u, v, self.seed).0,
            Motif::Creases => {
                let (first, second) = nearest(u, v, self.seed);
                ((second - first) * (2.0 + 4.0 * self.shape)).min(2.0) - 1.0
            }
            Motif::Wave => wave(v),
            Motif::Mesh => wave(u).max(wave(v)),
            Motif::Spots => ((octaves(false) - 0.5 * self.shape) * 6.0).clamp(-1.0, 1.0),
        }
    }
}

impl Pattern {
    /// Draws a random surface.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let count = rng.random_range(1..=3);
        let components = (0..count)
            .map(|_| (Component::draw(rng), rng.random_range(0.3..1.0)))
            .collect();
        let grey = rng.random_bool(0.4);
        let mut colour = || {
            let colour: [f32; 3] = std::array::from_fn(|_| rng.random_range(0.02..0.98));
            if grey { [colour[0]; 3] } else { colour }
        };
        let (first, mut second, third) = (colour(), colour(), colour());
        // Many real surfaces have light and dark shades of one colour.
        if rng.random_bool(0.5) {
            let factor = rng.random_range(0.2..0.85f32);
            second = first.map(|value| value * factor);
        }
        Self {
            components,
            product: rng.random_bool(0.3),
            steepness: 3f32.powf(rng.random_range(-0.5..1.0f32)),
            colours: [first, second, third],
            tint: (
                Component::draw(rng),
                if rng.random_bool(0.5) {
                    0.0
                } else {
                    rng.random_range(0.0..0.6)
                },
            ),
            grain: rng.random_range(0.0..0.08f32).powi(2) * 10.0,
        }
    }

    /// Draws a window of `side` pixels at a random position, with values in [-1, 1]. Its brightness
    /// varies slightly from window to window, and it has the sensor's noise.
    pub fn window(&self, side: usize, rng: &mut ChaCha8Rng) -> Tile {
        let (left, top) = (
            rng.random_range(-1_000.0..1_000.0f32),
            rng.random_range(-1_000.0..1_000.0f32),
        );
        let gain = rng.random_range(0.85..1.15f32);
        let area = side * side;
        let mut values = vec![0.0; 3 * area];
        let [first, second, third] = self.colours;
        for y in 0..side {
            for x in 0..side {
                let (px, py) = (left + x as f32, top + y as f32);
                let parts = self
                    .components
                    .iter()
                    .map(|(component, weight)| (component.at(px, py), *weight));
                let value: f32 = if self.product {
                    2.0 * parts
                        .map(|(value, weight)| 1.0 - weight * (0.5 - 0.5 * value))
                        .product::<f32>()
                        - 1.0
                } else {
                    parts.map(|(value, weight)| value * weight).sum()
                };
                let tone = 0.5 + 0.5 * (value * self.steepness).tanh();
                let tint = match self.tint {
                    (_, 0.0) => 0.0,
                    (ref component, weight) => {
                        weight * (0.5 + 0.5 * component.at(px, py)).clamp(0.0, 1.0)
                    }
                };
                let noise = self.grain * rng.random_range(-1.0..1.0f32);
                for channel in 0..3 {
                    let colour = second[channel] + tone * (first[channel] - second[channel]);
                    let colour = colour + tint * (third[channel] - colour);
                    values[channel * area + y * side + x] =
                        (2.0 * (gain * colour + noise) - 1.0).clamp(-1.0, 1.0);
                }
            }
        }
        Tile::new(side, 3, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::generator;

    #[test]
    fn windows_of_a_pattern_are_alike_and_patterns_differ() {
        let moments = |tile: &Tile| {
            let values = tile.values();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
            (mean, (square / values.len() as f32).sqrt())
        };
        let (mut within, mut between, mut flat) = (0.0, 0.0, 0);
        let mut last = None;
        for index in 0..60 {
            let pattern = Pattern::draw(&mut generator(3, "pattern", index));
            let mut rng = generator(3, "window", index);
            let (a, b) = (pattern.window(65, &mut rng), pattern.window(65, &mut rng));
            assert_ne!(a, b);
            assert!(a.values().iter().all(|value| (-1.0..=1.0).contains(value)));
            let (a, b) = (moments(&a), moments(&b));
            flat += usize::from(a.1 < 0.02);
            within += (a.0 - b.0).abs() + (a.1 - b.1).abs();
            if let Some((mean, spread)) = last.replace(a) {
                between += (a.0 - mean).abs() + (a.1 - spread).abs();
            }
        }
        assert!(flat < 6, "{flat} of 60 are flat");
        assert!(within < between / 2.5, "{within} within, {between} between");
    }
}

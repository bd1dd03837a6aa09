//! Endless procedural surfaces: what the features of our own are learned from instead of anybody's photographs.
//!
//! A pattern is a function of a place on an unbounded plane, so that any window of it can be looked at. It stands for no real
//! material; what counts is that scales, directions, contrasts, elements and colours vary widely.

use std::f32::consts::TAU;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::noise::{Tile, clouds, lattice};

/// What a layer of a pattern is made of, about -1..1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    /// Value noise, smooth.
    Clouds,
    /// Clouds folded at their middle: veins.
    Veins,
    /// Distance to the nearest of scattered points: grains.
    Grains,
    /// Difference of the distances to the two nearest: creases.
    Creases,
    /// A wave: threads, brushing.
    Wave,
    /// Two waves across: weave, mesh.
    Mesh,
    /// Clouds cut at a level: spots.
    Spots,
}

impl Element {
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

/// An element, stretched and turned.
#[derive(Debug, Clone)]
struct Layer {
    element: Element,
    /// Rows of the matrix from pixels to the element's own units.
    to_element: [[f32; 2]; 2],
    seed: u32,
    octaves: u32,
    /// How far places wander, in the element's units.
    wander: f32,
    /// Level of spots, sharpness of waves.
    shape: f32,
}

/// A surface.
#[derive(Debug, Clone)]
pub struct Pattern {
    layers: Vec<(Layer, f32)>,
    /// Whether layers multiply instead of adding up.
    product: bool,
    /// Steepness of the tone curve.
    steepness: f32,
    /// Two colours, 0..1, and how far a third layer of clouds pulls towards another.
    colours: [[f32; 3]; 3],
    tint: (Layer, f32),
    grain: f32,
}

/// Distances to the nearest and the second nearest of one random point a cell.
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

impl Layer {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let element = Element::ALL[rng.random_range(0..Element::ALL.len())];
        // From grains of a pixel or two to elements as large as what the network sees around a pixel.
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
            element,
            to_element: [
                [along * cosine, along * sine],
                [-across * sine, across * cosine],
            ],
            seed: rng.random(),
            octaves: rng.random_range(1..=3),
            wander: if rng.random_bool(0.5) {
                0.0
            } else {
                rng.random_range(0.0..0.7)
            },
            shape: rng.random_range(0.0..1.0),
        }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let [a, b] = self.to_element;
        let (mut u, mut v) = (a[0] * x + a[1] * y, b[0] * x + b[1] * y);
        if self.wander > 0.0 {
            let (slow_u, slow_v) = (u * 0.3, v * 0.3);
            u += self.wander * clouds(slow_u, slow_v, self.seed ^ 1);
            v += self.wander * clouds(slow_u, slow_v, self.seed ^ 2);
        }
        let octaves = |fold: bool| {
            let (mut sum, mut weight, mut total) = (0.0, 1.0, 0.0);
            for octave in 0..self.octaves {
                let scale = (1 << octave) as f32;
                let value = clouds(u * scale, v * scale, self.seed.wrapping_add(octave));
                sum += weight * if fold { 1.0 - 2.0 * value.abs() } else { value };
                total += weight;
                weight *= 0.55;
            }
            sum / total
        };
        // A sine, or squared off: threads with gaps.
        let wave = |at: f32| {
            let sine = (TAU * at).sin();
            (sine * (1.0 + 6.0 * self.shape)).clamp(-1.0, 1.0)
        };
        match self.element {
            Element::Clouds => octaves(false) * 1.6,
            Element::Veins => octaves(true),
            Element::Grains => 1.0 - 2.0 * nearest(u, v, self.seed).0,
            Element::Creases => {
                let (first, second) = nearest(u, v, self.seed);
                ((second - first) * (2.0 + 4.0 * self.shape)).min(2.0) - 1.0
            }
            Element::Wave => wave(v),
            Element::Mesh => wave(u).max(wave(v)),
            Element::Spots => ((octaves(false) - 0.5 * self.shape) * 6.0).clamp(-1.0, 1.0),
        }
    }
}

impl Pattern {
    /// A surface at random.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let count = rng.random_range(1..=3);
        let layers = (0..count)
            .map(|_| (Layer::draw(rng), rng.random_range(0.3..1.0)))
            .collect();
        let grey = rng.random_bool(0.4);
        let mut colour = || {
            let colour: [f32; 3] = std::array::from_fn(|_| rng.random_range(0.02..0.98));
            if grey { [colour[0]; 3] } else { colour }
        };
        let (first, mut second, third) = (colour(), colour(), colour());
        // Many real surfaces have one colour in light and dark.
        if rng.random_bool(0.5) {
            let factor = rng.random_range(0.2..0.85f32);
            second = first.map(|value| value * factor);
        }
        Self {
            layers,
            product: rng.random_bool(0.3),
            steepness: 3f32.powf(rng.random_range(-0.5..1.0f32)),
            colours: [first, second, third],
            tint: (
                Layer::draw(rng),
                if rng.random_bool(0.5) {
                    0.0
                } else {
                    rng.random_range(0.0..0.6)
                },
            ),
            grain: rng.random_range(0.0..0.08f32).powi(2) * 10.0,
        }
    }

    /// A window of `side` pixels at a random place, in [-1, 1], lit a little otherwise each time and with the sensor's noise.
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
                    .layers
                    .iter()
                    .map(|(layer, weight)| (layer.at(px, py), *weight));
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
                    (ref layer, weight) => weight * (0.5 + 0.5 * layer.at(px, py)).clamp(0.0, 1.0),
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
    fn a_pattern_is_the_same_surface_at_every_window_and_patterns_differ() {
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
        assert!(flat < 6, "{flat} of 60 show nothing");
        assert!(within < between / 2.5, "{within} within, {between} between");
    }
}

//! What good images say of a surface, and which settings follow from it: pure arithmetic on prepared frames.

use edge_runtime::inspect::frame::{Channels, Frame, Pixels};

use crate::variation::least_frames;

/// What was measured of a surface. Lengths are pixels of the images as they are.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Surface {
    /// Images that there are.
    pub images: usize,
    /// Images that were looked at.
    pub looked_at: usize,
    /// Median width.
    pub width_px: u32,
    /// Median height.
    pub height_px: u32,
    /// Mean difference between a pixel's highest and lowest channel, of 255.
    pub colourfulness: f32,
    /// Standard deviation of the images' mean brightness over its mean.
    pub brightness_spread: f32,
    /// Distance at which neighbouring pixels have little to do with each other (correlation 1/e), across the grain; the
    /// median image's.
    pub grain_px: f32,
    /// Median distance of an image to its most similar one over that of two images taken at random, by thumbnails; near 1
    /// if no two images show the same part.
    pub nearest: f32,
    /// Median correlation of an image's thumbnail with the mean of the others', light that falls off taken off: near 0 where each
    /// place may look like any other, near 1 where parts always lie alike.
    pub layout: f32,
}

/// One image's share.
#[derive(Debug, Clone)]
pub struct ImageLook {
    width_px: u32,
    height_px: u32,
    colourfulness: f32,
    brightness: f32,
    grain_px: f32,
    thumbnail: Vec<f32>,
}

/// Side of the middle that the grain is measured in.
const MIDDLE_PX: usize = 512;
/// Cells of a thumbnail's side.
const CELLS: usize = 16;

impl ImageLook {
    /// Looks at an image.
    pub fn of(frame: &Frame) -> Self {
        let (width, height) = (frame.width_px() as usize, frame.height_px() as usize);
        let channels = match frame.channels() {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        };
        let values: Vec<f32> = match frame.pixels() {
            Pixels::U8(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Pixels::U16(values) => values
                .iter()
                .map(|&value| f32::from(value) / 257.0)
                .collect(),
        };
        let pixels = values.chunks_exact(channels);
        let grey: Vec<f32> = pixels
            .clone()
            .map(|pixel| pixel.iter().sum::<f32>() / channels as f32)
            .collect();
        let area = grey.len().max(1) as f32;
        let colours = pixels.map(|pixel| {
            let (low, high) = pixel
                .iter()
                .fold((f32::MAX, f32::MIN), |(low, high), &value| {
                    (low.min(value), high.max(value))
                });
            high - low
        });
        Self {
            width_px: frame.width_px(),
            height_px: frame.height_px(),
            colourfulness: colours.sum::<f32>() / area,
            brightness: grey.iter().sum::<f32>() / area,
            grain_px: grain(&grey, width, height),
            thumbnail: thumbnail(&grey, width, height),
        }
    }
}

/// Means of cells, relative to the whole image's.
fn thumbnail(grey: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut sums = vec![(0.0f32, 0.0f32); CELLS * CELLS];
    for (y, row) in grey.chunks_exact(width).enumerate() {
        for (x, value) in row.iter().enumerate() {
            let (sum, count) = &mut sums[y * CELLS / height * CELLS + x * CELLS / width];
            *sum += value;
            *count += 1.0;
        }
    }
    let means: Vec<f32> = sums
        .iter()
        .map(|(sum, count)| sum / count.max(1.0))
        .collect();
    let mean = means.iter().sum::<f32>() / means.len() as f32;
    means.iter().map(|value| value / mean.max(1.0)).collect()
}

/// The shorter of the correlation lengths along rows and columns, in the middle of an image.
fn grain(grey: &[f32], width: usize, height: usize) -> f32 {
    let (columns, rows) = (width.min(MIDDLE_PX), height.min(MIDDLE_PX));
    let (left, top) = ((width - columns) / 2, (height - rows) / 2);
    let row = |y: usize| -> Vec<f32> {
        let start = (top + y) * width + left;
        grey[start..start + columns].to_vec()
    };
    let column = |x: usize| -> Vec<f32> {
        let at = |y| grey[(top + y) * width + left + x];
        (0..rows).map(at).collect()
    };
    // Every fourth line is enough.
    let along_rows = correlation_length((0..rows).step_by(4).map(row));
    let along_columns = correlation_length((0..columns).step_by(4).map(column));
    along_rows.min(along_columns)
}

/// Where the mean autocorrelation of lines falls below 1/e; slow changes, of light and shape, are taken off first.
fn correlation_length(lines: impl Iterator<Item = Vec<f32>>) -> f32 {
    let mut products: Vec<f64> = Vec::new();
    for line in lines {
        let line = without_trend(&line);
        let lags = (line.len() / 4).max(1);
        products.resize(lags.max(products.len()), 0.0);
        for (lag, sum) in products.iter_mut().enumerate().take(lags) {
            let pairs = line.iter().zip(&line[lag..]);
            let sums: f64 = pairs.map(|(a, b)| f64::from(a * b)).sum();
            *sum += sums / (line.len() - lag) as f64;
        }
    }
    let Some(&whole) = products.first().filter(|whole| **whole > 0.0) else {
        return 0.0;
    };
    let level = whole * (-1.0f64).exp();
    let below = products.iter().position(|product| *product < level);
    below.map_or(products.len() as f32, |lag| {
        let (before, after) = (products[lag - 1], products[lag]);
        (lag as f64 - 1.0 + (before - level) / (before - after)) as f32
    })
}

/// A line less its mean over a quarter of its length around each pixel.
fn without_trend(line: &[f32]) -> Vec<f32> {
    let reach = line.len() / 8;
    let mut sums = vec![0.0f64; line.len() + 1];
    for (index, value) in line.iter().enumerate() {
        sums[index + 1] = sums[index] + f64::from(*value);
    }
    let around = |index: usize| {
        let (from, to) = (
            index.saturating_sub(reach),
            (index + reach + 1).min(line.len()),
        );
        ((sums[to] - sums[from]) / (to - from) as f64) as f32
    };
    let values = line.iter().enumerate();
    values.map(|(index, value)| value - around(index)).collect()
}

fn median<T: Copy>(values: &mut [T], order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Option<T> {
    values.sort_unstable_by(order);
    values.get(values.len() / 2).copied()
}

impl Surface {
    /// What so many images say that some of `images` are. `None` of none.
    pub fn of(looks: &[ImageLook], images: usize) -> Option<Self> {
        let count = looks.len() as f32;
        let of =
            |value: &dyn Fn(&ImageLook) -> f32| -> Vec<f32> { looks.iter().map(value).collect() };
        let mean = |values: &[f32]| values.iter().sum::<f32>() / count;
        let brightness = of(&|look| look.brightness);
        let middle = mean(&brightness);
        let squares: Vec<f32> = brightness.iter().map(|b| (b - middle).powi(2)).collect();
        let mut widths: Vec<u32> = looks.iter().map(|look| look.width_px).collect();
        let mut heights: Vec<u32> = looks.iter().map(|look| look.height_px).collect();
        Some(Self {
            images,
            looked_at: looks.len(),
            width_px: median(&mut widths, u32::cmp)?,
            height_px: median(&mut heights, u32::cmp)?,
            colourfulness: mean(&of(&|look| look.colourfulness)),
            brightness_spread: mean(&squares).sqrt() / middle.max(1.0),
            grain_px: median(&mut of(&|look| look.grain_px), f32::total_cmp)?,
            nearest: nearest(looks),
            layout: layout(looks),
        })
    }
}

fn nearest(looks: &[ImageLook]) -> f32 {
    let distance = |a: &ImageLook, b: &ImageLook| {
        let squares = a.thumbnail.iter().zip(&b.thumbnail);
        squares.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    };
    let (mut closest, mut all) = (Vec::new(), Vec::new());
    for (index, look) in looks.iter().enumerate() {
        let others = looks
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let distances: Vec<f32> = others.map(|(_, other)| distance(look, other)).collect();
        closest.extend(distances.iter().copied().min_by(f32::total_cmp));
        all.extend(distances);
    }
    match (
        median(&mut closest, f32::total_cmp),
        median(&mut all, f32::total_cmp),
    ) {
        (Some(closest), Some(all)) if all > 0.0 => closest / all,
        _ => 1.0,
    }
}

fn layout(looks: &[ImageLook]) -> f32 {
    let thumbnails: Vec<Vec<f32>> = looks
        .iter()
        .map(|look| without_light(&look.thumbnail))
        .collect();
    let mut sum = vec![0.0f32; CELLS * CELLS];
    for thumbnail in &thumbnails {
        let values = sum.iter_mut().zip(thumbnail);
        values.for_each(|(sum, value)| *sum += value);
    }
    let mut correlations: Vec<f32> = thumbnails
        .iter()
        .map(|thumbnail| {
            let others = sum.iter().zip(thumbnail).map(|(sum, own)| sum - own);
            correlation(thumbnail, &others.collect::<Vec<f32>>())
        })
        .collect();
    median(&mut correlations, f32::total_cmp).unwrap_or(0.0)
}

/// A thumbnail less its least-squares quadratic: what lamp and lens make of an even surface.
fn without_light(thumbnail: &[f32]) -> Vec<f32> {
    let place = |at: usize| at as f32 / (CELLS - 1) as f32 * 2.0 - 1.0;
    let terms: [fn(f32, f32) -> f32; 6] = [
        |_, _| 1.0,
        |x, _| x,
        |_, y| y,
        |x, _| x * x,
        |x, y| x * y,
        |_, y| y * y,
    ];
    // Gram-Schmidt: each term less its share of those before, then the thumbnail less its share of each.
    let without = |values: &mut [f32], term: &[f32]| {
        let share: f32 = values.iter().zip(term).map(|(a, b)| a * b).sum();
        values
            .iter_mut()
            .zip(term)
            .for_each(|(value, term)| *value -= share * term);
    };
    let mut basis: Vec<Vec<f32>> = Vec::new();
    for term in terms {
        let mut values: Vec<f32> = (0..CELLS * CELLS)
            .map(|cell| term(place(cell % CELLS), place(cell / CELLS)))
            .collect();
        for before in &basis {
            without(&mut values, before);
        }
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        basis.push(values.into_iter().map(|v| v / norm).collect());
    }
    let mut rest = thumbnail.to_vec();
    for term in &basis {
        without(&mut rest, term);
    }
    rest
}

/// Pearson's; 0 where one of them does not vary.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut product, mut squares) = (0.0f32, [0.0f32; 2]);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        product += a * b;
        squares[0] += a * a;
        squares[1] += b * b;
    }
    let norm = (squares[0] * squares[1]).sqrt();
    if norm > 0.0 { product / norm } else { 0.0 }
}

/// A setting of a command of `host-trainer`, and why.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Advice {
    /// The option, without dashes.
    pub option: &'static str,
    /// Its value; empty for one that takes none.
    pub value: String,
    /// Why this one.
    pub why: String,
}

impl Advice {
    /// As it is typed.
    pub fn words(&self) -> String {
        format!("--{} {}", self.option, self.value)
            .trim_end()
            .to_owned()
    }
}

/// Correlation lengths, in pixels as trained, between which a texture's elements are neither lost nor larger than what
/// the network sees at a time (14 px to each side).
const GRAIN_PX: std::ops::RangeInclusive<f32> = 0.5..=6.0;
/// What is aimed at where they are not.
const GOOD_GRAIN_PX: f32 = 1.0;
/// The paper's side (IV-A).
const SIDE_PX: f32 = 256.0;
/// Sides that make sense.
const SIDES_PX: std::ops::RangeInclusive<f32> = 96.0..=1024.0;
/// Channels that differ by less, of 255, are those of a grey surface.
const COLOURFUL: f32 = 6.0;
/// Fewer good images than that show too little of what light does.
const FEW_IMAGES: usize = 20;
/// Share of the good images that is held out of training, where there are enough.
const HOLD_OUT: f64 = 0.2;
/// From this correlation on, a place has looks of its own: 0.39 on magnetic tiles, 0.05 and less on procedural textures.
const LAID_ALIKE: f32 = 0.25;

impl Surface {
    /// The size to train and score at.
    pub fn size(&self) -> (u32, u32, String) {
        let (width, height) = (self.width_px as f32, self.height_px as f32);
        let native = (width * height).sqrt();
        let grain = self.grain_px * SIDE_PX / native;
        let (side, why) = if self.grain_px <= 0.0 || GRAIN_PX.contains(&grain) {
            let why = format!("the paper's; the texture's elements are {grain:.1} px there");
            (SIDE_PX.min(native), why)
        } else {
            let wanted = native * GOOD_GRAIN_PX / self.grain_px;
            let side = wanted.min(native).clamp(*SIDES_PX.start(), *SIDES_PX.end());
            let there = self.grain_px * side / native;
            let what = if grain < *GRAIN_PX.start() {
                "lost"
            } else {
                "larger than the network sees"
            };
            let why = format!(
                "at the paper's 256 px the texture's elements would be {what} ({grain:.1} px); here they are {there:.1} px"
            );
            (side, why)
        };
        let ratio = (width / height).sqrt();
        // A square is the paper's; shapes that differ much would lose detail in one direction.
        let ratio = if (0.83..1.2).contains(&ratio) {
            1.0
        } else {
            ratio
        };
        let sides = [side * ratio, side / ratio].map(|side| {
            let aligned = (side / 8.0).round() * 8.0;
            aligned.max(*SIDES_PX.start()) as u32
        });
        (sides[0], sides[1], why)
    }

    /// All settings but the width, which is a matter of time; `photographs`: whether the loss compares features of a
    /// network that was trained on such.
    pub fn advice(&self, photographs: bool) -> Vec<Advice> {
        let advice = |option, value: &str, why: &str| Advice {
            option,
            value: value.to_owned(),
            why: why.to_owned(),
        };
        let (width_px, height_px, why) = self.size();
        let mut all = vec![Advice {
            option: "size",
            value: format!("{width_px}x{height_px}"),
            why,
        }];
        let colour = self.colourfulness;
        all.push(if colour < COLOURFUL {
            advice(
                "colour",
                "grey",
                &format!("channels differ by {colour:.1} of 255 only"),
            )
        } else {
            advice(
                "colour",
                "rgb",
                &format!("channels differ by {colour:.0} of 255"),
            )
        });
        let spread = 100.0 * self.brightness_spread;
        let lighting = if self.images < FEW_IMAGES {
            let why = format!(
                "{} good images cannot show what light does; on 4 of leather this took image AUROC to 1",
                self.images
            );
            advice("lighting", "0.3", &why)
        } else {
            let share = (2.0 * self.brightness_spread).clamp(0.05, 0.4);
            let why = format!("brightness differs by {spread:.0} % from image to image");
            advice("lighting", &format!("{share:.2}"), &why)
        };
        all.push(lighting);
        // With random features it does harm, with the built-in ones no clear good (models/studies).
        if photographs {
            all.push(advice(
                "feature-depth",
                "each-scale",
                "removes patterns of a few pixels that the last features alone do not see (models/studies)",
            ));
        }
        all.push(advice(
            "quiet",
            "1",
            "good pixels score lower, defects no less (models/studies)",
        ));
        if self.upsampled() {
            all.push(advice(
                "upsampled",
                "",
                "no checkerboard in the map, so that what is good is quiet: width 32 then finds as much on leather as 128 without \
                 (models/studies)",
            ));
        }
        all.push(advice(
            "average",
            "0.999",
            "the last batches no longer decide how good the model is",
        ));
        if self.images >= FEW_IMAGES {
            let why = "a threshold with a promise needs good images that were not trained on";
            all.push(advice("hold-out", &HOLD_OUT.to_string(), why));
        }
        all
    }

    /// Whether upsampling and convolutions suit it better than the paper's transposed convolutions: wherever a variation model does not
    /// score it instead.
    pub fn upsampled(&self) -> bool {
        self.package_advice().is_empty()
    }

    /// Settings of `host-trainer package`.
    pub fn package_advice(&self) -> Vec<Advice> {
        let colours = self.colourfulness >= COLOURFUL;
        let trained = (self.images as f64 * (1.0 - HOLD_OUT)) as usize;
        if self.layout < LAID_ALIKE || trained < least_frames(colours) {
            return Vec::new();
        }
        let switch = |option, why| Advice {
            option,
            value: String::new(),
            why,
        };
        vec![
            switch(
                "variation",
                format!(
                    "parts lie alike (thumbnails correlate by {:.1} with the mean of the others), and {} good images show how \
                     each place may look",
                    self.layout, self.images
                ),
            ),
            switch(
                "areas",
                "what does not belong to the rest of its part, worn areas above all, shows only beside the whole frame; it is learned \
                 in 45 minutes on two cores"
                    .to_owned(),
            ),
        ]
    }

    /// What the user should see to first.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.nearest < 0.35 && self.looked_at > 3 {
            all.push(
                "many images look like another photograph of the same part: name parts in a CSV and give it by --groups, \
                 or the threshold's promise will not hold"
                    .to_owned(),
            );
        }
        if self.images < FEW_IMAGES {
            all.push(format!(
                "{} good images: enough to train on, too few for a threshold that promises much; collect more and run \
                 `host-trainer calibrate`",
                self.images
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A texture of square elements of `element_px`, with colours if wanted.
    fn frame(side: u32, element_px: u32, colour: bool, light: f32, seed: u32) -> Frame {
        let value = |x: u32, y: u32| {
            let cell = (x / element_px)
                .wrapping_mul(0x9E37_79B1)
                .wrapping_add((y / element_px).wrapping_mul(0x85EB_CA77))
                .wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
            let mixed = (cell ^ cell >> 15).wrapping_mul(0x2C1B_3C6D);
            ((mixed >> 16) % 100) as f32
        };
        let places = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
        let pixels = places.flat_map(|(x, y)| {
            let grey = ((60.0 + value(x, y)) * light).min(255.0) as u8;
            [grey, if colour { grey / 2 } else { grey }, grey]
        });
        Frame::new(side, side, Channels::Rgb, Pixels::U8(pixels.collect())).unwrap()
    }

    fn surface(side: u32, element_px: u32, colour: bool, count: u32) -> Surface {
        let looks: Vec<ImageLook> = (0..count)
            .map(|seed| {
                let light = 0.8 + 0.1 * (seed % 3) as f32;
                ImageLook::of(&frame(side, element_px, colour, light, seed))
            })
            .collect();
        Surface::of(&looks, looks.len()).unwrap()
    }

    #[test]
    fn grain_grows_with_the_elements_of_a_texture() {
        // The correlation of squares of side s falls linearly to 0 at s: 1/e at 0.63 s.
        for element in [4, 8, 16] {
            let found = surface(768, element, false, 3).grain_px;
            let expected = 0.63 * element as f32;
            assert!(
                (found / expected - 1.0).abs() < 0.25,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn fine_textures_get_more_pixels_and_coarse_ones_fewer() {
        let side = |element| surface(768, element, false, 2).size().0;
        assert_eq!(side(8), 256, "the paper's where it fits");
        assert!(side(2) > 400, "{}", side(2));
        assert!(side(64) < 200, "{}", side(64));
    }

    #[test]
    fn colour_and_light_are_seen() {
        let value = |surface: &Surface, option| {
            let advice = surface.advice(true);
            let found = advice.into_iter().find(|advice| advice.option == option);
            found.map(|advice| advice.value)
        };
        let grey = surface(128, 8, false, 24);
        assert_eq!(value(&grey, "colour").unwrap(), "grey");
        let light: f32 = value(&grey, "lighting").unwrap().parse().unwrap();
        // 0.8, 0.9 and 1.0 in equal parts: 9 % of spread.
        assert!((0.15..0.22).contains(&light), "{light}");
        assert_eq!(value(&grey, "hold-out").unwrap(), "0.2");
        let few = surface(128, 8, true, 4);
        assert_eq!(value(&few, "colour").unwrap(), "rgb");
        assert_eq!(value(&few, "lighting").unwrap(), "0.3");
        assert_eq!(value(&few, "hold-out"), None);
        assert_eq!(few.warnings().len(), 1);
    }

    #[test]
    fn parts_that_lie_alike_are_noticed_and_textures_are_not() {
        let part = |seed: u32| {
            let mut pixels = Vec::new();
            for at in 0..128u32 * 128 {
                let edge = if at % 128 < 20 { 90 } else { 0 };
                let noise = (at ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 27;
                pixels.push((80 + edge + noise) as u8);
            }
            ImageLook::of(&Frame::new(128, 128, Channels::Grey, Pixels::U8(pixels)).unwrap())
        };
        let looks: Vec<ImageLook> = (0..12).map(part).collect();
        let alike = Surface::of(&looks, 400).unwrap();
        assert!(alike.layout > 0.9, "{}", alike.layout);
        let options: Vec<&str> = alike.package_advice().iter().map(|a| a.option).collect();
        assert_eq!(options, ["variation", "areas"]);
        assert!(!alike.upsampled());
        let few = Surface {
            images: 69,
            ..alike
        };
        assert_eq!(few.package_advice(), Vec::new(), "55 are left to train on");
        let texture = surface(128, 16, false, 12);
        assert!(texture.layout < 0.3, "{}", texture.layout);
        // A fine texture under a lamp that lights its middle.
        let lit = |seed: u32| {
            let mut pixels = Vec::new();
            for at in 0..128u32 * 128 {
                let [x, y] = [at % 128, at / 128].map(|place| place as f32 / 64.0 - 1.0);
                let noise = (at ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 27;
                let light = 1.0 - 0.1 * (x * x + y * y);
                pixels.push(((120 + noise) as f32 * light) as u8);
            }
            ImageLook::of(&Frame::new(128, 128, Channels::Grey, Pixels::U8(pixels)).unwrap())
        };
        let looks: Vec<ImageLook> = (0..12).map(lit).collect();
        let lamp = Surface::of(&looks, 400).unwrap();
        assert!(lamp.layout < LAID_ALIKE, "{}", lamp.layout);
        let texture = Surface {
            images: 400,
            ..texture
        };
        assert_eq!(texture.package_advice(), Vec::new());
        let advice = texture.advice(false);
        assert!(advice.iter().any(|advice| advice.words() == "--upsampled"));
    }

    #[test]
    fn photographs_of_one_part_are_noticed() {
        let part = |seed, light| ImageLook::of(&frame(128, 16, false, light, seed));
        let twice: Vec<ImageLook> = (0..10)
            .flat_map(|seed| [part(seed, 0.8), part(seed, 1.0)])
            .collect();
        let surface = Surface::of(&twice, 20).unwrap();
        assert!(surface.nearest < 0.2, "{}", surface.nearest);
        assert!(surface.warnings()[0].contains("--groups"));
        let apart: Vec<ImageLook> = (0..20).map(|seed| part(seed, 0.9)).collect();
        let surface = Surface::of(&apart, 20).unwrap();
        assert!(surface.nearest > 0.6, "{}", surface.nearest);
        assert_eq!(surface.warnings(), Vec::<String>::new());
    }
}

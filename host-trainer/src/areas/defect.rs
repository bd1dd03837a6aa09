//! What an area network learns to find: areas of a good frame that are made to look unlike the rest of it, and defects of many forms.
//! Pure: frames in, frames and masks out. **Ours**, after the synthetic defects of CutPaste (Li et al. 2021) and DRAEM (Zavrtanik et al.
//! 2021) and the paper's noise (III-C).

use std::f32::consts::{FRAC_PI_2, PI, TAU};
use std::ops::Range;

use edge_runtime::inspect::map::ScoreMap;
use edge_runtime::inspect::preprocess::Planes;
use proto::manifest::PostProcessing;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::noise::clouds;

/// Lengths below are in pixels of a frame whose shorter side has so many.
const SIDE_PX: f32 = 256.0;
/// Share of the frame that an area covers, and what a smudge does.
const AREA: Range<f32> = 0.02..0.35;
const SMUDGE: Range<f32> = 0.002..0.08;
/// What is coarser than that is an area's brightness, what is finer its texture.
const TEXTURE_PX: f32 = 6.0;
/// Where there is one small defect there is another by that chance, up to [`MOST_DEFECTS`].
const ANOTHER: f64 = 0.35;
const MOST_DEFECTS: usize = 3;
/// A line along a frame's grain is so far off it, in radians, at most.
const OFF_GRAIN: f32 = 0.3;
/// What begins at the border begins so far inside it at most: a part's own edge may lie inside the frame's.
const FROM_BORDER_PX: f32 = 12.0;
/// One crack in so many begins there.
const CRACK_AT_BORDER_ONE_IN: u32 = 3;
/// Values of [-1, 1] that a change must reach to be one: less than a grey value of 255 is none.
const LEAST_CHANGE: f32 = 0.006;
/// A pixel is changed if one so near is.
const NEAR_PX: f32 = 4.0;

/// A good frame.
#[derive(Debug, Clone)]
pub struct Good {
    planes: Planes,
    /// Pixels of the frame for one of [`SIDE_PX`].
    unit_px: f32,
}

/// A frame with something drawn into it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The frame.
    pub planes: Planes,
    /// 1 where it was changed, 0 where not, in between at an edge; row by row.
    pub mask: Vec<f32>,
}

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An area that is brighter or darker.
    Brightness,
    /// An area with more or less contrast.
    Contrast,
    /// A blurred area.
    Blur,
    /// An area with the texture of another part.
    Texture,
    /// Dark spots.
    Hole,
    /// Dark lines that turn slowly.
    Crack,
    /// Spots with a grain of their own.
    Rough,
    /// Brighter or darker spots.
    Scuff,
    /// A piece of another part, where it does not belong.
    Paste,
    /// Any form of any texture, more or less transparent.
    Smudge,
    /// Straight lines, bright or dark.
    Scratch,
    /// Something broken off towards the border, or a chip of it.
    Break,
}

impl Kind {
    /// Those of large areas.
    pub const AREAS: [Self; 4] = [Self::Brightness, Self::Contrast, Self::Blur, Self::Texture];
    /// Those of defects.
    pub const DEFECTS: [Self; 8] = [
        Self::Hole,
        Self::Crack,
        Self::Rough,
        Self::Scuff,
        Self::Paste,
        Self::Smudge,
        Self::Scratch,
        Self::Break,
    ];

    /// Small ones, of which a frame may have several.
    fn several(self) -> bool {
        matches!(
            self,
            Self::Hole | Self::Crack | Self::Rough | Self::Scuff | Self::Scratch
        )
    }
}

/// A number between -1 and 1 that changes smoothly over so many pixels.
fn wave(x: f32, y: f32, length_px: f32, seed: u32) -> f32 {
    clouds(x / length_px, y / length_px, seed)
}

/// A number whose logarithm is evenly distributed.
fn scaled(rng: &mut ChaCha8Rng, range: Range<f32>) -> f32 {
    rng.random_range(range.start.ln()..range.end.ln()).exp()
}

/// A factor up to this logarithm, and at least that, either way.
fn factor(rng: &mut ChaCha8Rng, logarithm: Range<f32>) -> f32 {
    let by = rng.random_range(logarithm);
    if rng.random() { by.exp() } else { (-by).exp() }
}

/// A value changed by a share, within the range of values.
fn towards(value: f32, changed: f32, share: f32) -> f32 {
    (value + (changed - value) * share).clamp(-1.0, 1.0)
}

/// Pixels by number, each with the share by which it changes.
type Places = Vec<(usize, f32)>;

/// A rectangle of pixels.
struct Within {
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Good {
    /// A frame in [-1, 1].
    pub fn new(planes: Planes) -> Self {
        let unit_px = planes.width_px.min(planes.height_px) as f32 / SIDE_PX;
        Self { planes, unit_px }
    }

    /// The frame as it is.
    pub fn planes(&self) -> &Planes {
        &self.planes
    }

    fn size(&self) -> [f32; 2] {
        [self.planes.width_px, self.planes.height_px].map(|side| side as f32)
    }

    /// A place of the frame.
    fn place(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        let [width, height] = self.size();
        (rng.random_range(0.0..width), rng.random_range(0.0..height))
    }

    /// Mean brightness, from 0 to 2.
    fn brightness(&self) -> f32 {
        let plane = self.planes.plane(0);
        1.0 + plane.iter().sum::<f32>() / plane.len() as f32
    }

    /// With something of each kind drawn into it, one over the other; `other`: a good frame of the same size, for [`Kind::Texture`] and
    /// [`Kind::Paste`]; one of another size is of no use, and the frame itself is taken.
    pub fn drawn(&self, kinds: &[Kind], other: &Self, rng: &mut ChaCha8Rng) -> Drawn {
        let other = if self.size() == other.size() {
            other
        } else {
            self
        };
        let mut drawn = Drawn {
            planes: self.planes.clone(),
            mask: vec![0.0; self.planes.width_px * self.planes.height_px],
        };
        for &kind in kinds {
            for _ in 0..MOST_DEFECTS {
                self.draw(&mut drawn, kind, other, rng);
                if !kind.several() || !rng.random_bool(ANOTHER) {
                    break;
                }
            }
        }
        drawn.forget_what_is_as_before(&self.planes, (NEAR_PX * self.unit_px) as usize);
        drawn
    }

    fn draw(&self, drawn: &mut Drawn, kind: Kind, other: &Self, rng: &mut ChaCha8Rng) {
        let unit = self.unit_px;
        let seed = rng.next_u32();
        match kind {
            Kind::Brightness => {
                let by = factor(rng, 0.08..0.4);
                let area = self.area(AREA, 1.0..8.0, rng);
                drawn.change(&area, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            Kind::Contrast => {
                let by = factor(rng, 0.25..0.9);
                let area = self.area(AREA, 1.0..8.0, rng);
                let base = self.base();
                drawn.change(&area, |value, at, _, _| base[at] + (value - base[at]) * by);
            }
            Kind::Blur => {
                // Below half a pixel a blur is none.
                let sigma_px = rng.random_range(0.6..2.5) * unit.max(1.0);
                let area = self.area(AREA, 1.0..8.0, rng);
                let smooth = blurred(&self.planes, sigma_px);
                drawn.change(&area, |_, at, _, _| smooth[at]);
            }
            Kind::Texture => {
                // Texture is in proportion to brightness.
                let by = self.brightness() / other.brightness().max(0.05);
                let area = self.area(AREA, 1.0..8.0, rng);
                let (base, other_base) = (self.base(), other.base());
                let texture = &other.planes.data;
                drawn.change(&area, |_, at, _, _| {
                    base[at] + (texture[at] - other_base[at]) * by
                });
            }
            Kind::Hole => {
                let by = rng.random_range(0.15..0.8);
                let hole = self.spot(2.0..9.0, rng);
                drawn.change(&hole, |value, _, _, _| value - by * (value + 1.0));
            }
            Kind::Crack => {
                let by = rng.random_range(0.1..0.6);
                let crack = self.crack(rng);
                drawn.change(&crack, |value, _, _, _| value - by * (value + 1.0));
            }
            Kind::Rough => {
                let by = rng.random_range(0.08..0.5) * self.brightness();
                let grain_px = scaled(rng, 1.0..4.0) * unit;
                let patch = self.spot(5.0..40.0, rng);
                drawn.change(&patch, |value, _, x, y| {
                    value + by * wave(x, y, grain_px, seed)
                });
            }
            Kind::Scuff => {
                let by = factor(rng, 0.08..0.5);
                let scuff = self.spot(5.0..40.0, rng);
                drawn.change(&scuff, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            Kind::Paste => self.paste(drawn, other, rng),
            Kind::Smudge => {
                let grain = scaled(rng, 1.0..16.0) * unit;
                let stretch = rng.random_range(-1.0f32..1.0).exp();
                let (opacity, shift) = (rng.random_range(0.1..0.8), rng.random_range(-0.3..0.3));
                let smudge = self.area(SMUDGE, 1.0..4.0, rng);
                drawn.change(&smudge, |value, _, x, y| {
                    let texture = 0.8 * wave(x, y * stretch, grain, seed);
                    value + (texture - value) * opacity + shift
                });
            }
            Kind::Scratch => {
                let by = factor(rng, 0.1..0.7);
                let scratch = self.scratch(rng);
                drawn.change(&scratch, |value, _, _, _| (value + 1.0) * by - 1.0);
            }
            Kind::Break => {
                let level = self.brightness() * rng.random_range(-1.2f32..0.6).exp() - 1.0;
                let (grain, loud) = (scaled(rng, 1.0..16.0) * unit, rng.random_range(0.04..0.4));
                let left = rng.random_range(0.0..0.5);
                let broken = if rng.random() {
                    self.beside_the_border(rng)
                } else {
                    let (at, _) = self.near_border(rng);
                    self.spot_at(at, scaled(rng, 3.0..16.0), rng)
                };
                drawn.change(&broken, |value, _, x, y| {
                    let texture = level + loud * wave(x, y, grain, seed);
                    texture + (value - texture) * left
                });
            }
        }
    }

    /// Its brightness without its texture.
    fn base(&self) -> Vec<f32> {
        blurred(&self.planes, TEXTURE_PX * self.unit_px)
    }

    /// A spot or a strip of another part, turned and moved, as bright as that or as this one.
    fn paste(&self, drawn: &mut Drawn, other: &Self, rng: &mut ChaCha8Rng) {
        let [columns, rows] = [self.planes.width_px, self.planes.height_px];
        let (right, down) = (rng.random_range(0..columns), rng.random_range(0..rows));
        let [mirrored, upended, turned] = [(); 3].map(|()| rng.random::<bool>());
        let turned = turned && columns == rows;
        let lift = if rng.random() {
            self.brightness() - other.brightness()
        } else {
            0.0
        };
        let opacity = rng.random_range(0.4..1.0);
        let source = |index: usize| {
            let (x, y) = (index % columns, index / columns);
            let (x, y) = if turned { (y, x) } else { (x, y) };
            let x = if mirrored { columns - 1 - x } else { x };
            let y = if upended { rows - 1 - y } else { y };
            (y + down) % rows * columns + (x + right) % columns
        };
        let area = columns * rows;
        let what = rng.random_range(0..3);
        let mut pieces = Vec::new();
        if what != 0 {
            pieces.push(self.spot(4.0..30.0, rng));
        }
        if what != 1 {
            pieces.push(self.scratch(rng));
        }
        for piece in pieces {
            drawn.change(&piece, |value, at, _, _| {
                let from = at / area * area + source(at % area);
                value + (other.planes.data[from] + lift - value) * opacity
            });
        }
    }

    /// An area of any form: beside a line, an ellipse, a rectangle or a blot.
    fn area(&self, share: Range<f32>, softness: Range<f32>, rng: &mut ChaCha8Rng) -> Places {
        let unit = self.unit_px;
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let (x, y) = self.place(rng);
        let stretch = rng.random_range(-0.5f32..0.5).exp();
        let (form, seed, length_px) = (
            rng.random_range(0..4),
            rng.next_u32(),
            rng.random_range(60.0..180.0) * unit,
        );
        // Higher inside, by about one a pixel.
        let inside = |at_x: f32, at_y: f32| {
            let along = ((at_x - x) * cosine + (at_y - y) * sine) * stretch;
            let across = ((at_y - y) * cosine - (at_x - x) * sine) / stretch;
            let wobble = 8.0 * unit * wave(at_x, at_y, 30.0 * unit, seed);
            match form {
                0 => along / stretch + wobble,
                1 => wobble - along.hypot(across),
                2 => -((at_x - x).abs() * stretch).max((at_y - y).abs() / stretch),
                _ => wave(at_x, at_y, length_px, seed) * length_px,
            }
        };
        let (columns, rows) = (self.planes.width_px, self.planes.height_px);
        let place = |index: usize| ((index % columns) as f32, (index / columns) as f32);
        let places = (0..columns * rows).map(place);
        let heights: Vec<f32> = places.map(|(x, y)| inside(x, y)).collect();
        let mut sorted = heights.clone();
        let outside = (1.0 - scaled(rng, share)) * sorted.len() as f32;
        let at = (outside as usize).min(sorted.len() - 1);
        let edge = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
        let softness = rng.random_range(softness) * unit;
        let heights = heights.into_iter().enumerate();
        heights
            .map(|(index, height)| (index, (0.5 + (height - edge) / softness).clamp(0.0, 1.0)))
            .filter(|(_, share)| *share > 0.0)
            .collect()
    }

    /// The pixels no farther than that from a place.
    fn around(&self, (x, y): (f32, f32), radius: f32) -> Within {
        let range = |at: f32, side: usize| {
            let low = (at - radius).max(0.0) as usize;
            low.min(side)..(((at + radius).max(0.0) as usize).saturating_add(2)).min(side)
        };
        Within {
            columns: range(x, self.planes.width_px),
            rows: range(y, self.planes.height_px),
        }
    }

    /// Those of some pixels that have a share.
    fn places(&self, within: Within, share: impl Fn(f32, f32) -> f32) -> Places {
        let width = self.planes.width_px;
        let Within { columns, rows } = within;
        rows.flat_map(|y| columns.clone().map(move |x| (x, y)))
            .map(|(x, y)| (y * width + x, share(x as f32, y as f32).clamp(0.0, 1.0)))
            .filter(|(_, share)| *share > 0.0)
            .collect()
    }

    /// A round or oval spot with a ragged edge.
    fn spot(&self, radius: Range<f32>, rng: &mut ChaCha8Rng) -> Places {
        let at = self.place(rng);
        self.spot_at(at, scaled(rng, radius), rng)
    }

    fn spot_at(&self, (x, y): (f32, f32), radius: f32, rng: &mut ChaCha8Rng) -> Places {
        let radius = radius * self.unit_px;
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let stretch = rng.random_range(-0.5f32..0.5).exp();
        let (ragged, seed) = (rng.random_range(0.2..0.8) * radius, rng.next_u32());
        let softness = rng.random_range(1.0..3.0);
        let farthest = (radius + ragged) * stretch.max(1.0 / stretch) + softness;
        self.places(self.around((x, y), farthest), |at_x, at_y| {
            let along = ((at_x - x) * cosine + (at_y - y) * sine) * stretch;
            let across = ((at_y - y) * cosine - (at_x - x) * sine) / stretch;
            let edge = radius + ragged * wave(at_x, at_y, radius, seed);
            0.5 + (edge - along.hypot(across)) / softness
        })
    }

    /// The direction along which the frame changes least, in radians from a row: that of its grain, if it has one.
    fn grain(&self) -> f32 {
        let (plane, width) = (self.planes.plane(0), self.planes.width_px);
        let [mut across, mut down, mut both] = [0.0; 3];
        for three in plane.windows(3 * width).step_by(width) {
            let (above, rest) = three.split_at(width);
            let (here, below) = rest.split_at(width);
            let beside = here.windows(3).zip(&above[1..]).zip(&below[1..]);
            for ((beside, above), below) in beside {
                let (x, y) = (beside[2] - beside[0], below - above);
                across += x * x;
                down += y * y;
                both += x * y;
            }
        }
        0.5 * (2.0 * both).atan2(across - down) + FRAC_PI_2
    }

    /// The direction of a line: any, or every other time along the grain, where it is hardest to see.
    fn direction(&self, rng: &mut ChaCha8Rng) -> f32 {
        if rng.random() {
            return rng.random_range(0.0..TAU);
        }
        let back = if rng.random() { PI } else { 0.0 };
        self.grain() + back + rng.random_range(-OFF_GRAIN..OFF_GRAIN)
    }

    /// A place near the border, and the direction from there to the inside, in radians from a row.
    fn near_border(&self, rng: &mut ChaCha8Rng) -> ((f32, f32), f32) {
        let [width, height] = self.size();
        let deep = rng.random_range(0.0..FROM_BORDER_PX) * self.unit_px;
        let along = rng.random_range(0.0..2.0 * (width + height));
        if along < 2.0 * width {
            let x = along / 2.0;
            match rng.random() {
                true => ((x, deep), FRAC_PI_2),
                false => ((x, height - deep), -FRAC_PI_2),
            }
        } else {
            let y = along / 2.0 - width;
            match rng.random() {
                true => ((deep, y), 0.0),
                false => ((width - deep, y), PI),
            }
        }
    }

    /// A straight line of even width.
    fn scratch(&self, rng: &mut ChaCha8Rng) -> Places {
        let unit = self.unit_px;
        let (x, y) = self.place(rng);
        let (sine, cosine) = (self.direction(rng) + FRAC_PI_2).sin_cos();
        let (half_width, half_length) = (
            scaled(rng, 0.6..4.0) * unit.max(1.0),
            scaled(rng, 10.0..90.0) * unit,
        );
        let (bend, seed) = (rng.random_range(0.0..2.0) * unit, rng.next_u32());
        let softness = rng.random_range(1.0..2.5) * unit.max(1.0);
        let farthest = half_length + half_width + bend + softness + 1.0;
        self.places(self.around((x, y), farthest), |at_x, at_y| {
            let across = (at_x - x) * cosine + (at_y - y) * sine;
            let along = (at_y - y) * cosine - (at_x - x) * sine;
            let off = (across + bend * wave(at_x, at_y, 40.0 * unit, seed)).abs();
            let share = |inside: f32| (0.5 + inside).clamp(0.0, 1.0);
            share((half_width - off) / softness) * share((half_length - along.abs()) / 4.0)
        })
    }

    /// What lies beyond a ragged line near the border, or a part of that.
    fn beside_the_border(&self, rng: &mut ChaCha8Rng) -> Places {
        let unit = self.unit_px;
        let [width, height] = self.size();
        let (sine, cosine) = rng.random_range(0.0..TAU).sin_cos();
        let out = rng.random_range(60.0..118.0) / SIDE_PX;
        let (x, y) = (width * (0.5 + out * cosine), height * (0.5 + out * sine));
        let aside = rng.random_range(-80.0..80.0) * unit;
        let (ragged_px, seed) = (scaled(rng, 6.0..28.0) * unit, rng.next_u32());
        let ragged = rng.random_range(4.0..16.0) * unit;
        let middle = (x - aside * sine, y + aside * cosine);
        let radius = scaled(rng, 20.0..90.0);
        let mut places = self.spot_at(middle, radius, rng);
        let columns = self.planes.width_px;
        for (index, share) in &mut places {
            let (at_x, at_y) = ((*index % columns) as f32, (*index / columns) as f32);
            let beyond = (at_x - x) * cosine + (at_y - y) * sine;
            let beyond = beyond + ragged * wave(at_x, at_y, ragged_px, seed);
            *share *= (0.5 + beyond / 2.0).clamp(0.0, 1.0);
        }
        places.retain(|(_, share)| *share > 0.0);
        places
    }

    /// A line that turns slowly, as sharp as a camera sees one: a line of hard edges would be known by these.
    fn crack(&self, rng: &mut ChaCha8Rng) -> Places {
        let unit = self.unit_px.max(1.0);
        // What is brittle cracks from its edges.
        let ((mut x, mut y), mut direction) = if rng.random_ratio(1, CRACK_AT_BORDER_ONE_IN) {
            let (at, inwards) = self.near_border(rng);
            (at, inwards + rng.random_range(-1.2..1.2))
        } else {
            (self.place(rng), self.direction(rng))
        };
        let turn = scaled(rng, 0.05..0.5);
        let (half_width, softness) = (
            scaled(rng, 0.4..1.5) * unit,
            rng.random_range(1.0..2.5) * unit,
        );
        let faint = rng.random_range(0.5..1.0);
        let length = scaled(rng, 8.0..120.0) * self.unit_px;
        let mut places = Vec::new();
        for _ in 0..length as usize {
            direction += rng.random_range(-turn..turn);
            let (sine, cosine) = direction.sin_cos();
            (x, y) = (x + cosine, y + sine);
            places.extend(
                self.places(self.around((x, y), half_width + softness), |at_x, at_y| {
                    let off = (at_x - x).hypot(at_y - y);
                    faint * (0.5 + (half_width - off) / softness).clamp(0.0, 1.0)
                }),
            );
        }
        // Each once, by its largest share, for a change is by shares.
        places.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then(other.total_cmp(one)));
        places.dedup_by_key(|(index, _)| *index);
        places
    }
}

impl Drawn {
    /// Changes these places, each by its share; `change` gets the value, its number among all planes' values, and where it is.
    fn change(&mut self, places: &[(usize, f32)], change: impl Fn(f32, usize, f32, f32) -> f32) {
        let (columns, area) = (self.planes.width_px, self.mask.len());
        for (channel, plane) in self.planes.data.chunks_exact_mut(area).enumerate() {
            for &(index, share) in places {
                let (x, y) = ((index % columns) as f32, (index / columns) as f32);
                let changed = change(plane[index], channel * area + index, x, y);
                plane[index] = towards(plane[index], changed, share);
            }
        }
        for &(index, share) in places {
            self.mask[index] = self.mask[index].max(share);
        }
    }

    /// Takes out of the mask what does not differ from before, nor has anything near that does.
    fn forget_what_is_as_before(&mut self, before: &Planes, near_px: usize) {
        let (columns, area) = (self.planes.width_px, self.mask.len());
        let mut differs = vec![false; area];
        let planes = self.planes.data.chunks_exact(area);
        for (new, old) in planes.zip(before.data.chunks_exact(area)) {
            for (differs, (new, old)) in differs.iter_mut().zip(new.iter().zip(old)) {
                *differs |= (new - old).abs() > LEAST_CHANGE;
            }
        }
        // Along rows, then along columns: what has one that differs so near before or after it.
        for (step, length) in [(1, columns), (columns, area / columns)] {
            let lines =
                (0..area / length).map(|line| if step == 1 { line * columns } else { line });
            for start in lines {
                let at = |place: usize| start + place * step;
                let line: Vec<bool> = (0..length).map(|place| differs[at(place)]).collect();
                let mut last = None;
                for place in 0..length {
                    last = if line[place] { Some(place) } else { last };
                    differs[at(place)] |= last.is_some_and(|last| place - last <= near_px);
                }
                let mut next = None;
                for place in (0..length).rev() {
                    next = if line[place] { Some(place) } else { next };
                    differs[at(place)] |= next.is_some_and(|next| next - place <= near_px);
                }
            }
        }
        for (share, differs) in self.mask.iter_mut().zip(differs) {
            if !differs {
                *share = 0.0;
            }
        }
    }
}

/// Every plane smoothed by a Gaussian.
fn blurred(planes: &Planes, sigma_px: f32) -> Vec<f32> {
    let post = PostProcessing {
        smooth_sigma_px: sigma_px,
        ..PostProcessing::default()
    };
    let smooth = |channel: usize| {
        let mut map = ScoreMap {
            width_px: planes.width_px,
            height_px: planes.height_px,
            data: planes.plane(channel).to_vec(),
        };
        map.post_process(&post);
        map.data
    };
    (0..planes.channels).flat_map(smooth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::generator;

    fn good(seed: u32, channels: usize) -> Good {
        let (width_px, height_px) = (96, 80);
        let area = width_px * height_px;
        let value = |index: usize| {
            let (x, y) = (
                (index % area % width_px) as f32,
                (index % area / width_px) as f32,
            );
            0.4 * wave(x, y, 2.0, seed) + 0.1 * wave(x, y, 50.0, seed + 1)
        };
        Good::new(Planes {
            channels,
            width_px,
            height_px,
            data: (0..channels * area).map(value).collect(),
        })
    }

    /// Standard deviation of what is finer than an area's brightness, where the mask holds.
    fn contrast(planes: &Planes, holds: impl Fn(usize) -> bool) -> f32 {
        let base = blurred(planes, 4.0);
        let off = planes.data.iter().zip(&base).enumerate();
        let off: Vec<f32> = off
            .filter(|(index, _)| holds(*index))
            .map(|(_, (value, base))| (value - base).powi(2))
            .collect();
        (off.iter().sum::<f32>() / off.len() as f32).sqrt()
    }

    #[test]
    fn what_is_drawn_lies_where_the_mask_says() {
        let (part, other) = (good(1, 3), good(7, 3));
        for (number, &kind) in Kind::AREAS
            .iter()
            .chain(&Kind::DEFECTS)
            .cycle()
            .take(60)
            .enumerate()
        {
            let mut rng = generator(number as u64, "drawn", 0);
            let drawn = part.drawn(&[kind], &other, &mut rng);
            let area = drawn.mask.len();
            let share = drawn.mask.iter().sum::<f32>() / area as f32;
            assert!(share < 0.5, "{kind:?}: {share}");
            assert!(drawn.mask.iter().all(|share| (0.0..=1.0).contains(share)));
            for (index, (new, old)) in drawn.planes.data.iter().zip(&part.planes.data).enumerate() {
                assert!((-1.0..=1.0).contains(new));
                // Outside it less than a grey value changes.
                let outside = drawn.mask[index % area] == 0.0;
                assert!(!outside || (new - old).abs() <= LEAST_CHANGE, "{kind:?}");
            }
        }
    }

    /// Among some drawings of each kind, how many change something, for a kind may lie beside the frame or be faint.
    #[test]
    fn each_kind_is_seen() {
        let (part, other) = (good(1, 1), good(7, 1));
        for kind in Kind::AREAS.into_iter().chain(Kind::DEFECTS) {
            let seen = (0..20).filter(|&seed| {
                let drawn = part.drawn(&[kind], &other, &mut generator(seed, "seen", 0));
                drawn.mask.iter().any(|share| *share > 0.3)
            });
            assert!(seen.count() > 12, "{kind:?}");
        }
    }

    #[test]
    fn every_other_line_runs_along_the_grain() {
        let (width_px, height_px) = (96, 80);
        for angle in [-1.2f32, -0.4, 0.0, 0.7, 1.5] {
            let (sine, cosine) = angle.sin_cos();
            let value = |index: usize| {
                let (x, y) = ((index % width_px) as f32, (index / width_px) as f32);
                0.5 * ((y * cosine - x * sine) * 0.9).sin()
            };
            let part = Good::new(Planes {
                channels: 1,
                width_px,
                height_px,
                data: (0..width_px * height_px).map(value).collect(),
            });
            let off = |direction: f32| (direction - angle).sin().abs().asin();
            assert!(off(part.grain()) < 0.05, "{angle}: {}", part.grain());
            let rng = &mut generator(3, "grain", 0);
            let along = (0..400).filter(|_| off(part.direction(rng)) <= OFF_GRAIN + 0.05);
            // Half of them, and 0.7 of 3.14 rad of the others.
            assert!((210..280).contains(&along.count()), "{angle}");
        }
    }

    #[test]
    fn what_begins_at_the_border_goes_inwards() {
        let part = good(1, 1);
        let [width, height] = part.size();
        let rng = &mut generator(5, "border", 0);
        let mut sides = [0; 4];
        for _ in 0..400 {
            let ((x, y), inwards) = part.near_border(rng);
            let off = [x, width - x, y, height - y];
            // Of 256 pixels; this part has 80.
            let deepest = FROM_BORDER_PX * height / SIDE_PX;
            let (sine, cosine) = inwards.sin_cos();
            let inner = [cosine, -cosine, sine, -sine];
            let side = (0..4).find(|&side| inner[side] > 0.9).unwrap();
            assert!((0.0..=deepest).contains(&off[side]), "{x}, {y}");
            assert!(off.iter().all(|off| *off >= 0.0), "{x}, {y}");
            sides[side] += 1;
        }
        // Each as often as it is long: 96 and 80 of 352, within four standard deviations.
        assert!(
            sides.iter().all(|count| (57..145).contains(count)),
            "{sides:?}"
        );
    }

    /// Lines drawn pixel by pixel have no places between inside and outside, and fewer shares than these have.
    #[test]
    fn lines_have_soft_edges_and_no_place_twice() {
        let part = good(1, 1);
        let mut seen = 0;
        for seed in 0..20 {
            let rng = &mut generator(seed, "lines", 0);
            for line in [part.crack(rng), part.scratch(rng)] {
                // Of one that leaves the frame at once there is a pixel, with no edge.
                if line.len() < 5 {
                    continue;
                }
                seen += 1;
                let most = line.iter().map(|(_, share)| *share).fold(0.0, f32::max);
                let between = line.iter().filter(|(_, share)| *share < 0.7 * most);
                assert!(5 * between.count() >= line.len(), "{line:?}");
                let places = line.iter().map(|(index, _)| index);
                let once = places.collect::<std::collections::HashSet<_>>();
                assert_eq!(once.len(), line.len());
            }
        }
        assert!(seen > 35, "{seen}");
    }

    #[test]
    fn what_does_not_differ_is_not_in_the_mask() {
        let part = good(2, 1);
        let mut drawn = Drawn {
            planes: part.planes.clone(),
            mask: vec![1.0; 96 * 80],
        };
        drawn.planes.data[40 * 96 + 50] += 0.1;
        drawn.forget_what_is_as_before(&part.planes, 2);
        for (index, share) in drawn.mask.iter().enumerate() {
            let (x, y) = (index % 96, index / 96);
            let near = x.abs_diff(50) <= 2 && y.abs_diff(40) <= 2;
            assert_eq!(*share == 1.0, near, "{x}, {y}");
        }
    }

    #[test]
    fn a_blurred_area_has_less_contrast_and_a_brighter_one_is_brighter() {
        let (part, other) = (good(3, 1), good(9, 1));
        for seed in 0..10 {
            let drawn = part.drawn(&[Kind::Blur], &other, &mut generator(seed, "blur", 0));
            let inside = |index: usize| drawn.mask[index] == 1.0;
            let [before, after] = [&part.planes, &drawn.planes].map(|p| contrast(p, inside));
            assert!(after < 0.95 * before, "{before} became {after}");
            let drawn = part.drawn(
                &[Kind::Brightness],
                &other,
                &mut generator(seed, "light", 0),
            );
            let pairs = drawn.planes.data.iter().zip(&part.planes.data);
            let changed = pairs.zip(&drawn.mask).filter(|(_, share)| **share == 1.0);
            let signs: Vec<bool> = changed.map(|((new, old), _)| new > old).collect();
            assert!(signs.iter().all(|sign| *sign == signs[0]));
        }
    }
}

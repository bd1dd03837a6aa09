//! Tiles cut on demand, because the 80,000 tiles of a run (paper, IV-F) would take 4 GB of memory.
//! In: sizes of frames. Out: positions of tiles, their order in each epoch, and the tiles.

use proto::manifest::TILE_PX;
use rand::RngExt;
use rand::seq::SliceRandom;
use scoring::inspect::frame::{Frame, Pixels};

use super::rarity::{CellAppearance, rarities};
use crate::noise::Tile;
use crate::seed::generator;

/// Least distance of a rare pixel from the edge of a tile that is drawn for it.
const MARGIN_PX: u32 = 8;

/// Where a tile is cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    frame: u32,
    x_px: u32,
    y_px: u32,
}

/// The positions of a run's tiles, and their order in each epoch.
#[derive(Debug, Clone)]
pub struct Coordinates {
    positions: Vec<Position>,
    seed: u64,
    batch: usize,
}

impl Coordinates {
    /// Draws `count` positions, at least `batch`, in frames of these widths and heights: a frame
    /// uniformly at random, then a position inside it. Frames must not be smaller than a tile,
    /// which [`prepare`](scoring::inspect::preprocess::prepare) ensures.
    pub fn draw(sizes_px: &[[u32; 2]], count: usize, batch: usize, seed: u64) -> Self {
        let mut rng = generator(seed, "tiles", 0);
        let positions = (0..count.max(batch))
            .map(|_| {
                let frame = rng.random_range(0..sizes_px.len());
                let [width_px, height_px] = sizes_px[frame];
                Position {
                    frame: frame as u32,
                    x_px: rng.random_range(0..=width_px - TILE_PX),
                    y_px: rng.random_range(0..=height_px - TILE_PX),
                }
            })
            .collect();
        Self {
            positions,
            seed,
            batch,
        }
    }

    /// Like [`Self::draw`], but this share of the positions (0 to 1) by how rare the frames' cells
    /// look: a cell in proportion to its rarity, and a tile that has it well inside.
    pub fn draw_rare(
        sizes_px: &[[u32; 2]],
        appearance: &[CellAppearance],
        share: f64,
        count: usize,
        batch: usize,
        seed: u64,
    ) -> Self {
        let mut all = Self::draw(sizes_px, count, batch, seed);
        let cells: Vec<(u32, u32, u32)> = (0..)
            .zip(appearance)
            .flat_map(|(frame, cells)| {
                let places = 0..cells.rows * cells.columns;
                places.map(move |at| (frame, at % cells.columns, at / cells.columns))
            })
            .collect();
        let mut sums = rarities(appearance);
        let mut sum = 0.0;
        for weight in &mut sums {
            sum += *weight;
            *weight = sum;
        }
        if sum <= 0.0 {
            return all;
        }
        let mut rng = generator(seed, "rare tiles", 0);
        let rare = (share * all.positions.len() as f64) as usize;
        for position in all.positions.iter_mut().take(rare) {
            let at = rng.random_range(0.0..sum);
            let at = sums
                .partition_point(|below| *below <= at)
                .min(cells.len() - 1);
            let (frame, column, row) = cells[at];
            let cell_px = appearance[frame as usize].cell_px;
            let mut along = |cell: u32, side_px: u32| {
                let pixel = cell * cell_px + rng.random_range(0..cell_px);
                let inside = rng.random_range(MARGIN_PX..TILE_PX - MARGIN_PX);
                pixel.saturating_sub(inside).min(side_px - TILE_PX)
            };
            let [width_px, height_px] = sizes_px[frame as usize];
            let (x_px, y_px) = (along(column, width_px), along(row, height_px));
            *position = Position { frame, x_px, y_px };
        }
        all
    }

    /// Iterations per epoch: as many whole batches as there are.
    pub fn iterations_per_epoch(&self) -> usize {
        self.positions.len() / self.batch
    }

    /// The order of the tiles in an epoch. They are taken without replacement (IV-F) until fewer
    /// than a batch are left, and then shuffled again (**ours**: the paper does not say).
    pub fn order(&self, epoch: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.positions.len() as u32).collect();
        order.shuffle(&mut generator(self.seed, "epoch", epoch as u64));
        order
    }

    /// Cuts tile number `index`.
    pub fn tile(&self, frames: &[Frame], index: u32) -> Tile {
        let position = self.positions[index as usize];
        let frame = &frames[position.frame as usize];
        cut_tile(frame, position.x_px, position.y_px)
    }

    /// Cuts tile number `index` from its frame, without scaling its values.
    pub(super) fn raw_tile(&self, frame: &Frame, index: u32) -> RawTile {
        let position = self.positions[index as usize];
        RawTile::cut(frame, position.x_px, position.y_px)
    }

    /// The numbers of the tiles of each of `frames` frames.
    pub(super) fn by_frame(&self, frames: usize) -> Vec<Vec<u32>> {
        let mut tiles = vec![Vec::new(); frames];
        for (index, position) in (0..).zip(&self.positions) {
            tiles[position.frame as usize].push(index);
        }
        tiles
    }

    /// Number of tiles.
    pub(super) fn count(&self) -> usize {
        self.positions.len()
    }

    /// Tiles per batch.
    pub fn batch(&self) -> usize {
        self.batch
    }
}

/// The values of a tile as the frame has them, row by row, plane after plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RawTile {
    /// 0 is black and 255 white.
    U8(Vec<u8>),
    /// 0 is black and 65,535 white.
    U16(Vec<u16>),
}

impl RawTile {
    fn cut(frame: &Frame, x_px: u32, y_px: u32) -> Self {
        match frame.pixels() {
            Pixels::U8(pixels) => Self::U8(planar(pixels, frame, x_px, y_px)),
            Pixels::U16(pixels) => Self::U16(planar(pixels, frame, x_px, y_px)),
        }
    }

    /// Scales the values to [-1, 1] (IV-A).
    pub(super) fn scaled(&self, channels: usize) -> Tile {
        let values = match self {
            Self::U8(values) => values.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect(),
            Self::U16(values) => values
                .iter()
                .map(|&v| f32::from(v) / 32767.5 - 1.0)
                .collect(),
        };
        Tile::new(TILE_PX as usize, channels, values)
    }
}

/// The pixels of the tile whose upper left corner is at (x, y), plane after plane.
fn planar<T: Copy>(pixels: &[T], frame: &Frame, x_px: u32, y_px: u32) -> Vec<T> {
    let side = TILE_PX as usize;
    let (channels, width) = (frame.channels().count(), frame.width_px() as usize);
    let mut values = Vec::with_capacity(channels * side * side);
    for channel in 0..channels {
        for y in y_px as usize..y_px as usize + side {
            let first = (y * width + x_px as usize) * channels + channel;
            let row = pixels[first..].iter().step_by(channels).take(side);
            values.extend(row.copied());
        }
    }
    values
}

/// Cuts the tile whose upper left corner is at (x, y), with values scaled to [-1, 1] (IV-A).
pub fn cut_tile(frame: &Frame, x_px: u32, y_px: u32) -> Tile {
    RawTile::cut(frame, x_px, y_px).scaled(frame.channels().count())
}

#[cfg(test)]
mod tests {
    use scoring::inspect::frame::Channels;

    use super::*;

    fn frame(width_px: u32, height_px: u32) -> Frame {
        let pixels = (0..width_px * height_px * 3)
            .map(|i| (i % 251) as u8)
            .collect();
        Frame::new(width_px, height_px, Channels::Rgb, Pixels::U8(pixels)).unwrap()
    }

    #[test]
    fn an_epoch_uses_every_tile_at_most_once() {
        let coordinates = Coordinates::draw(&[[80, 70], [65, 65]], 1_000, 64, 3);
        assert_eq!(coordinates.iterations_per_epoch(), 15);
        let mut order = coordinates.order(0);
        assert_ne!(order, coordinates.order(1));
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1_000));
    }

    #[test]
    fn rare_places_are_drawn_more_often_and_tiles_stay_inside() {
        // Of 20 even frames one has a dark corner.
        let frames: Vec<Frame> = (0..20)
            .map(|number| {
                let dark = |at: u32| number == 3 && at % 100 >= 80 && at / 100 >= 64;
                let pixels = (0..100 * 90).map(|at| match dark(at) {
                    true => 10,
                    false => 120 + (at * 7919 % 13) as u8,
                });
                Frame::new(100, 90, Channels::Grey, Pixels::U8(pixels.collect())).unwrap()
            })
            .collect();
        let sizes = vec![[100, 90]; 20];
        let appearance: Vec<CellAppearance> = frames.iter().map(CellAppearance::of).collect();
        let of_corner = |coordinates: &Coordinates| {
            let corner = |at: &&Position| at.frame == 3 && at.x_px + 65 > 80 && at.y_px + 65 > 64;
            coordinates.positions.iter().filter(corner).count()
        };
        let even = Coordinates::draw(&sizes, 2_000, 10, 5);
        let half = Coordinates::draw_rare(&sizes, &appearance, 0.5, 2_000, 10, 5);
        assert!(of_corner(&even) < 100, "{}", of_corner(&even));
        assert!(of_corner(&half) > 250, "{}", of_corner(&half));
        let inside = |at: &Position| at.x_px <= 35 && at.y_px <= 25;
        assert!(half.positions.iter().all(inside));
        // The other half is drawn as before.
        assert_eq!(even.positions[1_000..], half.positions[1_000..]);
    }

    #[test]
    fn a_tile_has_the_frames_pixels_at_its_position() {
        let frame = frame(100, 90);
        let tile = cut_tile(&frame, 7, 11);
        let Pixels::U8(pixels) = frame.pixels() else {
            panic!("made as 8 bit")
        };
        for (channel, x, y) in [(0, 0, 0), (1, 64, 3), (2, 5, 64)] {
            let raw = f32::from(pixels[((11 + y) * 100 + 7 + x) * 3 + channel]);
            let expected = raw / 255.0 * 2.0 - 1.0;
            assert!((tile.plane(channel)[y * 65 + x] - expected).abs() < 1e-6);
        }
    }
}

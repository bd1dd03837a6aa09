//! Contact sheets for people: what the noise does to tiles, and how the network repairs them.

use std::io::Cursor;

use colorous::INFERNO;
use image::{ImageError, ImageFormat, Rgb, RgbImage};
use proto::manifest::TILE_PX;

use crate::noise::{Algorithm, Corruption, Tile};
use crate::seed::generator;
use crate::train::Samples;

/// Space between tiles in pixels.
const GAP_PX: u32 = 3;
/// Background.
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// Encodes a picture as PNG.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// One row per algorithm, in the order of [`Algorithm::all`]: a good tile, then `draws` corruptions
/// of different tiles. There are no labels in the picture; the command prints them.
pub fn noise(tiles: &[Tile], draws: u32, seed: u64) -> RgbImage {
    let step = TILE_PX + GAP_PX;
    let rows = Algorithm::all().count() as u32;
    let mut sheet = RgbImage::from_pixel((draws + 1) * step + GAP_PX, rows * step + GAP_PX, PAPER);
    for (row, algorithm) in Algorithm::all().enumerate() {
        let mut rng = generator(seed, "sheet", row as u64);
        for column in 0..=draws {
            let mut tile = tiles[column.saturating_sub(1) as usize % tiles.len()].clone();
            if column > 0 {
                Corruption::draw(algorithm, &tile, &mut rng).apply(&mut tile);
            }
            let at = [GAP_PX + column * step, GAP_PX + row as u32 * step];
            paste(&mut sheet, tile.values(), tile.channels(), at);
        }
    }
    sheet
}

/// Tiles side by side, `columns` in a row.
pub fn tiles(tiles: &[Tile], columns: u32) -> RgbImage {
    let step = TILE_PX + GAP_PX;
    let rows = (tiles.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(columns * step + GAP_PX, rows * step + GAP_PX, PAPER);
    for (index, tile) in (0..).zip(tiles) {
        let at = [index % columns, index / columns].map(|place| GAP_PX + place * step);
        paste(&mut sheet, tile.values(), tile.channels(), at);
    }
    sheet
}

/// One row per tile: good, corrupted, repaired, and its scores (the brightest colour is 1).
pub fn samples(samples: &Samples) -> RgbImage {
    let step = TILE_PX + GAP_PX;
    let area = (TILE_PX * TILE_PX) as usize;
    let rows = samples.count as u32;
    let mut sheet = RgbImage::from_pixel(4 * step + GAP_PX, rows * step + GAP_PX, PAPER);
    for row in 0..samples.count {
        let y = GAP_PX + row as u32 * step;
        let images = [&samples.clean, &samples.noisy, &samples.repaired];
        for (column, values) in images.into_iter().enumerate() {
            let tile = &values[row * 3 * area..(row + 1) * 3 * area];
            paste(&mut sheet, tile, 3, [GAP_PX + column as u32 * step, y]);
        }
        for (index, score) in samples.scores[row * area..(row + 1) * area]
            .iter()
            .enumerate()
        {
            let colour = INFERNO.eval_continuous(f64::from(score.clamp(0.0, 1.0)));
            let (dx, dy) = (index as u32 % TILE_PX, index as u32 / TILE_PX);
            sheet.put_pixel(GAP_PX + 3 * step + dx, y + dy, Rgb(colour.into_array()));
        }
    }
    sheet
}

fn paste(sheet: &mut RgbImage, values: &[f32], channels: usize, [x, y]: [u32; 2]) {
    let area = (TILE_PX * TILE_PX) as usize;
    for index in 0..area {
        let value = |channel: usize| {
            let value = values[channel.min(channels - 1) * area + index];
            ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
        };
        let (dx, dy) = (index as u32 % TILE_PX, index as u32 / TILE_PX);
        sheet.put_pixel(x + dx, y + dy, Rgb([value(0), value(1), value(2)]));
    }
}

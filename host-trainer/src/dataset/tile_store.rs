//! The tiles of a run, from frames in memory or, where these would take too much of it, from a file.
//!
//! In: a training set and the positions of its tiles. Out: any tile, bit for bit the same whichever
//! way it is kept. The file has no name, so it is gone when the program ends, however it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proto::manifest::TILE_PX;
use scoring::inspect::frame::{Channels, Frame, Pixels};

use super::error::DatasetError;
use super::parallel::in_parallel;
use super::tiles::{Coordinates, RawTile};
use super::training::TrainingSet;
use crate::noise::Tile;

/// Where a run's tiles are.
#[derive(Debug)]
pub enum TileStore {
    /// In the frames that they are cut from.
    Frames(Vec<Frame>),
    /// Cut already.
    Cut(CutTiles),
}

/// Tiles in a file, one after the other.
#[derive(Debug)]
pub struct CutTiles {
    file: File,
    channels: usize,
    /// Whether values have 16 bits. Those of 8-bit frames are then scaled by 257, which changes no
    /// bit of the tile.
    deep: bool,
}

impl CutTiles {
    fn tile_bytes(&self) -> u64 {
        let side = u64::from(TILE_PX);
        side * side * self.channels as u64 * if self.deep { 2 } else { 1 }
    }

    fn write(&self, index: u32, tile: RawTile) -> io::Result<()> {
        let bytes = match tile {
            RawTile::U8(values) if self.deep => {
                let wide = values.into_iter().map(|value| u16::from(value) * 257);
                wide.flat_map(u16::to_le_bytes).collect()
            }
            RawTile::U8(values) => values,
            RawTile::U16(values) => values.into_iter().flat_map(u16::to_le_bytes).collect(),
        };
        self.file
            .write_all_at(&bytes, u64::from(index) * self.tile_bytes())
    }

    fn read(&self, index: u32) -> io::Result<Tile> {
        let mut bytes = vec![0; self.tile_bytes() as usize];
        self.file
            .read_exact_at(&mut bytes, u64::from(index) * self.tile_bytes())?;
        let raw = if self.deep {
            let (pairs, _) = bytes.as_chunks::<2>();
            RawTile::U16(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
        } else {
            RawTile::U8(bytes)
        };
        Ok(raw.scaled(self.channels))
    }
}

impl TileStore {
    /// Takes the frames of a set, or cuts its tiles into a file in `folder` if the set did not keep
    /// them. For that the images are read again, and must not have changed. `on_progress` gets the
    /// number of images done.
    pub fn new(
        set: TrainingSet,
        coordinates: &Coordinates,
        folder: &Path,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DatasetError> {
        let set = match set.frames {
            Some(frames) => return Ok(Self::Frames(frames)),
            None => set,
        };
        let written = |source| DatasetError::Tiles {
            folder: folder.to_owned(),
            source,
        };
        let cut = CutTiles {
            file: tempfile::tempfile_in(folder).map_err(written)?,
            channels: set.channels().count(),
            deep: set.images.iter().any(|image| image.deep),
        };
        let count = coordinates.count() as u64;
        cut.file
            .set_len(count * cut.tile_bytes())
            .map_err(written)?;
        let wanted = coordinates.by_frame(set.images.len());
        let work = |index: usize, wanted: &Vec<u32>| {
            let frame = set.read_again(&set.images[index])?;
            for &tile in wanted {
                cut.write(tile, coordinates.raw_tile(&frame, tile))
                    .map_err(written)?;
            }
            Ok(())
        };
        in_parallel(&wanted, on_progress, work)
            .into_iter()
            .collect::<Result<(), DatasetError>>()?;
        Ok(Self::Cut(cut))
    }

    /// Tile number `index`.
    pub fn tile(&self, coordinates: &Coordinates, index: u32) -> io::Result<Tile> {
        match self {
            Self::Frames(frames) => Ok(coordinates.tile(frames, index)),
            Self::Cut(cut) => cut.read(index),
        }
    }
}

/// Bytes that a frame's values take in memory.
pub(super) fn frame_bytes(frame: &Frame) -> usize {
    match frame.pixels() {
        Pixels::U8(values) => values.len(),
        Pixels::U16(values) => 2 * values.len(),
    }
}

impl TrainingSet {
    fn channels(&self) -> Channels {
        match self.input.colour {
            proto::manifest::ColourMode::Grey => Channels::Grey,
            proto::manifest::ColourMode::Rgb => Channels::Rgb,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage};
    use proto::manifest::{InputSize, Reading};

    use super::*;
    use crate::dataset::{Colour, Kept};

    /// Four images: grey and colour, of 8 and 16 bits, of different sizes.
    fn images(folder: &Path) -> Vec<PathBuf> {
        let grey = GrayImage::from_fn(90, 70, |x, y| Luma([(x * 7 + y * 3) as u8]));
        let colour = RgbImage::from_fn(80, 100, |x, y| {
            image::Rgb([(x * 5) as u8, (y * 9) as u8, (x * y) as u8])
        });
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> =
            ImageBuffer::from_fn(70, 66, |x, y| Luma([(x * 911 + y * 77) as u16]));
        let all: [DynamicImage; 4] = [grey.clone().into(), colour.into(), deep.into(), grey.into()];
        let saved = all.into_iter().enumerate().map(|(index, mut image)| {
            if index == 3 {
                image.invert();
            }
            let path = folder.join(format!("{index}.png"));
            image.save(&path).unwrap();
            path
        });
        saved.collect()
    }

    fn load(files: &[PathBuf], most_bytes: usize) -> TrainingSet {
        let native = InputSize::Native;
        let reading = Reading::default();
        TrainingSet::load_within(
            files,
            native,
            Colour::Auto,
            reading,
            Kept {
                most_bytes,
                appearance: false,
            },
            &mut |_| {},
        )
        .unwrap()
    }

    #[test]
    fn tiles_in_a_file_are_those_of_frames_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let all = images(folder.path());
        for files in [&all[..], &all[..1], &[all[0].clone(), all[3].clone()]] {
            let (kept, left) = (load(files, usize::MAX), load(files, 10_000));
            if files.len() > 1 {
                assert!(kept.frames.is_some() && left.frames.is_none());
            }
            assert_eq!((kept.input, &kept.images), (left.input, &left.images));
            let coordinates = Coordinates::draw(&kept.sizes(), 200, 8, 7);
            let store =
                |set| TileStore::new(set, &coordinates, folder.path(), &mut |_| {}).unwrap();
            let (in_memory, in_file) = (store(kept), store(left));
            for index in 0..200 {
                let tile = in_memory.tile(&coordinates, index).unwrap();
                let cut = in_file.tile(&coordinates, index).unwrap();
                assert_eq!(tile.values(), cut.values(), "tile {index}");
            }
        }
        let left_behind = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left_behind, 4, "only the images");
    }

    #[test]
    fn an_image_that_changes_while_tiles_are_cut_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = images(folder.path());
        let set = load(&files, 0);
        let coordinates = Coordinates::draw(&set.sizes(), 50, 8, 7);
        std::fs::copy(&files[3], &files[0]).unwrap();
        let error = TileStore::new(set, &coordinates, folder.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("0.png has changed"), "{error}");
    }
}

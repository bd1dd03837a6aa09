//! Looks at every image of a set before it is used: which can be read, and whether together they
//! suit training and measuring. In: files. Out: facts of each image, the account, and what looks
//! wrong with the set.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use proto::manifest::{InputSize, Reading, TILE_PX};
use scoring::inspect::frame::{Channels, Pixels};
use scoring::io::account::counted;
use scoring::io::decode::{DecodeError, Orientation, Picture};
use scoring::io::image_file::{ImageFileError, read_picture_as};
use scoring::io::text::path_text;
use scoring::io::values::{ValueRange, is_grey};

use super::account::{Account, named};
use super::error::{DatasetError, without_path};
use super::parallel::in_parallel;
use super::pixel_digest::pixel_digest;
use super::training::{Colour, Skipped};

/// Fraction of images, in percent, that may be unreadable before the set is refused.
pub(super) const MOST_UNREADABLE_PERCENT: usize = 10;
/// Difference of values within an image, in 255ths of white, up to which it is even: rounding.
const EVEN: u32 = 2;
/// Values near black and near white, in 255ths of white.
const NEARLY_BLACK: u32 = 5;
const NEARLY_WHITE: u32 = 250;

/// What was found out about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Width in pixels, as it is shown.
    pub width_px: u32,
    /// Height in pixels, as it is shown.
    pub height_px: u32,
    /// Whether it shows colours, and not only grey stored as colour.
    pub coloured: bool,
    /// Range of its values, if these have 16 bits.
    pub deep: Option<ValueRange>,
    /// Least and greatest value of each channel.
    ranges: Vec<[u16; 2]>,
    /// Digest of its pixels.
    pub pixels: [u8; 32],
    /// Whether it was turned as its file says.
    pub turned: bool,
    /// Whether its file says that it is turned, and it was not: the package reads files as stored.
    pub left_turned: bool,
}

impl ImageFacts {
    fn of(picture: &Picture) -> Self {
        let frame = &picture.frame;
        let stated = picture.orientation != Orientation::NoTransforms;
        let deep = ValueRange::of(frame);
        let channels = frame.channels().count();
        let ranges = match frame.pixels() {
            Pixels::U8(values) => ranges(values, channels),
            Pixels::U16(values) => ranges(values, channels),
        };
        Self {
            width_px: frame.width_px(),
            height_px: frame.height_px(),
            coloured: frame.channels() == Channels::Rgb && !is_grey(frame),
            deep,
            ranges,
            pixels: pixel_digest(frame),
            turned: stated && picture.oriented,
            left_turned: stated && !picture.oriented,
        }
    }

    /// The image in a word if there is nothing to see in it. `bits` are those of 16-bit values.
    fn blank(&self, bits: u8) -> Option<&'static str> {
        let full = match self.deep {
            Some(_) => u32::from(u16::MAX >> (16 - bits.clamp(8, 16))),
            None => 255,
        };
        let level = |value: u16| u32::from(value) * 255 / full;
        let all = |accepted: &dyn Fn(u32, u32) -> bool| {
            let mut ranges = self.ranges.iter();
            ranges.all(|[least, greatest]| accepted(level(*least), level(*greatest)))
        };
        if all(&|_, greatest| greatest <= NEARLY_BLACK) {
            Some("black")
        } else if all(&|least, _| least >= NEARLY_WHITE) {
            Some("white")
        } else if all(&|least, greatest| greatest - least <= EVEN) {
            Some("even")
        } else {
            None
        }
    }
}

fn ranges<T: Copy + Into<u16>>(values: &[T], channels: usize) -> Vec<[u16; 2]> {
    let mut ranges = vec![[u16::MAX, 0]; channels];
    for pixel in values.chunks_exact(channels) {
        for (range, value) in ranges.iter_mut().zip(pixel) {
            let value: u16 = (*value).into();
            *range = [range[0].min(value), range[1].max(value)];
        }
    }
    ranges
}

/// An image that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// The file.
    pub file: PathBuf,
    /// What was found out about it.
    pub facts: ImageFacts,
}

/// What was found out about a set of images.
#[derive(Debug, Default)]
pub struct Survey {
    /// The images that can be used, in the order of the files.
    pub images: Vec<Surveyed>,
    /// Those that cannot be read.
    pub unreadable: Vec<Skipped>,
    /// Those that are smaller than a tile.
    pub too_small: Vec<Skipped>,
    /// Pages of files that have several, which are not read.
    pub pages_ignored: usize,
}

/// Why an image cannot be used.
enum Fault {
    Unreadable(String, usize),
    TooSmall(String),
}

impl Survey {
    /// Reads all `files` as `reading` says, for scoring at this size. `on_progress` gets the number
    /// of files done.
    pub fn of(
        files: &[PathBuf],
        size: InputSize,
        reading: &Reading,
        on_progress: &mut dyn FnMut(usize),
    ) -> Self {
        let found = in_parallel(files, on_progress, |_, file| look_at(file, size, reading));
        let mut survey = Self::default();
        for (file, found) in files.iter().cloned().zip(found) {
            match found {
                Ok(facts) => survey.images.push(Surveyed { file, facts }),
                Err(Fault::TooSmall(reason)) => survey.too_small.push(Skipped { file, reason }),
                Err(Fault::Unreadable(reason, pages)) => {
                    survey.pages_ignored += pages;
                    survey.unreadable.push(Skipped { file, reason });
                }
            }
        }
        survey
    }

    /// The files that can be used.
    pub fn files(&self) -> Vec<PathBuf> {
        self.images.iter().map(|image| image.file.clone()).collect()
    }

    /// Adds the images to an account. An error if none can be used, or if too many cannot be read
    /// and `allow_unreadable` does not say that this is known.
    pub fn account(
        &self,
        account: &mut Account,
        allow_unreadable: bool,
    ) -> Result<(), DatasetError> {
        for skipped in &self.unreadable {
            account.images.unreadable(&skipped.file, &skipped.reason);
        }
        for skipped in &self.too_small {
            account.images.too_small(&skipped.file, &skipped.reason);
        }
        account.images.pages_ignored += self.pages_ignored;
        account.images.used = self.images.len();
        let turned = self.images.iter().filter(|image| image.facts.turned);
        account.images.orientation_applied = turned.count();
        account.images.copies = self.copies().len();
        let left = self.names(|facts| facts.left_turned);
        if !left.is_empty() {
            account.warn(format!(
                "{} whose files say that they are turned ({}) are used as they are stored: the \
                 package was made so",
                counted(left.len(), "image"),
                named(&left)
            ));
        }
        let count = self.images.len() + self.unreadable.len() + self.too_small.len();
        let first = |skipped: &[Skipped]| skipped.first().map(Skipped::in_words);
        if self.images.is_empty() {
            let first = first(&self.unreadable).or_else(|| first(&self.too_small));
            return Err(DatasetError::NothingLeft {
                count,
                first: first.unwrap_or_default(),
            });
        }
        let too_many = self.unreadable.len() * 100 > count * MOST_UNREADABLE_PERCENT;
        match first(&self.unreadable) {
            Some(first) if too_many && !allow_unreadable => Err(DatasetError::Unreadable {
                unreadable: self.unreadable.len(),
                count,
                first,
            }),
            _ => Ok(()),
        }
    }

    /// Each image whose pixels are those of one before it, with that one.
    pub fn copies(&self) -> Vec<(&Path, &Path)> {
        let mut originals: HashMap<[u8; 32], &Path> = HashMap::new();
        let mut copies = Vec::new();
        for image in &self.images {
            match originals.get(&image.facts.pixels) {
                Some(original) => copies.push((image.file.as_path(), *original)),
                None => {
                    originals.insert(image.facts.pixels, &image.file);
                }
            }
        }
        copies
    }

    /// The bits that values of 16-bit files have, or `None` if there are no such files.
    pub fn bits(&self) -> Option<u8> {
        let ranges = self.images.iter().filter_map(|image| image.facts.deep);
        let range = ranges.reduce(ValueRange::union)?;
        Some(range.likely_bits().unwrap_or(16))
    }

    /// The colour to handle the images in: what is wanted; grey if fewer than half of them show
    /// colours, and otherwise colour. A few colour files among grey ones do not turn the set.
    pub fn colour(&self, wanted: Colour, account: &mut Account) -> Colour {
        let coloured = self.names(|facts| facts.coloured);
        let grey = self.images.len() - coloured.len();
        if wanted != Colour::Auto {
            return wanted;
        }
        if 2 * coloured.len() < self.images.len() {
            if !coloured.is_empty() {
                account.warn(format!(
                    "{} of {} are in colour ({}): all are taken as grey; --colour rgb takes all as \
                     colour",
                    coloured.len(),
                    counted(self.images.len(), "image"),
                    named(&coloured)
                ));
            }
            return Colour::Grey;
        }
        if grey > 0 {
            account.warn(format!(
                "{grey} of {} are grey ({}) and the others in colour: all are taken as colour",
                counted(self.images.len(), "image"),
                named(&self.names(|facts| !facts.coloured))
            ));
        }
        Colour::Rgb
    }

    /// Checks that the images suit training, with 16-bit values of `bits` bits. Adds a warning for
    /// what makes the result say less; an error if there is nothing to learn from.
    pub fn check_suitable(&self, bits: u8, account: &mut Account) -> Result<(), DatasetError> {
        self.check_blank(bits, account)?;
        let copies = self.copies();
        let different = self.images.len() - copies.len();
        if let Some((copy, original)) = copies.first() {
            account.warn(format!(
                "{} with the pixels of another ({} as {}): {} is the number of parts",
                counted(copies.len(), "image"),
                path_text(copy),
                path_text(original),
                different
            ));
        }
        self.check_sizes(account);
        let shallow = self.names(|facts| facts.deep.is_none());
        let deep = self.images.len() - shallow.len();
        if deep > 0 && !shallow.is_empty() {
            account.warn(format!(
                "{} of 8 bits ({}) and {deep} of 16 bits: a camera has one depth",
                counted(shallow.len(), "image"),
                named(&shallow)
            ));
        }
        Ok(())
    }

    fn check_blank(&self, bits: u8, account: &mut Account) -> Result<(), DatasetError> {
        let mut blank: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for image in &self.images {
            if let Some(how) = image.facts.blank(bits) {
                blank.entry(how).or_default().push(path_text(&image.file));
            }
        }
        let count: usize = blank.values().map(Vec::len).sum();
        let kinds: Vec<&str> = blank.keys().copied().collect();
        if count > 0 && count == self.images.len() {
            return Err(DatasetError::Unsuitable(format!(
                "all {} are {}: there is nothing to see in them (lens cap, exposure, or another \
                 number of --bits?)",
                counted(count, "image"),
                kinds.join(" or ")
            )));
        }
        for (how, names) in blank {
            account.warn(format!(
                "{} {how} all over: {}",
                counted(names.len(), "image"),
                named(&names)
            ));
        }
        Ok(())
    }

    /// Median width and height; `None` without images.
    pub fn usual_size(&self) -> Option<[u32; 2]> {
        let median = |side: fn(&ImageFacts) -> u32| {
            let mut sides: Vec<u32> = self.images.iter().map(|image| side(&image.facts)).collect();
            sides.sort_unstable();
            sides.get(sides.len() / 2).copied()
        };
        Some([
            median(|facts| facts.width_px)?,
            median(|facts| facts.height_px)?,
        ])
    }

    /// Warns of images of other sizes than the most common one.
    fn check_sizes(&self, account: &mut Account) {
        let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for image in &self.images {
            let size = (image.facts.width_px, image.facts.height_px);
            *sizes.entry(size).or_default() += 1;
        }
        let Some((&(width, height), _)) = sizes.iter().max_by_key(|(_, count)| **count) else {
            return;
        };
        let turned = |facts: &ImageFacts| {
            width != height && (facts.width_px, facts.height_px) == (height, width)
        };
        let across = self.names(turned);
        if !across.is_empty() {
            account.warn(format!(
                "{} of {height}×{width} px among those of {width}×{height} px ({}): turned?",
                counted(across.len(), "image"),
                named(&across)
            ));
        }
        let other = self
            .names(|facts| (facts.width_px, facts.height_px) != (width, height) && !turned(facts));
        if !other.is_empty() {
            account.warn(format!(
                "images of {} sizes: the most common is {width}×{height} px, unlike {}; a camera has \
                 one size",
                sizes.len(),
                named(&other)
            ));
        }
    }

    fn names(&self, wanted: impl Fn(&ImageFacts) -> bool) -> Vec<String> {
        let images = self.images.iter().filter(|image| wanted(&image.facts));
        images.map(|image| path_text(&image.file)).collect()
    }
}

fn look_at(file: &Path, size: InputSize, reading: &Reading) -> Result<ImageFacts, Fault> {
    // The values as they are in the file, because their range tells how many bits they have.
    let unscaled = Reading {
        bits: 16,
        ..*reading
    };
    let picture = read_picture_as(file, &unscaled).map_err(|error| {
        let pages = match &error {
            ImageFileError::Decode {
                source: DecodeError::Pages { pages, .. },
                ..
            } => *pages as usize,
            _ => 0,
        };
        Fault::Unreadable(without_path(&error), pages)
    })?;
    let greatest = u16::MAX >> (16 - reading.bits.clamp(8, 16));
    if let Some(range) = ValueRange::of(&picture.frame).filter(|range| range.greatest > greatest) {
        let reason = format!(
            "expected values of {} bits, 0 to {greatest}, found {}",
            reading.bits, range.greatest
        );
        return Err(Fault::Unreadable(reason, 0));
    }
    let (width_px, height_px) = (picture.frame.width_px(), picture.frame.height_px());
    if size == InputSize::Native && width_px.min(height_px) < TILE_PX {
        return Err(Fault::TooSmall(format!(
            "expected at least {TILE_PX}×{TILE_PX} px to score, found {width_px}×{height_px}"
        )));
    }
    Ok(ImageFacts::of(&picture))
}

#[cfg(test)]
mod tests;

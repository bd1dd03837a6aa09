//! Reads ground-truth masks. In: the files of an image's mask. Out: which pixels are defects, and
//! what the file's values were taken to mean.
//!
//! MVTec AD's convention is 0 and 255. Other programs write 0 and 1, one colour a kind of defect, a
//! transparent background, 16 bits, or JPEG with blurred edges. What can mean one thing only is
//! read; everything else is refused, because a mask that is misread makes every figure wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use scoring::inspect::frame::{Channels, Pixels};
use scoring::io::decode::{Picture, PictureFormat};
use scoring::io::image_file::read_picture;

use super::error::{DatasetError, without_path};

/// Most different values, or colours, that are taken for labels. More are blurred edges.
const MOST_LABELS: usize = 32;
/// Fraction of an image above which its mask marks nearly everything: either good pixels and
/// defects are exchanged, or the mask says little.
const NEARLY_ALL: f64 = 0.75;

/// The defects of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// `true` for defects, row-major.
    pub defects: Vec<bool>,
    /// What the values were taken to mean, unless they are 0 and white.
    pub convention: Option<String>,
}

impl Mask {
    /// Reads the mask in these files: the union of their defects. `inverted` exchanges defects and
    /// good pixels of each. Errors: a file cannot be read, its values could mean several things, or
    /// the files differ in size.
    pub fn read(files: &[PathBuf], inverted: bool) -> Result<Self, DatasetError> {
        let mut union: Option<Self> = None;
        for file in files {
            let wrong = |reason| DatasetError::Mask {
                path: file.clone(),
                reason,
            };
            let picture = read_picture(file).map_err(|error| wrong(without_path(&error)))?;
            let mut mask = Self::of(&Values::of(&picture)).map_err(wrong)?;
            if inverted {
                mask.defects
                    .iter_mut()
                    .for_each(|defect| *defect = !*defect);
            }
            union = Some(match union {
                None => mask,
                Some(union) => union.with(mask).map_err(wrong)?,
            });
        }
        union.ok_or_else(|| DatasetError::Mask {
            path: PathBuf::new(),
            reason: "expected a file, found none".to_owned(),
        })
    }

    /// The mask that these values mean.
    fn of(values: &Values) -> Result<Self, String> {
        let Marks {
            defects,
            convention,
        } = marks(values)?;
        Ok(Self {
            width_px: values.width_px,
            height_px: values.height_px,
            defects,
            convention,
        })
    }

    /// The union with another mask of the same size.
    fn with(mut self, other: Self) -> Result<Self, String> {
        other.check_size(
            self.width_px,
            self.height_px,
            "the other masks of its image",
        )?;
        for (own, other) in self.defects.iter_mut().zip(other.defects) {
            *own |= other;
        }
        self.convention = self.convention.or(other.convention);
        Ok(self)
    }

    /// Checks that it has this size, that of `what`.
    pub(super) fn check_size(&self, width: u32, height: u32, what: &str) -> Result<(), String> {
        let found = (self.width_px, self.height_px);
        if found == (width, height) {
            return Ok(());
        }
        let (own_width, own_height) = found;
        let hint = if found == (height, width) {
            ": one of them is turned"
        } else {
            ""
        };
        Err(format!(
            "expected {width}×{height} px like {what}, found {own_width}×{own_height}{hint}"
        ))
    }

    /// Fraction of its pixels that are defects.
    pub(super) fn marked(&self) -> f64 {
        let marked = self.defects.iter().filter(|defect| **defect).count();
        marked as f64 / self.defects.len().max(1) as f64
    }

    /// Whether it marks nearly everything.
    pub(super) fn marks_nearly_everything(&self) -> bool {
        self.marked() > NEARLY_ALL
    }
}

/// A picture's values as they are stored, widened to 16 bits without scaling: they may be labels.
struct Values {
    width_px: u32,
    height_px: u32,
    /// Red, green and blue of each pixel, row-major; three times the same for grey.
    colours: Vec<[u16; 3]>,
    /// Opacity of each pixel and its type's highest value, if the file has it.
    alpha: Option<(Vec<u16>, u16)>,
    /// The type's highest value: 255 or 65535.
    full: u16,
    /// Whether the file's compression changes values.
    lossy: bool,
}

impl Values {
    fn of(picture: &Picture) -> Self {
        let wide = |pixels: &Pixels| -> Vec<u16> {
            match pixels {
                Pixels::U8(values) => values.iter().copied().map(u16::from).collect(),
                Pixels::U16(values) => values.clone(),
            }
        };
        let full = |pixels: &Pixels| match pixels {
            Pixels::U8(_) => 255,
            Pixels::U16(_) => u16::MAX,
        };
        let frame = &picture.frame;
        let values = wide(frame.pixels());
        Self {
            width_px: frame.width_px(),
            height_px: frame.height_px(),
            colours: match frame.channels() {
                Channels::Grey => values.into_iter().map(|value| [value; 3]).collect(),
                Channels::Rgb => values.as_chunks::<3>().0.to_vec(),
            },
            alpha: picture
                .alpha
                .as_ref()
                .map(|alpha| (wide(alpha), full(alpha))),
            full: full(frame.pixels()),
            lossy: picture.format == PictureFormat::Jpeg,
        }
    }
}

/// Which pixels are defects, and what the values were taken to mean.
struct Marks {
    defects: Vec<bool>,
    convention: Option<String>,
}

/// Finds the defects by colour or by transparency.
fn marks(values: &Values) -> Result<Marks, String> {
    let Some((alpha, opaque)) = values.alpha.as_ref().filter(|(alpha, _)| varies(alpha)) else {
        return colour_marks(values, &values.colours);
    };
    let by_alpha =
        grey_marks(values, alpha, *opaque).map_err(|reason| format!("transparency: {reason}"))?;
    let colours = &values.colours;
    let visible: Vec<[u16; 3]> = colours
        .iter()
        .zip(alpha)
        .filter(|(_, alpha)| **alpha > 0)
        .map(|(colour, _)| *colour)
        .collect();
    let convention = Some("a transparent background".to_owned());
    if !varies(&visible) {
        return Ok(Marks {
            convention,
            ..by_alpha
        });
    }
    // What is transparent has no colour: it counts as black.
    let over_black: Vec<[u16; 3]> = colours
        .iter()
        .zip(alpha)
        .map(|(colour, alpha)| if *alpha > 0 { *colour } else { [0; 3] })
        .collect();
    let by_colour = colour_marks(values, &over_black)?;
    if by_colour.defects == by_alpha.defects {
        return Ok(Marks {
            convention,
            ..by_alpha
        });
    }
    Err("its transparency marks other pixels than its colours: save it without transparency".into())
}

fn varies<T: PartialEq>(values: &[T]) -> bool {
    values.windows(2).any(|pair| pair[0] != pair[1])
}

/// Finds the defects by colour: what is not black.
fn colour_marks(values: &Values, colours: &[[u16; 3]]) -> Result<Marks, String> {
    let brightest: Vec<u16> = colours
        .iter()
        .map(|colour| colour.iter().copied().max().unwrap_or(0))
        .collect();
    if colours.iter().all(|[r, g, b]| r == g && g == b) {
        return grey_marks(values, &brightest, values.full);
    }
    let mut different = colours.to_vec();
    different.sort_unstable();
    different.dedup();
    if different.len() > MOST_LABELS {
        return grey_marks(values, &brightest, values.full);
    }
    if different.first() != Some(&[0; 3]) {
        return Err(format!(
            "{} colours, none of them black: expected black where nothing is wrong",
            different.len()
        ));
    }
    Ok(Marks {
        defects: brightest.iter().map(|value| *value > 0).collect(),
        convention: Some(match different.as_slice() {
            [_, [r, g, b]] => format!("colour {r},{g},{b} on black"),
            more => format!("{} colours on black", more.len() - 1),
        }),
    })
}

/// Finds the defects by brightness. `full` is white of the file's type.
fn grey_marks(values: &Values, grey: &[u16], full: u16) -> Result<Marks, String> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for &value in grey {
        *counts.entry(value).or_default() += 1;
    }
    let different: Vec<u16> = counts.keys().copied().collect();
    let above = |level: u16| grey.iter().map(|value| *value > level).collect();
    let expected = "expected 0 where nothing is wrong and 255 for defects";
    let (least, most) = match different.as_slice() {
        [] | [0] => (0, 0),
        &[one] => (0, one),
        &[low, high] => {
            let ends =
                u32::from(low) * 4 <= u32::from(full) && u32::from(high) * 4 >= 3 * u32::from(full);
            if low > 0 && !ends {
                return Err(format!("its two values are {low} and {high}: {expected}"));
            }
            (low, high)
        }
        &[low, .., high] => return many_greys(values, grey, &counts, low, high, full),
    };
    let usual = least == 0 && (most == 0 || most == full);
    Ok(Marks {
        defects: above(least),
        convention: (!usual).then(|| format!("values {least} and {most}")),
    })
}

/// Finds the defects in a mask of more than two greys, from `low` to `high`.
fn many_greys(
    values: &Values,
    grey: &[u16],
    counts: &BTreeMap<u16, usize>,
    low: u16,
    high: u16,
    full: u16,
) -> Result<Marks, String> {
    // A file of 16 bits may hold values of fewer.
    let depths = [0xff, 0x3ff, 0xfff, 0x3fff, 0xffff];
    let full = depths
        .into_iter()
        .find(|depth| high <= *depth)
        .unwrap_or(full);
    let (half, quarter) = (full / 2, full / 4);
    let few = counts.len() <= MOST_LABELS;
    let expected = "expected 0 where nothing is wrong and 255 for defects";
    if high <= half {
        if low > 0 || !few {
            return Err(format!(
                "values from {low} to {high}, none in the upper half of {full}: {expected}"
            ));
        }
        return Ok(Marks {
            defects: grey.iter().map(|value| *value > 0).collect(),
            convention: Some(format!("labels, the highest {high}")),
        });
    }
    if low > quarter {
        return Err(format!("no value below {low} of {full}: {expected}"));
    }
    let between = counts.range(quarter + 1..full - quarter);
    let between: usize = between.map(|(_, count)| *count).sum();
    if between * 5 > grey.len() {
        return Err(format!(
            "grey values like those of a photograph: {expected}"
        ));
    }
    // A whole area of a value in the lower half is no blurred edge: it may be a defect of another
    // kind, or a place to ignore. Compression leaves such areas too, of many different values.
    if !values.lossy
        && few
        && let Some(value) = plateau(grey, values.width_px as usize, low + 1..=half)
    {
        return Err(format!(
            "an area of value {value} beside {low} and {high}, which may be a defect or not: \
             {expected}"
        ));
    }
    Ok(Marks {
        defects: grey.iter().map(|value| *value > half).collect(),
        convention: Some("grey values, defects in the upper half".to_owned()),
    })
}

/// A value of this range that fills a square of three by three pixels.
fn plateau(grey: &[u16], width: usize, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
    let rows: Vec<&[u16]> = grey.chunks_exact(width.max(1)).collect();
    let squares = rows.windows(3).flat_map(|rows| {
        (0..width.saturating_sub(2)).map(move |x| [0, 1, 2].map(|row: usize| &rows[row][x..x + 3]))
    });
    let mut even = squares.filter_map(|square| {
        let value = square[0][0];
        let same = square
            .iter()
            .all(|row| row.iter().all(|other| *other == value));
        same.then_some(value)
    });
    even.find(|value| range.contains(value))
}

#[cfg(test)]
mod tests;

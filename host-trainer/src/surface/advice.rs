//! Settings that suit a surface, each with its reason. Pure rules on what was measured.

use std::ops::RangeInclusive;

use super::measure::Surface;
use crate::variation::least_frames;

/// A setting that suits a surface, and why.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Advice {
    /// The option, without dashes.
    pub option: &'static str,
    /// Its value; empty for one that takes none.
    pub value: String,
    /// The reason.
    pub why: String,
}

impl Advice {
    /// The setting as an argument of the command line.
    pub fn argument(&self) -> String {
        format!("--{} {}", self.option, self.value)
            .trim_end()
            .to_owned()
    }
}

/// Correlation lengths, in pixels at the training size, at which a texture's elements are neither
/// lost nor larger than the network's field of view (14 px to each side).
const GRAIN_PX: RangeInclusive<f32> = 0.5..=6.0;
/// Correlation length to aim at if it is outside of that range.
const GOOD_GRAIN_PX: f32 = 1.0;
/// Side of the paper's images (IV-A).
const SIDE_PX: f32 = 256.0;
/// Roots of width over height at which images count as square, the shape of the paper's. Others
/// keep their shape, or they would lose detail in one direction.
pub const SQUARE: RangeInclusive<f32> = 0.975..=1.025;
/// Sides that are recommended at all.
const SIDES_PX: RangeInclusive<f32> = 96.0..=1024.0;
/// Pixels that a defect needs to be found.
const RESOLVED_PX: f32 = 4.0;
/// A surface is grey if its channels differ by less, of 255.
const COLOURFUL: f32 = 6.0;
/// Fewer good images than this show too little of how lighting varies.
const FEW_IMAGES: usize = 20;
/// Share of the tiles to draw by how rare they look.
const RARE: f64 = 0.5;
/// Fraction of the good images to hold out of training, if there are enough.
const HOLD_OUT: f64 = 0.2;
/// Correlation of thumbnails from which on each place has an appearance of its own.
pub(super) const FIXED_POSE: f32 = 0.25;

impl Surface {
    /// Size to train and score at: width, height and the reason.
    pub fn size(&self) -> (u32, u32, String) {
        let (width, height) = (self.width_px as f32, self.height_px as f32);
        let native = (width * height).sqrt();
        let grain = self.grain_px * SIDE_PX / native;
        let (side, why) = if self.grain_px <= 0.0 || GRAIN_PX.contains(&grain) {
            let why =
                format!("the paper's size; the texture's elements are {grain:.1} px large there");
            (SIDE_PX.min(native), why)
        } else {
            let wanted = native * GOOD_GRAIN_PX / self.grain_px;
            let side = wanted.min(native).clamp(*SIDES_PX.start(), *SIDES_PX.end());
            let there = self.grain_px * side / native;
            let what = if grain < *GRAIN_PX.start() {
                "lost"
            } else {
                "larger than what the network sees"
            };
            let why = format!(
                "at the paper's 256 px the texture's elements would be {what} ({grain:.1} px); here they are {there:.1} px"
            );
            (side, why)
        };
        let ratio = (width / height).sqrt();
        let ratio = if SQUARE.contains(&ratio) { 1.0 } else { ratio };
        let sides = [side * ratio, side / ratio].map(|side| {
            let aligned = (side / 8.0).round() * 8.0;
            aligned.max(*SIDES_PX.start()) as u32
        });
        (sides[0], sides[1], why)
    }

    /// Like [`Self::size`], but large enough that a defect of this many pixels of the original images
    /// keeps [`RESOLVED_PX`], if that is given.
    pub fn size_for(&self, smallest_defect_px: Option<u32>) -> (u32, u32, String) {
        let (width_px, height_px, why) = self.size();
        let Some(defect_px) = smallest_defect_px else {
            return (width_px, height_px, why);
        };
        let becomes = self.becomes_px(defect_px, [width_px, height_px]);
        let larger = RESOLVED_PX / becomes;
        let native = self.width_px as f32 / width_px as f32;
        let by = larger.min(native);
        if by <= 1.0 {
            return (width_px, height_px, why);
        }
        let side = |side_px: u32| ((side_px as f32 * by / 8.0).ceil() * 8.0) as u32;
        let why = format!("a defect of {defect_px} px keeps {:.1} px", becomes * by);
        (side(width_px), side(height_px), why)
    }

    /// How large a defect of so many pixels of the original images is at this size.
    pub fn becomes_px(&self, defect_px: u32, [width_px, height_px]: [u32; 2]) -> f32 {
        let across = width_px as f32 / self.width_px as f32;
        let down = height_px as f32 / self.height_px as f32;
        defect_px as f32 * across.min(down)
    }

    /// Settings of `host-trainer train`, except the width, which depends on the time a frame may
    /// take. `photographs` says whether the perceptual features come from a network trained on
    /// photographs.
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
                &format!("channels differ by only {colour:.1} of 255"),
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
                "{} good images are too few to show how lighting varies",
                self.images
            );
            advice("lighting", "0.3", &why)
        } else {
            let range = (2.0 * self.brightness_spread).clamp(0.05, 0.4);
            let why = format!("brightness differs by {spread:.0} % from image to image");
            advice("lighting", &format!("{range:.2}"), &why)
        };
        all.push(lighting);
        // It does harm with random features and no clear good with the built-in ones
        // (models/studies).
        if photographs {
            all.push(advice(
                "feature-depth",
                "each-scale",
                "removes patterns of a few pixels that the last features alone do not see",
            ));
        }
        all.push(advice(
            "quiet",
            "1",
            "lowers the scores of good pixels, not those of defects",
        ));
        all.push(advice(
            "rare",
            &RARE.to_string(),
            "what few good images show is learned as good too",
        ));
        if self.upsampled() {
            all.push(advice(
                "upsampled",
                "",
                "avoids a checkerboard in the map, so that good pixels score lower",
            ));
        }
        all.push(advice(
            "average",
            "0.999",
            "the model does not depend on its last few batches",
        ));
        if self.images >= FEW_IMAGES {
            let why =
                "a threshold with a promise needs good images that the model was not trained on";
            all.push(advice("hold-out", &HOLD_OUT.to_string(), why));
        }
        all
    }

    /// Whether upsampling suits the surface better than the paper's transposed convolutions: it
    /// does unless a variation model scores it.
    pub fn upsampled(&self) -> bool {
        self.package_advice().is_empty()
    }

    /// Settings of `host-trainer package`: none unless parts are in a fixed pose.
    pub fn package_advice(&self) -> Vec<Advice> {
        let colours = self.colourfulness >= COLOURFUL;
        let trained = (self.images as f64 * (1.0 - HOLD_OUT)) as usize;
        if self.layout < FIXED_POSE || trained < least_frames(colours) {
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
                    "parts are in a fixed pose (thumbnails correlate by {:.1} with the mean of the others), and {} good \
                     images show how each place may look",
                    self.layout, self.images
                ),
            ),
            switch(
                "segmentation",
                "sees the whole frame, and so finds what does not belong to the rest of its part, worn areas above all; \
                 it takes a training of its own"
                    .to_owned(),
            ),
        ]
    }

    /// What the user should take care of first.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.nearest < 0.35 && self.looked_at > 3 {
            all.push(
                "many images seem to show the same part as another one: name the parts in a CSV and give it by --groups, \
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

//! The golden frame: a small frame that passes every stage but the region of interest, and the map
//! that it got on the trainer's machine. The golden tiles alone would let through a machine that
//! resizes, pads, cuts into strips or judges by the variation model in another way.

use std::sync::Arc;

use proto::limits::MAX_GOLDEN_FRAME_SIDE_PX;
use proto::manifest::{ColourMode, GoldenFrame, Input, InputSize};

use super::{InspectError, Inspector};
use crate::inspect::cells::reduce;
use crate::inspect::frame::{Channels, Frame, FrameError, Pixels};
use crate::inspect::map::ScoreMap;
use crate::inspect::preprocess::{prepare, to_planes};
use crate::package::{GOLDEN_CELLS, ParityError, check_frame_parity};

/// Memory between two layers, in bytes, above which the golden frame is cut into strips: so little
/// that it always is, if it has more than 96 rows.
const STRIP_BYTES: usize = 1;

/// Why a golden frame cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum GoldenFrameError {
    /// Its pixels do not make a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A side is too long.
    #[error("expected sides of at most {MAX_GOLDEN_FRAME_SIDE_PX} px, found {0}")]
    Side(u16),
}

impl Inspector {
    /// Scores a golden frame. Of the golden frame only its pixels and sizes are used.
    pub fn golden_frame_map(&self, golden: &GoldenFrame) -> Result<ScoreMap, InspectError> {
        let sides = [
            golden.width_px,
            golden.height_px,
            golden.scored_width_px,
            golden.scored_height_px,
        ];
        if let Some(side) = sides.into_iter().find(|s| *s > MAX_GOLDEN_FRAME_SIDE_PX) {
            return Err(GoldenFrameError::Side(side).into());
        }
        let colour = self.manifest.input.colour;
        let channels = match colour {
            ColourMode::Grey => Channels::Grey,
            ColourMode::Rgb => Channels::Rgb,
        };
        let (width_px, height_px) = (golden.width_px.into(), golden.height_px.into());
        let pixels = Pixels::U8(golden.pixels.clone());
        let frame = Frame::new(width_px, height_px, channels, pixels);
        let frame = frame.map_err(GoldenFrameError::Frame)?;
        let size = InputSize::Fixed {
            width_px: golden.scored_width_px.into(),
            height_px: golden.scored_height_px.into(),
        };
        let network = &self.manifest.network;
        let prepared = prepare(&frame, &Input { size, colour })?;
        let planes = to_planes(&prepared, usize::from(network.channels));
        // With caches of its own: a line's frames have another size.
        let in_strips = Self {
            engine: self.engine.with_strip_bytes(STRIP_BYTES),
            normaliser: Arc::default(),
            good_layers: Arc::default(),
            good_grain: Arc::default(),
            ..self.clone()
        };
        in_strips.map(&planes)
    }

    /// Compares the golden frame's map with what the package says, if it has a golden frame.
    pub(super) fn check_golden_frame(&self) -> Result<(), ParityError> {
        let Some(golden) = &self.manifest.golden_frame else {
            return Ok(());
        };
        let map = self.golden_frame_map(golden);
        let map = map.map_err(|error| ParityError::Unscored(Box::new(error)))?;
        check_frame_parity(golden, &golden_cells(&map), map.peak(), self.engine.half())
    }
}

/// Mean scores of the cells that a golden frame is compared by.
pub fn golden_cells(map: &ScoreMap) -> Vec<f32> {
    reduce(&map.data, [map.width_px, map.height_px], [GOLDEN_CELLS; 2])
}

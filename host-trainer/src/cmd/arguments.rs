//! Arguments that several commands take.

use clap::ValueEnum;
use proto::manifest::Scoring;

/// How a frame is scored.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ScoringMode {
    /// One fully-convolutional pass over the frame: fast.
    Full,
    /// The paper's 65×65 tiles at stride 32, overlapping scores averaged.
    Tiles,
}

impl ScoringMode {
    pub(crate) fn scoring(self) -> Scoring {
        match self {
            Self::Full => Scoring::FullyConvolutional,
            Self::Tiles => Scoring::AveragedTiles { stride_px: 32 },
        }
    }
}

/// Parses a whole number above 0.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

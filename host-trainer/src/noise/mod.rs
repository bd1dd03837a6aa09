//! The noising filter bank (paper, IV-B): what is done to a good tile so that the network can learn to undo it.
//!
//! In: a tile of values in [-1, 1] and a random generator. Out: the corrupted tile, clamped to [-1, 1]. Pure
//! arrays; nothing here knows tensors, files or threads. Drawing a corruption's parameters ([`Corruption::draw`])
//! is apart from applying it ([`Corruption::apply`]), so that the ranges can be tested and shown.

mod clouds;
mod corruption;
mod filter;
mod stroke;
mod structured;
mod tile;

pub(crate) use clouds::{between, clouds, lattice};
pub use corruption::{Corruption, Effect, Rect};
pub use structured::{Change, CloudMask};
pub use tile::Tile;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// One of the paper's twelve algorithms (IV-B), or one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Pixels set to 1.
    Salt,
    /// Pixels set to -1.
    Pepper,
    /// Pixels set to 1 or -1.
    SaltAndPepper,
    /// A blurred copy pasted through the mask.
    GaussianBlur,
    /// Additive noise.
    GaussianNoise,
    /// A filled rectangle.
    Rectangle,
    /// A straight stroke.
    Line,
    /// A stroke along part of an ellipse.
    EllipseArc,
    /// A constant added.
    Shading,
    /// Darker neighbours win.
    Erosion,
    /// Brighter neighbours win.
    Dilation,
    /// The tile as it is.
    None,
    /// Another part of the tile laid over it. **Ours**, like those below.
    Patch,
    /// Less or more contrast, darker or brighter.
    Tone,
    /// Stretched and wrinkled.
    Warp,
}

impl Algorithm {
    /// The paper's, in its order.
    pub const PAPER: [Self; 12] = [
        Self::Salt,
        Self::Pepper,
        Self::SaltAndPepper,
        Self::GaussianBlur,
        Self::GaussianNoise,
        Self::Rectangle,
        Self::Line,
        Self::EllipseArc,
        Self::Shading,
        Self::Erosion,
        Self::Dilation,
        Self::None,
    ];

    /// Ours.
    pub const STRUCTURED: [Self; 3] = [Self::Patch, Self::Tone, Self::Warp];

    /// All of them, the paper's first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::PAPER.into_iter().chain(Self::STRUCTURED)
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Salt => "salt",
            Self::Pepper => "pepper",
            Self::SaltAndPepper => "salt and pepper",
            Self::GaussianBlur => "Gaussian blur",
            Self::GaussianNoise => "Gaussian noise",
            Self::Rectangle => "rectangle",
            Self::Line => "line",
            Self::EllipseArc => "ellipse arc",
            Self::Shading => "shading",
            Self::Erosion => "erosion",
            Self::Dilation => "dilation",
            Self::None => "none",
            Self::Patch => "patch",
            Self::Tone => "tone",
            Self::Warp => "warp",
        }
    }

    /// The family it belongs to in the ablations (VI-B); `None` belongs to no family.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Rectangle | Self::Line | Self::EllipseArc => Some(Family::Opaque),
            Self::Shading | Self::GaussianBlur => Some(Family::Transparent),
            Self::Salt | Self::Pepper | Self::SaltAndPepper => Some(Family::Speckle),
            Self::GaussianNoise => Some(Family::Distribution),
            Self::Erosion | Self::Dilation => Some(Family::Morphological),
            Self::Patch | Self::Tone | Self::Warp => Some(Family::Structured),
            Self::None => None,
        }
    }
}

/// Families of algorithms for ablation (VI-B).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Family {
    /// Rectangle, line, ellipse arc.
    Opaque,
    /// Shading, Gaussian blur.
    Transparent,
    /// Salt, pepper, salt and pepper.
    Speckle,
    /// Gaussian noise.
    Distribution,
    /// Erosion, dilation.
    Morphological,
    /// Patch, tone, warp: not in the paper.
    Structured,
}

impl Family {
    /// The paper's.
    pub const PAPER: [Self; 5] = [
        Self::Opaque,
        Self::Transparent,
        Self::Speckle,
        Self::Distribution,
        Self::Morphological,
    ];

    /// Name as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Transparent => "transparent",
            Self::Speckle => "speckle",
            Self::Distribution => "distribution",
            Self::Morphological => "morphological",
            Self::Structured => "structured",
        }
    }
}

/// The algorithms in use, chosen among uniformly (**ours**: the paper says "random").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoiseBank {
    algorithms: Vec<Algorithm>,
}

impl NoiseBank {
    /// All twelve, as in the paper.
    pub fn paper() -> Self {
        Self::of_families(&Family::PAPER)
    }

    /// The algorithms of `families`, and `none`, which every ablation keeps (**ours**): the network must
    /// still see what needs no repair.
    pub fn of_families(families: &[Family]) -> Self {
        let chosen = |algorithm: &Algorithm| {
            algorithm
                .family()
                .is_none_or(|family| families.contains(&family))
        };
        Self {
            algorithms: Algorithm::all().filter(chosen).collect(),
        }
    }

    /// The algorithms in use.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// The families in use, in words.
    pub fn describe(&self) -> String {
        let used = |family: &Family| self.algorithms.iter().any(|a| a.family() == Some(*family));
        let papers: Vec<Family> = Family::PAPER.into_iter().filter(used).collect();
        let mut names = if papers.len() == Family::PAPER.len() {
            vec!["all twelve algorithms"]
        } else {
            papers.into_iter().map(Family::name).collect()
        };
        names.extend(used(&Family::Structured).then(|| Family::Structured.name()));
        names.join(", ")
    }

    /// Corrupts `tile` by one algorithm chosen at random and says what was done.
    pub fn corrupt(&self, tile: &mut Tile, rng: &mut ChaCha8Rng) -> Corruption {
        let algorithm = self.algorithms[rng.random_range(0..self.algorithms.len())];
        let corruption = Corruption::draw(algorithm, tile, rng);
        corruption.apply(tile);
        corruption
    }
}

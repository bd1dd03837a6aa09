//! The corruption algorithms and their families.

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
    /// Additive Gaussian noise.
    GaussianNoise,
    /// A filled rectangle.
    Rectangle,
    /// A straight stroke.
    Line,
    /// A stroke along part of an ellipse.
    EllipseArc,
    /// A constant added.
    Shading,
    /// The darkest value in the neighbourhood.
    Erosion,
    /// The brightest value in the neighbourhood.
    Dilation,
    /// No change.
    None,
    /// Another part of the tile, blended over it (**ours**).
    Patch,
    /// A change of contrast and brightness (**ours**).
    Tone,
    /// A distortion of positions: stretched, wrinkled (**ours**).
    Warp,
}

impl Algorithm {
    /// The paper's algorithms, in its order.
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

    /// Our algorithms.
    pub const STRUCTURED: [Self; 3] = [Self::Patch, Self::Tone, Self::Warp];

    /// All algorithms, the paper's first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::PAPER.into_iter().chain(Self::STRUCTURED)
    }

    /// Its name for people.
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

    /// Its family in the ablations (VI-B); [`Algorithm::None`] belongs to none.
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

/// A family of algorithms, as the paper's ablations group them (VI-B).
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
    /// Patch, tone, warp (not in the paper).
    Structured,
}

impl Family {
    /// The paper's families.
    pub const PAPER: [Self; 5] = [
        Self::Opaque,
        Self::Transparent,
        Self::Speckle,
        Self::Distribution,
        Self::Morphological,
    ];

    /// Its name on the command line.
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

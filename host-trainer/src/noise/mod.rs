//! The noising filter bank (paper, IV-B): corrupts good tiles so that the network can learn to
//! repair them.
//!
//! In: a tile of values in [-1, 1] and a random generator. Out: the corrupted tile, clamped to [-1,
//! 1]. Pure arrays; nothing here knows tensors, files or threads. The parameters of a corruption
//! are drawn ([`Corruption::draw`]) before it is applied ([`Corruption::apply`]), so that their
//! ranges can be tested and shown.

mod algorithm;
mod bank;
mod corruption;
mod filter;
mod rect;
mod stroke;
mod structured;
mod tile;
mod value_noise;

pub use algorithm::{Algorithm, Family};
pub use bank::NoiseBank;
pub use corruption::{Corruption, Effect};
pub use rect::Rect;
pub use structured::{Change, NoiseMask};
pub use tile::Tile;
pub(crate) use value_noise::{interpolate, lattice, value_noise};

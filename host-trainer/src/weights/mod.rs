//! Imports pretrained feature weights: converts torchvision's `.pth` files to `.safetensors`,
//! without executing the pickle code in them.

mod fetch;
mod pickle;
mod pth;

pub use fetch::{FetchError, WeightSet, fetch};
pub use pickle::PickleError;
pub use pth::{ImportError, Imported, import_weights};

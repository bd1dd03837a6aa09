//! Pretrained feature weights as `.safetensors`: from torchvision's `.pth` file, without executing its pickle code.

mod fetch;
mod pickle;
mod pth;

pub use fetch::{FetchError, fetch_vgg11};
pub use pickle::PickleError;
pub use pth::{ImportError, Imported, import_weights};

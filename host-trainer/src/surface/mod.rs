//! What good images say about a surface ([`measure`]), and which settings follow from it
//! ([`advice`]).

mod advice;
mod measure;
#[cfg(test)]
mod tests;

pub use advice::{Advice, SQUARE};
pub use measure::{ImageMeasurements, Surface};

//! From a frame and a model package to a score, a verdict and its regions.
//!
//! This is the only way to a score: trainer, camera and station share it, so that what is evaluated
//! is what runs on the line.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use scoring::inspector::Inspector;
//! use scoring::io::image_file::read_frame;
//! use scoring::package::{self, Trust, read_public_key};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = read_public_key(Path::new("signing.key.pub"))?;
//! let package = package::read(Path::new("leather.awr"), &Trust::Only(vec![key]))?;
//! let inspector = Inspector::new(&package)?;
//! let inspection = inspector.inspect(&read_frame(Path::new("part.png"))?)?;
//! println!("{} {:?}", inspection.score, inspection.verdict);
//! # Ok(())
//! # }
//! ```
//!
//! [`inspector::Inspector`] puts the stages in a row:
//!
//! ```text
//! frame → prepare → score → anomaly map → post-process → relate to → ROI → regions, verdict
//!         (colour,  (tract)  Σ|A|          (opt-in)       good frames
//!          size)                                          (opt-in)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`inspect`] | the pure stages: no files, clocks, threads or devices |
//! | [`infer`] | runs networks; the only place that knows tract |
//! | [`inspector`] | the stages in a row, for a verified package |
//! | [`package`] | reads and verifies model packages; the parity gate |
//! | [`source`] | frames from folders and recordings; conversion of cameras' pixel formats |
//! | [`io`] | image files, encoded pictures, atomic writing, records with checksums |
//! | [`render`] | draws maps |
//!
//! Devices, the threads of a line, and what is done about a verdict are not part of this crate.

pub mod infer;
pub mod inspect;
pub mod inspector;
pub mod io;
pub mod package;
pub mod render;
pub mod source;

//! The camera's program, and the scoring library that the trainer and the station share: what is evaluated is what
//! ships.
//!
//! ```text
//! frame → prepare → score → anomaly map → post-process → regions → verdict
//!         (ROI,     (tract)  Σ|A|          (opt-in)
//!          colour, resize)
//! ```
//! `inspect` holds the pure stages, `infer` is the only place that knows tract, `package` reads and verifies models,
//! `io` touches files, and [`inspector::Inspector`] puts them in a row. Capture, reject gate, journal and links are
//! not written yet (CHANGELOG.md says what is).

#![forbid(unsafe_code)]

pub mod capture;
pub mod config;
pub mod http;
pub mod image_store;
pub mod infer;
pub mod inspect;
pub mod inspector;
pub mod io;
pub mod journal;
pub mod metrics;
pub mod package;
pub mod parts;
pub mod render;
pub mod slot;

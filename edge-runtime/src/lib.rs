//! The camera's program, and the scoring library that the trainer and the station share: what is evaluated is what
//! ships.
//!
//! ```text
//! frame → prepare → score → anomaly map → post-process → regions → verdict
//!         (ROI,     (tract)  Σ|A|          (opt-in)
//!          colour, resize)
//! ```
//! `inspect` holds the pure stages, `infer` is the only place that knows tract, `package` reads and verifies models,
//! `io` touches devices and files, and [`inspector::Inspector`] puts them in a row.
//!
//! Around them, the camera:
//!
//! ```text
//! capture → slot → inspector → parts → outputs (reject gate, PLC)
//!                      ↘ reporting → journal → link → stations
//!                                  ↘ image store
//! ```
//! [`pipeline`] alone knows threads and queues. The devices are cargo features: `v4l2`, `gpio`, `serial`, all of them
//! with `camera`.

pub mod capture;
pub mod clock;
pub mod config;
pub mod control;
pub mod http;
pub mod image_store;
pub mod infer;
pub mod inspect;
pub mod inspector;
pub mod io;
pub mod journal;
pub mod link;
pub mod metrics;
pub mod outputs;
pub mod package;
pub mod parts;
pub mod pipeline;
pub mod render;
pub mod reporting;
pub mod slot;
pub mod update;

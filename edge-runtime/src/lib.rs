//! The camera's program: frames in, verdicts, reject pulses and reports out.
//!
//! ```text
//! capture → slot → score (crate `scoring`) → parts → outputs (reject gate, PLC)
//!                      ↘ report queue → journal → link → stations
//!                                     ↘ image store
//! ```
//! [`stage`] holds the threads. [`line`] tracks parts between trigger and gate. [`model`] holds the
//! active model and replaces it. [`report`] turns settled parts into records. The crate `scoring`
//! turns a frame into a score.

#![forbid(unsafe_code)]

pub mod capture;
pub mod clock;
pub mod config;
pub mod disk_space;
pub mod error_text;
pub mod http;
pub mod image_store;
pub mod io;
pub mod journal;
pub mod line;
pub mod link;
pub mod metrics;
pub mod model;
pub mod realtime;
pub mod report;
pub mod stage;

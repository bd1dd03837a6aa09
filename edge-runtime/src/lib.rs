//! edge-runtime
#![forbid(unsafe_code)]
pub mod inspect;
pub mod io;

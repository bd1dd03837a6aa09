//! Pure stages from frame to verdict: no files, clocks, threads or devices.

pub mod frame;
pub mod preprocess;

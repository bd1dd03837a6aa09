//! Trains a model per product from defect-free images, evaluates, calibrates and packages it.
//!
//! ```text
//! images ─ dataset ─ noise ─ train ─ onnx ─ package ─ calibrate ─ evaluate ─ report
//!                            network,       variation,
//!                            perceptual     segmentation
//! ```
//! Scores that anybody sees come from the exported package through the crate `scoring`, the very
//! code that the camera runs.
//!
//! libtorch is used where something is trained or runs on a device: in `device`, `tensor`,
//! `network`, `perceptual`, `pretrain`, `quantise`, `segmentation` and `train`. `package` only
//! passes a device on. All other modules do without it.

pub mod arrays;
pub mod calibrate;
pub mod dataset;
pub mod device;
pub mod evaluate;
pub mod memory;
pub mod network;
pub mod noise;
pub mod onnx;
pub mod package;
pub mod perceptual;
pub mod place_statistics;
pub mod prefetch;
pub mod pretrain;
pub mod quantise;
pub mod run_folder;
pub mod seed;
pub mod segmentation;
pub mod sheet;
pub mod study;
pub mod surface;
pub mod synth;
pub mod tensor;
pub mod train;
pub mod variation;
pub mod weights;

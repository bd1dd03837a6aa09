//! Trains a model per product from defect-free images, evaluates, calibrates and packages it.
//!
//! ```text
//! images ─ dataset ─ noise ─ train ─ checkpoint ─ onnx ─ package ─ calibrate ─ evaluate ─ report
//!                            network, perceptual             └─ scored by edge-runtime's library ─┘
//! ```
//! Only `network`, `perceptual`, `pretrain`, `train` and `device` know libtorch. Scores that anybody sees come from the exported
//! package through `edge-runtime`, the very code that the camera runs.

pub mod ahead;
pub mod areas;
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
pub mod pretrain;
pub mod quantise;
pub mod run_folder;
pub mod seed;
pub mod sheet;
pub mod study;
pub mod surface;
pub mod synth;
pub mod train;
pub mod variation;
pub mod weights;

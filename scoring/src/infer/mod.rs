//! The only place that knows tract: an ONNX graph in, a function from planes to planes out.
//!
//! [`Engine`] loads a graph and scores planes with it. tract parses and plans the graph; the
//! network's layers are taken out of it (`fuse`) and compiled (`layer`, `chain`). A compiled layer
//! takes one of two code paths: matrix products by tract's kernels (`panels`, `gemm`), or direct
//! convolution (`direct`, `vector`). `autotune` benchmarks both and picks the faster one.

mod autotune;
mod buffer_pool;
mod chain;
mod cpu_affinity;
mod definition;
mod direct;
mod engine;
mod error;
mod features;
mod fuse;
mod gemm;
mod image;
mod layer;
mod operand;
mod packing;
mod panels;
mod plan;
mod pool;
mod products;
mod rescale;
mod segmentation;
mod vector;

pub use engine::{Engine, Half, Tuning, half_is_native};
pub use error::InferError;
pub use features::{EncoderOutputs, LayerOutput};
pub use segmentation::SegmentationEngine;

//! Writes networks as ONNX (opset 13, IR 8): static weights; dynamic N, H and W.
//!
//! The output of the network's graph ([`export()`]) is always a shift whose magnitude is the score,
//! whatever the training mode, so that the runtime needs to know one kind of graph only. For the
//! baselines the graph also applies the output activation and subtracts the input. Layers in the
//! middle may be quantised to 8 bits, as QuantizeLinear and DequantizeLinear around them.
//! [`export_segmentation`] writes the segmentation network.
//!
//! tch has no exporter, so the `message` module declares the part of onnx.proto3 that is needed.

mod export;
mod message;
mod quantisation;
mod segmentation;

pub use export::export;
pub use message::{INPUT, OUTPUT};
pub use quantisation::Quantisation;
pub use segmentation::{Convolution, SegmentationLayer, export_segmentation};

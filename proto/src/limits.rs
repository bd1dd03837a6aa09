//! Upper bounds on everything whose length a peer or a file announces, checked before allocating.

/// Largest manifest, encoded, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Largest ONNX graph in a package, in bytes (base width 128 is 12 MB).
pub const MAX_ONNX_BYTES: u64 = 512 << 20;
/// Longest side of a frame, in pixels.
pub const MAX_FRAME_SIDE_PX: u32 = 16_384;
/// Most golden tiles in a package.
pub const MAX_GOLDEN_TILES: usize = 64;
/// Most corners in one ROI polygon.
pub const MAX_POLYGON_CORNERS: usize = 1_024;

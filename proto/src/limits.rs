//! Upper bounds on everything whose length a peer or a file announces, checked before allocating.

/// Largest manifest, encoded, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 8 << 20;
/// Largest ONNX graph in a package, in bytes. A network of width 128, the paper's, has 12 MB.
pub const MAX_ONNX_BYTES: u64 = 512 << 20;
/// Longest side of a frame, in pixels.
pub const MAX_FRAME_SIDE_PX: u32 = 16_384;
/// Most golden tiles in a package.
pub const MAX_GOLDEN_TILES: usize = 64;
/// Longest side of a package's golden frame, in pixels, as stored and as scored.
pub const MAX_GOLDEN_FRAME_SIDE_PX: u16 = 512;
/// Most polygons in a region of interest that goes over a link.
pub const MAX_POLYGONS: usize = 512;
/// Most corners in one polygon of a region of interest.
pub const MAX_POLYGON_CORNERS: usize = 1_024;
/// Largest payload of a frame on the wire, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 128 << 10;
/// Most regions in a part report. The report also gives the total number found.
pub const MAX_REGIONS: usize = 64;
/// Longest name, reason or log line in a message, in bytes.
pub const MAX_TEXT_BYTES: usize = 512;
/// Longest name of a station, in bytes. A name is never empty.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest name of a file on a camera's disk, in bytes. A station adds a few bytes to it while the
/// file is incomplete, and file systems allow 255.
pub const MAX_FILE_NAME_BYTES: usize = 240;
/// Largest heat map in a part report, compressed, in bytes.
pub const MAX_HEAT_MAP_BYTES: usize = 64 << 10;
/// Largest thumbnail in a part report, compressed, in bytes.
pub const MAX_THUMBNAIL_BYTES: usize = 32 << 10;
/// Largest chunk of a snapshot, a file or a package, in bytes.
pub const MAX_CHUNK_BYTES: usize = 64 << 10;
/// Most runs in a mask sent as a bitmap.
pub const MAX_MASK_RUNS: usize = 16_384;
/// Most entries in a list that answers a command. Longer lists come in several answers.
pub const MAX_LISTED: usize = 256;

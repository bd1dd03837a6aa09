//! Why a network cannot be loaded or run.

/// Why a graph cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// tract cannot load or plan the graph.
    #[error("the ONNX graph cannot be loaded: {0}")]
    Load(String),
    /// The graph does not have one input and one output.
    #[error("expected an ONNX graph with 1 input and 1 output, found {inputs} and {outputs}")]
    Arity {
        /// Inputs found.
        inputs: usize,
        /// Outputs found.
        outputs: usize,
    },
    /// The network cannot take planes of this shape.
    #[error(
        "expected {channels} channels and sides of k·{align_px} + 1, at least {tile_px} px; found {found_channels} channels of {width_px}×{height_px} px"
    )]
    Shape {
        /// Channels of the network.
        channels: usize,
        /// Alignment of its input's sides, in pixels.
        align_px: usize,
        /// Smallest side of its input, in pixels.
        tile_px: usize,
        /// Channels found.
        found_channels: usize,
        /// Width found, in pixels.
        width_px: usize,
        /// Height found, in pixels.
        height_px: usize,
    },
    /// The package has statistics of the network's layers, and the graph has no such layers.
    #[error(
        "expected a network of {} convolutions and as many transposed ones: statistics of layers need its encoder's outputs",
        3
    )]
    NoLayers,
    /// Threads cannot be started.
    #[error("cannot start threads for scoring: {0}")]
    Threads(String),
    /// The graph failed to run.
    #[error("inference failed: {0}")]
    Run(String),
    /// The output has another shape or a value that is not finite: the weights are damaged, the
    /// graph is not a model of this project, or a value exceeds 65,504 in half precision.
    #[error("expected finite output of shape {expected:?}, found {found}")]
    Output {
        /// The shape expected.
        expected: Vec<usize>,
        /// The shape or the value found.
        found: String,
    },
}

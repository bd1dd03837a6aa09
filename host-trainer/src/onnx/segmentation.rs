//! The segmentation network as an ONNX graph.

use super::message::{
    Attribute, Graph, INPUT, OUTPUT, encode_model, int, ints, node, tensor, text, value_info,
};

/// Weights of a convolution.
#[derive(Debug, Clone)]
pub struct Convolution {
    /// Name of its parameters.
    pub name: String,
    /// Size of the weights: out × in × side × side, or in × out × side × side for
    /// [`SegmentationLayer::Upsample`].
    pub size: Vec<i64>,
    /// The weights.
    pub weight: Vec<f32>,
    /// One value per output channel.
    pub bias: Vec<f32>,
}

/// A layer of the segmentation network. The first takes the input, each other one the output of the
/// layer before it.
#[derive(Debug, Clone)]
pub enum SegmentationLayer {
    /// Transposed convolution that turns each cell into side × side cells, and ReLU.
    Upsample(Convolution),
    /// Convolution of stride 1 that keeps the size, and ReLU.
    Convolve(Convolution),
    /// Concatenation with the network's input.
    ConcatInput,
    /// Average pooling of 2 × 2 cells.
    Pool,
    /// Bilinear upsampling to twice the side (between the centres of cells), and concatenation with
    /// the output that was saved under this name.
    UpsampleConcat(String),
    /// Saves the current output under a name.
    Save(String),
    /// Convolution without ReLU whose result is the network's output.
    Output(Convolution),
}

/// The segmentation network ([`proto::manifest::SegmentationNetwork`]) as the bytes of an ONNX
/// model with one input N × `planes` × H × W and one output N × 1 × H × W.
pub fn export_segmentation(layers: &[SegmentationLayer], planes: i64) -> Vec<u8> {
    let mut graph = Graph {
        name: "awr-segmentation".to_owned(),
        input: vec![value_info(INPUT, planes)],
        output: vec![value_info(OUTPUT, 1)],
        ..Graph::default()
    };
    // The scales of Resize: twice as many rows and columns.
    graph
        .initializer
        .push(tensor("twice", &[4], &[1.0, 1.0, 2.0, 2.0]));
    let mut saved: Vec<(&str, String)> = Vec::new();
    let mut current = INPUT.to_owned();
    for (number, layer) in layers.iter().enumerate() {
        let out = format!("step{number}");
        match layer {
            SegmentationLayer::Upsample(convolution) | SegmentationLayer::Convolve(convolution) => {
                let sums = format!("{out}.sums");
                let upsamples = matches!(layer, SegmentationLayer::Upsample(_));
                let add = if upsamples { upsample } else { convolve };
                add(&mut graph, convolution, &current, &sums);
                graph.node.push(node("Relu", &[&sums], &out, Vec::new()));
                current = out;
            }
            SegmentationLayer::ConcatInput => {
                let inputs = [current.as_str(), INPUT];
                let attributes = vec![int("axis", 1)];
                graph.node.push(node("Concat", &inputs, &out, attributes));
                current = out;
            }
            SegmentationLayer::Pool => {
                let attributes = vec![ints("kernel_shape", &[2; 2]), ints("strides", &[2; 2])];
                graph
                    .node
                    .push(node("AveragePool", &[&current], &out, attributes));
                current = out;
            }
            SegmentationLayer::UpsampleConcat(name) => {
                let large = format!("{out}.large");
                let attributes = vec![
                    text("mode", "linear"),
                    text("coordinate_transformation_mode", "half_pixel"),
                ];
                // The second input, the region of interest, is for another mode.
                let inputs = [current.as_str(), "", "twice"];
                graph.node.push(node("Resize", &inputs, &large, attributes));
                let skip = saved.iter().find(|(known, _)| known == name);
                let skip = skip.map_or(INPUT, |(_, value)| value);
                let inputs = [large.as_str(), skip];
                graph
                    .node
                    .push(node("Concat", &inputs, &out, vec![int("axis", 1)]));
                current = out;
            }
            SegmentationLayer::Save(name) => saved.push((name, current.clone())),
            SegmentationLayer::Output(convolution) => {
                convolve(&mut graph, convolution, &current, OUTPUT)
            }
        }
    }
    encode_model(graph, &[])
}

/// Adds a convolution of stride 1 whose padding keeps the size.
fn convolve(graph: &mut Graph, convolution: &Convolution, from: &str, to: &str) {
    let padding = convolution.size[3] / 2;
    let attribute = ints("pads", &[padding; 4]);
    add_convolution(graph, "Conv", convolution, attribute, [from, to]);
}

/// Adds a transposed convolution whose stride is the side of its kernel.
fn upsample(graph: &mut Graph, convolution: &Convolution, from: &str, to: &str) {
    let attribute = ints("strides", &[convolution.size[3]; 2]);
    add_convolution(graph, "ConvTranspose", convolution, attribute, [from, to]);
}

/// Adds an operator with its weights and bias.
fn add_convolution(
    graph: &mut Graph,
    operation: &str,
    convolution: &Convolution,
    attribute: Attribute,
    [from, to]: [&str; 2],
) {
    let Convolution { name, size, .. } = convolution;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    graph.initializer.extend([
        tensor(&weight, size, &convolution.weight),
        tensor(&bias, &[convolution.bias.len() as i64], &convolution.bias),
    ]);
    let attributes = vec![ints("kernel_shape", &[size[3]; 2]), attribute];
    let inputs = [from, &weight, &bias];
    graph.node.push(node(operation, &inputs, to, attributes));
}

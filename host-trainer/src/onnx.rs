//! Writes the network as ONNX (opset 13, IR 8): static weights, dynamic N, H and W; in f32, or in 8 bits as
//! QuantizeLinear and DequantizeLinear around layers in the middle. And area networks (`areas`), by the same messages.
//!
//! The graph's output is always a shift whose magnitude is the score, whatever the training mode, so that the runtime
//! needs to know one kind of graph: for the baselines the graph also applies the output activation and subtracts the
//! input. Own writer, because tch has no exporter; the messages below are the part of onnx.proto3 that it needs.

use proto::manifest::TrainingMode;

use crate::network::{LEAK, LayerShape, OutputActivation, STRIDE};
use crate::quantise::Step;

/// ONNX operator set.
const OPSET: i64 = 13;
/// ONNX intermediate representation.
const IR: i64 = 8;
/// Name of the input, N × C × H × W in [-1, 1].
pub const INPUT: &str = "input";
/// Name of the output, of the same shape.
pub const OUTPUT: &str = "anomaly";

/// One layer with its weights in PyTorch's order.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Its place in the network.
    pub shape: LayerShape,
    /// See [`LayerShape::weight_size`].
    pub weight: Vec<f32>,
    /// One value an output channel.
    pub bias: Vec<f32>,
}

/// The graph as bytes. `metadata` ends up in `metadata_props`. With `steps`, for what comes out of the first layers, the
/// layers that follow those are quantised.
pub fn export(
    layers: &[LayerWeights],
    mode: TrainingMode,
    activation: OutputActivation,
    metadata: &[(String, String)],
    steps: Option<&[Step]>,
) -> Vec<u8> {
    let channels = layers.first().map_or(0, |layer| layer.shape.inputs);
    let mut graph = Graph {
        name: "awr".to_owned(),
        input: vec![value_info(INPUT, channels)],
        output: vec![value_info(OUTPUT, channels)],
        ..Graph::default()
    };
    let mut current = INPUT.to_owned();
    for (index, layer) in layers.iter().enumerate() {
        let name = layer.shape.name;
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let step = index
            .checked_sub(1)
            .and_then(|before| steps?.get(before).copied());
        let weight = match step {
            Some(step) => {
                current = pass_in_8_bits(&mut graph, &current, step);
                quantise_weights(&mut graph, layer, &weight)
            }
            None => {
                let values = tensor(&weight, &layer.shape.weight_size(), &layer.weight);
                graph.initializer.push(values);
                weight
            }
        };
        graph
            .initializer
            .push(tensor(&bias, &[layer.shape.outputs], &layer.bias));
        let op = if layer.shape.transposed {
            "ConvTranspose"
        } else {
            "Conv"
        };
        let attributes = vec![
            ints("kernel_shape", &[layer.shape.kernel; 2]),
            ints("strides", &[STRIDE; 2]),
            ints("pads", &[layer.shape.padding(); 4]),
        ];
        let last = index + 1 == layers.len();
        let plain = last && mode == TrainingMode::Direct;
        let out = if plain {
            OUTPUT.to_owned()
        } else {
            format!("{name}.out")
        };
        graph
            .node
            .push(node(op, &[&current, &weight, &bias], &out, attributes));
        current = out;
        if !last {
            let out = format!("{name}.relu");
            let slope = vec![float("alpha", LEAK as f32)];
            graph.node.push(node("LeakyRelu", &[&current], &out, slope));
            current = out;
        }
    }
    if mode != TrainingMode::Direct {
        let image = activate(&mut graph, &current, activation);
        graph
            .node
            .push(node("Sub", &[&image, INPUT], OUTPUT, Vec::new()));
    }
    encoded(graph, metadata)
}

/// A convolution of stride 1 that keeps its input's size.
#[derive(Debug, Clone)]
pub struct PlainConvolution {
    /// Name of its parameters.
    pub name: String,
    /// out × in × side × side but where said.
    pub size: Vec<i64>,
    /// The weights.
    pub weight: Vec<f32>,
    /// One value an output channel.
    pub bias: Vec<f32>,
}

/// A step of an area network; the first takes the input, every other what the one before made.
#[derive(Debug, Clone)]
pub enum AreaStep {
    /// A transposed convolution (in × out × side × side) that makes side × side cells of each, and ReLU.
    Split(PlainConvolution),
    /// A convolution and ReLU.
    Convolve(PlainConvolution),
    /// Beside it the network's input.
    BesideInput,
    /// Means of 2 × 2 cells.
    Halve,
    /// Enlarged twice (bilinear, between the middles of cells), and beside it what had been given this name.
    EnlargeBeside(String),
    /// Gives what was made a name.
    Name(String),
    /// A convolution whose sums are the output.
    Last(PlainConvolution),
}

/// An area network ([`proto::manifest::AreaNetwork`]) as ONNX bytes: one input of so many planes, N × planes × H × W.
pub fn export_areas(steps: &[AreaStep], planes: i64) -> Vec<u8> {
    let mut graph = Graph {
        name: "awr-areas".to_owned(),
        input: vec![value_info(INPUT, planes)],
        output: vec![value_info(OUTPUT, 1)],
        ..Graph::default()
    };
    // Twice as many rows and columns.
    graph
        .initializer
        .push(tensor("twice", &[4], &[1.0, 1.0, 2.0, 2.0]));
    let mut named: Vec<(&str, String)> = Vec::new();
    let mut current = INPUT.to_owned();
    for (number, step) in steps.iter().enumerate() {
        let out = format!("step{number}");
        match step {
            AreaStep::Split(convolution) | AreaStep::Convolve(convolution) => {
                let sums = format!("{out}.sums");
                let splits = matches!(step, AreaStep::Split(_));
                let add = if splits { split } else { convolve };
                add(&mut graph, convolution, &current, &sums);
                graph.node.push(node("Relu", &[&sums], &out, Vec::new()));
                current = out;
            }
            AreaStep::BesideInput => {
                let inputs = [current.as_str(), INPUT];
                let attributes = vec![int("axis", 1)];
                graph.node.push(node("Concat", &inputs, &out, attributes));
                current = out;
            }
            AreaStep::Halve => {
                let attributes = vec![ints("kernel_shape", &[2; 2]), ints("strides", &[2; 2])];
                graph
                    .node
                    .push(node("AveragePool", &[&current], &out, attributes));
                current = out;
            }
            AreaStep::EnlargeBeside(name) => {
                let large = format!("{out}.large");
                let attributes = vec![
                    text("mode", "linear"),
                    text("coordinate_transformation_mode", "half_pixel"),
                ];
                // Its second input, a region, is for another mode.
                let inputs = [current.as_str(), "", "twice"];
                graph.node.push(node("Resize", &inputs, &large, attributes));
                let beside = named.iter().find(|(known, _)| known == name);
                let beside = beside.map_or(INPUT, |(_, value)| value);
                let inputs = [large.as_str(), beside];
                graph
                    .node
                    .push(node("Concat", &inputs, &out, vec![int("axis", 1)]));
                current = out;
            }
            AreaStep::Name(name) => named.push((name, current.clone())),
            AreaStep::Last(convolution) => convolve(&mut graph, convolution, &current, OUTPUT),
        }
    }
    encoded(graph, &[])
}

fn convolve(graph: &mut Graph, convolution: &PlainConvolution, from: &str, to: &str) {
    let padding = convolution.size[3] / 2;
    let attribute = ints("pads", &[padding; 4]);
    weighted(graph, "Conv", convolution, attribute, [from, to]);
}

fn split(graph: &mut Graph, convolution: &PlainConvolution, from: &str, to: &str) {
    let attribute = ints("strides", &[convolution.size[3]; 2]);
    weighted(graph, "ConvTranspose", convolution, attribute, [from, to]);
}

fn weighted(
    graph: &mut Graph,
    operation: &str,
    convolution: &PlainConvolution,
    attribute: Attribute,
    [from, to]: [&str; 2],
) {
    let PlainConvolution { name, size, .. } = convolution;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    graph.initializer.extend([
        tensor(&weight, size, &convolution.weight),
        tensor(&bias, &[convolution.bias.len() as i64], &convolution.bias),
    ]);
    let attributes = vec![ints("kernel_shape", &[size[3]; 2]), attribute];
    let inputs = [from, &weight, &bias];
    graph.node.push(node(operation, &inputs, to, attributes));
}

/// A whole model's bytes.
fn encoded(graph: Graph, metadata: &[(String, String)]) -> Vec<u8> {
    let model = Model {
        ir_version: IR,
        producer_name: "host-trainer".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringEntry {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    };
    prost::Message::encode_to_vec(&model)
}

/// A value by way of 8 bits.
fn pass_in_8_bits(graph: &mut Graph, value: &str, step: Step) -> String {
    let names = ["scale", "zero", "int8", "value"].map(|what| format!("{value}.{what}"));
    let [scale, zero, quantised, back] = &names;
    let levels = int8_tensor(zero, &[], &[step.zero_point]);
    graph
        .initializer
        .extend([tensor(scale, &[], &[step.scale]), levels]);
    let node = |op, from: &str, to: &str| node(op, &[from, scale, zero], to, Vec::new());
    graph.node.push(node("QuantizeLinear", value, quantised));
    graph.node.push(node("DequantizeLinear", quantised, back));
    back.clone()
}

/// A layer's weights in 8 bits, the highest of each output channel at ±127, and as numbers again.
fn quantise_weights(graph: &mut Graph, layer: &LayerWeights, name: &str) -> String {
    let size = layer.shape.weight_size();
    let [_, inner, ..] = size.map(|length| length as usize);
    let area = (layer.shape.kernel * layer.shape.kernel) as usize;
    let channel = |index: usize| match layer.shape.transposed {
        false => index / (inner * area),
        true => index / area % inner,
    };
    let mut scales = vec![0.0f32; layer.shape.outputs as usize];
    for (index, weight) in layer.weight.iter().enumerate() {
        let scale = &mut scales[channel(index)];
        *scale = scale.max(weight.abs() / 127.0);
    }
    for scale in scales.iter_mut().filter(|scale| **scale == 0.0) {
        *scale = 1.0;
    }
    let levels = layer.weight.iter().enumerate();
    let levels: Vec<i8> = levels
        .map(|(index, weight)| (weight / scales[channel(index)]).round() as i8)
        .collect();
    let names = ["scale", "zero", "int8"].map(|what| format!("{name}.{what}"));
    let [scale, zero, quantised] = &names;
    graph.initializer.extend([
        tensor(scale, &[layer.shape.outputs], &scales),
        int8_tensor(zero, &[layer.shape.outputs], &vec![0; scales.len()]),
        int8_tensor(quantised, &size, &levels),
    ]);
    let axis = vec![int("axis", i64::from(layer.shape.transposed))];
    let inputs = [quantised.as_str(), scale, zero];
    graph
        .node
        .push(node("DequantizeLinear", &inputs, name, axis));
    name.to_owned()
}

/// RefReLU(x) = clip(x) + 0.01 (x - clip(x)) (paper, IV-D), or the ablation's alternatives.
fn activate(graph: &mut Graph, input: &str, activation: OutputActivation) -> String {
    match activation {
        OutputActivation::None => input.to_owned(),
        OutputActivation::Tanh => {
            graph.node.push(node("Tanh", &[input], "image", Vec::new()));
            "image".to_owned()
        }
        OutputActivation::RefRelu => {
            for (name, value) in [("low", -1.0), ("high", 1.0), ("leak", LEAK as f32)] {
                graph.initializer.push(tensor(name, &[], &[value]));
            }
            let mut add = |op, inputs: &[&str], out| {
                graph.node.push(node(op, inputs, out, Vec::new()));
            };
            add("Clip", &[input, "low", "high"], "inside");
            add("Sub", &[input, "inside"], "beyond");
            add("Mul", &["beyond", "leak"], "leaked");
            add("Add", &["inside", "leaked"], "image");
            "image".to_owned()
        }
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("{op}:{output}"),
        op_type: op.to_owned(),
        attribute,
    }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.to_owned(),
        ints: values.to_vec(),
        kind: 7,
        ..Attribute::default()
    }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: Some(value),
        kind: 2,
        ..Attribute::default()
    }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute {
        name: name.to_owned(),
        f,
        kind: 1,
        ..Attribute::default()
    }
}

fn text(name: &str, value: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        s: value.as_bytes().to_vec(),
        kind: 3,
        ..Attribute::default()
    }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorData {
    TensorData {
        dims: dims.to_vec(),
        data_type: 1,
        name: name.to_owned(),
        raw_data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

fn int8_tensor(name: &str, dims: &[i64], values: &[i8]) -> TensorData {
    TensorData {
        dims: dims.to_vec(),
        data_type: 3,
        name: name.to_owned(),
        raw_data: values.iter().map(|value| value.cast_unsigned()).collect(),
    }
}

fn value_info(name: &str, channels: i64) -> ValueInfo {
    let named = |name: &str| Dimension {
        value: Some(dimension::Value::Param(name.to_owned())),
    };
    let fixed = Dimension {
        value: Some(dimension::Value::Value(channels)),
    };
    ValueInfo {
        name: name.to_owned(),
        kind: Some(Type {
            tensor: Some(TensorType {
                element: 1,
                shape: Some(Shape {
                    dim: vec![named("N"), fixed, named("H"), named("W")],
                }),
            }),
        }),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorData>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    /// Present where it is 0, too: checkers want it.
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorData {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dimension {
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    value: Option<dimension::Value>,
}

mod dimension {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(int64, tag = "1")]
        Value(i64),
        #[prost(string, tag = "2")]
        Param(String),
    }
}

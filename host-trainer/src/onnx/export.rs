//! The trained network as an ONNX graph, in f32 or with quantised layers in the middle.

use proto::manifest::TrainingMode;

use super::message::{
    Graph, INPUT, OUTPUT, encode_model, float, int, int8_tensor, ints, node, tensor, value_info,
};
use super::quantisation::Quantisation;
use crate::network::{LEAK, LayerWeights, OutputActivation, STRIDE};

/// The network as the bytes of an ONNX model, with `metadata` in its `metadata_props`.
///
/// `quantisations` are those of the outputs of the first layers, in order; each layer that takes
/// such an output has quantised weights.
pub fn export(
    layers: &[LayerWeights],
    mode: TrainingMode,
    activation: OutputActivation,
    metadata: &[(String, String)],
    quantisations: Option<&[Quantisation]>,
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
        let quantisation = index
            .checked_sub(1)
            .and_then(|before| quantisations?.get(before).copied());
        let weight = match quantisation {
            Some(quantisation) => {
                current = quantise_values(&mut graph, &current, quantisation);
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
        let is_output = last && mode == TrainingMode::Direct;
        let out = if is_output {
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
    encode_model(graph, metadata)
}

/// Quantises a value to 8 bits and back, and returns the name of the result.
fn quantise_values(graph: &mut Graph, value: &str, quantisation: Quantisation) -> String {
    let names = ["scale", "zero", "int8", "value"].map(|what| format!("{value}.{what}"));
    let [scale, zero, quantised, back] = &names;
    let levels = int8_tensor(zero, &[], &[quantisation.zero_point]);
    graph
        .initializer
        .extend([tensor(scale, &[], &[quantisation.scale]), levels]);
    let node = |op, from: &str, to: &str| node(op, &[from, scale, zero], to, Vec::new());
    graph.node.push(node("QuantizeLinear", value, quantised));
    graph.node.push(node("DequantizeLinear", quantised, back));
    back.clone()
}

/// Stores a layer's weights in 8 bits, with the largest of each output channel at ±127, and returns
/// the name of the dequantised weights.
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

/// Applies the output activation and returns the name of the result. RefReLU(x) is
/// clip(x) + 0.01 (x - clip(x)) (paper, IV-D).
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

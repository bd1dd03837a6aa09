//! Replaces the convolutions of a loaded graph by compiled layers. In: tract's graph. Out: the
//! graph with these layers as operators, and the layers themselves if the graph has nothing else.

use std::collections::HashSet;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::nn::{DataFormat, LeakyRelu};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8};

use super::autotune::{Autotuner, Shape};
use super::chain::Chain;
use super::definition::{Definition, Kind};
use super::image::Image;
use super::operand::Operand;
use super::pool::Pool;
use super::rescale::{Format, Quantisation, Quantised};

/// A chain of layers as a tract operator. In and out: N × C × H × W.
#[derive(Debug, Clone)]
struct ChainOp(Arc<Chain>);

impl PartialEq for ChainOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ChainOp {}

impl Op for ChainOp {
    fn name(&self) -> StaticName {
        "AwrLayers".into()
    }

    op_as_typed_op!();
}

impl EvalOp for ChainOp {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[1, channels, height, width] = input.shape() else {
            bail!("expected one image, found {:?}", input.shape());
        };
        let data = input.try_as_plain_ram()?.as_slice::<f32>()?;
        let image = Image::from_planes(data, [channels, height, width])?;
        let output = self.0.run(image, 0..usize::MAX, self.0.pool(), |output| {
            let [channels, height, width] = output.size();
            Tensor::from_shape(&[1, channels, height, width], &output.planes()?)
        })?;
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for ChainOp {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape: TVec<TDim> = inputs[0].shape.to_tvec();
        for layer in self.0.layers() {
            shape[1] = layer.outputs().to_dim();
            for side in &mut shape[2..] {
                *side = layer.output_side(side);
            }
        }
        Ok(tvec!(f32::fact(shape)))
    }
}

/// A layer as the graph contains it.
struct GraphLayer {
    kind: Kind,
    channels: [usize; 2],
    weights: Vec<f32>,
    bias: Vec<f32>,
    leak: Option<f32>,
    from: Format,
    to: Format,
}

impl GraphLayer {
    fn definition(&self) -> Definition<'_> {
        Definition {
            kind: self.kind,
            channels: self.channels,
            weights: &self.weights,
            bias: &self.bias,
            leak: self.leak,
            from: self.from,
            to: self.to,
        }
    }

    /// Its shape with operands of this type.
    fn shape(&self, operand: Operand) -> Shape {
        Shape {
            kind: self.kind,
            channels: self.channels,
            operand,
        }
    }

    /// Whether it can be computed with quantised input.
    fn takes_quantised(&self) -> bool {
        let [inputs, outputs] = self.channels;
        // Kernels take four rows at a time.
        inputs.is_multiple_of(4) && Quantised::recover(outputs, &self.weights).is_some()
    }
}

/// Whether a convolution has the shape of the network's (paper, IV-C): a filter with the side of
/// `kind`, stride 2, and half of the side as padding.
fn has_network_shape(pool: &PoolSpec, kind: Kind) -> bool {
    let side = kind.side();
    let half = side / 2;
    let padding = PaddingSpec::Explicit(tvec!(half, half), tvec!(half, half));
    pool.data_format == DataFormat::NCHW
        && *pool.kernel_shape == [side, side]
        && *pool.strides() == [2, 2]
        && *pool.dilations() == [1, 1]
        && pool.padding == padding
}

/// The tensor that an outlet always gives, if it is constant. tract leaves large weights in 8 bits,
/// with the nodes that dequantise them.
fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    if let Some(known) = &model.outlet_fact(outlet).ok()?.konst {
        return Some(Arc::clone(known));
    }
    let node = model.node(outlet.node);
    if node.inputs.is_empty() {
        return None;
    }
    let inputs = node.inputs.iter();
    let inputs = inputs.map(|&input| Some(constant(model, input)?.into_tvalue()));
    let outputs = node.op.eval_out_of_plan(inputs.collect::<Option<_>>()?);
    let output = outputs.ok()??.into_iter().nth(outlet.slot)?;
    Some(output.into_arc_tensor())
}

/// The layer that starts at a node, if one does.
fn layer_at(model: &TypedModel, node: &TypedNode) -> TractResult<Option<GraphLayer>> {
    let found = if let Some(conv) = node.op_as::<Conv>() {
        let matches = conv.group == 1
            && conv.q_params.is_none()
            && has_network_shape(&conv.pool_spec, Kind::Down);
        matches.then_some((Kind::Down, &conv.pool_spec, conv.kernel_fmt))
    } else if let Some(deconv) = node.op_as::<Deconv>() {
        let plain = deconv.group == 1 && *deconv.adjustments == [0, 0];
        let kind = [Kind::Up, Kind::WideUp]
            .into_iter()
            .find(|&kind| plain && has_network_shape(&deconv.pool_spec, kind));
        kind.map(|kind| (kind, &deconv.pool_spec, deconv.kernel_format))
    } else {
        None
    };
    let Some((kind, pool, format)) = found else {
        return Ok(None);
    };
    let input = |index: usize| constant(model, *node.inputs.get(index)?);
    let (Some(weights), Some(bias)) = (input(1), input(2)) else {
        return Ok(None);
    };
    let channels = [pool.input_channels, pool.output_channels];
    let [inputs, outputs] = channels;
    if inputs == 0
        || outputs == 0
        || format != KernelFormat::OIHW
        || weights.shape() != [outputs, inputs, kind.side(), kind.side()]
        || weights.datum_type() != f32::datum_type()
        || bias.datum_type() != f32::datum_type()
    {
        return Ok(None);
    }
    let bias = bias.try_as_plain_ram()?.as_slice::<f32>()?;
    let bias = match bias {
        [value] => vec![*value; outputs],
        all => all.to_vec(),
    };
    Ok(Some(GraphLayer {
        kind,
        channels,
        weights: weights.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
        bias,
        leak: None,
        from: Format::F32,
        to: Format::F32,
    }))
}

/// The negative slope of a LeakyReLU node, if the node is one.
fn leak_of(node: &TypedNode) -> Option<f32> {
    let op = node.op_as::<ElementWiseOp>()?;
    let slope = op.0.downcast_ref::<LeakyRelu>()?.alpha;
    // Compiled layers compute LeakyReLU as the maximum of a value and its product with the slope.
    (0.0..=1.0).contains(&slope).then_some(slope)
}

/// How values are quantised between two consecutive nodes that quantise and dequantise them.
fn quantisation_between(quantise: &TypedNode, dequantise: &TypedNode) -> Option<Quantisation> {
    let quantise = quantise.op_as::<ElementWiseOp>()?;
    let quantise = quantise.0.downcast_ref::<QuantizeLinearI8>()?;
    let dequantise = dequantise.op_as::<DequantizeLinearF32>()?;
    let same = i32::from(quantise.zero_point) == dequantise.zero_point
        && (quantise.scale * dequantise.scale - 1.0).abs() < 1e-6;
    same.then_some(Quantisation {
        scale: dequantise.scale,
        zero_point: quantise.zero_point,
    })
}

/// A layer that takes 8-bit values from the node before.
struct QuantisedSuccessor<'a> {
    quantisation: Quantisation,
    /// The nodes that quantise and dequantise these values.
    between: [&'a TypedNode; 2],
    layer: (&'a TypedNode, GraphLayer),
}

/// The layer that follows a node through 8-bit values, if there is one.
fn quantised_successor<'a>(
    model: &'a TypedModel,
    node: &TypedNode,
) -> TractResult<Option<QuantisedSuccessor<'a>>> {
    let Some(quantise) = only_successor(model, node) else {
        return Ok(None);
    };
    let Some(dequantise) = only_successor(model, quantise) else {
        return Ok(None);
    };
    let (Some(quantisation), Some(next)) = (
        quantisation_between(quantise, dequantise),
        only_successor(model, dequantise),
    ) else {
        return Ok(None);
    };
    let layer = layer_at(model, next)?.filter(GraphLayer::takes_quantised);
    Ok(layer.map(|layer| QuantisedSuccessor {
        quantisation,
        between: [quantise, dequantise],
        layer: (next, layer),
    }))
}

/// The only successor of a node, if it has just one and is not an output of the graph.
fn only_successor<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    let outlet = OutletId::new(node.id, 0);
    match node.outputs[0].successors.as_slice() {
        [next] if !model.outputs.contains(&outlet) => Some(model.node(next.node)),
        _ => None,
    }
}

/// A graph with compiled layers in it.
pub(super) struct Fused {
    pub(super) model: TypedModel,
    /// The layers by themselves, if the graph has nothing else.
    pub(super) chain: Option<Arc<Chain>>,
    /// Whether any layer computes in half precision.
    pub(super) half: bool,
}

/// Replaces every layer of the network in the graph; other nodes stay. With `half`, values between
/// layers are in half precision where kernels for it exist. A quantised graph is left in f32
/// between its other layers, since those must stay exact.
pub(super) fn fuse(
    model: &TypedModel,
    pool: &Pool,
    tuner: &mut Autotuner,
    half: bool,
) -> TractResult<Fused> {
    let mut fused = TypedModel {
        symbols: model.symbols.clone(),
        ..TypedModel::default()
    };
    let mut map: HashMap<OutletId, OutletId> = HashMap::new();
    // Nodes that have become part of compiled layers.
    let mut inside = HashSet::new();
    let mut only_chain = None;
    let mut halved = false;
    for id in model.eval_order()? {
        let node = model.node(id);
        let outlet = OutletId::new(id, 0);
        if inside.contains(&id) {
            continue;
        }
        let mut layers = Vec::new();
        let mut last = node;
        let layer = |node| Ok::<_, TractError>(layer_at(model, node)?.map(|found| (node, found)));
        let mut next = layer(node)?;
        let mut from = Format::F32;
        while let Some((node, mut found)) = next {
            last = node;
            inside.insert(node.id);
            if let Some(activation) = only_successor(model, node)
                && let Some(leak) = leak_of(activation)
            {
                found.leak = Some(leak);
                last = activation;
                inside.insert(activation.id);
            }
            found.from = std::mem::replace(&mut from, Format::F32);
            next = match (
                quantised_successor(model, last)?,
                only_successor(model, last),
            ) {
                (Some(after), _) => {
                    found.to = if tuner.prefers_integers() {
                        Format::I8(after.quantisation)
                    } else {
                        Format::Levels(after.quantisation)
                    };
                    from = found.to;
                    inside.extend(after.between.map(|node| node.id));
                    Some(after.layer)
                }
                (None, Some(after)) => {
                    let after = layer(after)?;
                    if half
                        && !matches!(found.from, Format::I8(_) | Format::Levels(_))
                        && let Some((_, next)) = &after
                        && tuner.has_kernel(&next.shape(Operand::F16))
                    {
                        found.to = Format::F16;
                        from = found.to;
                        halved = true;
                    }
                    after
                }
                (None, None) => None,
            };
            let definition = found.definition();
            layers.push(tuner.layer(&definition)?);
        }
        if layers.is_empty() {
            let inputs: TVec<OutletId> = node.inputs.iter().map(|input| map[input]).collect();
            let wired = if model.inputs.contains(&outlet) {
                tvec!(fused.add_source(&node.name, node.outputs[0].fact.clone())?)
            } else {
                fused.wire_node(&node.name, node.op.clone(), &inputs)?
            };
            for (slot, wired) in wired.into_iter().enumerate() {
                map.insert(OutletId::new(id, slot), wired);
            }
            continue;
        }
        let chain = Arc::new(Chain::new(layers, pool.clone()));
        let (from, to) = (node.inputs[0], OutletId::new(last.id, 0));
        if *model.inputs == [from] && *model.outputs == [to] {
            only_chain = Some(Arc::clone(&chain));
        }
        let wired = fused.wire_node(&last.name, ChainOp(chain), &[map[&from]])?;
        map.insert(to, wired[0]);
    }
    let outputs: Vec<OutletId> = model.outputs.iter().map(|outlet| map[outlet]).collect();
    fused.select_output_outlets(&outputs)?;
    Ok(Fused {
        model: fused,
        chain: only_chain,
        half: halved,
    })
}

//! Our layers as tract operators, in place of the convolutions that a loaded graph has.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::nn::{DataFormat, LeakyRelu};
use tract_onnx::tract_core::ops::quant::{DequantizeLinearF32, QuantizeLinearI8};

use super::gemm::Operand;
use super::idle::Idle;
use super::image::{Image, Output};
use super::kernels::{Kernels, Shape};
use super::layer::{Definition, Kind, Layer};
use super::pool::Pool;
use super::rescale::{Format, Quantisation, Quantised};

/// Layers that follow each other in a graph. In and out: N × C × H × W.
#[derive(Debug, Clone)]
struct Layers(Arc<Chain>);

/// The layers, with their threads and memory.
#[derive(Debug)]
pub(super) struct Chain {
    layers: Vec<Layer>,
    pool: Pool,
    /// What layers put out, for frames that come later: one set for each frame at the same time.
    idle: Idle<Vec<Output>>,
}

/// Images of more values than that between two layers do not keep their memory for the next frame.
const KEPT_VALUES: usize = 8 << 20;

impl Chain {
    /// The threads that share the work on an image.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The rows of what each layer puts out that `rows` of the last one's are made of.
    fn rows_of_each(&self, height: usize, rows: Range<usize>) -> Vec<Range<usize>> {
        let mut heights = vec![height];
        for layer in &self.layers {
            heights.push(layer.output_side(&heights[heights.len() - 1]));
        }
        let last = heights[heights.len() - 1];
        let mut wanted = rows.start.min(last)..rows.end.min(last);
        let mut all = vec![wanted.clone()];
        for (layer, height) in self.layers.iter().zip(&heights).skip(1).rev() {
            wanted = layer.rows_behind(&wanted, *height);
            all.push(wanted.clone());
        }
        all.reverse();
        all
    }

    /// Runs all layers on an image, by the threads of a pool, as far as these rows of what comes out of the last need it;
    /// `take` gets that. Its other rows are not to be looked at.
    pub(super) fn run<T>(
        &self,
        image: Image<'_, f32>,
        rows: Range<usize>,
        pool: &Pool,
        take: impl FnOnce(&Output) -> TractResult<T>,
    ) -> TractResult<T> {
        let kept = self.idle.take();
        let mut outputs =
            kept.unwrap_or_else(|| self.layers.iter().map(|_| Output::default()).collect());
        let mut large = false;
        let rows = self.rows_of_each(image.size()[1], rows);
        for (index, (layer, rows)) in self.layers.iter().zip(&rows).enumerate() {
            let (before, rest) = outputs.split_at_mut(index);
            let out = &mut rest[0];
            match before.last() {
                None => layer.run(&image, rows, pool, out)?,
                Some(output) if output.value() == Some(i8::datum_type()) => {
                    layer.run(&output.image::<i8>()?, rows, pool, out)?;
                }
                Some(output) if output.value() == Some(f16::datum_type()) => {
                    layer.run(&output.image::<f16>()?, rows, pool, out)?;
                }
                Some(output) => layer.run(&output.image::<f32>()?, rows, pool, out)?,
            }
            large |= rest[0].size().iter().product::<usize>() > KEPT_VALUES;
            if large && let Some(output) = before.last_mut() {
                *output = Output::default();
            }
        }
        let taken = take(outputs.last().context("there is no layer")?)?;
        if !large {
            self.idle.keep(outputs);
        }
        Ok(taken)
    }
}

impl PartialEq for Layers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Layers {}

impl Op for Layers {
    fn name(&self) -> StaticName {
        "AwrLayers".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Layers {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[1, channels, height, width] = input.shape() else {
            bail!("expected one image, found {:?}", input.shape());
        };
        let data = input.try_as_plain_ram()?.as_slice::<f32>()?;
        let image = Image::of_planes(data, [channels, height, width])?;
        let output = self.0.run(image, 0..usize::MAX, self.0.pool(), |output| {
            let [channels, height, width] = output.size();
            Tensor::from_shape(&[1, channels, height, width], &output.planes()?)
        })?;
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for Layers {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape: TVec<TDim> = inputs[0].shape.to_tvec();
        for layer in &self.0.layers {
            shape[1] = layer.outputs().to_dim();
            for side in &mut shape[2..] {
                *side = layer.output_side(side);
            }
        }
        Ok(tvec!(f32::fact(shape)))
    }
}

/// A layer as the graph has it.
struct Found {
    kind: Kind,
    channels: [usize; 2],
    weights: Vec<f32>,
    bias: Vec<f32>,
    leak: Option<f32>,
    from: Format,
    to: Format,
}

impl Found {
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

    /// Its shape, with operands of a kind.
    fn shape(&self, operand: Operand) -> Shape {
        Shape {
            kind: self.kind,
            channels: self.channels,
            operand,
        }
    }

    /// Whether it can be computed with what comes in quantised.
    fn takes_quantised(&self) -> bool {
        let [inputs, outputs] = self.channels;
        // Kernels take four rows at a time.
        inputs.is_multiple_of(4) && Quantised::recover(outputs, &self.weights).is_some()
    }
}

/// Whether it is the network's: of a kind's side, of stride 2, padded by half of the side (paper, IV-C).
fn is_ours(pool: &PoolSpec, kind: Kind) -> bool {
    let side = kind.side();
    let half = side / 2;
    let padding = PaddingSpec::Explicit(tvec!(half, half), tvec!(half, half));
    pool.data_format == DataFormat::NCHW
        && *pool.kernel_shape == [side, side]
        && *pool.strides() == [2, 2]
        && *pool.dilations() == [1, 1]
        && pool.padding == padding
}

/// What an outlet always gives, if it does; tract leaves large weights in 8 bits with what makes numbers of them.
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

/// The layer that a node is, if it is one.
fn layer_at(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Found>> {
    let found = if let Some(conv) = node.op_as::<Conv>() {
        let ours =
            conv.group == 1 && conv.q_params.is_none() && is_ours(&conv.pool_spec, Kind::Down);
        ours.then_some((Kind::Down, &conv.pool_spec, conv.kernel_fmt))
    } else if let Some(deconv) = node.op_as::<Deconv>() {
        let plain = deconv.group == 1 && *deconv.adjustments == [0, 0];
        let kind = [Kind::Up, Kind::WideUp]
            .into_iter()
            .find(|&kind| plain && is_ours(&deconv.pool_spec, kind));
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
    Ok(Some(Found {
        kind,
        channels,
        weights: weights.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
        bias,
        leak: None,
        from: Format::F32,
        to: Format::F32,
    }))
}

/// The slope of the LeakyReLU that a node is, if it is one.
fn leak_of(node: &TypedNode) -> Option<f32> {
    let op = node.op_as::<ElementWiseOp>()?;
    let slope = op.0.downcast_ref::<LeakyRelu>()?.alpha;
    // Ours take the higher of a value and its product with the slope.
    (0.0..=1.0).contains(&slope).then_some(slope)
}

/// How the values between two nodes are quantised that follow each other.
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

/// A layer that takes 8-bit values.
struct Follower<'a> {
    quantisation: Quantisation,
    /// What quantises, and what makes numbers of the values again.
    between: [&'a TypedNode; 2],
    layer: (&'a TypedNode, Found),
}

/// The layer that follows a node by way of 8-bit values, if one does.
fn quantised_successor<'a>(
    model: &'a TypedModel,
    node: &TypedNode,
) -> TractResult<Option<Follower<'a>>> {
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
    let layer = layer_at(model, next)?.filter(Found::takes_quantised);
    Ok(layer.map(|layer| Follower {
        quantisation,
        between: [quantise, dequantise],
        layer: (next, layer),
    }))
}

/// The only node that takes what this one gives.
fn only_successor<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    let outlet = OutletId::new(node.id, 0);
    match node.outputs[0].successors.as_slice() {
        [next] if !model.outputs.contains(&outlet) => Some(model.node(next.node)),
        _ => None,
    }
}

/// A graph with our layers in it.
pub(super) struct Fused {
    pub(super) model: TypedModel,
    /// The layers by themselves, if there is nothing else in it.
    pub(super) whole: Option<Arc<Chain>>,
    /// Whether any of them computes in half precision.
    pub(super) half: bool,
}

/// The graph with our layers instead of its own. What is no such layer stays. With `half`, values between layers are of half
/// precision where there are kernels for it, but in a quantised graph none: what it keeps in f32 is what must be exact.
pub(super) fn fuse(
    model: &TypedModel,
    pool: &Pool,
    kernels: &mut Kernels,
    half: bool,
) -> TractResult<Fused> {
    let mut fused = TypedModel {
        symbols: model.symbols.clone(),
        ..TypedModel::default()
    };
    let mut map: HashMap<OutletId, OutletId> = HashMap::new();
    // Nodes that have become part of ours.
    let mut inside = HashSet::new();
    let mut whole = None;
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
                    found.to = if kernels.integers_pay() {
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
                        && kernels.any(&next.shape(Operand::F16))
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
            layers.push(kernels.layer(&definition)?);
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
        let chain = Arc::new(Chain {
            layers,
            pool: pool.clone(),
            idle: Idle::default(),
        });
        let (from, to) = (node.inputs[0], OutletId::new(last.id, 0));
        if *model.inputs == [from] && *model.outputs == [to] {
            whole = Some(Arc::clone(&chain));
        }
        let wired = fused.wire_node(&last.name, Layers(chain), &[map[&from]])?;
        map.insert(to, wired[0]);
    }
    let outputs: Vec<OutletId> = model.outputs.iter().map(|outlet| map[outlet]).collect();
    fused.select_output_outlets(&outputs)?;
    Ok(Fused {
        model: fused,
        whole,
        half: halved,
    })
}

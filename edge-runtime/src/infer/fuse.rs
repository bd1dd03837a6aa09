//! Our layers as tract operators, in place of the convolutions that a loaded graph has.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::nn::{DataFormat, LeakyRelu};

use super::layer::{Image, Kind, Layer, Order};
use super::pool::Pool;

/// A layer in a graph.
#[derive(Debug, Clone)]
struct Fused {
    layer: Arc<Layer>,
    pool: Pool,
    /// How its input lies.
    input: Order,
    /// How its output lies.
    output: Order,
}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.layer, &other.layer)
            && (self.input, self.output) == (other.input, other.output)
    }
}

impl Eq for Fused {}

impl Op for Fused {
    fn name(&self) -> StaticName {
        "AwrLayer".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fused {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[_, a, b, width] = input.shape() else {
            bail!("expected an image, found {:?}", input.shape());
        };
        let (channels, height) = match self.input {
            Order::Planes => (a, b),
            Order::Rows => (b, a),
        };
        let image = Image {
            data: input.try_as_plain_ram()?.as_slice::<f32>()?,
            order: self.input,
            channels,
            height,
            width,
        };
        let rows = self.pool.run(|threads| self.layer.run(image, threads))?;
        let (height, width) = self.layer.output_size(height, width);
        let channels = self.layer.outputs();
        let output = match self.output {
            Order::Rows => Tensor::from_shape(&[1, height, channels, width], &rows)?,
            Order::Planes => {
                let mut planes = vec![0.0; rows.len()];
                for (index, line) in rows.chunks_exact(width).enumerate() {
                    let (row, channel) = (index / channels, index % channels);
                    let start = (channel * height + row) * width;
                    planes[start..start + width].copy_from_slice(line);
                }
                Tensor::from_shape(&[1, channels, height, width], &planes)?
            }
        };
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for Fused {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = &inputs[0].shape;
        let (height, width) = match self.input {
            Order::Planes => (&shape[2], &shape[3]),
            Order::Rows => (&shape[1], &shape[3]),
        };
        let size = |length: &TDim| match self.layer.kind() {
            Kind::Down => (length.clone() - 1) / 2 + 1,
            Kind::Up => length.clone() * 2 - 1,
        };
        let (height, width) = (size(height), size(width));
        let channels = self.layer.outputs().to_dim();
        let shape = match self.output {
            Order::Planes => [1.to_dim(), channels, height, width],
            Order::Rows => [1.to_dim(), height, channels, width],
        };
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
}

/// Whether it is the network's kind: 3×3, stride 2, padding 1, dilation 1 (paper, IV-C).
fn is_ours(pool: &PoolSpec) -> bool {
    let padding = PaddingSpec::Explicit(tvec!(1, 1), tvec!(1, 1));
    pool.data_format == DataFormat::NCHW
        && *pool.kernel_shape == [3, 3]
        && *pool.strides() == [2, 2]
        && *pool.dilations() == [1, 1]
        && pool.padding == padding
}

/// The layer that a node is, if it is one.
fn layer_at(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Found>> {
    let found = if let Some(conv) = node.op_as::<Conv>() {
        let ours = conv.group == 1 && conv.q_params.is_none() && is_ours(&conv.pool_spec);
        ours.then_some((Kind::Down, &conv.pool_spec, conv.kernel_fmt))
    } else if let Some(deconv) = node.op_as::<Deconv>() {
        let ours = deconv.group == 1 && *deconv.adjustments == [0, 0] && is_ours(&deconv.pool_spec);
        ours.then_some((Kind::Up, &deconv.pool_spec, deconv.kernel_format))
    } else {
        None
    };
    let Some((kind, pool, format)) = found else {
        return Ok(None);
    };
    let constant = |index: usize| {
        let outlet = node.inputs.get(index)?;
        model.outlet_fact(*outlet).ok()?.konst.clone()
    };
    let (Some(weights), Some(bias)) = (constant(1), constant(2)) else {
        return Ok(None);
    };
    let channels = [pool.input_channels, pool.output_channels];
    let [inputs, outputs] = channels;
    if format != KernelFormat::OIHW
        || weights.shape() != [outputs, inputs, 3, 3]
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
    }))
}

/// The slope of the LeakyReLU that a node is, if it is one.
fn leak_of(node: &TypedNode) -> Option<f32> {
    let op = node.op_as::<ElementWiseOp>()?;
    Some(op.0.downcast_ref::<LeakyRelu>()?.alpha)
}

/// The only node that takes what this one gives.
fn only_successor<'a>(model: &'a TypedModel, node: &TypedNode) -> Option<&'a TypedNode> {
    let outlet = OutletId::new(node.id, 0);
    match node.outputs[0].successors.as_slice() {
        [next] if !model.outputs.contains(&outlet) => Some(model.node(next.node)),
        _ => None,
    }
}

/// The graph with our layers instead of its own; `kernel` says which kernel a layer gets. What is no such layer stays.
pub(super) fn fuse(
    model: &TypedModel,
    pool: &Pool,
    mut kernel: impl FnMut(&super::kernels::Shape) -> TractResult<super::gemm::Kernel>,
) -> TractResult<TypedModel> {
    let mut fused = TypedModel {
        symbols: model.symbols.clone(),
        ..TypedModel::default()
    };
    let mut map: HashMap<OutletId, OutletId> = HashMap::new();
    // Outlets whose rows and channels have changed places.
    let mut in_rows: HashMap<OutletId, ()> = HashMap::new();
    for id in model.eval_order()? {
        let node = model.node(id);
        let outlet = OutletId::new(id, 0);
        if map.contains_key(&outlet) {
            continue;
        }
        if let Some(mut found) = layer_at(model, node)? {
            let mut last = node;
            if let Some(next) = only_successor(model, node)
                && let Some(leak) = leak_of(next)
            {
                found.leak = Some(leak);
                last = next;
            }
            let next_is_layer = match only_successor(model, last) {
                Some(next) => layer_at(model, next)?.is_some(),
                None => false,
            };
            let source = node.inputs[0];
            let op = Fused {
                layer: Arc::new(Layer::new(
                    found.kind,
                    found.channels,
                    &found.weights,
                    &found.bias,
                    found.leak,
                    kernel(&super::kernels::Shape {
                        kind: found.kind,
                        channels: found.channels,
                    })?,
                )?),
                pool: pool.clone(),
                input: if in_rows.contains_key(&source) {
                    Order::Rows
                } else {
                    Order::Planes
                },
                output: if next_is_layer {
                    Order::Rows
                } else {
                    Order::Planes
                },
            };
            let wired = fused.wire_node(&last.name, op, &[map[&source]])?[0];
            let outlet = OutletId::new(last.id, 0);
            if next_is_layer {
                in_rows.insert(outlet, ());
            }
            map.insert(outlet, wired);
            continue;
        }
        let inputs: TVec<OutletId> = node.inputs.iter().map(|input| map[input]).collect();
        let wired = if model.inputs.contains(&outlet) {
            tvec!(fused.add_source(&node.name, node.outputs[0].fact.clone())?)
        } else {
            fused.wire_node(&node.name, node.op.clone(), &inputs)?
        };
        for (slot, wired) in wired.into_iter().enumerate() {
            map.insert(OutletId::new(id, slot), wired);
        }
    }
    let outputs: Vec<OutletId> = model.outputs.iter().map(|outlet| map[outlet]).collect();
    fused.select_output_outlets(&outputs)?;
    Ok(fused)
}

//! The part of onnx.proto3 that the writer needs, and short constructors for its messages.

/// Version of the ONNX operator set.
const OPSET: i64 = 13;
/// Version of ONNX's intermediate representation.
const IR: i64 = 8;
/// Name of a graph's input, N × C × H × W.
pub const INPUT: &str = "input";
/// Name of a graph's output, N × C × H × W.
pub const OUTPUT: &str = "anomaly";
/// `AttributeProto.AttributeType.FLOAT`.
const ATTRIBUTE_FLOAT: i32 = 1;
/// `AttributeProto.AttributeType.INT`.
const ATTRIBUTE_INT: i32 = 2;
/// `AttributeProto.AttributeType.STRING`.
const ATTRIBUTE_STRING: i32 = 3;
/// `AttributeProto.AttributeType.INTS`.
const ATTRIBUTE_INTS: i32 = 7;
/// `TensorProto.DataType.FLOAT`.
const TYPE_FLOAT: i32 = 1;
/// `TensorProto.DataType.INT8`.
const TYPE_INT8: i32 = 3;

/// The bytes of a model with this graph; `metadata` goes to `metadata_props`.
pub(super) fn encode_model(graph: Graph, metadata: &[(String, String)]) -> Vec<u8> {
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

/// An operator with one output, named after both.
pub(super) fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: format!("{op}:{output}"),
        op_type: op.to_owned(),
        attribute,
    }
}

/// An attribute that is a list of integers.
pub(super) fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.to_owned(),
        ints: values.to_vec(),
        kind: ATTRIBUTE_INTS,
        ..Attribute::default()
    }
}

/// An attribute that is an integer.
pub(super) fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: Some(value),
        kind: ATTRIBUTE_INT,
        ..Attribute::default()
    }
}

/// An attribute that is a number.
pub(super) fn float(name: &str, f: f32) -> Attribute {
    Attribute {
        name: name.to_owned(),
        f,
        kind: ATTRIBUTE_FLOAT,
        ..Attribute::default()
    }
}

/// An attribute that is a string.
pub(super) fn text(name: &str, value: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        s: value.as_bytes().to_vec(),
        kind: ATTRIBUTE_STRING,
        ..Attribute::default()
    }
}

/// A constant of f32 values.
pub(super) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorData {
    TensorData {
        dims: dims.to_vec(),
        data_type: TYPE_FLOAT,
        name: name.to_owned(),
        raw_data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

/// A constant of i8 values.
pub(super) fn int8_tensor(name: &str, dims: &[i64], values: &[i8]) -> TensorData {
    TensorData {
        dims: dims.to_vec(),
        data_type: TYPE_INT8,
        name: name.to_owned(),
        raw_data: values.iter().map(|value| value.cast_unsigned()).collect(),
    }
}

/// An input or output of size N × `channels` × H × W, where N, H and W are dynamic.
pub(super) fn value_info(name: &str, channels: i64) -> ValueInfo {
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
                element: TYPE_FLOAT,
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
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorData>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
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
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    /// Written even where it is 0, because ONNX checkers require it.
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
pub(super) struct TensorData {
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
pub(super) struct ValueInfo {
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

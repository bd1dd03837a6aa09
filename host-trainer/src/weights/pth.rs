//! Converts state dicts from PyTorch's files to safetensors. There are two formats: zip archives
//! (`archive/data.pkl`, `archive/data/KEY`), and the older one (magic number, protocol, system
//! information, the pickle, storage keys, and each storage's length and data).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;
use scoring::io::atomic::{WriteError, write_atomic};

use crate::arrays::encoded;

use super::pickle::{self, PickleError, Value};

/// The low eight bytes of 0x1950a86a20f9469cfc6c.
const MAGIC: i64 = 0xa86a_20f9_469c_fc6c_u64 as i64;
/// Most bytes of a file that are read; no VGG has more.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// Prefix of the names of the tensors that a perceptual loss needs.
const FEATURES: &str = "features.";
/// Most bytes of a data.pkl.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// Why weights cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a readable zip archive.
    #[error("not a PyTorch archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// Its pickle is refused.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// Its content is not a state dict.
    #[error("not a state dict: {0}")]
    Content(String),
    /// The weights cannot be encoded.
    #[error("cannot encode the weights")]
    Encode(#[from] safetensors::SafeTensorError),
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Names of the imported tensors.
    pub tensors: Vec<String>,
    /// Number of tensors left out: those of the classifier, which no loss needs.
    pub left_out: usize,
}

/// Type of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ElementType {
    F32,
    F64,
    F16,
}

impl ElementType {
    /// The type of a storage class.
    fn of(storage: &str) -> Option<Self> {
        match storage {
            "torch.FloatStorage" => Some(Self::F32),
            "torch.DoubleStorage" => Some(Self::F64),
            "torch.HalfStorage" => Some(Self::F16),
            _ => None,
        }
    }

    /// Bytes per element.
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F16 => 2,
        }
    }

    /// An element's value.
    fn value(self, bytes: &[u8]) -> Option<f32> {
        Some(match self {
            Self::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            Self::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            Self::F16 => half(u16::from_le_bytes(bytes.try_into().ok()?)),
        })
    }
}

/// The value of an IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

/// Where a tensor's values are.
struct Layout {
    element: ElementType,
    /// Key of the storage.
    key: String,
    /// Index of the first value in the storage.
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

/// Converts the convolutions of a torchvision state dict (`features.*`) to safetensors.
pub fn import_weights(pth: &Path, out: &Path) -> Result<Imported, ImportError> {
    let read = |source| ImportError::Read {
        path: pth.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(pth)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(read)?;
    let (state, storages) = if bytes.starts_with(b"PK") {
        from_zip(&bytes)?
    } else {
        from_legacy(&bytes)?
    };
    let Value::Dict(entries) = state else {
        return Err(ImportError::Content(
            "expected an ordered dict of tensors".into(),
        ));
    };
    let mut tensors = Vec::new();
    let mut left_out = 0;
    for (name, value) in entries {
        let (Value::Text(name), Value::Tensor(arguments)) = (name, value) else {
            return Err(ImportError::Content("expected names with tensors".into()));
        };
        if !name.starts_with(FEATURES) {
            left_out += 1;
            continue;
        }
        let layout = layout(&name, &arguments)?;
        let storage = storages
            .get(&layout.key)
            .ok_or_else(|| ImportError::Content(format!("the storage of {name} is missing")))?;
        let values = gather(&name, &layout, storage)?;
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        tensors.push((name.to_string(), layout.size, data));
    }
    if tensors.is_empty() {
        return Err(ImportError::Content(
            "expected torchvision's names (features.0.weight …), found none of them".into(),
        ));
    }
    write_atomic(out, &encoded(&tensors, Dtype::F32, None)?)?;
    Ok(Imported {
        tensors: tensors.into_iter().map(|(name, ..)| name).collect(),
        left_out,
    })
}

/// Storages by key, borrowed from the file where it has them in one piece.
type Storages<'a> = HashMap<String, Cow<'a, [u8]>>;

fn big_endian() -> ImportError {
    ImportError::Content("expected little-endian values, found big-endian".into())
}

/// Reads a zip archive.
fn from_zip(bytes: &[u8]) -> Result<(Value, Storages<'_>), ImportError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let names = archive
        .file_names()
        .map(|name| name.map(|name| name.into_owned()))
        .collect::<Result<Vec<String>, _>>()?;
    let pickle = names
        .iter()
        .find(|name| name.ends_with("/data.pkl"))
        .ok_or_else(|| ImportError::Content("no data.pkl in the archive".into()))?;
    let root = pickle.trim_end_matches("data.pkl").to_owned();
    // Entries are stored uncompressed, so together they cannot be larger than the archive. Those of
    // a zip bomb claim to be.
    let mut budget = bytes.len() as u64;
    let mut extract = |name: &str, limit: u64| -> Result<Vec<u8>, ImportError> {
        let entry = archive.by_name(name)?;
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(ImportError::Content(format!(
                "expected {name} uncompressed, as PyTorch stores it"
            )));
        }
        if entry.size() > limit.min(budget) {
            return Err(ImportError::Content(format!("{name} is too large")));
        }
        budget -= entry.size();
        let mut content = Vec::new();
        entry
            .take(limit)
            .read_to_end(&mut content)
            .map_err(zip::result::ZipError::Io)?;
        Ok(content)
    };
    // Files from before PyTorch 2.1 do not state the byte order; in practice it is little-endian.
    let order = format!("{root}byteorder");
    if names.contains(&order) && extract(&order, 16)? != b"little" {
        return Err(big_endian());
    }
    let (state, _) = pickle::read(&extract(pickle, MAX_PICKLE_BYTES)?)?;
    let wanted = storage_elements(&state, |name| name.starts_with(FEATURES))?;
    let mut storages = HashMap::new();
    let known: HashSet<&String> = names.iter().collect();
    for key in wanted.into_keys() {
        let name = format!("{root}data/{key}");
        if known.contains(&name) {
            let storage = extract(&name, bytes.len() as u64)?;
            storages.insert(key, Cow::Owned(storage));
        }
    }
    Ok((state, storages))
}

/// Reads a file in the older format.
fn from_legacy(bytes: &[u8]) -> Result<(Value, Storages<'_>), ImportError> {
    let mut at = 0;
    let mut next = || -> Result<Value, PickleError> {
        let (value, length) = pickle::read(&bytes[at..])?;
        at += length;
        Ok(value)
    };
    if next()? != Value::Int(MAGIC) {
        return Err(ImportError::Content(
            "expected PyTorch's magic number".into(),
        ));
    }
    next()?; // protocol
    let little = (Value::Text("little_endian".into()), Value::Bool(true));
    match next()? {
        Value::Dict(machine) if machine.contains(&little) => {}
        _ => return Err(big_endian()),
    }
    let state = next()?;
    let Value::List(keys) = next()? else {
        return Err(ImportError::Content(
            "expected a list of storage keys".into(),
        ));
    };
    let elements = storage_elements(&state, |_| true)?;
    let mut storages = HashMap::new();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(ImportError::Content("expected text as storage key".into()));
        };
        let cut_off = || ImportError::Content(format!("storage {key} is cut off"));
        let header = bytes.get(at..at + 8).ok_or_else(cut_off)?;
        let count = header.try_into().map_or(0, u64::from_le_bytes);
        let element = elements
            .get(&*key)
            .ok_or_else(|| ImportError::Content(format!("storage {key} belongs to no tensor")))?;
        let length = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(element.bytes()));
        let end = length.and_then(|length| length.checked_add(at + 8));
        let data = end
            .and_then(|end| bytes.get(at + 8..end))
            .ok_or_else(cut_off)?;
        at += 8 + data.len();
        storages.insert(key.to_string(), Cow::Borrowed(data));
    }
    Ok((state, storages))
}

/// The element type of each storage that a tensor with a wanted name uses.
fn storage_elements(
    state: &Value,
    wanted: impl Fn(&str) -> bool,
) -> Result<HashMap<String, ElementType>, ImportError> {
    let mut elements = HashMap::new();
    if let Value::Dict(entries) = state {
        for entry in entries {
            if let (Value::Text(name), Value::Tensor(arguments)) = entry
                && wanted(name)
            {
                let layout = layout(name, arguments)?;
                elements.insert(layout.key, layout.element);
            }
        }
    }
    Ok(elements)
}

/// Reads the arguments of `_rebuild_tensor_v2`: storage, offset, size, stride, ….
fn layout(name: &str, arguments: &[Value]) -> Result<Layout, ImportError> {
    let wrong = |what: &str| ImportError::Content(format!("tensor {name}: expected {what}"));
    let [
        Value::Persistent(id),
        Value::Int(offset),
        Value::Tuple(size),
        Value::Tuple(stride),
        ..,
    ] = arguments
    else {
        return Err(wrong("storage, offset, size and stride"));
    };
    let Value::Tuple(id) = &**id else {
        return Err(wrong("a storage"));
    };
    let [Value::Text(word), Value::Global(kind), Value::Text(key), ..] = &**id else {
        return Err(wrong("a storage"));
    };
    // Files from before PyTorch 0.4 may place a storage inside another one, with an offset.
    if !matches!(
        &**id,
        [_, _, _] | [_, _, _, _] | [_, _, _, _, _] | [_, _, _, _, _, Value::None]
    ) {
        return Err(wrong("a storage of its own, not a view of another"));
    }
    let element = ElementType::of(kind).filter(|_| &**word == "storage");
    let whole = |values: &[Value]| -> Option<Vec<usize>> {
        let number = |value: &Value| match value {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        values.iter().map(number).collect()
    };
    Ok(Layout {
        element: element.ok_or_else(|| wrong("float, double or half values"))?,
        key: key.to_string(),
        offset: usize::try_from(*offset).map_err(|_| wrong("an offset of at least 0"))?,
        size: whole(size).ok_or_else(|| wrong("a size"))?,
        stride: whole(stride)
            .filter(|s| s.len() == size.len())
            .ok_or_else(|| wrong("a stride for each dimension"))?,
    })
}

/// Collects a tensor's values in row-major order, following its strides.
fn gather(name: &str, layout: &Layout, storage: &[u8]) -> Result<Vec<f32>, ImportError> {
    let outside = || ImportError::Content(format!("tensor {name} reaches beyond its storage"));
    let bytes = layout.element.bytes();
    let available = storage.len() / bytes;
    let count = layout
        .size
        .iter()
        .try_fold(1usize, |product, &side| product.checked_mul(side))
        // A broadcast tensor (stride 0) may be larger than its storage, but weights never are.
        .filter(|&count| count <= available)
        .ok_or_else(outside)?;
    let mut values = Vec::with_capacity(count);
    for index in 0..count {
        let (mut rest, mut at) = (index, layout.offset);
        for (&side, &stride) in layout.size.iter().zip(&layout.stride).rev() {
            at = (rest % side)
                .checked_mul(stride)
                .and_then(|step| at.checked_add(step))
                .ok_or_else(outside)?;
            rest /= side;
        }
        let start = at.checked_mul(bytes).ok_or_else(outside)?;
        let element = start
            .checked_add(bytes)
            .and_then(|end| storage.get(start..end));
        values.push(
            element
                .and_then(|bytes| layout.element.value(bytes))
                .ok_or_else(outside)?,
        );
    }
    Ok(values)
}

//! Encodes named arrays as a safetensors file.

use std::collections::HashMap;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};

/// Name, shape, and the bytes of the values in little-endian order.
pub type Array<B> = (String, Vec<usize>, B);

/// Returns the bytes of the file.
pub fn encoded<B: AsRef<[u8]>>(
    arrays: &[Array<B>],
    values: Dtype,
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, SafeTensorError> {
    let mut views = Vec::with_capacity(arrays.len());
    for (name, size, bytes) in arrays {
        views.push((name, TensorView::new(values, size.clone(), bytes.as_ref())?));
    }
    safetensors::serialize(views, metadata)
}

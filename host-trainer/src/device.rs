//! Chooses the device to train on at run time: one binary serves machines with and without a GPU.

use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Device};

/// A device as the user names it: `cpu`, `cuda:N` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The N-th NVIDIA GPU.
    Cuda(usize),
    /// The first GPU if it can be used, otherwise the processor.
    Auto,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is unknown.
    #[error("unknown device `{0}`: expected cpu, cuda:N (e.g. cuda:0) or auto")]
    Name(String),
    /// libtorch's CUDA backend cannot be loaded.
    #[error(
        "cuda:{index} asked for, but libtorch's CUDA backend cannot be loaded ({reason}); `cargo xtask setup --cuda` fetches it"
    )]
    Backend {
        /// The GPU asked for.
        index: usize,
        /// The loader's message.
        reason: String,
    },
    /// The backend is loaded, but finds no such GPU or no driver.
    #[error(
        "cuda:{index} asked for, but libtorch finds {found} usable NVIDIA GPUs here: check the driver with nvidia-smi, or use --device cpu"
    )]
    Missing {
        /// The GPU asked for.
        index: usize,
        /// Number of usable GPUs.
        found: i64,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => out.write_str("cpu"),
            Self::Cuda(index) => write!(out, "cuda:{index}"),
            Self::Auto => out.write_str("auto"),
        }
    }
}

impl DeviceChoice {
    /// Loads the device's backend if it has one.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => cuda(index),
            Self::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
        }
    }
}

fn cuda(index: usize) -> Result<Device, DeviceError> {
    // Load the backend before the first query: libtorch caches for the whole process that there was
    // none.
    let loaded = load_backend();
    let found = Cuda::device_count();
    match loaded {
        _ if Cuda::is_available() && (index as i64) < found => Ok(Device::Cuda(index)),
        Err(reason) if !Cuda::is_available() => Err(DeviceError::Backend { index, reason }),
        _ => Err(DeviceError::Missing { index, found }),
    }
}

/// Loads `libtorch_cuda.so`, which registers the CUDA backend. The binary is linked against
/// libtorch's CPU part alone, so that it starts without the CUDA libraries.
fn load_backend() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(
        unsafe_code,
        reason = "loading a library runs its initialisers; this one is libtorch's own, found by the run path of \
                  this binary, and it must never be unloaded, so the handle is leaked"
    )]
    // SAFETY: see the reason above. No symbol is looked up, so no signature can be wrong.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    // The error itself only says that dlopen failed; its source names the missing file.
    let reason = |error: libloading::Error| {
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    std::mem::forget(library.map_err(reason)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for text in ["cpu", "auto", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let error = "gpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("gpu") && error.contains("cuda:0"), "{error}");
    }

    #[test]
    fn a_missing_gpu_is_an_error_with_a_hint() {
        // No machine has a hundred GPUs. Without the backend its absence is reported instead.
        let error = DeviceChoice::Cuda(99).open().unwrap_err();
        let names_a_library = |error: &DeviceError| !matches!(error, DeviceError::Backend { reason, .. } if !reason.contains(".so"));
        assert!(names_a_library(&error), "{error}");
        let error = error.to_string();
        assert!(error.contains("cuda:99"), "{error}");
        assert!(
            error.contains("--device cpu") || error.contains("setup --cuda"),
            "{error}"
        );
    }
}

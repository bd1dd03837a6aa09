//! A package before it is signed.

use ed25519_dalek::SigningKey;
use proto::manifest::{MANIFEST_FORMAT, Manifest};
use scoring::inspector::Inspector;
use scoring::package::{Loaded, PackageError, Trust, Verified, encode};

use super::error::PackagingError;
use crate::quantise::Cost;

/// A package's content before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The manifest.
    pub manifest: Manifest,
    /// The graph.
    pub onnx: Vec<u8>,
    /// What quantisation costs, if the graph is quantised.
    pub cost: Option<Cost>,
}

impl Draft {
    /// Takes an existing package, to be changed and signed again.
    pub fn from_package(package: &Verified) -> Self {
        let mut manifest = package.manifest().clone();
        manifest.format = MANIFEST_FORMAT;
        Self {
            manifest,
            onnx: package.onnx().to_vec(),
            cost: None,
        }
    }

    /// Signs the content; returns the bytes of the package.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, PackageError> {
        encode(&self.manifest, &self.onnx, key)
    }

    /// Loads the draft as a camera would: through container, verification and parity gate.
    pub fn inspector(&self, key: &SigningKey) -> Result<Inspector, PackagingError> {
        let verified = Loaded::new(self.sign(key)?)?.verify(&Trust::AnySigner)?;
        Inspector::new(&verified).map_err(PackagingError::Inspector)
    }
}

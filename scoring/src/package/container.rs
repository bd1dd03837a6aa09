//! The bytes of a package file:
//!
//! ```text
//! 0   8  magic "AWRPKG\r\n" (a transfer in text mode destroys it)
//! 8   4  container version, u32 little-endian: 1
//! 12  4  length of the manifest, u32 little-endian
//! 16  8  length of the ONNX graph, u64 little-endian
//! 24  …  manifest (postcard), ONNX graph
//! …   32 ed25519 public key of the signer
//! …   64 ed25519 signature (RFC 8032) over everything before it
//! ```

use std::borrow::Cow;

use ed25519_dalek::{
    PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, Signer, SigningKey, VerifyingKey,
};
use proto::limits::{MAX_MANIFEST_BYTES, MAX_ONNX_BYTES};
use proto::manifest::{
    GoldenFrame, GrainStatistics, LayerStatistics, Manifest, Reading, SeenImages, SegmentationGain,
};
use sha2::{Digest, Sha256};

use super::check::check_manifest;
use super::keys::key_id;

const MAGIC: [u8; 8] = *b"AWRPKG\r\n";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The file is not a package.
    #[error("not a model package: expected it to begin with {MAGIC:02x?}, found {found:02x?}")]
    Magic {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The container has another version.
    #[error(
        "expected package version {VERSION}, found {found}: another version of this program wrote it"
    )]
    Version {
        /// The container's version.
        found: u32,
    },
    /// A length exceeds its limit.
    #[error("expected {what} of at most {limit} bytes, found {found}")]
    Limit {
        /// What has that length.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
        /// The length in bytes that the header states.
        found: u64,
    },
    /// The file was cut off, or something was appended to it.
    #[error("expected a package of {expected} bytes, found {found}: it was cut off or appended to")]
    Length {
        /// The length in bytes that the header implies.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// The manifest cannot be decoded.
    #[error("the manifest cannot be decoded: {0}")]
    Manifest(String),
    /// A manifest of a format that is too old.
    #[error(
        "expected manifest format {expected}, found {found}: package the run again with this version's host-trainer"
    )]
    OldFormat {
        /// The format that this version writes.
        expected: u16,
        /// The package's format.
        found: u16,
    },
    /// A manifest of a newer format.
    #[error(
        "expected manifest format {expected}, found {found}: a newer version wrote it, so update this program"
    )]
    NewFormat {
        /// The format that this version reads and writes.
        expected: u16,
        /// The package's format.
        found: u16,
    },
    /// The signer's public key is not a valid key.
    #[error("the signer's public key is not a valid ed25519 key")]
    Key,
    /// The package was changed after it was signed, or signed without the key.
    #[error("the signature does not match: the package was altered or damaged after it was signed")]
    Signature,
    /// The signer is not trusted here.
    #[error("signed by {found}, which is not among the trusted keys ({trusted})")]
    Untrusted {
        /// The signer's key id.
        found: String,
        /// The key ids that are trusted.
        trusted: String,
    },
    /// The graph is not the one that the manifest describes.
    #[error("the ONNX graph's SHA-256 differs from the manifest's")]
    Onnx,
    /// The manifest contradicts itself.
    #[error("the manifest is not consistent: {0}")]
    Inconsistent(String),
}

/// Whose signatures are accepted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Any valid signature. Only for a person at a workstation, who is shown the signer, and never
    /// for a camera.
    AnySigner,
    /// Signatures by these keys.
    Only(Vec<VerifyingKey>),
}

/// Encodes a package and signs it with `key`.
pub fn encode(manifest: &Manifest, onnx: &[u8], key: &SigningKey) -> Result<Vec<u8>, PackageError> {
    let manifest = postcard::to_allocvec(manifest)
        .map_err(|error| PackageError::Manifest(error.to_string()))?;
    check_lengths(manifest.len() as u64, onnx.len() as u64)?;
    let mut bytes = Vec::with_capacity(HEADER + manifest.len() + onnx.len() + 96);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(onnx.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&manifest);
    bytes.extend_from_slice(onnx);
    bytes.extend_from_slice(key.verifying_key().as_bytes());
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    Ok(bytes)
}

fn check_lengths(manifest: u64, onnx: u64) -> Result<(), PackageError> {
    for (what, limit, found) in [
        ("a manifest", MAX_MANIFEST_BYTES as u64, manifest),
        ("an ONNX graph", MAX_ONNX_BYTES, onnx),
    ] {
        if found > limit {
            return Err(PackageError::Limit { what, limit, found });
        }
    }
    Ok(())
}

/// A package whose container is well-formed. Nothing in it can be trusted yet.
#[derive(Debug)]
pub struct Loaded {
    bytes: Vec<u8>,
    manifest_end: usize,
}

impl Loaded {
    /// Checks magic, version and lengths.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PackageError> {
        let magic = bytes.get(..8).unwrap_or(&bytes);
        if magic != MAGIC {
            return Err(PackageError::Magic {
                found: magic.to_vec(),
            });
        }
        let found = bytes.len() as u64;
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(PackageError::Length {
            expected: HEADER as u64,
            found,
        })?;
        let [.., a, b, c, d] = header[..12] else {
            return Err(PackageError::Version { found: 0 });
        };
        let version = u32::from_le_bytes([a, b, c, d]);
        if version != VERSION {
            return Err(PackageError::Version { found: version });
        }
        let mut length = [0; 4];
        length.copy_from_slice(&header[12..16]);
        let manifest = u64::from(u32::from_le_bytes(length));
        let mut length = [0; 8];
        length.copy_from_slice(&header[16..24]);
        let onnx = u64::from_le_bytes(length);
        check_lengths(manifest, onnx)?;
        let tail = (PUBLIC_KEY_LENGTH + SIGNATURE_LENGTH) as u64;
        let expected = HEADER as u64 + manifest + onnx + tail;
        if expected != found {
            return Err(PackageError::Length { expected, found });
        }
        Ok(Self {
            manifest_end: HEADER + manifest as usize,
            bytes,
        })
    }

    /// Checks the signature, whether the signer is trusted, and that manifest and graph belong
    /// together.
    pub fn verify(self, trust: &Trust) -> Result<Verified, PackageError> {
        let sha256 = Sha256::digest(&self.bytes).into();
        let (signed, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_LENGTH);
        let (content, key) = signed.split_at(signed.len() - PUBLIC_KEY_LENGTH);
        let signature = Signature::from_slice(signature).map_err(|_| PackageError::Signature)?;
        let signer = <&[u8; PUBLIC_KEY_LENGTH]>::try_from(key)
            .ok()
            .and_then(|key| VerifyingKey::from_bytes(key).ok())
            .ok_or(PackageError::Key)?;
        signer
            .verify_strict(signed, &signature)
            .map_err(|_| PackageError::Signature)?;
        if let Trust::Only(trusted) = trust
            && !trusted.contains(&signer)
        {
            let ids: Vec<String> = trusted.iter().map(key_id).collect();
            return Err(PackageError::Untrusted {
                found: key_id(&signer),
                trusted: ids.join(", "),
            });
        }
        let manifest = decode_manifest(&content[HEADER..self.manifest_end])?;
        let onnx = self.manifest_end..content.len();
        if <[u8; 32]>::from(Sha256::digest(&content[onnx.clone()])) != manifest.onnx_sha256 {
            return Err(PackageError::Onnx);
        }
        check_manifest(&manifest).map_err(PackageError::Inconsistent)?;
        Ok(Verified {
            manifest,
            bytes: self.bytes,
            onnx,
            signer,
            sha256,
        })
    }
}

/// The oldest format that is read.
const OLDEST_FORMAT: u16 = 8;

/// Decodes a manifest. The format is its first field, so that a format that is not read is reported
/// as such instead of as a decoding error. The fields that an older format lacks are at the end;
/// they get the values that say what programs of that time did.
fn decode_manifest(bytes: &[u8]) -> Result<Manifest, PackageError> {
    let failed = |error: postcard::Error| PackageError::Manifest(error.to_string());
    let expected = proto::manifest::MANIFEST_FORMAT;
    let found = postcard::take_from_bytes::<u16>(bytes).map_err(failed)?.0;
    if found < OLDEST_FORMAT {
        return Err(PackageError::OldFormat { expected, found });
    }
    if found > expected {
        return Err(PackageError::NewFormat { expected, found });
    }
    let mut bytes = Cow::Borrowed(bytes);
    if found < 9 {
        bytes.to_mut().extend(added_by_format_9().map_err(failed)?);
    }
    if found < 10 {
        bytes.to_mut().extend(added_by_format_10().map_err(failed)?);
    }
    if found < 11 {
        bytes.to_mut().extend(added_by_format_11().map_err(failed)?);
    }
    let (manifest, rest) = postcard::take_from_bytes(&bytes).map_err(failed)?;
    match rest.len() {
        0 => Ok(manifest),
        more => Err(PackageError::Manifest(format!("{more} bytes too many"))),
    }
}

/// The fields that format 9 added, for packages that lack them. Postcard writes a structure as its
/// fields in order.
fn added_by_format_9() -> postcard::Result<Vec<u8>> {
    let golden_frame: Option<GoldenFrame> = None;
    let segmentation_gain: Option<SegmentationGain> = None;
    postcard::to_allocvec(&(
        Reading::AS_STORED,
        SeenImages::default(),
        golden_frame,
        segmentation_gain,
    ))
}

/// The fields that format 10 added.
fn added_by_format_10() -> postcard::Result<Vec<u8>> {
    let layers: Option<LayerStatistics> = None;
    let decisions: Vec<String> = Vec::new();
    postcard::to_allocvec(&(layers, decisions))
}

/// The field that format 11 added.
fn added_by_format_11() -> postcard::Result<Vec<u8>> {
    let grain: Option<GrainStatistics> = None;
    postcard::to_allocvec(&grain)
}

/// A package whose signature is valid and whose parts belong together.
#[derive(Debug, Clone)]
pub struct Verified {
    manifest: Manifest,
    bytes: Vec<u8>,
    onnx: std::ops::Range<usize>,
    signer: VerifyingKey,
    sha256: [u8; 32],
}

impl Verified {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The ONNX graph.
    pub fn onnx(&self) -> &[u8] {
        &self.bytes[self.onnx.clone()]
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the file, which identifies the package.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The signer's public key.
    pub fn signer(&self) -> &VerifyingKey {
        &self.signer
    }
}

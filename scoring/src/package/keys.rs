//! Reads and writes ed25519 keys as text files of one line: `awr-signing-key-v1` or
//! `awr-public-key-v1`, and 64 hexadecimal digits.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use secure::{from_hex, hex};
use sha2::{Digest, Sha256};

use crate::io::text::decode;

const SIGNING: &str = "awr-signing-key-v1";
const PUBLIC: &str = "awr-public-key-v1";

/// Why a key cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file cannot be written; an existing key is never overwritten.
    #[error("cannot write key {} (an existing key is never overwritten)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file does not contain a key of this kind.
    #[error("{}: expected one line `{expected}` and 64 hexadecimal digits", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The word that the line must begin with.
        expected: &'static str,
    },
}

/// Short name of a key: the first 8 bytes of its SHA-256, in hexadecimal.
pub fn key_id(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.as_bytes())[..8])
}

/// Writes a signing key, readable only by its owner, and its public key as PATH.pub.
pub fn write_key_pair(path: &Path, key: &SigningKey) -> Result<PathBuf, KeyError> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    // The public key first: a signing key without one would be useless, and could not be written
    // again under the same name.
    write_new(&public, PUBLIC, key.verifying_key().as_bytes(), 0o644)?;
    let written = write_new(path, SIGNING, &key.to_bytes(), 0o600);
    if written.is_err() {
        fs::remove_file(&public).ok();
    }
    written.map(|()| public)
}

fn write_new(path: &Path, kind: &str, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = |source| KeyError::Write {
        path: path.to_owned(),
        source,
    };
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = write_synced(&partial, &format!("{kind} {}\n", hex(bytes)), mode)
        .and_then(|()| place_new(&partial, path));
    fs::remove_file(&partial).ok();
    written.map_err(failed)
}

fn write_synced(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives a file its name unless the name is taken. A hard link, unlike a rename, does not replace
/// an existing file.
fn place_new(partial: &Path, path: &Path) -> std::io::Result<()> {
    match fs::hard_link(partial, path) {
        // FAT has no hard links.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && !path.exists() => {
            fs::rename(partial, path)
        }
        linked => linked,
    }
}

/// A warning about a signing key that others than its owner can read or change, as text.
pub fn exposed_key_warning(path: &Path) -> Option<String> {
    let mode = secure::file::exposed_mode(path).ok().flatten()?;
    Some(format!(
        "signing key {}: expected that only its owner can read it, found mode {mode:04o}; whoever \
         reads it can sign packages that cameras accept: run `chmod 600 {}`",
        path.display(),
        path.display()
    ))
}

/// Reads a signing key.
pub fn read_signing_key(path: &Path) -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_bytes(&read(path, SIGNING)?))
}

/// Reads a public key.
pub fn read_public_key(path: &Path) -> Result<VerifyingKey, KeyError> {
    let bytes = read(path, PUBLIC)?;
    VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Content {
        path: path.to_owned(),
        expected: PUBLIC,
    })
}

fn read(path: &Path, expected: &'static str) -> Result<[u8; 32], KeyError> {
    let bytes = fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    // Editors, mail and Windows' shells add a byte order mark, quotes, blanks or line endings of
    // their own, or save as UTF-16.
    let text = decode(&bytes).unwrap_or_default();
    let line = text.trim().trim_matches('"');
    let digits = line.trim().strip_prefix(expected).map(str::trim);
    digits.and_then(from_hex).ok_or_else(|| KeyError::Content {
        path: path.to_owned(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_written_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = write_key_pair(&path, &key).unwrap();
        assert_eq!(read_signing_key(&path).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(read_public_key(&public).unwrap(), key.verifying_key());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(exposed_key_warning(&path), None);
        assert!(
            write_key_pair(&path, &key).is_err(),
            "an existing key is kept"
        );
        assert_eq!(read_signing_key(&path).unwrap().to_bytes(), key.to_bytes());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "nothing but the pair is left");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let warning = exposed_key_warning(&path).unwrap();
        assert!(warning.contains("0644") && warning.contains("chmod 600"));
        let error = read_public_key(&path).unwrap_err().to_string();
        assert!(
            error.contains(PUBLIC),
            "a secret is not taken for a public key: {error}"
        );
    }

    #[test]
    fn a_key_is_read_however_an_editor_saved_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pub");
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let digits = hex(key.as_bytes());
        let line = format!("{PUBLIC} {digits}");
        let marked = format!("\u{feff}{line}\r\n");
        let same = [
            marked.clone().into_bytes(),
            format!("\r\n  \"{line}\" \r\r\n\n").into_bytes(),
            format!("{PUBLIC}\t{}", digits.to_uppercase()).into_bytes(),
            marked.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ];
        for bytes in same {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(read_public_key(&path).unwrap(), key, "{bytes:?}");
        }
        for text in [
            &line[..line.len() - 1],
            &format!("{line}\n{line}"),
            "\u{feff}",
        ] {
            fs::write(&path, text).unwrap();
            assert!(read_public_key(&path).is_err(), "{text}");
        }
    }
}

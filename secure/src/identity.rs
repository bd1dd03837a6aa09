//! A party's own key pair, kept in a file that its owner alone can read: `awr-link-key-v1 BASE16`.

use std::io;
use std::path::{Path, PathBuf};

use crate::{PublicKey, file, from_hex, hex};

const WORD: &str = "awr-link-key-v1";

/// Why a link key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system refuses.
    #[error("cannot {action} link key {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error("{}: expected one line `{WORD}` and 64 hexadecimal digits", .0.display())]
    Content(PathBuf),
    /// The system gives no random numbers.
    #[error("no random numbers for a link key")]
    Random(#[source] snow::Error),
}

/// A static key pair.
#[derive(Clone)]
pub struct Identity {
    secret: [u8; 32],
    public: PublicKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", crate::key_id(&self.public))
    }
}

impl Identity {
    /// A new one.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = crate::handshake::generate().map_err(IdentityError::Random)?;
        Ok(Self {
            secret: pair.0,
            public: pair.1,
        })
    }

    /// From its secret half: for tests, whose keys must be known beforehand.
    pub fn from_secret(secret: [u8; 32]) -> Result<Self, IdentityError> {
        let public = crate::handshake::public_of(&secret).map_err(IdentityError::Random)?;
        Ok(Self { secret, public })
    }

    /// Reads the key of a file, or makes one and keeps it there.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| {
            move |source| IdentityError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        match file::read(path).map_err(failed("read"))? {
            Some(text) => {
                let digits = text.trim_end().strip_prefix(WORD).map(str::trim);
                let secret = digits
                    .and_then(from_hex)
                    .ok_or_else(|| IdentityError::Content(path.to_owned()))?;
                Self::from_secret(secret)
            }
            None => {
                let identity = Self::generate()?;
                let text = format!("{WORD} {}\n", hex(&identity.secret));
                file::write(path, text.as_bytes(), 0o600).map_err(failed("write"))?;
                Ok(identity)
            }
        }
    }

    /// The half that others may know.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("keys/link.key");
        let made = Identity::load_or_create(&path)?;
        assert_eq!(Identity::load_or_create(&path)?.public(), made.public());
        let mode = std::fs::metadata(&path)?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(&hex(made.secret())));
        std::fs::write(&path, "awr-link-key-v1 12\n")?;
        assert!(matches!(
            Identity::load_or_create(&path),
            Err(IdentityError::Content(_))
        ));
        Ok(())
    }

    #[test]
    fn the_public_half_is_x25519s() -> Result<(), Box<dyn std::error::Error>> {
        // From the pseudocode of RFC 7748, section 5, in Python.
        let secret = std::array::from_fn(|index| index as u8 + 1);
        let public = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
        assert_eq!(hex(Identity::from_secret(secret)?.public()), public);
        Ok(())
    }
}

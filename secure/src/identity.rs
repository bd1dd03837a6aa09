//! A party's own key pair, kept in a file that only its owner can read. The file holds one line,
//! `awr-link-key-v1 BASE16`.

use std::io;
use std::path::{Path, PathBuf};

use crate::file;
use crate::key::{PublicKey, from_hex, hex, key_id};
use crate::noise::{generate_key_pair, public_key_of};

/// First word of the file: its format.
const FORMAT: &str = "awr-link-key-v1";

/// Why a link key could not be loaded or created.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {action} link key {}", path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: expected one line `{FORMAT}` and 64 hexadecimal digits", .0.display())]
    Content(PathBuf),
    /// Others than the owner of the file can read or change it.
    #[error(
        "link key {}: expected that only its owner can read it, found mode {mode:04o}; if nobody \
         else has read it, run `chmod 600 {}`, otherwise delete it and pair again",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system provides no random numbers.
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
        write!(f, "Identity({})", key_id(&self.public))
    }
}

impl Identity {
    /// Generates a new key pair.
    pub fn generate() -> Result<Self, IdentityError> {
        let (secret, public) = generate_key_pair().map_err(IdentityError::Random)?;
        Ok(Self { secret, public })
    }

    /// Derives the key pair from its secret half.
    pub fn from_secret(secret: [u8; 32]) -> Result<Self, IdentityError> {
        let public = public_key_of(&secret).map_err(IdentityError::Random)?;
        Ok(Self { secret, public })
    }

    /// Reads the key from a file, or generates one and stores it there if the file does not exist. A
    /// file that others than its owner can read or change is refused.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| {
            move |source| IdentityError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let read = file::read(path).map_err(|error| match error.kind() {
            // Bytes that are no text, as a bad block leaves them.
            io::ErrorKind::InvalidData => IdentityError::Content(path.to_owned()),
            _ => failed("read")(error),
        });
        match read? {
            Some(text) => {
                if let Some(mode) = file::exposed_mode(path).map_err(failed("read"))? {
                    return Err(IdentityError::Exposed {
                        path: path.to_owned(),
                        mode,
                    });
                }
                let digits = text.trim_end().strip_prefix(FORMAT).map(str::trim);
                let secret = digits
                    .and_then(from_hex)
                    .ok_or_else(|| IdentityError::Content(path.to_owned()))?;
                Self::from_secret(secret)
            }
            None => {
                let identity = Self::generate()?;
                let text = format!("{FORMAT} {}\n", hex(&identity.secret));
                file::write(path, text.as_bytes(), file::PRIVATE).map_err(failed("write"))?;
                Ok(identity)
            }
        }
    }

    /// Returns the public half.
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
    fn a_key_is_generated_once_and_only_its_owner_can_read_it()
    -> Result<(), Box<dyn std::error::Error>> {
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
    fn a_key_that_others_can_read_or_change_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("link.key");
        Identity::load_or_create(&path)?;
        for mode in [0o644, 0o640, 0o660, 0o604, 0o602, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            let Err(error @ IdentityError::Exposed { .. }) = Identity::load_or_create(&path) else {
                return Err(format!("mode {mode:o}").into());
            };
            let text = error.to_string();
            assert!(text.contains("chmod 600") && text.contains(&format!("{mode:04o}")));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400))?;
        Identity::load_or_create(&path)?;
        Ok(())
    }

    #[test]
    fn the_public_half_is_that_of_x25519() -> Result<(), Box<dyn std::error::Error>> {
        // Computed in Python from the pseudocode of RFC 7748, section 5.
        let secret = std::array::from_fn(|index| index as u8 + 1);
        let public = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
        assert_eq!(hex(Identity::from_secret(secret)?.public()), public);
        Ok(())
    }
}

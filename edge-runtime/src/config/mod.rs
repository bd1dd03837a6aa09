//! `camera.toml`: everything that a camera is configured with at its start.
//!
//! Unknown keys are errors with a suggestion, because a misspelt safety setting that is silently
//! ignored costs more than a camera that does not start.

mod check;
mod hardware;
#[cfg(test)]
mod reference;
mod schema;
mod suggest;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use hardware::*;
pub use schema::*;
use suggest::with_suggestion;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not valid TOML, or a key or value is not allowed.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file. Relative paths in it start at the file's folder.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text).map_err(|reason| ConfigError::Content {
            path: path.to_owned(),
            reason,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.resolve_paths(folder);
        Ok(config)
    }

    /// Parses and checks TOML. The error is one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("line {line}: {}", with_suggestion(error.message()))
        })?;
        config.check()?;
        Ok(config)
    }

    /// Resolves relative paths against a folder.
    fn resolve_paths(&mut self, folder: &Path) {
        let mut paths: Vec<&mut PathBuf> = vec![&mut self.state];
        paths.extend(&mut self.model.package);
        paths.extend(&mut self.model.trust);
        paths.extend(&mut self.model.roi_mask);
        paths.extend(&mut self.golden.good);
        paths.extend(&mut self.golden.bad);
        if let Capture::Replay { path, .. } = &mut self.capture {
            paths.push(path);
        }
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

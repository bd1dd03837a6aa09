//! Settings that stations have made: threshold and region of interest of a package, and the mode.
//!
//! In: changes of stations. Out: what is in force at the next start. Each change is on the disk
//! before it takes effect, so that a power cut cannot loosen a threshold that was tightened. A
//! setting belongs to a package and to what was in force before it: another package has its own,
//! and a change of `camera.toml` takes the place of a station's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::manifest::Roi;
use proto::message::{Mode, SettingSource, cut_text};
use proto::report::Event;
use scoring::inspector::Inspector;
use scoring::io::atomic::{WriteError, write_atomic};
use serde::{Deserialize, Serialize};

use super::checked::{self, Unusable};
use crate::clock::unix_ms;

/// Packages whose settings are kept. One more evicts those that were changed longest ago.
const MAX_MODELS: usize = 8;

/// Why the file was not used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is damaged, and its copy was used.
    #[error("{} is damaged; its copy is used", .0.display())]
    CopyUsed(PathBuf),
    /// It is damaged, and so is its copy.
    #[error(
        "{} and its copy are damaged: thresholds, masks and the mode that stations set are not in \
         force", .0.display()
    )]
    Damaged(PathBuf),
}

impl From<Unusable> for SettingsError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Read { path, source } => Self::Read { path, source },
            Unusable::Damaged(path) => Self::Damaged(path),
        }
    }
}

/// Who changes a setting, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) station: &'a str,
    pub(super) reason: &'a str,
}

/// A setting that a station has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Made<T> {
    value: T,
    /// What was in force without it. If that changes, the setting is over.
    instead_of: T,
    station: String,
    reason: String,
    unix_ms: u64,
}

impl<T> Made<T> {
    fn new(value: T, instead_of: T, by: By<'_>) -> Self {
        Self {
            value,
            instead_of,
            station: cut_text(by.station),
            reason: cut_text(by.reason),
            unix_ms: unix_ms(),
        }
    }

    fn source(&self) -> SettingSource {
        SettingSource::Station {
            station: self.station.clone(),
            reason: self.reason.clone(),
            unix_ms: self.unix_ms,
        }
    }
}

/// The settings of a package.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct OfModel {
    model_id: String,
    threshold: Option<Made<Option<f32>>>,
    roi: Option<Made<Roi>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Stored {
    mode: Option<Made<Mode>>,
    /// In the order of their last changes.
    models: Vec<OfModel>,
}

impl Stored {
    fn of(&self, model_id: &str) -> Option<&OfModel> {
        self.models.iter().find(|model| model.model_id == model_id)
    }

    fn change(&mut self, model_id: String, change: impl FnOnce(&mut OfModel)) {
        let index = self.models.iter().position(|of| of.model_id == model_id);
        let mut model = match index {
            Some(index) => self.models.remove(index),
            None => OfModel {
                model_id,
                ..OfModel::default()
            },
        };
        change(&mut model);
        if model.threshold.is_some() || model.roi.is_some() {
            self.models.push(model);
        }
        if self.models.len() > MAX_MODELS {
            self.models.remove(0);
        }
    }
}

/// Where each value in force comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sources {
    pub(super) threshold: SettingSource,
    pub(super) mask: SettingSource,
    pub(super) mode: SettingSource,
}

/// The settings that stations have made, in a file.
#[derive(Debug, Default)]
pub struct Settings {
    /// `None`: they are kept in memory only.
    path: Option<PathBuf>,
    stored: Mutex<Stored>,
}

impl Settings {
    /// Reads the file, or its copy where it is damaged or lost. One that cannot be used is kept
    /// aside under another name.
    pub fn open(path: &Path) -> (Self, Option<SettingsError>) {
        let (stored, error) = match (checked::read::<Stored>(path), checked::read(&copy_of(path))) {
            (Ok(Some(stored)), _) => (stored, None),
            // The copy is written second, so a copy without the file means that the file was lost.
            (Ok(None), Ok(Some(stored))) => {
                (stored, Some(SettingsError::CopyUsed(path.to_owned())))
            }
            (Ok(None), _) => (Stored::default(), None),
            (Err(error), copy) => {
                // What cannot be read now may be readable at the next start.
                if matches!(error, Unusable::Damaged(_)) {
                    std::fs::rename(path, path.with_extension("json.damaged")).ok();
                }
                match copy {
                    Ok(Some(stored)) => (stored, Some(SettingsError::CopyUsed(path.to_owned()))),
                    _ => (Stored::default(), Some(error.into())),
                }
            }
        };
        // Otherwise one more damage would cost the settings.
        if let (Some(SettingsError::CopyUsed(_)), Ok(text)) = (&error, checked::to_json(&stored)) {
            write_atomic(path, &text).ok();
        }
        let settings = Self {
            path: Some(path.to_owned()),
            stored: Mutex::new(stored),
        };
        (settings, error)
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        // What is stored is replaced as a whole.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change durable; only then is it in force.
    fn change(&self, change: impl FnOnce(&mut Stored)) -> Result<(), WriteError> {
        let mut stored = self.lock();
        let mut changed = stored.clone();
        change(&mut changed);
        if changed == *stored {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let failed = |error| WriteError {
                path: path.clone(),
                source: io::Error::other(error),
            };
            let text = checked::to_json(&changed).map_err(failed)?;
            write_atomic(path, &text)?;
            // The file is enough; the copy only helps if the file is damaged later.
            if let Err(error) = write_atomic(&copy_of(path), &text) {
                tracing::warn!(%error, "the copy of the settings is not up to date");
            }
        }
        *stored = changed;
        Ok(())
    }

    /// Keeps a threshold. The one that would be in force without it is `instead_of`.
    pub(super) fn set_threshold(
        &self,
        model_id: &[u8; 8],
        value: f32,
        instead_of: Option<f32>,
        by: By<'_>,
    ) -> Result<(), WriteError> {
        let made = Made::new(Some(value), instead_of, by);
        self.change(|stored| stored.change(secure::hex(model_id), |of| of.threshold = Some(made)))
    }

    /// Keeps a region of interest.
    pub(super) fn set_roi(
        &self,
        model_id: &[u8; 8],
        value: Roi,
        instead_of: Roi,
        by: By<'_>,
    ) -> Result<(), WriteError> {
        let made = Made::new(value, instead_of, by);
        self.change(|stored| stored.change(secure::hex(model_id), |of| of.roi = Some(made)))
    }

    /// Keeps a mode.
    pub(super) fn set_mode(
        &self,
        value: Mode,
        instead_of: Mode,
        by: By<'_>,
    ) -> Result<(), WriteError> {
        let made = Made::new(value, instead_of, by);
        self.change(|stored| stored.mode = Some(made))
    }

    /// The inspector with the settings of its package, and an event for each that is over because
    /// something else is in force without it now.
    pub(super) fn apply(&self, mut inspector: Inspector) -> (Inspector, Vec<Event>) {
        let model_id = secure::hex(&inspector.model_id());
        let Some(of) = self.lock().of(&model_id).cloned() else {
            return (inspector, Vec::new());
        };
        let mut kept = of.clone();
        let mut over = Vec::new();
        if let Some(made) = of.threshold {
            if made.instead_of == inspector.threshold() {
                inspector = match made.value {
                    Some(value) => inspector.with_threshold(value),
                    None => inspector,
                };
            } else {
                kept.threshold = None;
                let now = threshold_text(inspector.threshold());
                over.push(setting_is_over(
                    "threshold",
                    threshold_text(made.value),
                    now,
                ));
            }
        }
        if let Some(made) = of.roi {
            if made.instead_of == inspector.manifest().roi {
                inspector = inspector.with_roi(made.value);
            } else {
                kept.roi = None;
                let now = roi_text(&inspector.manifest().roi);
                over.push(setting_is_over("mask", roi_text(&made.value), now));
            }
        }
        if !over.is_empty() {
            self.forget(|stored| stored.change(model_id, |of| *of = kept));
        }
        (inspector, over)
    }

    /// The mode in force where `configured` is that of `camera.toml`.
    pub(super) fn apply_mode(&self, configured: Mode) -> (Mode, Option<Event>) {
        let made = self.lock().mode.clone();
        match made {
            Some(made) if made.instead_of == configured => (made.value, None),
            Some(made) => {
                self.forget(|stored| stored.mode = None);
                let over = setting_is_over("mode", mode_text(made.value), mode_text(configured));
                (configured, Some(over))
            }
            None => (configured, None),
        }
    }

    /// A disk that refuses writes does not keep the program from starting: the setting is found to
    /// be over at the next start again.
    fn forget(&self, change: impl FnOnce(&mut Stored)) {
        if let Err(error) = self.change(change) {
            tracing::error!(%error, "cannot write the settings");
        }
    }

    /// Where the values in force come from. `configured` tells which come from `camera.toml`.
    pub(super) fn sources(&self, model_id: Option<&[u8; 8]>, configured: Configured) -> Sources {
        let stored = self.lock();
        let of = model_id.and_then(|id| stored.of(&secure::hex(id)));
        let otherwise = |is_configured: bool| {
            if is_configured {
                SettingSource::Configuration
            } else {
                SettingSource::Package
            }
        };
        let threshold = of.and_then(|of| of.threshold.as_ref()).map(Made::source);
        let roi = of.and_then(|of| of.roi.as_ref()).map(Made::source);
        let mode = stored.mode.as_ref().map(Made::source);
        Sources {
            threshold: threshold.unwrap_or_else(|| otherwise(configured.threshold)),
            mask: roi.unwrap_or_else(|| otherwise(configured.mask)),
            mode: mode.unwrap_or(SettingSource::Configuration),
        }
    }
}

/// Which of the active package's values `camera.toml` replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) threshold: bool,
    pub(super) mask: bool,
}

fn setting_is_over(setting: &str, before: String, after: String) -> Event {
    let reason = "the configuration has changed: it takes the place of the station's setting";
    tracing::warn!(setting, before, after, reason, "setting changed");
    Event::SettingChanged {
        setting: setting.to_owned(),
        before,
        after,
        reason: reason.to_owned(),
        station: String::new(),
    }
}

pub(super) fn threshold_text(threshold: Option<f32>) -> String {
    threshold.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

pub(super) fn mode_text(mode: Mode) -> String {
    format!("{mode:?}").to_lowercase()
}

pub(super) fn roi_text(roi: &Roi) -> String {
    match roi {
        Roi::Whole => "whole frame".to_owned(),
        Roi::Polygons(polygons) => format!("{} polygons", polygons.len()),
        Roi::Bitmap { width, height, .. } => format!("bitmap of {width}×{height}"),
    }
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("copy.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: By<'_> = By {
        station: "office",
        reason: "a customer complained",
    };

    #[test]
    fn the_mode_of_a_station_is_in_force_after_a_restart_until_the_configuration_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let (settings, error) = Settings::open(&path);
        assert!(error.is_none());
        assert_eq!(settings.apply_mode(Mode::Inspect).0, Mode::Inspect);
        settings.set_mode(Mode::Observe, Mode::Inspect, BY).unwrap();
        let (settings, _) = Settings::open(&path);
        assert_eq!(settings.apply_mode(Mode::Inspect), (Mode::Observe, None));
        let sources = settings.sources(None, Configured::default());
        assert!(
            matches!(sources.mode, SettingSource::Station { station, .. } if station == "office")
        );
        let (mode, event) = settings.apply_mode(Mode::Observe);
        assert_eq!(mode, Mode::Observe);
        assert!(event.is_some(), "the configuration says so itself now");
        let (settings, _) = Settings::open(&path);
        assert_eq!(settings.apply_mode(Mode::Inspect), (Mode::Inspect, None));
    }

    #[test]
    fn a_change_that_cannot_be_written_is_not_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let (settings, _) = Settings::open(&path);
        // Renaming over a folder that is not empty fails.
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(settings.set_threshold(&[1; 8], 0.5, Some(1.0), BY).is_err());
        let sources = settings.sources(Some(&[1; 8]), Configured::default());
        assert_eq!(sources.threshold, SettingSource::Package);
    }

    #[test]
    fn no_damaged_byte_changes_a_setting_and_without_a_copy_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let (settings, _) = Settings::open(&path);
        settings
            .set_threshold(&[1; 8], 0.25, Some(1.0), BY)
            .unwrap();
        settings.set_mode(Mode::Observe, Mode::Inspect, BY).unwrap();
        let expected = settings.lock().clone();
        let whole = std::fs::read(&path).unwrap();
        let copy = std::fs::read(copy_of(&path)).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            let (found, _) = Settings::open(&path);
            assert_eq!(
                *found.lock(),
                expected,
                "{}",
                String::from_utf8_lossy(&damaged)
            );
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let (_, error) = Settings::open(&path);
        assert!(matches!(error, Some(SettingsError::CopyUsed(_))));
        assert!(path.with_extension("json.damaged").exists());
        assert!(
            matches!(Settings::open(&path), (_, None)),
            "it was written anew"
        );
        std::fs::remove_file(&path).unwrap();
        let (found, error) = Settings::open(&path);
        assert!(matches!(error, Some(SettingsError::CopyUsed(_))));
        assert_eq!(*found.lock(), expected);
        std::fs::write(&path, b"{").unwrap();
        std::fs::write(copy_of(&path), &copy[1..]).unwrap();
        let (found, error) = Settings::open(&path);
        assert!(matches!(error, Some(SettingsError::Damaged(_))));
        assert_eq!(*found.lock(), Stored::default());
    }

    #[test]
    fn packages_whose_settings_were_changed_longest_ago_are_forgotten_first() {
        let settings = Settings::default();
        for id in 0..=MAX_MODELS as u8 {
            settings.set_threshold(&[id; 8], 0.5, None, BY).unwrap();
            settings.set_threshold(&[1; 8], 0.6, None, BY).unwrap();
        }
        let source = |id| {
            let sources = settings.sources(Some(&[id; 8]), Configured::default());
            sources.threshold
        };
        assert_eq!(source(0), SettingSource::Package);
        assert_ne!(source(1), SettingSource::Package);
        assert_ne!(source(MAX_MODELS as u8), SettingSource::Package);
    }
}

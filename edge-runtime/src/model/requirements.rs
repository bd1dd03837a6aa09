//! What the configuration requires of packages, and loading one accordingly.

use proto::manifest::Roi;
use scoring::infer::Tuning;
use scoring::inspect::roi;
use scoring::inspector::Inspector;
use scoring::package::{Trust, Verified};

use super::error::UpdateError;
use super::version::Version;
use crate::error_text::one_line;

/// What the configuration requires of packages, and how it runs them.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// Keys whose signatures are accepted.
    pub trust: Trust,
    /// Region of interest that replaces the package's.
    pub roi: Option<Roi>,
    /// Threshold that replaces the configured package's. It does not apply to packages that
    /// stations bring, because their scores have another scale.
    pub threshold: Option<f32>,
    /// Lowest version of a package. Whoever has an older signed package cannot bring back what it
    /// misses.
    pub min_version: Option<Version>,
    /// Whether a package may expect frames of another size or colour than the active one.
    pub any_input: bool,
    /// How to run the network.
    pub tuning: Tuning,
}

impl Requirements {
    /// Loads a package, checks its golden tiles and applies the configuration's settings. Refuses a
    /// package without a threshold.
    pub fn inspector(
        &self,
        package: &Verified,
        is_configured: bool,
    ) -> Result<Inspector, UpdateError> {
        let refused = |reason: String| UpdateError::Refused(reason);
        if let Some(min) = &self.min_version {
            let found = &package.manifest().version;
            if Version::parse(found).is_none_or(|found| found < *min) {
                return Err(refused(format!(
                    "expected version {min} or newer (model.min_version), found {found:?}"
                )));
            }
        }
        let mut inspector =
            Inspector::tuned(package, &self.tuning).map_err(|error| refused(one_line(&error)))?;
        if let Some(threshold) = self.threshold.filter(|_| is_configured) {
            inspector = inspector.with_threshold(threshold);
        }
        if let Some(roi) = &self.roi {
            if roi::widens(inspector.calibrated_roi(), roi) {
                return Err(refused(
                    "model.roi_mask takes in places outside of the package's region of interest, \
                     for which its threshold was not calibrated: package with this mask"
                        .to_owned(),
                ));
            }
            inspector = inspector.with_roi(roi.clone());
        }
        if inspector.threshold().is_none() {
            return Err(refused(
                "the package has no threshold, so there would be no verdicts: calibrate it"
                    .to_owned(),
            ));
        }
        Ok(inspector)
    }
}

//! Drift detection for the active model. A new model begins a new window.

use proto::report::DriftKind;
use scoring::inspect::drift::DriftWatch;

use crate::model::active::Control;

/// Drift detection for the active model.
#[derive(Debug)]
pub struct DriftMonitor {
    /// Good parts in the running window; 0 turns drift detection off.
    window: usize,
    /// The model watched, and its watch unless its package has no normal scores.
    watched: Option<([u8; 8], Option<DriftWatch>)>,
}

impl DriftMonitor {
    /// Drift detection over a running window of `window` good parts; 0 turns it off.
    pub fn new(window: usize) -> Self {
        Self {
            window,
            watched: None,
        }
    }

    /// The watch of the model with this identity, a new one if another model was watched before.
    /// `None` if drift detection is off, the package has no normal scores, or the model is not
    /// active any more.
    pub(super) fn watch_of(
        &mut self,
        model_id: [u8; 8],
        control: &Control,
    ) -> Option<&mut DriftWatch> {
        let is_new = self
            .watched
            .as_ref()
            .is_none_or(|(watched, _)| *watched != model_id);
        if is_new {
            let inspector = control.inspector();
            let inspector = inspector.filter(|inspector| inspector.model_id() == model_id)?;
            let normal = inspector.manifest().normal_scores.clone();
            let watch = normal
                .filter(|_| self.window > 0)
                .map(|normal| DriftWatch::new(normal, self.window));
            self.watched = Some((model_id, watch));
        }
        self.watched.as_mut()?.1.as_mut()
    }
}

/// Kinds of drift, with their metric labels.
pub(super) const DRIFT_KINDS: [(DriftKind, &str); 4] = [
    (DriftKind::Brightness, "brightness"),
    (DriftKind::Contrast, "contrast"),
    (DriftKind::Sharpness, "sharpness"),
    (DriftKind::Surface, "surface"),
];

//! A verified package put to work: frames in, maps, regions and verdicts out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::manifest::{ColourMode, Manifest, PostProcessing, Roi, Scoring};

use crate::infer::{AreaEngine, Engine, InferError, Tuning};
use crate::inspect::areas;
use crate::inspect::frame::Frame;
use crate::inspect::map::ScoreMap;
use crate::inspect::normal_map::Normaliser;
use crate::inspect::preprocess::{Planes, PreprocessError, prepare, to_planes};
use crate::inspect::region::{Region, regions};
use crate::inspect::roi::{RoiError, rasterise};
use crate::inspect::score::score;
use crate::inspect::variation::{deviations, look};
use crate::inspect::verdict::{Verdict, decide, frame_score};
use crate::package::{ParityError, Verified, check_areas, check_parity};

/// Why a package or a frame cannot be inspected with.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The frame cannot be prepared.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The network cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The parity gate is shut.
    #[error("parity gate")]
    Parity(#[from] ParityError),
    /// The region of interest cannot be used.
    #[error(transparent)]
    Roi(#[from] RoiError),
}

/// What is known of a frame after inspection.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The frame as it was scored: coloured and sized for the network.
    pub prepared: Frame,
    /// The anomaly map after post-processing, relative to the package's normal map or variation model if it has one, at the
    /// size that the frame was scored at.
    pub map: ScoreMap,
    /// The frame's score: the map's maximum.
    pub score: f32,
    /// Regions above the threshold, in pixels of the captured frame; none without a threshold.
    pub regions: Vec<Region>,
    /// The decision; `None` while the package has no threshold.
    pub verdict: Option<Verdict>,
    /// Time from frame to decision.
    pub elapsed: Duration,
}

/// The region of interest as flags of the last map's size; `None`: the whole map.
type RoiFlags = Option<Arc<Vec<bool>>>;

/// A package at work.
#[derive(Debug, Clone)]
pub struct Inspector {
    /// Frames of a line are all of one size, so the flags are made once.
    roi: Arc<Mutex<Option<(usize, usize, RoiFlags)>>>,
    /// The same for the normal map.
    normaliser: Arc<Mutex<Option<Arc<Normaliser>>>>,
    manifest: Manifest,
    engine: Engine,
    /// Where the package has an area network.
    areas: Option<AreaEngine>,
    threshold: Option<f32>,
    parity_off: f32,
    sha256: [u8; 32],
}

impl Inspector {
    /// Loads the network, to be run on the caller's thread, and lets the golden tiles through the parity gate.
    pub fn new(package: &Verified) -> Result<Self, InspectError> {
        Self::tuned(package, &Tuning::default())
    }

    /// The same with a choice of how to run the network.
    pub fn tuned(package: &Verified, tuning: &Tuning) -> Result<Self, InspectError> {
        let manifest = package.manifest().clone();
        let engine = Engine::tuned(package.onnx(), manifest.network, tuning)?;
        let parity_off = check_parity(&engine, &manifest.golden)?;
        let areas = match &manifest.areas {
            Some(network) => {
                let planes = areas::planes_of(manifest.input.colour == ColourMode::Rgb);
                let engine = AreaEngine::new(&network.onnx, planes)?;
                check_areas(&engine, network, &manifest)?;
                Some(engine)
            }
            None => None,
        };
        Ok(Self {
            areas,
            roi: Arc::default(),
            normaliser: Arc::default(),
            threshold: manifest.threshold.as_ref().map(|threshold| threshold.value),
            manifest,
            engine,
            parity_off,
            sha256: *package.sha256(),
        })
    }

    /// Scores in another mode than the package's. A threshold, a normal map and a variation model belong to the mode they were
    /// made in, so they are dropped if the mode changes.
    #[must_use]
    pub fn with_scoring(mut self, scoring: Scoring) -> Self {
        if self.manifest.scoring != scoring {
            self.manifest.scoring = scoring;
            self.forget_good_frames();
        }
        self
    }

    /// What is known of good frames' scores is of no use for others.
    fn forget_good_frames(&mut self) {
        self.manifest.normal_map = None;
        self.manifest.variation = None;
        self.manifest.areas = None;
        self.threshold = None;
    }

    /// Post-processes otherwise; drops the same as [`Self::with_scoring`].
    #[must_use]
    pub fn with_post(mut self, post: PostProcessing) -> Self {
        if self.manifest.post != post {
            self.manifest.post = post;
            self.forget_good_frames();
        }
        self
    }

    /// Decides by this threshold.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// Inspects this part of the frame.
    #[must_use]
    pub fn with_roi(mut self, roi: Roi) -> Self {
        self.manifest.roi = roi;
        self.roi = Arc::default();
        self
    }

    /// Lays the region of interest out for maps of this size now, so that the next frame need not wait for it. An error
    /// says that it cannot be used at this size.
    pub fn prepare_roi(&self, width_px: usize, height_px: usize) -> Result<(), RoiError> {
        self.roi_flags(width_px, height_px).map(drop)
    }

    /// Inspects the part of the frame that `other` inspects, and takes over what `other` has prepared for it.
    #[must_use]
    pub fn with_roi_of(mut self, other: &Self) -> Self {
        self.manifest.roi = other.manifest.roi.clone();
        self.roi = Arc::clone(&other.roi);
        self
    }

    fn roi_flags(&self, width_px: usize, height_px: usize) -> Result<RoiFlags, RoiError> {
        if matches!(self.manifest.roi, Roi::Whole) {
            return Ok(None);
        }
        // A panic elsewhere leaves flags that are whole: they are put in last.
        let mut kept = self.roi.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((width, height, flags)) if (*width, *height) == (width_px, height_px) => {
                Ok(flags.clone())
            }
            _ => {
                let flags = rasterise(&self.manifest.roi, width_px, height_px)?.map(Arc::new);
                *kept = Some((width_px, height_px, flags.clone()));
                Ok(flags)
            }
        }
    }

    /// The normal map as it applies to this map, if there is one.
    fn normaliser(&self, map: &ScoreMap) -> Option<Arc<Normaliser>> {
        let normal = self.manifest.normal_map.as_ref()?;
        let mut kept = self
            .normaliser
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fitting = kept.take().filter(|kept| kept.fits(map));
        let fitting = fitting
            .unwrap_or_else(|| Arc::new(Normaliser::new(normal, map.width_px, map.height_px)));
        *kept = Some(Arc::clone(&fitting));
        Some(fitting)
    }

    /// The package's manifest, overrides applied.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The threshold in force.
    pub fn threshold(&self) -> Option<f32> {
        self.threshold
    }

    /// SHA-256 of the package.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// First 8 bytes of it, as reports have it.
    pub fn model_id(&self) -> [u8; 8] {
        std::array::from_fn(|n| self.sha256[n])
    }

    /// Whether frames are scored in half precision.
    pub fn half_precision(&self) -> bool {
        self.engine.half()
    }

    /// Lets the golden tiles through the parity gate again; their largest deviation.
    pub fn check_parity(&self) -> Result<f32, ParityError> {
        if let (Some(engine), Some(network)) = (&self.areas, &self.manifest.areas) {
            check_areas(engine, network, &self.manifest)?;
        }
        check_parity(&self.engine, &self.manifest.golden)
    }

    /// The largest deviation of the golden tiles.
    pub fn parity_off(&self) -> f32 {
        self.parity_off
    }

    /// The frame as the network sees it, for showing beside the map.
    pub fn prepare(&self, frame: &Frame) -> Result<Frame, InspectError> {
        Ok(prepare(frame, &self.manifest.input)?)
    }

    /// The scores of a prepared frame, post-processed, before they are put in relation to good frames.
    pub fn scores(&self, planes: &Planes) -> Result<ScoreMap, InspectError> {
        let network = &self.manifest.network;
        let mut map = score(&self.engine, planes, network, self.manifest.scoring)?;
        map.post_process(&self.manifest.post);
        Ok(map)
    }

    /// From frame to decision.
    pub fn inspect(&self, frame: &Frame) -> Result<Inspection, InspectError> {
        let started = Instant::now();
        let prepared = prepare(frame, &self.manifest.input)?;
        let planes = to_planes(&prepared, usize::from(self.manifest.network.channels));
        let mut map = self.scores(&planes)?;
        if let Some(normaliser) = self.normaliser(&map) {
            normaliser.apply(&mut map);
        }
        if let Some(model) = &self.manifest.variation {
            let colour = self.manifest.input.colour == ColourMode::Rgb;
            let found = look(&planes, colour, &map);
            let areas = match (&self.areas, &self.manifest.areas) {
                (Some(engine), Some(network)) => {
                    let seen = areas::shrunk(&planes, colour);
                    let texture = areas::texture_seen(&planes, &found)
                        .unwrap_or_else(|| areas::texture(&seen, colour));
                    let (mean, scale) = (&network.mean, &network.scale);
                    let input = areas::input(mean, scale, &seen, &texture, colour);
                    Some((network, engine.logits(&input)?))
                }
                _ => None,
            };
            let areas = areas
                .as_ref()
                .map(|(network, logits)| (*network, logits.as_slice()));
            let size = [map.width_px, map.height_px];
            map = deviations(model, &found, areas, size);
        }
        // Last, so that nothing is smeared back over the ROI's edge.
        if let Some(inside) = self.roi_flags(map.width_px, map.height_px)? {
            map.apply_roi(&inside);
        }
        let score = frame_score(&map);
        let scale = [
            frame.width_px() as f32 / map.width_px as f32,
            frame.height_px() as f32 / map.height_px as f32,
        ];
        let found = self
            .threshold
            .map(|threshold| regions(&map, threshold, scale));
        Ok(Inspection {
            prepared,
            score,
            regions: found.unwrap_or_default(),
            verdict: self.threshold.map(|threshold| decide(score, threshold)),
            map,
            elapsed: started.elapsed(),
        })
    }
}

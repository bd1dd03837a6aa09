//! Puts a verified package to work, with all stages in a row. In: a frame. Out: an [`Inspection`]
//! with map, score, regions and verdict. This is the only way to a score.

mod golden_frame;

pub use golden_frame::{GoldenFrameError, golden_cells};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::manifest::{
    ColourMode, LayerStatistics, Manifest, PostProcessing, Reading, Roi, Scoring,
    SegmentationNetwork,
};

use crate::infer::{EncoderOutputs, Engine, InferError, SegmentationEngine, Tuning};
use crate::inspect::frame::Frame;
use crate::inspect::grain::{GoodGrain, features as grain_features};
use crate::inspect::grid::GRIDS;
use crate::inspect::layer_statistics::GoodLayers;
use crate::inspect::map::ScoreMap;
use crate::inspect::normal_map::Normaliser;
use crate::inspect::places::combine;
use crate::inspect::preprocess::{Planes, PreprocessError, prepare, to_planes};
use crate::inspect::region::{Region, regions};
use crate::inspect::roi::{RoiError, rasterise};
use crate::inspect::score::{padded, score};
use crate::inspect::segmentation;
use crate::inspect::texture::CellFeatures;
use crate::inspect::variation::{deviations, grid_features};
use crate::inspect::verdict::{Verdict, decide, frame_score};
use crate::package::{ParityError, Verified, check_parity, check_segmentation_parity};
use crate::source::RawFrame;
use crate::source::pixel_format::{PixelFormatError, to_frame_as};

/// Why a package cannot be used, or a frame not inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The frame cannot be prepared.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The network cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The package does not pass the parity gate.
    #[error("the package does not pass the parity gate")]
    Parity(#[from] ParityError),
    /// The region of interest cannot be used.
    #[error(transparent)]
    Roi(#[from] RoiError),
    /// The package's golden frame cannot be scored.
    #[error("the package's golden frame cannot be scored")]
    GoldenFrame(#[from] GoldenFrameError),
}

/// The result of inspecting a frame.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The frame in the colour and size that it was scored at.
    pub prepared: Frame,
    /// The anomaly map after post-processing, at the size that the frame was scored at. If the
    /// package has a normal map or a variation model, scores are relative to it.
    pub map: ScoreMap,
    /// Which of the map's pixels are inspected, row by row; `None` if all are. The others score 0
    /// and say nothing about the frame.
    pub inside: RoiFlags,
    /// The frame's score: the maximum of the map.
    pub score: f32,
    /// Regions above the threshold, in pixels of the captured frame. There are none without a
    /// threshold.
    pub regions: Vec<Region>,
    /// The decision; `None` if there is no threshold.
    pub verdict: Option<Verdict>,
    /// Time from the frame to the decision.
    pub elapsed: Duration,
}

impl Inspection {
    /// Scores of the inspected pixels.
    pub fn inspected_scores(&self) -> impl Iterator<Item = f32> + '_ {
        let inside = |at: usize| self.inside.as_ref().is_none_or(|inside| inside[at]);
        let scores = self.map.data.iter().copied().enumerate();
        scores.filter_map(move |(at, score)| inside(at).then_some(score))
    }
}

/// What a frame's anomaly map is made of.
#[derive(Debug, Clone)]
pub struct Maps {
    /// The map of the network's scores, of the variation model and the segmentation network.
    pub scores: ScoreMap,
    /// Deviations of places (4 × 4 pixels each) by the network's layers, if the package has
    /// statistics of them.
    pub layers: Option<ScoreMap>,
    /// The same by the surface's grain.
    pub grain: Option<ScoreMap>,
}

/// The region of interest as flags of a map's pixels; `None` for the whole map.
pub type RoiFlags = Option<Arc<Vec<bool>>>;

/// A package at work. It may be used by several threads at once.
#[derive(Debug, Clone)]
pub struct Inspector {
    /// Region of interest for the last map's size. A line's frames all have one size, so it is
    /// rasterised once.
    roi: Arc<Mutex<Option<(usize, usize, RoiFlags)>>>,
    /// Normal map for the last map's size.
    normaliser: Arc<Mutex<Option<Arc<Normaliser>>>>,
    /// Statistics of the network's layers for the last map's size.
    good_layers: Arc<Mutex<Option<Arc<GoodLayers>>>>,
    /// Statistics of the grain for the last map's size.
    good_grain: Arc<Mutex<Option<Arc<GoodGrain>>>>,
    manifest: Manifest,
    /// The package's region of interest.
    calibrated_roi: Roi,
    engine: Engine,
    /// The segmentation network, if the package has one.
    segmentation: Option<SegmentationEngine>,
    threshold: Option<f32>,
    parity_off: f32,
    sha256: [u8; 32],
}

impl Inspector {
    /// Loads the network, to be run on the caller's thread, and checks the golden tiles (parity
    /// gate).
    pub fn new(package: &Verified) -> Result<Self, InspectError> {
        Self::tuned(package, &Tuning::default())
    }

    /// Like [`Self::new`], with a choice of how to run the network.
    pub fn tuned(package: &Verified, tuning: &Tuning) -> Result<Self, InspectError> {
        let manifest = package.manifest().clone();
        let engine = Engine::tuned(package.onnx(), manifest.network, tuning)?;
        let parity_off = check_parity(&engine, &manifest.golden)?;
        let segmentation = match &manifest.segmentation {
            Some(network) => {
                let planes = segmentation::plane_count(manifest.input.colour == ColourMode::Rgb);
                let engine = SegmentationEngine::new(&network.onnx, planes)?;
                check_segmentation_parity(&engine, network, &manifest)?;
                Some(engine)
            }
            None => None,
        };
        let inspector = Self {
            segmentation,
            roi: Arc::default(),
            normaliser: Arc::default(),
            good_layers: Arc::default(),
            good_grain: Arc::default(),
            threshold: manifest.threshold.as_ref().map(|threshold| threshold.value),
            calibrated_roi: manifest.roi.clone(),
            manifest,
            engine,
            parity_off,
            sha256: *package.sha256(),
        };
        inspector.check_golden_frame()?;
        Ok(inspector)
    }

    /// How the package's image files are read.
    pub fn reading(&self) -> &Reading {
        &self.manifest.reading
    }

    /// The frame that a source delivered. Frames of image files are read as the package's are.
    pub fn frame(&self, raw: &RawFrame) -> Result<Frame, PixelFormatError> {
        to_frame_as(raw, &self.manifest.reading)
    }

    /// Scores in this mode instead of the package's. If the mode changes, everything that was
    /// calibrated for the other mode is dropped: threshold, normal map, variation model,
    /// segmentation network, statistics of layers and grain, and golden frame.
    #[must_use]
    pub fn with_scoring(mut self, scoring: Scoring) -> Self {
        if self.manifest.scoring != scoring {
            self.manifest.scoring = scoring;
            self.drop_calibration();
        }
        self
    }

    /// Drops what describes good frames' scores in another mode.
    fn drop_calibration(&mut self) {
        self.manifest.normal_map = None;
        self.manifest.variation = None;
        self.manifest.segmentation = None;
        self.manifest.layers = None;
        self.manifest.grain = None;
        self.manifest.golden_frame = None;
        self.threshold = None;
    }

    /// Uses this post-processing instead of the package's. If it changes, the same is dropped as by
    /// [`Self::with_scoring`].
    #[must_use]
    pub fn with_post(mut self, post: PostProcessing) -> Self {
        if self.manifest.post != post {
            self.manifest.post = post;
            self.drop_calibration();
        }
        self
    }

    /// Decides by this threshold instead of the package's.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// Inspects this region of interest instead of the package's.
    #[must_use]
    pub fn with_roi(mut self, roi: Roi) -> Self {
        self.manifest.roi = roi;
        self.roi = Arc::default();
        self
    }

    /// The region of interest that the package's threshold was calibrated for.
    pub fn calibrated_roi(&self) -> &Roi {
        &self.calibrated_roi
    }

    /// Rasterises the region of interest for maps of this size now, so that the next frame does not
    /// have to. An error means that it cannot be used at this size.
    pub fn prepare_roi(&self, width_px: usize, height_px: usize) -> Result<(), RoiError> {
        self.roi_flags(width_px, height_px).map(drop)
    }

    /// Uses the region of interest of `other`, already rasterised if `other` has done so.
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
        // A panic in another thread leaves complete flags, because they are stored last.
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

    /// The normal map at the size of this map, if the package has one.
    fn normaliser(&self, map: &ScoreMap) -> Option<Arc<Normaliser>> {
        let normal = self.manifest.normal_map.as_ref()?;
        Some(fitting(
            &self.normaliser,
            |kept| kept.fits(map),
            || Normaliser::new(normal, map.width_px, map.height_px),
        ))
    }

    /// The package's manifest with the overrides applied.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The threshold in use.
    pub fn threshold(&self) -> Option<f32> {
        self.threshold
    }

    /// SHA-256 of the package file.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The first 8 bytes of [`Self::sha256`], which identify the model in reports.
    pub fn model_id(&self) -> [u8; 8] {
        std::array::from_fn(|n| self.sha256[n])
    }

    /// Whether frames are scored in half precision.
    pub fn half_precision(&self) -> bool {
        self.engine.half()
    }

    /// Checks the golden tiles and the golden frame again (parity gate) and returns the largest
    /// deviation of the tiles.
    pub fn check_parity(&self) -> Result<f32, ParityError> {
        if let (Some(engine), Some(network)) = (&self.segmentation, &self.manifest.segmentation) {
            check_segmentation_parity(engine, network, &self.manifest)?;
        }
        self.check_golden_frame()?;
        check_parity(&self.engine, &self.manifest.golden)
    }

    /// The largest deviation of the golden tiles when the package was loaded.
    pub fn parity_off(&self) -> f32 {
        self.parity_off
    }

    /// The frame in the colour and size that the network takes, to be shown beside the map.
    pub fn prepare(&self, frame: &Frame) -> Result<Frame, InspectError> {
        Ok(prepare(frame, &self.manifest.input)?)
    }

    /// The post-processed scores of a prepared frame, before they are related to good frames.
    pub fn scores(&self, planes: &Planes) -> Result<ScoreMap, InspectError> {
        let network = &self.manifest.network;
        let mut map = score(&self.engine, planes, network, self.manifest.scoring)?;
        map.post_process(&self.manifest.post);
        Ok(map)
    }

    /// The maps of a prepared frame that are added up to its anomaly map.
    pub fn maps(&self, planes: &Planes) -> Result<Maps, InspectError> {
        let (map, layers) = match &self.manifest.layers {
            None => (self.scores(planes)?, None),
            Some(statistics) => {
                let (map, places) = self.scores_and_places(planes, statistics)?;
                (map, Some(places))
            }
        };
        let normaliser = self.normaliser(&map);
        Ok(Maps {
            scores: self.relative_to_good(map, planes, normaliser.as_deref())?,
            layers,
            grain: self.grain(planes),
        })
    }

    /// The deviations of a frame's grain, if the package has statistics of it.
    fn grain(&self, planes: &Planes) -> Option<ScoreMap> {
        let statistics = self.manifest.grain.as_ref()?;
        let (width_px, height_px) = (planes.width_px, planes.height_px);
        let good = fitting(
            &self.good_grain,
            |kept| kept.fits(width_px, height_px),
            || GoodGrain::new(statistics, width_px, height_px),
        );
        let colour = self.manifest.input.colour == ColourMode::Rgb;
        Some(good.deviations(&grain_features(planes, colour)))
    }

    /// The anomaly map of a prepared frame, before the region of interest.
    fn map(&self, planes: &Planes) -> Result<ScoreMap, InspectError> {
        let Maps {
            scores: mut map,
            layers,
            grain,
        } = self.maps(planes)?;
        if let (Some(statistics), Some(places)) = (&self.manifest.layers, layers) {
            combine(
                &mut map,
                statistics.map_weight,
                &statistics.distances,
                places,
            );
        }
        if let (Some(statistics), Some(places)) = (&self.manifest.grain, grain) {
            combine(
                &mut map,
                statistics.map_weight,
                &statistics.distances,
                places,
            );
        }
        Ok(map)
    }

    /// The post-processed scores of a prepared frame, and the deviations of its places.
    fn scores_and_places(
        &self,
        planes: &Planes,
        statistics: &LayerStatistics,
    ) -> Result<(ScoreMap, ScoreMap), InspectError> {
        let mut places = ScoreMap::zeros(0, 0);
        let mut good: Option<Arc<GoodLayers>> = None;
        let mut map = self.scores_with_features(planes, &mut |outputs| {
            let good: &GoodLayers =
                good.get_or_insert_with(|| self.good_layers(statistics, outputs));
            let mut rows = vec![Vec::new(); outputs.rows.len()];
            let work = rows.iter_mut().zip(outputs.rows.clone());
            self.engine.for_each(work, |(line, row)| {
                *line = good.deviations_of_row(outputs, row);
            });
            (places.width_px, places.height_px) = (outputs.columns, outputs.height);
            places.data.extend(rows.into_iter().flatten());
            Ok(())
        })?;
        map.post_process(&self.manifest.post);
        Ok((map, places))
    }

    /// The scores of a prepared frame before post-processing. `visit` gets the outputs of the
    /// encoder's layers, strip by strip.
    pub fn scores_with_features(
        &self,
        planes: &Planes,
        visit: &mut dyn FnMut(&EncoderOutputs) -> Result<(), InferError>,
    ) -> Result<ScoreMap, InspectError> {
        let align_px = usize::from(self.manifest.network.align_px);
        let whole = padded(planes, align_px, |padded| {
            self.engine.scores_with_features(padded, visit)
        });
        Ok(whole?)
    }

    /// Statistics of the layers at the size of these outputs, kept for the next frame.
    fn good_layers(
        &self,
        statistics: &LayerStatistics,
        outputs: &EncoderOutputs,
    ) -> Arc<GoodLayers> {
        let (columns, rows) = (outputs.columns, outputs.height);
        fitting(
            &self.good_layers,
            |kept| kept.fits(columns, rows),
            || GoodLayers::new(statistics, columns, rows),
        )
    }

    /// Makes the scores of these planes relative to good frames, by what the package has for that.
    fn relative_to_good(
        &self,
        mut map: ScoreMap,
        planes: &Planes,
        normaliser: Option<&Normaliser>,
    ) -> Result<ScoreMap, InspectError> {
        if let Some(normaliser) = normaliser {
            normaliser.apply(&mut map);
        }
        let Some(model) = &self.manifest.variation else {
            return Ok(map);
        };
        let colour = self.manifest.input.colour == ColourMode::Rgb;
        let features = grid_features(planes, colour, &map);
        let segmentation = match (&self.segmentation, &self.manifest.segmentation) {
            (Some(engine), Some(network)) => {
                let input = segmentation_input(network, planes, colour, &features);
                Some((network, engine.logits(&input)?))
            }
            _ => None,
        };
        let segmentation = segmentation
            .as_ref()
            .map(|(network, logits)| (*network, logits.as_slice()));
        let size = [map.width_px, map.height_px];
        Ok(deviations(model, &features, segmentation, size))
    }

    /// Inspects a frame.
    pub fn inspect(&self, frame: &Frame) -> Result<Inspection, InspectError> {
        let started = Instant::now();
        let prepared = prepare(frame, &self.manifest.input)?;
        let planes = to_planes(&prepared, usize::from(self.manifest.network.channels));
        let mut map = self.map(&planes)?;
        // Last, so that smoothing does not spread scores across the region's border.
        let inside = self.roi_flags(map.width_px, map.height_px)?;
        if let Some(inside) = &inside {
            map.apply_roi(inside);
        }
        let score = frame_score(&map);
        let scale = [
            frame.width_px() as f32 / map.width_px as f32,
            frame.height_px() as f32 / map.height_px as f32,
        ];
        let regions = self
            .threshold
            .map(|threshold| regions(&map, threshold, scale));
        Ok(Inspection {
            prepared,
            score,
            regions: regions.unwrap_or_default(),
            verdict: self.threshold.map(|threshold| decide(score, threshold)),
            map,
            inside,
            elapsed: started.elapsed(),
        })
    }
}

/// What is kept for the last frame's size if it fits this one too; otherwise it is made, and kept.
fn fitting<T>(
    slot: &Mutex<Option<Arc<T>>>,
    fits: impl FnOnce(&T) -> bool,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = slot.take().filter(|kept| fits(kept));
    let kept = kept.unwrap_or_else(|| Arc::new(make()));
    *slot = Some(Arc::clone(&kept));
    kept
}

/// The segmentation network's input for a frame whose features the variation model already has.
fn segmentation_input(
    network: &SegmentationNetwork,
    planes: &Planes,
    colour: bool,
    features: &[CellFeatures; GRIDS.len()],
) -> Vec<f32> {
    let resized = segmentation::resized(planes, colour);
    let texture = segmentation::texture_of_features(planes, features)
        .unwrap_or_else(|| segmentation::texture(&resized, colour));
    segmentation::input(&network.mean, &network.scale, &resized, &texture, colour)
}

//! Pictures of parts: heat map and thumbnail for a report, and frames on their way to the image
//! store.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{FilterType, resize};
use image::{GrayImage, ImageFormat, Luma};
use proto::limits::{MAX_HEAT_MAP_BYTES, MAX_THUMBNAIL_BYTES};
use proto::report::{HeatMap, RegionReport};
use scoring::inspect::frame::Frame;
use scoring::inspect::map::ScoreMap;
use scoring::inspect::verdict::Verdict;

use super::room::Room;
use crate::error_text::one_line;
use crate::image_store::{ImageStore, Sampler, StoreError, StoredItem};
use crate::metrics::{Loss, Metrics, Queue};
use crate::model::active::{Control, LastPart, model_name};

/// Longest side of a heat map in a report.
const HEAT_MAP_PX: usize = 256;

/// Length of the queue to the image store. Further pictures are dropped, because pictures must
/// never hold up reports.
pub const PICTURE_QUEUE: usize = 4;

/// The queue to the image store, for the report thread.
#[derive(Debug)]
pub struct ImageSink {
    /// Chooses the pictures to store, so that only they take up room in the queue.
    pub sampler: Sampler,
    /// To the thread that runs [`store_images`].
    pub sender: Sender<Picture>,
}

/// A scored part on its way to the image store.
#[derive(Debug)]
pub struct Picture {
    pub(super) id: u64,
    pub(super) unix_ms: u64,
    pub(super) verdict: Verdict,
    pub(super) threshold: f32,
    /// Name, version and identity.
    pub(super) model: String,
    pub(super) scored: Arc<LastPart>,
    /// The room that it takes until it is stored.
    pub(super) _room: Room,
}

/// Longest interval between two looks at the space on the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Stores pictures until all senders are gone, and leaves space on the disk for reports. A store
/// that cannot be opened is tried again with the next picture.
pub fn store_images(
    open: impl Fn() -> Result<ImageStore, StoreError>,
    pictures: &Receiver<Picture>,
    metrics: &Metrics,
) {
    let mut failing = false;
    let mut log_first_failure = |error: Option<StoreError>| {
        let failed = error.is_some();
        if let Some(error) = error.filter(|_| !failing) {
            tracing::warn!(error = one_line(&error), "cannot use the image store");
        }
        failing = failed;
    };
    let mut store = None;
    // Opened before the first picture, because opening removes what a power cut left half written.
    match open() {
        Ok(opened) => store = Some(opened),
        Err(error) => log_first_failure(Some(error)),
    }
    let mut evicting = false;
    loop {
        match pictures.recv_timeout(LOOK_EVERY) {
            Ok(picture) => {
                metrics.waiting(Queue::Pictures, pictures.len());
                let stored = store
                    .take()
                    .map_or_else(&open, Ok)
                    .and_then(|opened| store.insert(opened).store(picture.item()));
                if stored.is_err() {
                    metrics.dropped(Loss::Images, 1);
                }
                log_first_failure(stored.err());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        match store.as_mut().map(ImageStore::leave_space) {
            Some(Ok(evicted)) => {
                if evicted > 0 && !evicting {
                    tracing::warn!(
                        "the disk is full: pictures are evicted to leave room for reports"
                    );
                }
                evicting = evicted > 0;
            }
            Some(Err(error)) => log_first_failure(Some(error)),
            None => {}
        }
    }
}

impl Picture {
    fn item(&self) -> StoredItem<'_> {
        StoredItem {
            id: self.id,
            unix_ms: self.unix_ms,
            verdict: self.verdict,
            score: self.scored.inspection.score,
            threshold: self.threshold,
            model: &self.model,
            frame: &self.scored.frame,
            map: Some(&self.scored.inspection.map),
        }
    }
}

/// Name, version and identity of a model; the identity alone if the model is no longer active.
pub(super) fn model_text(control: &Control, model_id: [u8; 8]) -> String {
    let id = secure::hex(&model_id);
    let inspector = control.inspector();
    match inspector.filter(|inspector| inspector.model_id() == model_id) {
        Some(inspector) => format!("{} ({id})", model_name(&inspector)),
        None => id,
    }
}

pub(super) fn wire_region(region: &scoring::inspect::region::Region) -> RegionReport {
    RegionReport {
        x_px: region.x_px,
        y_px: region.y_px,
        width_px: region.width_px,
        height_px: region.height_px,
        area_px: region.area_px,
        peak: region.peak,
        mean: region.mean,
        centroid_px: region.centroid_px,
    }
}

/// The anomaly map in 8 bits (see [`HeatMap`]), reduced to at most 256 pixels a side. Each pixel is
/// the highest score of its block, so that no defect is lost.
///
/// A noisy map whose PNG would be too long for a report is reduced further; `None` if no size fits.
pub(super) fn heat_map(map: &ScoreMap, threshold: Option<f32>) -> Option<HeatMap> {
    let full_scale = threshold.map_or(map.peak(), |threshold| 2.0 * threshold);
    let full_scale = full_scale.max(f32::MIN_POSITIVE);
    let longer_px = map.width_px.max(map.height_px);
    let mut block = longer_px.div_ceil(HEAT_MAP_PX);
    loop {
        let png = max_pooled_png(map, block, full_scale)?;
        if png.len() <= MAX_HEAT_MAP_BYTES {
            return Some(HeatMap { full_scale, png });
        }
        if block >= longer_px {
            return None;
        }
        block *= 2;
    }
}

/// A grey PNG with one pixel for each block of `block`×`block` pixels.
fn max_pooled_png(map: &ScoreMap, block: usize, full_scale: f32) -> Option<Vec<u8>> {
    let (width, height) = (map.width_px.div_ceil(block), map.height_px.div_ceil(block));
    let mut small = GrayImage::new(width as u32, height as u32);
    for (index, &score) in map.data.iter().enumerate() {
        let (x, y) = (index % map.width_px / block, index / map.width_px / block);
        let value = (255.0 * (score / full_scale).min(1.0)).round() as u8;
        let Luma([old]) = small.get_pixel_mut(x as u32, y as u32);
        *old = value.max(*old);
    }
    let mut png = Vec::new();
    // Encoded for every NG part: speed is worth more than size.
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, PngFilter::Up);
    small.write_with_encoder(encoder).ok()?;
    Some(png)
}

/// A JPEG of the frame whose longer side is at most `side_px`; `None` if it is too long for a
/// report.
pub(super) fn thumbnail(frame: &Frame, side_px: u32) -> Option<Vec<u8>> {
    let picture = frame.to_rgb8();
    let (width, height) = picture.dimensions();
    let scale = f64::from(side_px) / f64::from(width.max(height));
    let small = |side: u32| ((f64::from(side) * scale.min(1.0)).round() as u32).max(1);
    let small = resize(&picture, small(width), small(height), FilterType::Triangle);
    let mut jpeg = Cursor::new(Vec::new());
    small.write_to(&mut jpeg, ImageFormat::Jpeg).ok()?;
    let jpeg = jpeg.into_inner();
    (jpeg.len() <= MAX_THUMBNAIL_BYTES).then_some(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noisy_map_is_reduced_further_and_keeps_its_peak() {
        let mut seed = 1_u32;
        let mut map = ScoreMap::zeros(256, 256);
        for score in &mut map.data {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *score = (seed >> 16) as f32 / 131_072.0;
        }
        map.data[77 * 256 + 200] = 1.0;
        let heat = heat_map(&map, Some(0.5)).expect("it fits");
        let png = image::load_from_memory(&heat.png).expect("it is a PNG");
        assert_eq!((png.width(), png.height()), (128, 128));
        assert_eq!(png.to_luma8().get_pixel(100, 38).0, [255]);
        // A smooth map keeps its size.
        let calm = heat_map(&ScoreMap::zeros(256, 256), Some(0.5)).expect("it fits");
        let png = image::load_from_memory(&calm.png).expect("it is a PNG");
        assert_eq!(png.width(), 256);
    }
}

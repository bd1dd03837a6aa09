//! From verdicts to the journal: puts parts back in order, adds pictures, watches drift, writes and syncs. One thread,
//! so that a slow disk never holds up scoring.
//!
//! In: [`Reporter`] calls from any thread. Out: journal records, stored images, and a [`Signal`] when records are
//! durable. Does not talk to stations: that is `link`.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{FilterType, resize};
use image::{GrayImage, ImageFormat, Luma};
use proto::limits::{MAX_HEAT_MAP_BYTES, MAX_REGIONS, MAX_THUMBNAIL_BYTES};
use proto::message::{Message, cut_text};
use proto::report::{
    Body, DriftKind, Event, GateAction, HeatMap, Outcome, PartReport, Record, Region,
};

use crate::config::{Pictures, Report};
use crate::control::{Control, Last};
use crate::image_store::{ImageStore, Item as StoredItem, Sampler, StoreError};
use crate::inspect::drift::{DriftWatch, Look};
use crate::inspect::frame::Frame;
use crate::inspect::map::ScoreMap;
use crate::inspect::verdict::Verdict;
use crate::inspector::Inspection;
use crate::journal::Journal;
use crate::journal::boots::Boots;
use crate::journal::positions::Positions;
use crate::metrics::{Drop, Metrics, Queue, Stage};

/// Reports under way between scoring and journal.
const QUEUE: usize = 64;
/// Parts held back for an earlier one whose verdict is not there yet.
const MAX_HELD_BACK: usize = 64;
/// And for how long.
const LONGEST_HOLD: Duration = Duration::from_secs(2);
/// The report thread looks up so often.
const LONGEST_PATIENCE: Duration = Duration::from_millis(100);
/// The largest side of a heat map in a report.
const HEAT_MAP_PX: usize = 256;

/// What became of a part, as scoring knows it.
#[derive(Debug)]
pub struct PartResult {
    /// Number of the part.
    pub part: u64,
    /// Wall-clock time of its trigger or frame.
    pub unix_ms: u64,
    /// The driver's frame counter.
    pub frame_sequence: u32,
    /// Model in force.
    pub model_id: [u8; 8],
    /// Threshold in force.
    pub threshold: Option<f32>,
    /// The outcome.
    pub outcome: Outcome,
    /// What the gate was told.
    pub action: GateAction,
    /// From capture to verdict.
    pub latency: Duration,
    /// The frame and what was found in it, if it was scored.
    pub scored: Option<(Frame, Inspection)>,
}

enum Item {
    Part(Box<PartResult>),
    Event(Box<Event>),
    End,
}

/// Hands parts and events to the report thread.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: Sender<Item>,
    lossless: bool,
    lost: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

/// The other end of a [`Reporter`].
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Item>,
    lost: Arc<AtomicU64>,
}

/// A reporter and its inbox. `lossless`: a full queue holds up the sender (replay) instead of losing a report.
pub fn channel(lossless: bool, metrics: Arc<Metrics>) -> (Reporter, Inbox) {
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        sender,
        lossless,
        lost: Arc::clone(&lost),
        metrics,
    };
    (reporter, Inbox { receiver, lost })
}

impl Reporter {
    /// A part is settled.
    pub fn part(&self, result: PartResult) {
        self.metrics.part(result.outcome);
        self.send(Item::Part(Box::new(result)));
    }

    /// Something happened.
    pub fn event(&self, mut event: Event) {
        // A text that is too long would make a record that no station can read.
        if let Event::CaptureLost { reason }
        | Event::RecordsLost { reason, .. }
        | Event::StageRestarted { reason, .. }
        | Event::GateFault { reason }
        | Event::LinkRefused { reason, .. }
        | Event::PackageRefused { reason, .. } = &mut event
        {
            *reason = cut_text(reason);
        }
        self.send(Item::Event(Box::new(event)));
    }

    /// Nothing more comes: the report thread writes what it has and ends.
    pub fn close(&self) {
        // Waits for room; an error means that it has ended already.
        self.sender.send(Item::End).ok();
    }

    fn send(&self, item: Item) {
        let lost = if self.lossless {
            self.sender.send(item).is_err()
        } else {
            matches!(
                self.sender.try_send(item),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            )
        };
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.metrics.dropped(Drop::Journal, 1);
        }
    }
}

/// Wakes those who wait for durable records.
#[derive(Debug, Default)]
pub struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// Wakes all.
    pub fn notify(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits for a notification after `seen`, or for the time-out; what to give next time.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(count, timeout, |count| *count == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The report thread.
pub struct Reporting {
    /// Where parts and events come from.
    pub inbox: Inbox,
    /// Where they go.
    pub journal: Journal,
    /// What stations acknowledged; written to disk from here.
    pub positions: Arc<Mutex<Positions>>,
    /// Told when records are durable.
    pub signal: Arc<Signal>,
    /// Longest wait for the disk.
    pub sync_every: Duration,
    /// To the thread that stores images.
    pub images: Option<Images>,
    /// Drift detection.
    pub drift: Drifts,
    /// What reports carry.
    pub report: Report,
    /// How often the program was started.
    pub boots: Boots,
    /// For snapshots.
    pub control: Arc<Control>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Drift detection of whichever model inspects.
#[derive(Debug)]
pub struct Drifts {
    /// Good parts in the running window; 0: no drift detection.
    window: usize,
    watched: Option<([u8; 8], Option<DriftWatch>)>,
}

impl Drifts {
    /// With so many good parts in the running window; 0 turns it off.
    pub fn new(window: usize) -> Self {
        Self {
            window,
            watched: None,
        }
    }

    /// The watch of a model; `None` where its package tells nothing of normal scores. Another model begins anew.
    fn of(&mut self, model_id: [u8; 8], control: &Control) -> Option<&mut DriftWatch> {
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

/// The way to the image store.
#[derive(Debug)]
pub struct Images {
    /// Which pictures go there: only those may take up room in the queue.
    pub sampler: Sampler,
    /// To the thread that stores them ([`store_images`]).
    pub sender: Sender<Picture>,
}

/// A scored part on its way to the image store.
#[derive(Debug)]
pub struct Picture {
    id: u64,
    unix_ms: u64,
    verdict: Verdict,
    threshold: f32,
    /// Name, version and identity.
    model: String,
    last: Arc<Last>,
}

/// Pictures that wait for the disk; more are dropped, because pictures must never hold up reports.
pub const PICTURE_QUEUE: usize = 4;

/// Stores images until all senders are gone. A store that cannot be opened is tried again with the next picture.
pub fn store_images(
    open: impl Fn() -> Result<ImageStore, StoreError>,
    pictures: &Receiver<Picture>,
    metrics: &Metrics,
) {
    let mut told = false;
    let mut tell = |error: Option<StoreError>| {
        let failed = error.is_some();
        if let Some(error) = error.filter(|_| !told) {
            tracing::warn!(error = one_line(&error), "image store");
        }
        told = failed;
    };
    let mut store = None;
    // Once before the first picture: what a power cut left half done takes up room.
    match open() {
        Ok(opened) => store = Some(opened),
        Err(error) => tell(Some(error)),
    }
    for picture in pictures {
        metrics.waiting(Queue::Pictures, pictures.len());
        let stored = store
            .take()
            .map_or_else(&open, Ok)
            .and_then(|opened| store.insert(opened).store(picture.item()));
        if stored.is_err() {
            metrics.dropped(Drop::Images, 1);
        }
        tell(stored.err());
    }
}

impl Picture {
    fn item(&self) -> StoredItem<'_> {
        StoredItem {
            id: self.id,
            unix_ms: self.unix_ms,
            verdict: self.verdict,
            score: self.last.inspection.score,
            threshold: self.threshold,
            model: &self.model,
            frame: &self.last.frame,
            map: Some(&self.last.inspection.map),
        }
    }
}

/// Parts that wait for an earlier one.
#[derive(Debug, Default)]
struct Order {
    next: u64,
    held: BTreeMap<u64, (Instant, Box<PartResult>)>,
}

impl Order {
    fn take(&mut self, part: Box<PartResult>) {
        self.held.insert(part.part, (Instant::now(), part));
    }

    /// The next part in order, or the first one there is if the others were waited for long enough.
    fn give(&mut self, all: bool) -> Option<Box<PartResult>> {
        let (&first, (since, _)) = self.held.first_key_value()?;
        let due = first <= self.next
            || all
            || self.held.len() > MAX_HELD_BACK
            || since.elapsed() > LONGEST_HOLD;
        if !due {
            return None;
        }
        let (_, part) = self.held.remove(&first)?;
        self.next = self.next.max(first + 1);
        Some(part)
    }
}

impl Reporting {
    /// Runs until [`Reporter::close`], and journals everything that was sent before. `beat` is called in every round.
    pub fn run(mut self, beat: &dyn Fn()) {
        let mut order = Order {
            next: 1,
            ..Order::default()
        };
        let mut unsynced: Option<Instant> = None;
        let mut waiting = VecDeque::new();
        let mut lost_told = 0;
        let mut positions_told = false;
        loop {
            beat();
            let patience = unsynced.map_or(LONGEST_PATIENCE, |since| {
                self.sync_every
                    .saturating_sub(since.elapsed())
                    .min(LONGEST_PATIENCE)
            });
            let gone = match self.inbox.receiver.recv_timeout(patience) {
                Ok(Item::Part(part)) => {
                    order.take(part);
                    false
                }
                Ok(Item::Event(event)) => {
                    waiting.push_back(Body::Event(*event));
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Ok(Item::End) | Err(RecvTimeoutError::Disconnected) => true,
            };
            while let Some(part) = order.give(gone) {
                let started = Instant::now();
                let unix_ms = part.unix_ms;
                let (report, events) = self.make(*part);
                self.append(unix_ms, Body::Part(report));
                waiting.extend(events.into_iter().map(Body::Event));
                self.metrics.took(Stage::Report, started.elapsed());
                unsynced.get_or_insert_with(Instant::now);
            }
            for event in waiting.drain(..) {
                self.append(crate::clock::unix_ms(), event);
                unsynced.get_or_insert_with(Instant::now);
            }
            let due = unsynced.is_some_and(|since| gone || since.elapsed() >= self.sync_every);
            let lost = self.inbox.lost.load(Ordering::Relaxed);
            if due || (unsynced.is_none() && lost > lost_told) {
                let durable = self.sync();
                // Only now there is room for it, if what was lost was lost for want of room.
                let telling = durable && lost > lost_told && self.tell_lost(lost - lost_told);
                if telling {
                    lost_told = lost;
                }
                if telling && gone {
                    self.sync();
                }
                unsynced = (telling || !durable).then(Instant::now);
            }
            self.metrics
                .waiting(Queue::Reports, self.inbox.receiver.len());
            self.metrics.waiting(Queue::Journal, self.journal.pending());
            let mut positions = self
                .positions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let written = if gone {
                positions.flush_now().map(|()| true)
            } else {
                positions.flush(Instant::now())
            };
            match written {
                Ok(wrote) => positions_told &= !wrote,
                Err(error) => {
                    if !std::mem::replace(&mut positions_told, true) {
                        tracing::warn!(error = one_line(&error), "positions of stations");
                    }
                }
            }
            drop(positions);
            if gone {
                return;
            }
        }
    }

    fn tell_lost(&mut self, count: u64) -> bool {
        let reason = "disk or processor too slow, or disk full".to_owned();
        let event = Event::RecordsLost { count, reason };
        self.append(crate::clock::unix_ms(), Body::Event(event))
    }

    fn append(&mut self, unix_ms: u64, body: Body) -> bool {
        let record = Record {
            unix_ms,
            boot: self.boots.number(),
            body,
        };
        match self.journal.append(&record.encode()) {
            Ok(_) => true,
            Err(error) => {
                if self.metrics.journal_ok() {
                    tracing::error!(%error, "journal");
                }
                self.metrics.set_journal_ok(false);
                if !matches!(record.body, Body::Event(Event::RecordsLost { .. })) {
                    self.inbox.lost.fetch_add(1, Ordering::Relaxed);
                    self.metrics.dropped(Drop::Journal, 1);
                }
                false
            }
        }
    }

    /// Whether everything is on the disk.
    fn sync(&mut self) -> bool {
        let kept = self.boots.keep().map_err(|error| one_line(&error));
        let synced = kept.and_then(|()| self.journal.sync().map_err(|error| one_line(&error)));
        let was_ok = self.metrics.journal_ok();
        self.metrics.set_journal_ok(synced.is_ok());
        match &synced {
            Ok(_) => {
                if !was_ok {
                    tracing::info!("the journal is written again");
                }
                self.count_displaced();
                self.signal.notify();
            }
            Err(error) if was_ok => {
                tracing::error!(error, "journal cannot be written; inspection goes on");
            }
            Err(_) => {}
        }
        synced.is_ok()
    }

    /// What the size limit displaced is lost if no station has it.
    fn count_displaced(&mut self) {
        let gone = self.journal.take_displaced();
        if gone.is_empty() {
            return;
        }
        let positions = self.positions.lock();
        let positions = positions.unwrap_or_else(PoisonError::into_inner);
        let first = positions.highest().map_or(0, |last| last + 1);
        let lost = gone.end.saturating_sub(gone.start.max(first));
        self.metrics.dropped(Drop::Displaced, lost);
    }

    /// The report of a part, and what else is to be told because of it.
    fn make(&mut self, result: PartResult) -> (PartReport, Vec<Event>) {
        let mut report = PartReport {
            part: result.part,
            frame_sequence: result.frame_sequence,
            model_id: result.model_id,
            outcome: result.outcome,
            action: result.action,
            score: None,
            threshold: result.threshold,
            latency_us: u32::try_from(result.latency.as_micros()).unwrap_or(u32::MAX),
            regions: Vec::new(),
            regions_found: 0,
            heat_map: None,
            thumbnail_jpeg: None,
        };
        let mut events = Vec::new();
        let Some((frame, inspection)) = result.scored else {
            return (report, events);
        };
        report.score = Some(inspection.score);
        report.regions_found = inspection.regions.len() as u32;
        let regions = inspection.regions.iter().take(MAX_REGIONS);
        report.regions = regions.map(wire_region).collect();
        let wanted = |pictures: Pictures| match pictures {
            Pictures::None => false,
            Pictures::Ng => inspection.verdict == Some(Verdict::Ng),
            Pictures::All => true,
        };
        if wanted(self.report.heat_map) {
            report.heat_map = heat_map(&inspection.map, result.threshold);
        }
        if wanted(self.report.thumbnail) {
            report.thumbnail_jpeg = thumbnail(&frame, self.report.thumbnail_px);
        }
        if result.outcome == Outcome::Ok
            && let Some(drift) = self.drift.of(result.model_id, &self.control)
        {
            let news = drift.add(Look::of(&inspection.prepared), inspection.score);
            for (kind, name) in DRIFTS {
                self.metrics.drift(name, drift.is_out(kind));
            }
            for news in news {
                tracing::warn!(kind = ?news.kind, found = news.found, expected = news.expected, "drift");
                events.push(Event::Drift {
                    kind: news.kind,
                    found: news.found,
                    expected: news.expected,
                });
            }
        }
        let verdict = inspection.verdict;
        let last = Arc::new(Last {
            part: result.part,
            frame,
            inspection,
        });
        if let (Some(images), Some(verdict), Some(threshold)) =
            (&mut self.images, verdict, result.threshold)
            && images.sampler.wants(verdict)
        {
            let lost = images.sender.try_send(Picture {
                id: u64::from(self.boots.number()) << 40 | result.part,
                unix_ms: result.unix_ms,
                verdict,
                threshold,
                model: model_text(&self.control, result.model_id),
                last: Arc::clone(&last),
            });
            self.metrics.waiting(Queue::Pictures, images.sender.len());
            if lost.is_err() {
                self.metrics.dropped(Drop::Images, 1);
            }
        }
        self.control.set_last(last);
        (report, events)
    }
}

/// A model for the facts of a stored frame: name and version where they are known, and the identity.
fn model_text(control: &Control, model_id: [u8; 8]) -> String {
    let id = secure::hex(&model_id);
    let inspector = control.inspector();
    match inspector.filter(|inspector| inspector.model_id() == model_id) {
        Some(inspector) => format!("{} ({id})", crate::update::model_name(&inspector)),
        None => id,
    }
}

/// An error with its causes, on one line.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    cut_text(&text.replace('\n', " "))
}

const DRIFTS: [(DriftKind, &str); 4] = [
    (DriftKind::Brightness, "brightness"),
    (DriftKind::Contrast, "contrast"),
    (DriftKind::Sharpness, "sharpness"),
    (DriftKind::Surface, "surface"),
];

fn wire_region(region: &crate::inspect::region::Region) -> Region {
    Region {
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

/// The map in 8 bits (see [`HeatMap`]): reduced to at most 256 pixels a side by the highest score of each block, so
/// that no defect gets lost; to fewer where the map is so restless that its PNG would be too long for a report.
pub fn heat_map(map: &ScoreMap, threshold: Option<f32>) -> Option<HeatMap> {
    let full_scale = threshold.map_or(map.peak(), |threshold| 2.0 * threshold);
    let full_scale = full_scale.max(f32::MIN_POSITIVE);
    let longer_px = map.width_px.max(map.height_px);
    let mut block = longer_px.div_ceil(HEAT_MAP_PX);
    loop {
        let png = reduced(map, block, full_scale)?;
        if png.len() <= MAX_HEAT_MAP_BYTES {
            return Some(HeatMap { full_scale, png });
        }
        if block >= longer_px {
            return None;
        }
        block *= 2;
    }
}

/// A grey PNG with a pixel for each block of `block`×`block`.
fn reduced(map: &ScoreMap, block: usize, full_scale: f32) -> Option<Vec<u8>> {
    let (width, height) = (map.width_px.div_ceil(block), map.height_px.div_ceil(block));
    let mut small = GrayImage::new(width as u32, height as u32);
    for (index, &score) in map.data.iter().enumerate() {
        let (x, y) = (index % map.width_px / block, index / map.width_px / block);
        let value = (255.0 * (score / full_scale).min(1.0)).round() as u8;
        let Luma([old]) = small.get_pixel_mut(x as u32, y as u32);
        *old = value.max(*old);
    }
    let mut png = Vec::new();
    // Every NG part pays for it: speed before size.
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, PngFilter::Up);
    small.write_with_encoder(encoder).ok()?;
    Some(png)
}

fn thumbnail(frame: &Frame, side_px: u32) -> Option<Vec<u8>> {
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
    fn a_restless_map_is_sent_smaller_and_loses_no_peak() {
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
        // A calm one keeps its size.
        let calm = heat_map(&ScoreMap::zeros(256, 256), Some(0.5)).expect("it fits");
        let png = image::load_from_memory(&calm.png).expect("it is a PNG");
        assert_eq!(png.width(), 256);
    }
}

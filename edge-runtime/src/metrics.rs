//! What the camera counts, for Prometheus and for health reports. Every drop has its place and is counted there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram as Latencies;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use proto::message::{Health, Mode};
use proto::report::Outcome;

/// One label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Place {
    /// Where, or what.
    place: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
    model_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabel {
    kind: &'static str,
}

/// A stage whose time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the driver's buffer to the slot.
    Queue,
    /// Raw pixels to a frame.
    Convert,
    /// Frame to verdict.
    Score,
    /// From the slot to the verdict, without scoring: conversion, decision, gate.
    Around,
    /// Verdict to journal, pictures included.
    Report,
    /// From capture to verdict.
    Total,
    /// From the moment that a reject pulse was due to the output having been set.
    Gate,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Convert,
        Self::Score,
        Self::Around,
        Self::Report,
        Self::Total,
        Self::Gate,
    ];

    /// Name as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Convert => "convert",
            Self::Score => "score",
            Self::Around => "around",
            Self::Report => "report",
            Self::Total => "total",
            Self::Gate => "gate",
        }
    }
}

/// Where something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drop {
    /// The driver's counter jumped.
    Driver,
    /// The driver marked the frame as damaged, or it could not be converted.
    Damaged,
    /// Displaced in the latest-frame slot.
    Slot,
    /// No part waited for it.
    Unassigned,
    /// A report that was not journalled.
    Journal,
    /// A record that the journal's size limit displaced before any station acknowledged it.
    Displaced,
    /// A record that the disk did not give back.
    Unreadable,
    /// An image that was to be stored and was not.
    Images,
    /// Bytes from a station that were no frame, or a frame that was no message.
    Link,
    /// More parts in flight than can be followed.
    Parts,
}

impl Drop {
    fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Damaged => "damaged",
            Self::Slot => "slot",
            Self::Unassigned => "unassigned",
            Self::Journal => "journal",
            Self::Displaced => "displaced",
            Self::Unreadable => "unreadable",
            Self::Images => "images",
            Self::Link => "link",
            Self::Parts => "parts",
        }
    }
}

/// A bounded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Settled parts and events, before the report thread.
    Reports,
    /// Pictures, before the image store.
    Pictures,
    /// Records, before the journal's disk.
    Journal,
}

/// Latency buckets in seconds: 0.25 ms to 4 s.
const BUCKETS_S: [f64; 12] = [
    0.000_25, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 4.0,
];
/// Longest latency told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// All counters. Cheap to update from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    started: Instant,
    frames: Counter,
    drops: Family<Place, Counter>,
    parts: Family<Result, Counter>,
    reopened: Counter,
    gate_ok: Gauge,
    stages: Family<StageLabel, Histogram>,
    drifted: Family<DriftLabel, Gauge>,
    model: Family<ModelLabel, Gauge>,
    stations: Gauge,
    pending: Gauge,
    waiting: Family<Place, Gauge>,
    memory: Gauge,
    temperature: Gauge<f64, AtomicU64>,
    capturing: Gauge,
    missed_pulses: Counter,
    is_capturing: AtomicBool,
    journal_ok: AtomicBool,
    counts: [AtomicU64; 3],
    frames_lost: AtomicU64,
    unreadable_to: AtomicU64,
    latencies: Mutex<[Latencies<u32>; Stage::ALL.len()]>,
}

impl Metrics {
    /// Registers everything; the camera's name is told as a label of an info metric.
    pub fn new(camera: &str) -> Self {
        let mut registry = Registry::with_prefix("awr");
        let drops = Family::<Place, Counter>::default();
        let parts = Family::<Result, Counter>::default();
        let stages =
            Family::<StageLabel, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS_S));
        let drifted = Family::<DriftLabel, Gauge>::default();
        let metrics = Self {
            started: Instant::now(),
            frames: Counter::default(),
            reopened: Counter::default(),
            gate_ok: Gauge::default(),
            stations: Gauge::default(),
            pending: Gauge::default(),
            waiting: Family::default(),
            memory: Gauge::default(),
            temperature: Gauge::default(),
            capturing: Gauge::default(),
            missed_pulses: Counter::default(),
            is_capturing: AtomicBool::new(false),
            journal_ok: AtomicBool::new(true),
            counts: Default::default(),
            frames_lost: AtomicU64::new(0),
            unreadable_to: AtomicU64::new(0),
            latencies: Mutex::new(Stage::ALL.map(|_| latencies())),
            registry: Mutex::new(Registry::default()),
            drops,
            parts,
            stages,
            drifted,
            model: Family::default(),
        };
        let info = [
            ("camera", camera.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        registry.register("camera", "Identity", Info::new(info));
        registry.register(
            "model",
            "1 for the model that inspects",
            metrics.model.clone(),
        );
        registry.register("frames", "Frames captured", metrics.frames.clone());
        registry.register(
            "drops",
            "Frames, reports and bytes lost, by place",
            metrics.drops.clone(),
        );
        registry.register("parts", "Parts by outcome", metrics.parts.clone());
        registry.register(
            "capture_reopened",
            "Times that the camera was opened anew",
            metrics.reopened.clone(),
        );
        registry.register(
            "gate_ok",
            "1 while trigger, encoder and outputs work and every part is followed",
            metrics.gate_ok.clone(),
        );
        registry.register_with_unit(
            "stage",
            "Time in each stage",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register(
            "drift",
            "1 while good parts look different from calibration",
            metrics.drifted.clone(),
        );
        registry.register("stations", "Stations connected", metrics.stations.clone());
        registry.register(
            "parts_pending",
            "Parts that await their verdict",
            metrics.pending.clone(),
        );
        registry.register(
            "waiting",
            "Reports, pictures and journal records that wait for the next stage",
            metrics.waiting.clone(),
        );
        registry.register_with_unit(
            "memory",
            "Resident memory",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        registry.register_with_unit(
            "temperature",
            "Processor temperature",
            Unit::Celsius,
            metrics.temperature.clone(),
        );
        registry.register(
            "capturing",
            "1 while frames come",
            metrics.capturing.clone(),
        );
        registry.register(
            "gate_missed_pulses",
            "Reject pulses that began after they should have ended",
            metrics.missed_pulses.clone(),
        );
        metrics.set_gate_ok(true);
        *lock(&metrics.registry) = registry;
        metrics
    }

    /// Prometheus text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &lock(&self.registry));
        text
    }

    /// Another model inspects.
    pub fn set_model(&self, model: &str, model_id: &[u8]) {
        self.model.clear();
        let label = ModelLabel {
            model: model.to_owned(),
            model_id: secure::hex(model_id),
        };
        self.model.get_or_create(&label).set(1);
    }

    /// A frame came.
    pub fn frame(&self) {
        self.frames.inc();
    }

    /// So much was lost.
    pub fn dropped(&self, place: Drop, count: u64) {
        let label = Place {
            place: place.name(),
        };
        self.drops.get_or_create(&label).inc_by(count);
        if matches!(place, Drop::Driver | Drop::Damaged | Drop::Slot) {
            self.frames_lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Records `from..to` are on a part of the disk that cannot be read. Every station that comes by meets them; they
    /// are counted once.
    pub fn unreadable(&self, from: u64, to: u64) {
        let before = self.unreadable_to.fetch_max(to, Ordering::Relaxed);
        self.dropped(Drop::Unreadable, to.saturating_sub(from.max(before)));
    }

    /// How much was lost at a place.
    pub fn drops(&self, place: Drop) -> u64 {
        let label = Place {
            place: place.name(),
        };
        self.drops.get_or_create(&label).get()
    }

    /// A part is settled.
    pub fn part(&self, outcome: Outcome) {
        let (index, result) = match outcome {
            Outcome::Ok => (0, "ok"),
            Outcome::Ng => (1, "ng"),
            Outcome::Fault(_) => (2, "fault"),
        };
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.parts.get_or_create(&Result { result }).inc();
    }

    /// The camera was opened anew.
    pub fn reopened(&self) {
        self.reopened.inc();
    }

    /// Whether trigger, encoder and outputs work and every part is followed.
    pub fn set_gate_ok(&self, ok: bool) {
        self.gate_ok.set(i64::from(ok));
    }

    /// Whether trigger, encoder and outputs work and every part is followed.
    pub fn gate_ok(&self) -> bool {
        self.gate_ok.get() != 0
    }

    /// A stage took so long.
    pub fn took(&self, stage: Stage, time: Duration) {
        let label = StageLabel {
            stage: stage.name(),
        };
        self.stages
            .get_or_create(&label)
            .observe(time.as_secs_f64());
        let us = (time.as_micros() as u64).clamp(1, LONGEST_US);
        lock(&self.latencies)[stage as usize].saturating_record(us);
    }

    /// Percentiles (0..=100) of a stage in microseconds.
    pub fn percentiles_us<const N: usize>(&self, stage: Stage, wanted: [f64; N]) -> [u32; N] {
        let latencies = lock(&self.latencies);
        wanted.map(|percentile| latencies[stage as usize].value_at_percentile(percentile) as u32)
    }

    /// Forgets the latencies so far, for [`Self::percentiles_us`].
    pub fn forget_latencies(&self) {
        lock(&self.latencies).iter_mut().for_each(Latencies::reset);
    }

    /// A drift began or ended.
    pub fn drift(&self, kind: &'static str, out: bool) {
        self.drifted
            .get_or_create(&DriftLabel { kind })
            .set(i64::from(out));
    }

    /// Stations connected.
    pub fn stations(&self) -> &Gauge {
        &self.stations
    }

    /// Parts that await their verdict.
    pub fn pending(&self, count: usize) {
        self.pending.set(count as i64);
    }

    /// So many wait in this queue.
    pub fn waiting(&self, queue: Queue, count: usize) {
        let place = match queue {
            Queue::Reports => "reports",
            Queue::Pictures => "pictures",
            Queue::Journal => "journal",
        };
        self.waiting
            .get_or_create(&Place { place })
            .set(count as i64);
    }

    /// A reject pulse began too late.
    pub fn missed_pulses(&self, count: u64) {
        self.missed_pulses.inc_by(count);
    }

    /// Whether frames come.
    pub fn set_capturing(&self, capturing: bool) {
        self.is_capturing.store(capturing, Ordering::Relaxed);
        self.capturing.set(i64::from(capturing));
    }

    /// Whether frames come.
    pub fn capturing(&self) -> bool {
        self.is_capturing.load(Ordering::Relaxed)
    }

    /// Whether reports are kept.
    pub fn set_journal_ok(&self, ok: bool) {
        self.journal_ok.store(ok, Ordering::Relaxed);
    }

    /// Whether reports are kept.
    pub fn journal_ok(&self) -> bool {
        self.journal_ok.load(Ordering::Relaxed)
    }

    /// The state, for a health report; also refreshes memory and temperature.
    pub fn health(&self, mode: Mode) -> Health {
        let memory = memory_bytes();
        let temperature = temperature_c();
        self.memory.set(memory as i64);
        self.temperature
            .set(temperature.map_or(f64::NAN, f64::from));
        let [ok, ng, fault] = &self.counts;
        Health {
            uptime_s: self.started.elapsed().as_secs(),
            capturing: self.capturing(),
            frames: self.frames.get(),
            frames_lost: self.frames_lost.load(Ordering::Relaxed),
            parts: [ok, ng, fault].map(|count| count.load(Ordering::Relaxed)),
            records_lost: [Drop::Journal, Drop::Displaced, Drop::Unreadable]
                .map(|place| self.drops(place))
                .iter()
                .sum(),
            scoring_us: self.percentiles_us(Stage::Score, [50.0, 99.0]),
            memory_bytes: memory,
            temperature_c: temperature,
            mode,
        }
    }
}

fn latencies() -> Latencies<u32> {
    // Two digits over a minute: 12 KB. The bounds are constants that the library accepts.
    Latencies::new_with_bounds(1, LONGEST_US, 2).unwrap_or_else(|_| unreachable!())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process (`VmRSS` of `/proc/self/status`, which does not depend on the size of pages; 0 where
/// there is none).
pub fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    resident_bytes(&text).unwrap_or(0)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// The first thermal zone, in degrees Celsius.
fn temperature_c() -> Option<f32> {
    let text = std::fs::read_to_string("/sys/class/thermal/thermal_zone0/temp").ok()?;
    Some(text.trim().parse::<f32>().ok()? / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::new("top");
        metrics.set_model("leather 0", &[1]);
        metrics.set_model("leather 1", &[0, 255]);
        metrics.frame();
        metrics.dropped(Drop::Slot, 2);
        metrics.part(Outcome::Ng);
        metrics.took(Stage::Score, Duration::from_millis(3));
        metrics.waiting(Queue::Journal, 7);
        metrics.unreadable(10, 15);
        metrics.unreadable(10, 15);
        metrics.unreadable(12, 16);
        let text = metrics.encode();
        for line in [
            "awr_frames_total 1",
            "awr_drops_total{place=\"slot\"} 2",
            "awr_drops_total{place=\"unreadable\"} 6",
            "awr_waiting{place=\"journal\"} 7",
            "awr_parts_total{result=\"ng\"} 1",
            "awr_stage_seconds_bucket{le=\"0.005\",stage=\"score\"} 1",
            "model=\"leather 1\"",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let health = metrics.health(Mode::Inspect);
        assert_eq!((health.frames, health.frames_lost), (1, 2));
        assert_eq!(health.parts, [0, 1, 0]);
        assert_eq!(health.records_lost, 6);
        assert!((2_900..3_200).contains(&health.scoring_us[0]));
    }

    #[test]
    fn memory_is_told_in_bytes_whatever_the_size_of_pages() {
        let status = "Name:\tx\nVmHWM:\t 20 kB\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(resident_bytes(status), Some(1_234 * 1_024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        assert!(memory_bytes() > 100_000);
    }
}

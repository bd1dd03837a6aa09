//! Counters and gauges of the camera, for Prometheus and for health reports. Everything that is
//! lost is counted by the place where it was lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::line::readiness::{Condition, Readiness};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabel {
    place: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
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
struct ConditionLabel {
    condition: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabel {
    kind: &'static str,
}

/// A stage whose duration is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for scoring, in the slot.
    Queue,
    /// Converting raw pixels to a frame.
    Convert,
    /// Scoring a frame.
    Score,
    /// From the slot to the verdict, without scoring: conversion, decision, gate.
    Around,
    /// From the verdict to the journal, pictures included.
    Report,
    /// From capture to verdict.
    Total,
    /// From the moment when a reject pulse was due to the output being set.
    Gate,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Convert,
        Self::Score,
        Self::Around,
        Self::Report,
        Self::Total,
        Self::Gate,
    ];

    /// The label of the stage in the metrics.
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

/// A place where frames, parts, reports or bytes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Frames: the driver's counter jumped.
    Driver,
    /// Frames that the driver marked as damaged, or that could not be converted.
    Damaged,
    /// Frames replaced in the slot by a newer one before they were scored.
    Slot,
    /// Frames for which no part waited.
    Unassigned,
    /// Reports that were not journalled.
    Journal,
    /// Records that the journal's size limit evicted before any station acknowledged them.
    Evicted,
    /// Records that could not be read back from the disk.
    Unreadable,
    /// Pictures of parts that were given up because those before them wait for the disk.
    Pictures,
    /// Images that should have been stored and were not.
    Images,
    /// Bytes from a station that were not a frame, and frames that were not a message.
    Link,
    /// Parts that could not be followed because too many were in flight.
    Parts,
}

impl Loss {
    /// The label of the place in the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Damaged => "damaged",
            Self::Slot => "slot",
            Self::Unassigned => "unassigned",
            Self::Journal => "journal",
            Self::Evicted => "displaced",
            Self::Unreadable => "unreadable",
            Self::Pictures => "pictures",
            Self::Images => "images",
            Self::Link => "link",
            Self::Parts => "parts",
        }
    }
}

/// A bounded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Settled parts and events on their way to the report thread.
    Reports,
    /// Pictures on their way to the image store.
    Pictures,
    /// Records that are not on disk yet.
    Journal,
}

/// Latency buckets in seconds: 0.25 ms to 4 s.
const BUCKETS_S: [f64; 12] = [
    0.000_25, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 4.0,
];
/// Longest latency recorded, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 60_000_000;

/// All counters and gauges. Updating them is cheap and possible from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    started: Instant,
    frames: Counter,
    drops: Family<PlaceLabel, Counter>,
    parts: Family<ResultLabel, Counter>,
    reopened: Counter,
    gate_ok: Gauge,
    stages: Family<StageLabel, Histogram>,
    drifted: Family<DriftLabel, Gauge>,
    model: Family<ModelLabel, Gauge>,
    stations: Gauge,
    pending: Gauge,
    waiting: Family<PlaceLabel, Gauge>,
    memory: Gauge,
    temperature: Gauge<f64, AtomicU64>,
    capturing: Gauge,
    ready: Gauge,
    conditions: Family<ConditionLabel, Gauge>,
    missed_pulses: Counter,
    readiness: Arc<Readiness>,
    counts: [AtomicU64; 3],
    frames_lost: AtomicU64,
    unreadable_to: AtomicU64,
    latencies: Mutex<[Latencies<u32>; Stage::ALL.len()]>,
}

impl Metrics {
    /// Registers all metrics. The camera's name becomes a label of an info metric; `readiness` is
    /// only observed.
    pub fn new(camera: &str, readiness: Arc<Readiness>) -> Self {
        let mut registry = Registry::with_prefix("awr");
        let drops = Family::<PlaceLabel, Counter>::default();
        let parts = Family::<ResultLabel, Counter>::default();
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
            ready: Gauge::default(),
            conditions: Family::default(),
            missed_pulses: Counter::default(),
            readiness,
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
            "Times that the camera was opened again",
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
            "ready",
            "1 while parts are being inspected and rejected",
            metrics.ready.clone(),
        );
        registry.register(
            "condition_ok",
            "1 while a condition of inspection holds",
            metrics.conditions.clone(),
        );
        registry.register(
            "gate_missed_pulses",
            "Reject pulses that began after they should have ended",
            metrics.missed_pulses.clone(),
        );
        *lock(&metrics.registry) = registry;
        metrics
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.capturing.set(i64::from(self.readiness.capturing()));
        self.gate_ok.set(i64::from(self.readiness.gate_ok()));
        self.ready.set(i64::from(self.readiness.is_ready()));
        for condition in Condition::ALL {
            let label = ConditionLabel {
                condition: condition.name(),
            };
            let ok = !self.readiness.is_failing(condition);
            self.conditions.get_or_create(&label).set(i64::from(ok));
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &lock(&self.registry));
        text
    }

    /// Sets the active model.
    pub fn set_model(&self, model: &str, model_id: &[u8]) {
        self.model.clear();
        let label = ModelLabel {
            model: model.to_owned(),
            model_id: secure::hex(model_id),
        };
        self.model.get_or_create(&label).set(1);
    }

    /// Counts a captured frame.
    pub fn frame(&self) {
        self.frames.inc();
    }

    /// Counts losses at a place.
    pub fn dropped(&self, place: Loss, count: u64) {
        let label = PlaceLabel {
            place: place.name(),
        };
        self.drops.get_or_create(&label).inc_by(count);
        if matches!(place, Loss::Driver | Loss::Damaged | Loss::Slot) {
            self.frames_lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts the records `from..to` as unreadable. Every station that reaches them reports them
    /// again; they are counted once.
    pub fn unreadable(&self, from: u64, to: u64) {
        let before = self.unreadable_to.fetch_max(to, Ordering::Relaxed);
        self.dropped(Loss::Unreadable, to.saturating_sub(from.max(before)));
    }

    /// Number of losses at a place.
    pub fn drops(&self, place: Loss) -> u64 {
        let label = PlaceLabel {
            place: place.name(),
        };
        self.drops.get_or_create(&label).get()
    }

    /// Counts a settled part.
    pub fn part(&self, outcome: Outcome) {
        let (index, result) = match outcome {
            Outcome::Ok => (0, "ok"),
            Outcome::Ng => (1, "ng"),
            Outcome::Fault(_) => (2, "fault"),
        };
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.parts.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a reopening of the camera.
    pub fn reopened(&self) {
        self.reopened.inc();
    }

    /// Records the duration of a stage.
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

    /// Clears the latencies that [`Self::percentiles_us`] evaluates.
    pub fn reset_latencies(&self) {
        lock(&self.latencies).iter_mut().for_each(Latencies::reset);
    }

    /// Sets whether a kind of drift is present.
    pub fn drift(&self, kind: &'static str, drifted: bool) {
        self.drifted
            .get_or_create(&DriftLabel { kind })
            .set(i64::from(drifted));
    }

    /// The gauge of connected stations.
    pub fn stations(&self) -> &Gauge {
        &self.stations
    }

    /// Sets the number of parts that await their verdict.
    pub fn pending(&self, count: usize) {
        self.pending.set(count as i64);
    }

    /// Sets the length of a queue.
    pub fn waiting(&self, queue: Queue, count: usize) {
        let place = match queue {
            Queue::Reports => "reports",
            Queue::Pictures => "pictures",
            Queue::Journal => "journal",
        };
        self.waiting
            .get_or_create(&PlaceLabel { place })
            .set(count as i64);
    }

    /// Counts reject pulses that began after they should have ended.
    pub fn missed_pulses(&self, count: u64) {
        self.missed_pulses.inc_by(count);
    }

    /// The state for a health report. Also updates memory and temperature.
    pub fn health(&self, mode: Mode) -> Health {
        let memory = memory_bytes();
        let temperature = temperature_c();
        self.memory.set(memory as i64);
        self.temperature
            .set(temperature.map_or(f64::NAN, f64::from));
        let [ok, ng, fault] = &self.counts;
        Health {
            uptime_s: self.started.elapsed().as_secs(),
            capturing: self.readiness.capturing(),
            frames: self.frames.get(),
            frames_lost: self.frames_lost.load(Ordering::Relaxed),
            parts: [ok, ng, fault].map(|count| count.load(Ordering::Relaxed)),
            records_lost: [Loss::Journal, Loss::Evicted, Loss::Unreadable]
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
    // Two significant digits up to a minute take 12 KB. The library accepts these constant bounds.
    Latencies::new_with_bounds(1, LONGEST_US, 2).unwrap_or_else(|_| unreachable!())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process; 0 if it is unknown. It is `VmRSS` of `/proc/self/status`, which
/// does not depend on the page size.
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

/// Temperature of the first thermal zone in degrees Celsius.
fn temperature_c() -> Option<f32> {
    let text = std::fs::read_to_string("/sys/class/thermal/thermal_zone0/temp").ok()?;
    Some(text.trim().parse::<f32>().ok()? / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_encoded_and_in_the_health_report() {
        let metrics = Metrics::new("top", Arc::default());
        metrics.set_model("leather 0", &[1]);
        metrics.set_model("leather 1", &[0, 255]);
        metrics.frame();
        metrics.dropped(Loss::Slot, 2);
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
            "awr_condition_ok{condition=\"frames\"} 0",
            "awr_condition_ok{condition=\"golden\"} 1",
            "awr_ready 0",
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
    fn memory_is_in_bytes_whatever_the_page_size() {
        let status = "Name:\tx\nVmHWM:\t 20 kB\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(resident_bytes(status), Some(1_234 * 1_024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        assert!(memory_bytes() > 100_000);
    }
}

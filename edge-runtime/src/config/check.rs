//! The allowed values of the keys, and values that follow from several keys together.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use proto::name::{CameraName, InvalidName, SERIAL_PREFIX};
use scoring::source::replay::MAX_PAUSE;

use super::hardware::{Capture, Speed, Trigger};
use super::schema::{Config, Effect};
use crate::line::readiness::{self, Policy};
use crate::line::silence;
use crate::model::version::Version;

/// Allowed frame rates, in frames per second.
const RATES: RangeInclusive<f64> = 0.01..=10_000.0;

/// Longest time, in milliseconds: one hour. A longer time is almost certainly a mistake.
const LONGEST_MS: u64 = 3_600_000;

/// Time without a frame after which a camera that runs freely counts as lost, in milliseconds.
const FRAME_TIMEOUT_MS: u64 = 1_000;

/// Shortest time for which an input may be silent, in milliseconds.
const SHORTEST_SILENCE_MS: u64 = 100;

/// Longest interval, in minutes: one year.
const MAX_MINUTES: u64 = 525_600;

/// Largest size on disk, in MiB: one tebibyte.
const MAX_DISK_MB: u64 = 1 << 20;

/// Most encoder counts between trigger and gate.
const MAX_COUNTS: u64 = 1 << 32;

/// Most threads, and most stations.
const MAX_COUNT: u64 = 64;

/// The allowed values of a key, and whether the configuration keeps to them. The reference of
/// `camera.toml` shows `expected`, so what is checked and what is documented cannot differ.
pub(super) struct Limit {
    /// The key with its tables, such as `gate.encoder.delay_counts`.
    pub(super) key: &'static str,
    /// The allowed values, as text.
    pub(super) expected: String,
    /// The configured value if it is not allowed.
    violation: Option<String>,
}

impl Limit {
    /// A number within a range; a key that is not set is allowed.
    fn range<T: PartialOrd + Display>(
        key: &'static str,
        range: RangeInclusive<T>,
        found: Option<T>,
    ) -> Self {
        Self {
            key,
            expected: format!("{} to {}", range.start(), range.end()),
            violation: found
                .filter(|found| !range.contains(found))
                .map(|found| found.to_string()),
        }
    }

    /// A reason, as text; a key that is not set is allowed.
    fn reason(key: &'static str, found: Option<&str>) -> Self {
        let empty = found.filter(|reason| reason.trim().is_empty());
        Self::new(key, "a reason", empty.map(|_| "an empty text".to_owned()))
    }

    fn new(key: &'static str, expected: &str, violation: Option<String>) -> Self {
        Self {
            key,
            expected: expected.to_owned(),
            violation,
        }
    }
}

/// Deadline of a gate without delay, unless another one is configured.
const DEADLINE_WITHOUT_DELAY_MS: u64 = 500;

impl Config {
    pub(super) fn check(&self) -> Result<(), String> {
        let violated = self
            .limits()
            .into_iter()
            .find_map(|limit| Some((limit.key, limit.expected, limit.violation?)));
        match violated {
            Some((key, expected, found)) => {
                Err(format!("{key}: expected {expected}, found {found}"))
            }
            None => Ok(()),
        }
    }

    /// The limits of all keys, whether they are set or not.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let name = CameraName::new(&self.name).err().map(|error| match error {
            InvalidName::Length { found_bytes, .. } => format!("{found_bytes} bytes"),
            _ => self.name.escape_debug().to_string(),
        });
        let trust = &self.model.trust;
        let threshold = self.model.threshold;
        let (inspection, gate) = (&self.inspection, self.gate.as_ref());
        let encoder = gate.and_then(|gate| gate.encoder.as_ref());
        let mut limits = vec![
            Limit {
                expected: format!(
                    "1 to {} bytes of visible characters, not beginning with `{SERIAL_PREFIX}`",
                    proto::limits::MAX_TEXT_BYTES
                ),
                ..Limit::new("name", "", name)
            },
            Limit::new(
                "model.min_version",
                "numbers with points between them",
                self.model
                    .min_version
                    .clone()
                    .filter(|text| Version::parse(text).is_none()),
            ),
            Limit::new(
                "model.trust",
                "at least one public key",
                trust.is_empty().then(|| "none".to_owned()),
            ),
            Limit::new(
                "model.threshold",
                "at least 0",
                threshold
                    .filter(|threshold| !(threshold.is_finite() && *threshold >= 0.0))
                    .map(|threshold| threshold.to_string()),
            ),
            Limit::range(
                "inspection.threads",
                1..=MAX_COUNT,
                Some(inspection.threads as u64),
            ),
            Limit::range(
                "inspection.threads_per_frame",
                1..=MAX_COUNT,
                Some(inspection.threads_per_frame as u64),
            ),
            Limit::range(
                "link.max_stations",
                1..=MAX_COUNT,
                Some(self.link.max_stations as u64),
            ),
            Limit::range(
                "report.thumbnail_px",
                16..=320,
                Some(self.report.thumbnail_px),
            ),
            Limit::range("journal.max_mb", 1..=MAX_DISK_MB, Some(self.journal.max_mb)),
            // The report thread must give a sign of life at least this often.
            Limit::range("journal.sync_ms", 0..=5_000, Some(self.journal.sync_ms)),
            Limit::range("images.max_mb", 0..=MAX_DISK_MB, Some(self.images.max_mb)),
            Limit::range(
                "golden.every_min",
                0..=MAX_MINUTES,
                Some(self.golden.every_min),
            ),
            Limit::range(
                "inspection.deadline_ms",
                1..=LONGEST_MS,
                inspection.deadline_ms,
            ),
        ];
        limits.push(Limit::range(
            "realtime.priority",
            0..=99,
            Some(self.realtime.priority),
        ));
        limits.extend(self.capture.limits());
        limits.extend(self.trigger.limits());
        limits.extend([
            Limit::range(
                "gate.delay_ms",
                0..=LONGEST_MS,
                gate.map(|gate| gate.delay_ms),
            ),
            Limit::range(
                "gate.pulse_ms",
                1..=LONGEST_MS,
                gate.map(|gate| gate.pulse_ms),
            ),
            Limit::range(
                "gate.confirm.within_ms",
                1..=LONGEST_MS,
                gate.and_then(|gate| Some(gate.confirm.as_ref()?.within_ms)),
            ),
            Limit::range(
                "gate.encoder.parts_without_count",
                1..=1_000,
                encoder.map(|encoder| encoder.parts_without_count),
            ),
            Limit::range(
                "gate.encoder.silent_after_ms",
                SHORTEST_SILENCE_MS..=LONGEST_MS,
                encoder.map(|encoder| encoder.silent_after_ms),
            ),
            Limit::reason(
                "gate.encoder.silent_off",
                encoder.and_then(|encoder| encoder.silent_off.as_deref()),
            ),
            Limit::range(
                "signals.heartbeat_ms",
                200..=60_000,
                Some(self.signals.heartbeat_ms),
            ),
            Limit::range(
                "readiness.faults_in_a_row",
                1..=1_000,
                Some(self.readiness.faults_in_a_row),
            ),
            // One frame is always like itself.
            Limit::new(
                "plausibility.identical_frames",
                "0, or 2 to 1000",
                Some(self.plausibility.identical_frames)
                    .filter(|&frames| frames == 1 || frames > 1_000)
                    .map(|frames| frames.to_string()),
            ),
            Limit::range(
                "gate.encoder.delay_counts",
                0..=MAX_COUNTS,
                encoder.map(|encoder| encoder.delay_counts),
            ),
            Limit::range(
                "gate.encoder.pulse_counts",
                1..=MAX_COUNTS,
                encoder.map(|encoder| encoder.pulse_counts),
            ),
        ]);
        limits
    }

    /// The longest pause between two frames while the source works.
    pub fn longest_wait(&self) -> Duration {
        match self.capture {
            Capture::V4l2 { .. } => self.frame_timeout(),
            Capture::Replay {
                speed: Speed::FramesPerSecond(fps),
                ..
            } => Duration::from_secs_f64(fps.recip()),
            Capture::Replay { .. } => MAX_PAUSE,
        }
    }

    /// The time without a frame after which a camera counts as lost.
    pub fn frame_timeout(&self) -> Duration {
        let configured = match self.capture {
            Capture::V4l2 { timeout_ms, .. } => timeout_ms,
            Capture::Replay { .. } => None,
        };
        let ms = match (configured, &self.trigger) {
            (Some(ms), _) => ms,
            // No part, no frame.
            (
                None,
                Trigger::Gpio {
                    drives_camera: true,
                    silent_after_ms,
                    silent_off,
                    ..
                },
            ) => match silent_off {
                None => silent_after_ms.saturating_add(FRAME_TIMEOUT_MS),
                Some(_) => LONGEST_MS,
            },
            _ => FRAME_TIMEOUT_MS,
        };
        Duration::from_millis(ms)
    }

    /// The lowest version of a package.
    pub fn min_version(&self) -> Option<Version> {
        self.model.min_version.as_deref().and_then(Version::parse)
    }

    /// How long trigger and encoder may be silent.
    pub fn silence_limits(&self) -> silence::Limits {
        let unless = |off: &Option<String>, ms: u64| {
            let limit = Duration::from_millis(ms);
            off.is_none().then_some(limit)
        };
        let (mut trigger, mut triggered) = (None, false);
        if let Trigger::Gpio {
            silent_after_ms,
            silent_off,
            ..
        } = &self.trigger
        {
            (trigger, triggered) = (unless(silent_off, *silent_after_ms), true);
        }
        let encoder = self.gate.as_ref().and_then(|gate| gate.encoder.as_ref());
        silence::Limits {
            trigger,
            encoder: encoder
                .and_then(|encoder| unless(&encoder.silent_off, encoder.silent_after_ms)),
            parts_without_count: encoder
                .filter(|_| triggered)
                .map(|encoder| encoder.parts_without_count),
            has_encoder: encoder.is_some(),
        }
    }

    /// What conditions do when they fail.
    pub fn readiness_policy(&self) -> Policy {
        let effect = |effect| match effect {
            Effect::Hold => readiness::Effect::Hold,
            Effect::Fault => readiness::Effect::Fault,
            Effect::Show => readiness::Effect::Show,
        };
        let configured = &self.readiness;
        Policy {
            faults_in_a_row: configured.faults_in_a_row,
            tracking: match &self.gate {
                Some(gate) if gate.encoder.is_some() => readiness::Effect::HoldOnly,
                _ => readiness::Effect::Hold,
            },
            verdicts: effect(configured.verdicts),
            silence: effect(configured.silence),
            confirm: effect(configured.confirm),
            golden: effect(configured.golden),
            drift: effect(configured.drift),
            journal: effect(configured.journal),
        }
    }

    /// The longest time from a part's trigger to its verdict; a later verdict is too late. Where
    /// the output follows the verdict at once, there is always one: a late pulse would hit another
    /// part.
    pub fn deadline(&self) -> Option<Duration> {
        let own = self.inspection.deadline_ms;
        let gate = match &self.gate {
            None => None,
            // With an encoder, the way to the gate is a distance and not a time.
            Some(gate) => match &gate.encoder {
                Some(encoder) if encoder.delay_counts > 0 => None,
                None if gate.delay_ms > 0 => Some(gate.delay_ms),
                _ => Some(own.unwrap_or(DEADLINE_WITHOUT_DELAY_MS)),
            },
        };
        let shortest = match (own, gate) {
            (Some(own), Some(gate)) => Some(own.min(gate)),
            (own, gate) => own.or(gate),
        };
        shortest.map(Duration::from_millis)
    }
}

impl Trigger {
    fn limits(&self) -> [Limit; 4] {
        let (mut debounce, mut within, mut silent, mut off) = (None, None, None, None);
        if let Self::Gpio {
            debounce_us,
            frame_within_ms,
            silent_after_ms,
            silent_off,
            ..
        } = self
        {
            (debounce, within) = (Some(*debounce_us), Some(*frame_within_ms));
            (silent, off) = (Some(*silent_after_ms), silent_off.as_deref());
        }
        [
            Limit::range("trigger.debounce_us", 0..=1_000_000, debounce),
            Limit::range("trigger.frame_within_ms", 1..=LONGEST_MS, within),
            Limit::range(
                "trigger.silent_after_ms",
                SHORTEST_SILENCE_MS..=LONGEST_MS,
                silent,
            ),
            Limit::reason("trigger.silent_off", off),
        ]
    }
}

impl Capture {
    fn limits(&self) -> [Limit; 5] {
        let (mut timeout, mut exposure_to_stamp, mut rate) = (None, None, None);
        let (mut code, mut replay_rate) = (None, None);
        match self {
            Self::V4l2 {
                format,
                fps,
                timeout_ms,
                exposure_to_stamp_us,
                ..
            } => {
                (timeout, exposure_to_stamp) = (*timeout_ms, *exposure_to_stamp_us);
                (rate, code) = (*fps, format.clone());
            }
            Self::Replay {
                speed: Speed::FramesPerSecond(fps),
                ..
            } => replay_rate = Some(*fps),
            Self::Replay { .. } => {}
        }
        let is_code = |code: &str| (1..=4).contains(&code.len()) && code.is_ascii();
        [
            Limit::range("capture.timeout_ms", 1..=LONGEST_MS, timeout),
            Limit::range(
                "capture.exposure_to_stamp_us",
                0..=60_000_000,
                exposure_to_stamp,
            ),
            Limit::range("capture.fps", RATES, rate),
            Limit::new(
                "capture.format",
                "a code of up to 4 characters like GREY",
                code.filter(|code| !is_code(code)),
            ),
            Limit::range("capture.speed", RATES, replay_rate),
        ]
    }
}

//! Which threads show signs of life.
//!
//! In: heartbeats, each with the time of the monotonic clock. Out: which threads are silent at a
//! time. The gate thread asks in every round, because whoever may hang must not be the one who
//! reports that all is well; and the watchdog asks about the gate thread. No clock and no device.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What gives signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The gate thread. It watches the others, and the watchdog watches it.
    Gate,
    /// The capture thread, which may wait for its source.
    Capture,
    /// The frames of a live camera.
    Frames,
    /// A scoring thread.
    Score,
    /// The thread that listens to the trigger.
    Trigger,
    /// The thread that listens to the encoder.
    Encoder,
    /// The thread that listens to the input that confirms rejects.
    Confirm,
    /// The report thread, which may wait for a slow disk.
    Report,
    /// The main thread, which may load a package.
    Main,
}

impl Watched {
    /// What is silent, as the subject of a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gate => "the gate thread",
            Self::Capture => "the capture thread",
            Self::Frames => "the camera",
            Self::Score => "a scoring thread",
            Self::Trigger => "the trigger thread",
            Self::Encoder => "the encoder thread",
            Self::Confirm => "the thread of the input that confirms rejects",
            Self::Report => "the report thread",
            Self::Main => "the main thread",
        }
    }

    /// Whether parts cannot be inspected while it is silent.
    pub fn inspects(self) -> bool {
        matches!(
            self,
            Self::Capture
                | Self::Frames
                | Self::Score
                | Self::Trigger
                | Self::Encoder
                | Self::Confirm
        )
    }
}

#[derive(Debug)]
struct Pulse {
    watched: Watched,
    limit: Duration,
    last_ms: AtomicU64,
    has_beaten: AtomicBool,
    ended: AtomicBool,
}

/// A thread's sign of life. When it is dropped, the thread has ended and is watched no longer;
/// after a panic it stays silent.
#[derive(Debug)]
pub struct Heartbeat(Arc<Pulse>);

impl Heartbeat {
    /// Gives a sign of life at `now`.
    pub fn beat(&self, now: Duration) {
        self.0
            .last_ms
            .store(now.as_millis() as u64, Ordering::Relaxed);
        self.0.has_beaten.store(true, Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.ended.store(true, Ordering::Relaxed);
        }
    }
}

/// A thread that gives no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Who is silent.
    pub watched: Watched,
    /// Time since its last sign of life.
    pub age: Duration,
    /// Longest time between two signs of life.
    pub limit: Duration,
}

impl Display for Silence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, age) = (self.watched.name(), self.age.as_secs_f64());
        let limit = self.limit.as_secs_f64();
        match self.watched {
            Watched::Frames => write!(
                f,
                "no frame for {age:.1} s, expected one within {limit:.1} s, and the camera reports \
                 no failure"
            ),
            _ => write!(
                f,
                "{name} hangs: no sign of life for {age:.1} s, expected one within {limit:.1} s"
            ),
        }
    }
}

/// Longest time for opening a camera: drivers load firmware and set controls.
const OPENING: Duration = Duration::from_secs(30);

/// The heartbeats of all threads.
#[derive(Debug, Default)]
pub struct Liveness {
    pulses: RwLock<Vec<Arc<Pulse>>>,
    opening: AtomicBool,
}

impl Liveness {
    /// Watches a thread from `now` on. It is silent when its last sign of life is older than
    /// `limit`.
    pub fn watch(&self, watched: Watched, limit: Duration, now: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse {
            watched,
            limit,
            last_ms: AtomicU64::new(now.as_millis() as u64),
            has_beaten: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let mut pulses = self.pulses.write().unwrap_or_else(PoisonError::into_inner);
        pulses.push(Arc::clone(&pulse));
        Heartbeat(pulse)
    }

    /// Records whether the source is being opened. The capture thread may take longer meanwhile.
    pub fn set_opening(&self, opening: bool) {
        self.opening.store(opening, Ordering::Relaxed);
    }

    fn ages(&self, now: Duration) -> Vec<Silence> {
        let now_ms = now.as_millis() as u64;
        let pulses = self.pulses.read().unwrap_or_else(PoisonError::into_inner);
        pulses
            .iter()
            .filter(|pulse| !pulse.ended.load(Ordering::Relaxed))
            .map(|pulse| {
                let last_ms = pulse.last_ms.load(Ordering::Relaxed);
                let opens =
                    pulse.watched == Watched::Capture && self.opening.load(Ordering::Relaxed);
                Silence {
                    watched: pulse.watched,
                    age: Duration::from_millis(now_ms.saturating_sub(last_ms)),
                    limit: if opens {
                        OPENING.max(pulse.limit)
                    } else {
                        pulse.limit
                    },
                }
            })
            .collect()
    }

    /// Everyone who is silent at `now`.
    pub fn silent(&self, now: Duration) -> Vec<Silence> {
        let mut ages = self.ages(now);
        ages.retain(|silence| silence.age > silence.limit);
        ages
    }

    /// The age of the last sign of life, of the most silent thread where there are several; `None`
    /// if there is none of this kind.
    pub fn age(&self, watched: Watched, now: Duration) -> Option<Duration> {
        let ages = self.ages(now).into_iter();
        ages.filter(|silence| silence.watched == watched)
            .map(|silence| silence.age)
            .max()
    }

    /// Whether every thread has given a sign of life since it is watched. The frames of a camera
    /// may come later.
    pub fn all_have_begun(&self) -> bool {
        let pulses = self.pulses.read().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().all(|pulse| {
            pulse.watched == Watched::Frames
                || pulse.has_beaten.load(Ordering::Relaxed)
                || pulse.ended.load(Ordering::Relaxed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn names(liveness: &Liveness, now: Duration) -> Vec<Watched> {
        let silent = liveness.silent(now).into_iter();
        silent.map(|silence| silence.watched).collect()
    }

    #[test]
    fn each_thread_has_its_own_limit_and_recovers_when_it_beats_again() {
        let liveness = Liveness::default();
        let trigger = liveness.watch(Watched::Trigger, ms(1_000), ms(0));
        let score = liveness.watch(Watched::Score, ms(5_000), ms(0));
        assert_eq!(names(&liveness, ms(1_000)), []);
        assert_eq!(names(&liveness, ms(1_001)), [Watched::Trigger]);
        assert_eq!(
            names(&liveness, ms(6_000)),
            [Watched::Trigger, Watched::Score]
        );
        trigger.beat(ms(6_000));
        assert_eq!(names(&liveness, ms(6_000)), [Watched::Score]);
        score.beat(ms(6_000));
        assert_eq!(names(&liveness, ms(7_000)), []);
    }

    #[test]
    fn one_hung_thread_of_several_is_noticed() {
        let liveness = Liveness::default();
        let one = liveness.watch(Watched::Score, ms(10), ms(0));
        let _hangs = liveness.watch(Watched::Score, ms(10), ms(0));
        one.beat(ms(50));
        assert_eq!(names(&liveness, ms(50)), [Watched::Score]);
        assert_eq!(liveness.age(Watched::Score, ms(50)), Some(ms(50)));
        assert_eq!(liveness.age(Watched::Gate, ms(50)), None);
    }

    #[test]
    fn a_thread_that_has_ended_is_watched_no_longer_but_one_that_panicked_is() {
        let liveness = Liveness::default();
        drop(liveness.watch(Watched::Score, ms(10), ms(0)));
        let panics = liveness.watch(Watched::Trigger, ms(10), ms(0));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _heartbeat = panics;
            panic!("on purpose");
        }))
        .unwrap_err();
        assert_eq!(names(&liveness, ms(99)), [Watched::Trigger]);
    }

    #[test]
    fn to_open_a_camera_may_take_longer_than_a_frame() {
        let liveness = Liveness::default();
        let _capture = liveness.watch(Watched::Capture, ms(100), ms(0));
        liveness.set_opening(true);
        assert_eq!(names(&liveness, ms(20_000)), []);
        assert_eq!(names(&liveness, ms(30_001)), [Watched::Capture]);
        liveness.set_opening(false);
        assert_eq!(names(&liveness, ms(20_000)), [Watched::Capture]);
    }

    #[test]
    fn a_clock_that_is_read_late_makes_nobody_silent() {
        let liveness = Liveness::default();
        let gate = liveness.watch(Watched::Gate, ms(10), ms(0));
        gate.beat(ms(100));
        assert_eq!(names(&liveness, ms(50)), []);
    }

    #[test]
    fn everything_has_begun_when_every_thread_has_beaten() {
        let liveness = Liveness::default();
        let gate = liveness.watch(Watched::Gate, ms(10), ms(0));
        let _frames = liveness.watch(Watched::Frames, ms(10), ms(0));
        assert!(!liveness.all_have_begun());
        gate.beat(ms(1));
        assert!(liveness.all_have_begun());
    }
}

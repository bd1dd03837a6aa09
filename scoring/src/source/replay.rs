//! Replays a folder of images or a recording as if it were a camera.
//!
//! Images of a folder come in the order of their names, as raw frames of a camera with their pixel
//! format. They carry no times, so time stamps follow the replay's rate, or [`NOMINAL_INTERVAL`] if
//! it runs at maximum speed. The first round of a recording is delivered exactly as recorded; in
//! later rounds sequence numbers and time stamps keep rising.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::pixel_format::FILE_GREY_16;
use super::recording::{RecordingError, RecordingReader};
use super::{Captured, Delivery, FourCc, RawFrame, Source, SourceError, StreamInfo};
use crate::inspect::frame::{Channels, Frame, Pixels};
use crate::io::image_file::{is_image_name, read_frame};
use crate::io::listing::Listing;

/// Time between frames if nothing else is known.
pub const NOMINAL_INTERVAL: Duration = Duration::from_millis(33);
/// Longest pause between frames. Longer ones (a stopped line) are shortened, so that a replay can
/// be stopped.
pub const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A reader that is later than this gets frames at the pace from then on, instead of all missed
/// ones at once.
const MAX_LATE: Duration = Duration::from_secs(1);

/// How fast frames come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// At the recorded times. A folder has none.
    Recorded,
    /// This many frames per second.
    Fixed(f64),
    /// As fast as they are read.
    Maximum,
}

/// A replay's clock.
trait Clock: Send {
    /// Time since a fixed moment.
    fn now(&self) -> Duration;
    /// Waits for this time.
    fn sleep(&mut self, time: Duration);
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        thread::sleep(time);
    }
}

/// Where frames are read from.
enum Input {
    Folder { images: Vec<PathBuf>, next: usize },
    Recording(Box<RecordingReader>),
}

/// A source that replays files.
pub struct Replay {
    name: String,
    input: Input,
    info: StreamInfo,
    pace: Pace,
    looped: bool,
    clock: Box<dyn Clock>,
    /// Earliest time of the next frame.
    due: Duration,
    counter: Counter,
    /// Whether this round has delivered anything. If not, there is no further round.
    delivered: bool,
}

impl Replay {
    /// Opens a folder of images, one image, or a recording. With `looped`, the replay starts again
    /// at the end.
    pub fn open(path: &Path, pace: Pace, looped: bool) -> Result<Self, SourceError> {
        Self::open_with(path, pace, looped, Box::new(SystemClock(Instant::now())))
    }

    fn open_with(
        path: &Path,
        pace: Pace,
        looped: bool,
        clock: Box<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let unsupported = |reason: String| SourceError::Unsupported {
            device: name.clone(),
            reason,
        };
        if let Pace::Fixed(per_second) = pace
            && !(per_second.is_finite() && (0.01..=100_000.0).contains(&per_second))
        {
            return Err(unsupported(format!(
                "expected 0.01 to 100000 frames per second, found {per_second}"
            )));
        }
        let metadata = fs::metadata(path).map_err(|source| device_error(&name, source))?;
        let (input, info) = if metadata.is_dir() || is_image_name(path) {
            if pace == Pace::Recorded {
                return Err(unsupported(
                    "images carry no times: give a rate in frames per second".into(),
                ));
            }
            let images = if metadata.is_dir() {
                Listing::of(path)
                    .map_err(|source| device_error(&name, source))?
                    .images
            } else {
                vec![path.to_owned()]
            };
            let info = first_info(&images).map_err(unsupported)?;
            (Input::Folder { images, next: 0 }, info)
        } else {
            let recording = RecordingReader::open(path).map_err(|error| match error {
                RecordingError::Io { source, .. } => device_error(&name, source),
                other => unsupported(with_causes(&other)),
            })?;
            let info = recording.info().clone();
            (Input::Recording(Box::new(recording)), info)
        };
        Ok(Self {
            due: clock.now(),
            name,
            input,
            info,
            pace,
            looped,
            clock,
            counter: Counter::default(),
            delivered: false,
        })
    }

    /// The next delivery as it is in the files; `None` at their end.
    fn read(&mut self) -> Result<Option<Delivery>, SourceError> {
        match &mut self.input {
            Input::Recording(recording) => recording.next_delivery().map_err(|error| match error {
                RecordingError::Io { source, .. } => device_error(&self.name, source),
                other => SourceError::Unreadable {
                    what: with_causes(&other),
                },
            }),
            Input::Folder { images, next } => {
                let Some(path) = images.get(*next) else {
                    return Ok(None);
                };
                *next += 1;
                let raw = raw_image(path).map_err(|what| SourceError::Unreadable { what })?;
                let interval = match self.pace {
                    Pace::Fixed(per_second) => Duration::from_secs_f64(per_second.recip()),
                    Pace::Recorded | Pace::Maximum => NOMINAL_INTERVAL,
                };
                // Numbered without gaps, even after an unreadable image: a gap would mean that the
                // driver dropped frames.
                Ok(Some(Delivery::Frame(Captured {
                    raw,
                    sequence: self.counter.next_sequence(),
                    timestamp: self.counter.next_timestamp(interval),
                })))
            }
        }
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        match &mut self.input {
            Input::Recording(recording) => {
                self.counter.start_round();
                recording.rewind().map_err(|error| match error {
                    RecordingError::Io { source, .. } => device_error(&self.name, source),
                    other => SourceError::Unreadable {
                        what: with_causes(&other),
                    },
                })
            }
            Input::Folder { next, .. } => {
                *next = 0;
                Ok(())
            }
        }
    }

    /// Waits until a delivery is due, which is `step` after the one before at the recorded pace.
    fn wait(&mut self, step: Duration) {
        let step = match self.pace {
            Pace::Maximum => return,
            Pace::Fixed(per_second) => Duration::from_secs_f64(per_second.recip()),
            Pace::Recorded => step.min(MAX_PAUSE),
        };
        let now = self.clock.now();
        if self.counter.deliveries > 0 {
            self.due += step;
        } else {
            self.due = now;
        }
        match self.due.checked_sub(now) {
            Some(early) => self.clock.sleep(early),
            None if now - self.due > MAX_LATE => self.due = now,
            None => {}
        }
    }
}

impl Source for Replay {
    fn next(&mut self) -> Result<Delivery, SourceError> {
        let read = match self.read()? {
            Some(delivery) => delivery,
            None if self.looped && self.delivered => {
                self.delivered = false;
                self.rewind()?;
                self.read()?.ok_or(SourceError::Ended)?
            }
            None => return Err(SourceError::Ended),
        };
        let before = self.counter.timestamp.unwrap_or_default();
        let delivery = match (&self.input, read) {
            (Input::Recording(_), read) => self.counter.shift(read),
            (Input::Folder { .. }, read) => read,
        };
        // A damaged frame has no time of its own, so it comes together with the frame before.
        let step = match &delivery {
            Delivery::Frame(captured) => captured.timestamp.saturating_sub(before),
            Delivery::Damaged { .. } => Duration::ZERO,
        };
        self.wait(step);
        self.counter.note(&delivery);
        self.delivered = true;
        Ok(delivery)
    }

    fn info(&self) -> &StreamInfo {
        &self.info
    }
}

/// Sequence numbers and time stamps over all rounds.
#[derive(Debug, Default)]
struct Counter {
    deliveries: u64,
    /// Sequence number of the last delivery.
    sequence: Option<u32>,
    timestamp: Option<Duration>,
    /// Time between the last two frames.
    interval: Option<Duration>,
    /// What is added to recorded numbers and times in this round.
    round: Round,
}

#[derive(Debug, Default)]
struct Round {
    /// Whether this is not the first round.
    again: bool,
    /// Added to sequence numbers, with wrap-around like the driver's.
    sequence_shift: Option<u32>,
    /// New and recorded time stamp of the round's first frame.
    timestamps: Option<(Duration, Duration)>,
}

impl Counter {
    fn next_sequence(&self) -> u32 {
        self.sequence.map_or(0, |last| last.wrapping_add(1))
    }

    fn next_timestamp(&self, interval: Duration) -> Duration {
        self.timestamp
            .map_or(Duration::ZERO, |last| last + interval)
    }

    fn start_round(&mut self) {
        self.round = Round {
            again: true,
            ..Round::default()
        };
    }

    fn note(&mut self, delivery: &Delivery) {
        self.deliveries += 1;
        match delivery {
            Delivery::Damaged { sequence, .. } => self.sequence = Some(*sequence),
            Delivery::Frame(captured) => {
                self.sequence = Some(captured.sequence);
                if let Some(before) = self.timestamp {
                    self.interval = captured.timestamp.checked_sub(before);
                }
                self.timestamp = Some(captured.timestamp);
            }
        }
    }

    /// Shifts a recorded delivery into this round.
    fn shift(&mut self, delivery: Delivery) -> Delivery {
        if !self.round.again {
            return delivery;
        }
        let next = self.next_sequence();
        let sequence = |round: &mut Round, recorded: u32| {
            let shift = *round
                .sequence_shift
                .get_or_insert_with(|| next.wrapping_sub(recorded));
            recorded.wrapping_add(shift)
        };
        match delivery {
            Delivery::Damaged {
                sequence: recorded,
                timestamp,
            } => Delivery::Damaged {
                sequence: sequence(&mut self.round, recorded),
                timestamp,
            },
            Delivery::Frame(mut captured) => {
                captured.sequence = sequence(&mut self.round, captured.sequence);
                let interval = self.interval.filter(|interval| !interval.is_zero());
                let start = self.next_timestamp(interval.unwrap_or(NOMINAL_INTERVAL));
                let recorded = captured.timestamp;
                let (new, first) = *self.round.timestamps.get_or_insert((start, recorded));
                captured.timestamp = new.saturating_add(recorded.saturating_sub(first));
                Delivery::Frame(captured)
            }
        }
    }
}

fn device_error(name: &str, source: io::Error) -> SourceError {
    let device = name.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => SourceError::Gone { device, source },
        _ => SourceError::Device { device, source },
    }
}

/// An error's text with its causes, for errors that hold text.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Format and size of a folder's first readable image.
fn first_info(images: &[PathBuf]) -> Result<StreamInfo, String> {
    let mut first_error = None;
    for path in images {
        match raw_image(path) {
            Ok(raw) => {
                return Ok(StreamInfo {
                    format: raw.format,
                    width_px: raw.width_px,
                    height_px: raw.height_px,
                    controls: Vec::new(),
                });
            }
            Err(what) => first_error = first_error.or(Some(what)),
        }
    }
    Err(match first_error {
        None => "no images in it (looked for PNG, JPEG, BMP and TIFF)".into(),
        Some(what) => format!(
            "none of its {} images can be replayed: {what}",
            images.len()
        ),
    })
}

fn raw_image(path: &Path) -> Result<RawFrame, String> {
    let frame = read_frame(path).map_err(|error| with_causes(&error))?;
    raw_frame(&frame).ok_or_else(|| {
        let path = path.display();
        format!("{path}: expected 8 or 16 bit grey or 8 bit colour, found 16 bit colour, which no camera delivers")
    })
}

/// A frame as a camera would deliver it.
fn raw_frame(frame: &Frame) -> Option<RawFrame> {
    let (format, bytes_per_px, data) = match (frame.channels(), frame.pixels()) {
        (Channels::Grey, Pixels::U8(values)) => (*b"GREY", 1, values.clone()),
        (Channels::Rgb, Pixels::U8(values)) => (*b"RGB3", 3, values.clone()),
        (Channels::Grey, Pixels::U16(values)) => {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            (FILE_GREY_16.0, 2, bytes.collect())
        }
        (Channels::Rgb, Pixels::U16(_)) => return None,
    };
    Some(RawFrame {
        format: FourCc(format),
        width_px: frame.width_px(),
        height_px: frame.height_px(),
        stride_bytes: frame.width_px() * bytes_per_px,
        data,
    })
}

#[cfg(test)]
mod tests;

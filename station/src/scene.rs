//! The state of the watched cameras. In: updates of cameras, with their time. Out: what `screen`
//! draws.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use proto::name::displayable;
use proto::report::{Body, HeatMap, Outcome, PartReport, Record};

use crate::text;

/// Time over which the rate of parts is counted.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Lines that are kept, more than a terminal shows.
const MAX_LINES: usize = 500;
/// Largest side of a picture in a report. The protocol bounds the bytes of a picture; this bounds
/// the memory that it is unpacked to.
const MAX_SIDE_PX: u32 = 1_024;

/// An update from the thread that follows a camera.
#[derive(Debug)]
pub(crate) enum Update {
    /// The camera is connected.
    Connected {
        /// Name and version of the model.
        model: String,
    },
    /// The link failed.
    Lost {
        /// Why.
        reason: String,
    },
    /// The camera has sent a record.
    Record(Box<Record>),
}

/// The last NG part of a camera.
#[derive(Debug)]
pub(crate) struct LastNg {
    /// A line of text about it.
    pub(crate) line: String,
    /// When its record was received.
    pub(crate) at: Instant,
    /// Its compressed frame and map, until they are shown.
    compressed: Option<(Option<Vec<u8>>, Option<HeatMap>)>,
    /// The frame's thumbnail.
    pub(crate) frame: Option<RgbImage>,
    /// The anomaly map in colours, at the size in which the camera sends it.
    pub(crate) map: Option<RgbImage>,
}

/// A watched camera.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Its name.
    pub(crate) name: String,
    /// Name and version of its model.
    pub(crate) model: String,
    /// Why there is no link; `None` while the camera is connected.
    pub(crate) link_error: Option<String>,
    /// Numbers of OK, NG and faulty parts since the view was opened.
    pub(crate) counts: [u64; 3],
    /// Microseconds from capture to verdict of the last part.
    pub(crate) latency_us: u32,
    /// The last NG part.
    pub(crate) last_ng: Option<LastNg>,
    /// When the parts within the window of the rate were received.
    recent: VecDeque<Instant>,
}

impl Watched {
    /// Parts per second, over the last ten seconds.
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        let since = |at: &&Instant| now.saturating_duration_since(**at) < RATE_WINDOW;
        let count = self.recent.iter().rev().take_while(since).count();
        count as f64 / RATE_WINDOW.as_secs_f64()
    }

    /// The fraction of NG parts; `None` before the first part.
    pub(crate) fn ng_fraction(&self) -> Option<f64> {
        let parts: u64 = self.counts.iter().sum();
        (parts > 0).then(|| self.counts[1] as f64 / parts as f64)
    }
}

/// All cameras and the last events.
#[derive(Debug)]
pub(crate) struct Scene {
    /// In the order of the command line.
    pub(crate) cameras: Vec<Watched>,
    /// Time, index of the camera and text of each line; the newest is last.
    pub(crate) lines: VecDeque<(Instant, usize, String)>,
    /// Index of the camera whose last NG part is shown.
    pub(crate) selected: usize,
    /// Whether OK parts get a line too.
    all: bool,
}

impl Scene {
    /// A scene without any updates.
    pub(crate) fn new(names: impl Iterator<Item = String>, all: bool) -> Self {
        let watched = |name| Watched {
            name,
            model: String::new(),
            link_error: Some("connecting".to_owned()),
            counts: [0; 3],
            latency_us: 0,
            last_ng: None,
            recent: VecDeque::new(),
        };
        Self {
            cameras: names.map(watched).collect(),
            lines: VecDeque::new(),
            selected: 0,
            all,
        }
    }

    /// Applies an update of a camera.
    pub(crate) fn apply(&mut self, camera: usize, update: Update, now: Instant) {
        let Some(watched) = self.cameras.get_mut(camera) else {
            return;
        };
        let line = match update {
            Update::Connected { model } => {
                watched.link_error = None;
                watched.model = displayable(&model);
                Some(format!("connected, {}", watched.model))
            }
            Update::Lost { reason } => {
                let reason = displayable(&reason);
                // Another attempt failed for the same reason, which has a line already.
                let is_known = watched.link_error.as_ref() == Some(&reason);
                let line = (!is_known).then(|| format!("no link: {reason}"));
                watched.link_error = Some(reason);
                line
            }
            Update::Record(record) => {
                let line = text::record_line(&record, self.all);
                watched.take(*record, now);
                line
            }
        };
        if let Some(line) = line {
            self.lines.push_back((now, camera, line));
            if self.lines.len() > MAX_LINES {
                self.lines.pop_front();
            }
        }
    }

    /// Unpacks the pictures of the selected camera. Others are not shown, so they stay compressed.
    pub(crate) fn unpack_shown_pictures(&mut self) {
        let selected = self.cameras.get_mut(self.selected);
        if let Some(ng) = selected.and_then(|camera| camera.last_ng.as_mut()) {
            ng.unpack();
        }
    }

    /// Moves the selection down by `by` cameras, or up if it is negative.
    pub(crate) fn select(&mut self, by: isize) {
        let last = self.cameras.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }
}

impl Watched {
    fn take(&mut self, record: Record, now: Instant) {
        use proto::report::Event;
        match record.body {
            Body::Event(
                Event::PackageActivated { model, .. }
                | Event::RolledBack { model, .. }
                | Event::Started { model, .. },
            ) => self.model = displayable(&model),
            Body::Event(_) => {}
            Body::Part(part) => {
                self.recent.push_back(now);
                while let Some(first) = self.recent.front()
                    && now.saturating_duration_since(*first) > RATE_WINDOW
                {
                    self.recent.pop_front();
                }
                self.latency_us = part.latency_us;
                self.counts[match part.outcome {
                    Outcome::Ok => 0,
                    Outcome::Ng => 1,
                    Outcome::Fault(_) => 2,
                }] += 1;
                if part.outcome == Outcome::Ng {
                    self.last_ng = Some(LastNg::new(part, now));
                }
            }
        }
    }
}

impl LastNg {
    fn new(part: PartReport, at: Instant) -> Self {
        Self {
            line: text::part_line(&part),
            at,
            compressed: Some((part.thumbnail_jpeg, part.heat_map)),
            frame: None,
            map: None,
        }
    }

    fn unpack(&mut self) {
        if let Some((jpeg, map)) = self.compressed.take() {
            self.frame = jpeg.and_then(|bytes| picture(&bytes, ImageFormat::Jpeg));
            self.map = map.as_ref().and_then(heat_map);
        }
    }
}

/// Decodes a picture of a camera; `None` if it is damaged or too large.
fn picture(bytes: &[u8], format: ImageFormat) -> Option<RgbImage> {
    let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    reader.limits(limits);
    Some(reader.decode().ok()?.to_rgb8())
}

/// Decodes an anomaly map and colours it.
fn heat_map(map: &HeatMap) -> Option<RgbImage> {
    let mut picture = picture(&map.png, ImageFormat::Png)?;
    for pixel in picture.pixels_mut() {
        let fraction = f64::from(pixel.0[0]) / 255.0;
        pixel.0 = colorous::INFERNO.eval_continuous(fraction).into_array();
    }
    Some(picture)
}

#[cfg(test)]
pub(crate) mod tests {
    use image::{GrayImage, Luma};
    use proto::report::{Event, GateAction};

    use super::*;

    /// A record of a part, with a heat map whose lower right quarter is bright.
    pub(crate) fn part(number: u64, outcome: Outcome) -> Update {
        let map = GrayImage::from_fn(8, 8, |x, y| Luma([if x > 3 && y > 3 { 255 } else { 0 }]));
        let mut png = std::io::Cursor::new(Vec::new());
        map.write_to(&mut png, ImageFormat::Png).unwrap();
        let report = PartReport {
            part: number,
            frame_sequence: 0,
            model_id: [0; 8],
            outcome,
            action: GateAction::None,
            score: Some(0.75),
            threshold: Some(0.5),
            latency_us: 1_500,
            regions: Vec::new(),
            regions_found: 1,
            heat_map: Some(HeatMap {
                full_scale: 1.0,
                png: png.into_inner(),
            }),
            thumbnail_jpeg: None,
        };
        event(Body::Part(report))
    }

    pub(crate) fn event(body: Body) -> Update {
        Update::Record(Box::new(Record {
            unix_ms: 0,
            boot: 1,
            body,
        }))
    }

    #[test]
    fn parts_are_counted_and_old_ones_leave_the_rate() {
        let mut scene = Scene::new(["a".to_owned(), "b".to_owned()].into_iter(), false);
        let start = Instant::now();
        for number in 0..40 {
            let at = start + Duration::from_millis(number * 500);
            let outcome = if number % 4 == 0 {
                Outcome::Ng
            } else {
                Outcome::Ok
            };
            scene.apply(1, part(number, outcome), at);
        }
        scene.select(1);
        scene.unpack_shown_pictures();
        let camera = &scene.cameras[1];
        assert_eq!(camera.counts, [30, 10, 0]);
        assert_eq!(camera.ng_fraction(), Some(0.25));
        let end = start + Duration::from_secs(20);
        assert!(
            (camera.rate(end) - 2.0).abs() < 0.11,
            "{}",
            camera.rate(end)
        );
        assert_eq!(camera.rate(end + RATE_WINDOW), 0.0);
        assert_eq!(scene.cameras[0].ng_fraction(), None);
        // Each NG part has a line, the others have none.
        assert_eq!(scene.lines.len(), 10);
        let map = camera.last_ng.as_ref().unwrap().map.as_ref().unwrap();
        let brightness = |x, y| map.get_pixel(x, y).0.map(u32::from).iter().sum::<u32>();
        assert!(brightness(6, 6) > brightness(1, 1) + 300);
    }

    #[test]
    fn a_broken_link_has_one_line_and_damaged_pictures_are_not_shown() {
        let mut scene = Scene::new(std::iter::once("a".to_owned()), false);
        let now = Instant::now();
        for _ in 0..3 {
            let reason = "refused".to_owned();
            scene.apply(0, Update::Lost { reason }, now);
        }
        assert_eq!(scene.lines.len(), 1);
        let damaged = HeatMap {
            full_scale: 1.0,
            png: vec![1, 2, 3],
        };
        assert!(heat_map(&damaged).is_none());
        let model = "other 2".to_owned();
        let event = event(Body::Event(Event::Started {
            version: String::new(),
            model_id: [0; 8],
            model,
        }));
        scene.apply(0, event, now);
        assert_eq!(scene.cameras[0].model, "other 2");
    }
}

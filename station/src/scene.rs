//! What is known of the cameras being watched. In: news of cameras, with the time. Out: what `screen` draws.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use proto::report::{Body, HeatMap, Outcome, PartReport, Record};

use crate::words;

/// Parts a second are counted over so long.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Lines kept; more than any terminal shows.
const LINES: usize = 500;
/// Side of the pictures in reports; the protocol bounds bytes, this bounds what they may unpack to.
const MAX_SIDE_PX: u32 = 1_024;

/// What a camera's thread tells.
#[derive(Debug)]
pub(crate) enum News {
    /// The link stands.
    Connected {
        /// Name and version of the model.
        model: String,
    },
    /// It does not.
    Lost {
        /// Why.
        reason: String,
    },
    /// A record came.
    Record(Box<Record>),
}

/// The last NG part of a camera.
#[derive(Debug)]
pub(crate) struct LastNg {
    /// In words.
    pub(crate) line: String,
    /// When it came.
    pub(crate) at: Instant,
    /// Its pictures as they came, until they are looked at.
    packed: Option<(Option<Vec<u8>>, Option<HeatMap>)>,
    /// The frame, small.
    pub(crate) frame: Option<RgbImage>,
    /// The anomaly map, small, in colours.
    pub(crate) map: Option<RgbImage>,
}

/// A camera.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Its name.
    pub(crate) name: String,
    /// Name and version of its model.
    pub(crate) model: String,
    /// Why there is no link; `None` where there is one.
    pub(crate) lost: Option<String>,
    /// Parts that were OK, NG and faulty since the view was opened.
    pub(crate) counts: [u64; 3],
    /// Microseconds from capture to verdict of the last part.
    pub(crate) latency_us: u32,
    /// The last NG part.
    pub(crate) last_ng: Option<LastNg>,
    recent: VecDeque<Instant>,
}

impl Watched {
    /// Parts a second, over the last ten seconds.
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        let since = |at: &&Instant| now.saturating_duration_since(**at) < RATE_OVER;
        let count = self.recent.iter().rev().take_while(since).count();
        count as f64 / RATE_OVER.as_secs_f64()
    }

    /// The share of NG parts.
    pub(crate) fn ng_share(&self) -> Option<f64> {
        let parts: u64 = self.counts.iter().sum();
        (parts > 0).then(|| self.counts[1] as f64 / parts as f64)
    }
}

/// All cameras, and what happened last.
#[derive(Debug)]
pub(crate) struct Scene {
    /// In the order they were named.
    pub(crate) cameras: Vec<Watched>,
    /// When, which camera, what; the newest last.
    pub(crate) lines: VecDeque<(Instant, usize, String)>,
    /// Whose last NG part is shown.
    pub(crate) selected: usize,
    /// OK parts get a line too.
    all: bool,
}

impl Scene {
    /// Nothing is known yet.
    pub(crate) fn new(names: impl Iterator<Item = String>, all: bool) -> Self {
        let watched = |name| Watched {
            name,
            model: String::new(),
            lost: Some("connecting".to_owned()),
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

    /// Takes news of a camera in.
    pub(crate) fn tell(&mut self, camera: usize, news: News, now: Instant) {
        let Some(watched) = self.cameras.get_mut(camera) else {
            return;
        };
        let line = match news {
            News::Connected { model } => {
                watched.lost = None;
                watched.model.clone_from(&model);
                Some(words::printable(&format!("connected, {model}")))
            }
            // The attempts that follow fail for the same reason: once is enough.
            News::Lost { reason } if watched.lost.as_ref() == Some(&reason) => None,
            News::Lost { reason } => {
                let line = words::printable(&format!("no link: {reason}"));
                watched.lost = Some(reason);
                Some(line)
            }
            News::Record(record) => {
                let line = words::line(&record, self.all);
                watched.take(*record, now);
                line
            }
        };
        if let Some(line) = line {
            self.lines.push_back((now, camera, line));
            if self.lines.len() > LINES {
                self.lines.pop_front();
            }
        }
    }

    /// Unpacks the pictures that are shown: of what comes between two looks, and of other cameras, nobody sees them.
    pub(crate) fn look(&mut self) {
        let selected = self.cameras.get_mut(self.selected);
        if let Some(ng) = selected.and_then(|camera| camera.last_ng.as_mut()) {
            ng.unpack();
        }
    }

    /// Selects the camera `by` further down, or up.
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
            ) => self.model = model,
            Body::Event(_) => {}
            Body::Part(part) => {
                self.recent.push_back(now);
                while let Some(first) = self.recent.front()
                    && now.saturating_duration_since(*first) > RATE_OVER
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
            line: words::part_line(&part),
            at,
            packed: Some((part.thumbnail_jpeg, part.heat_map)),
            frame: None,
            map: None,
        }
    }

    fn unpack(&mut self) {
        if let Some((jpeg, map)) = self.packed.take() {
            self.frame = jpeg.and_then(|bytes| picture(&bytes, ImageFormat::Jpeg));
            self.map = map.as_ref().and_then(heat_map);
        }
    }
}

/// A picture that a camera sent; one that is damaged is not shown.
fn picture(bytes: &[u8], format: ImageFormat) -> Option<RgbImage> {
    let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    reader.limits(limits);
    Some(reader.decode().ok()?.to_rgb8())
}

fn heat_map(map: &HeatMap) -> Option<RgbImage> {
    let mut picture = picture(&map.png, ImageFormat::Png)?;
    for pixel in picture.pixels_mut() {
        let share = f64::from(pixel.0[0]) / 255.0;
        pixel.0 = colorous::INFERNO.eval_continuous(share).into_array();
    }
    Some(picture)
}

#[cfg(test)]
pub(crate) mod tests {
    use image::{GrayImage, Luma};
    use proto::report::{Event, GateAction};

    use super::*;

    /// A record of a part, with a heat map that is bright in its lower right quarter where it is NG.
    pub(crate) fn part(number: u64, outcome: Outcome) -> News {
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

    pub(crate) fn event(body: Body) -> News {
        News::Record(Box::new(Record {
            unix_ms: 0,
            boot: 1,
            body,
        }))
    }

    #[test]
    fn parts_are_counted_and_rates_forget() {
        let mut scene = Scene::new(["a".to_owned(), "b".to_owned()].into_iter(), false);
        let start = Instant::now();
        for number in 0..40 {
            let at = start + Duration::from_millis(number * 500);
            let outcome = if number % 4 == 0 {
                Outcome::Ng
            } else {
                Outcome::Ok
            };
            scene.tell(1, part(number, outcome), at);
        }
        scene.select(1);
        scene.look();
        let camera = &scene.cameras[1];
        assert_eq!(camera.counts, [30, 10, 0]);
        assert_eq!(camera.ng_share(), Some(0.25));
        let end = start + Duration::from_secs(20);
        assert!(
            (camera.rate(end) - 2.0).abs() < 0.11,
            "{}",
            camera.rate(end)
        );
        assert_eq!(camera.rate(end + RATE_OVER), 0.0);
        assert_eq!(scene.cameras[0].ng_share(), None);
        // A line for each NG part, none for the others.
        assert_eq!(scene.lines.len(), 10);
        let map = camera.last_ng.as_ref().unwrap().map.as_ref().unwrap();
        let brightness = |x, y| map.get_pixel(x, y).0.map(u32::from).iter().sum::<u32>();
        assert!(brightness(6, 6) > brightness(1, 1) + 300);
    }

    #[test]
    fn a_broken_link_is_told_once_and_damaged_pictures_are_not_shown() {
        let mut scene = Scene::new(std::iter::once("a".to_owned()), false);
        let now = Instant::now();
        for _ in 0..3 {
            let reason = "refused".to_owned();
            scene.tell(0, News::Lost { reason }, now);
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
        scene.tell(0, event, now);
        assert_eq!(scene.cameras[0].model, "other 2");
    }
}

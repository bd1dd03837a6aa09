use super::*;
use crate::source::recording::RecordingWriter;
use image::{DynamicImage, GrayImage, Luma};
use std::sync::{Arc, Mutex};

/// A clock that advances only by sleeping, or by hand.
#[derive(Clone, Default)]
struct TestClock(Arc<Mutex<Duration>>);

impl TestClock {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&mut self, time: Duration) {
        self.pass(time);
    }
}

const MS: Duration = Duration::from_millis(1);

fn open(path: &Path, pace: Pace, looped: bool) -> (Replay, TestClock) {
    let clock = TestClock::default();
    let replay = Replay::open_with(path, pace, looped, Box::new(clock.clone())).unwrap();
    (replay, clock)
}

fn refused(path: &Path, pace: Pace) -> String {
    match Replay::open(path, pace, false) {
        Ok(_) => panic!("{} is opened", path.display()),
        Err(error) => error.to_string(),
    }
}

fn grey(value: u8) -> DynamicImage {
    DynamicImage::ImageLuma8(GrayImage::from_pixel(4, 3, Luma([value])))
}

fn frame(replay: &mut Replay) -> Captured {
    match replay.next().unwrap() {
        Delivery::Frame(captured) => captured,
        damaged => panic!("{damaged:?}"),
    }
}

fn captured(sequence: u32, at_ms: u32) -> Delivery {
    Delivery::Frame(Captured {
        raw: RawFrame {
            format: FourCc(*b"GREY"),
            width_px: 2,
            height_px: 1,
            stride_bytes: 2,
            data: vec![sequence as u8; 2],
        },
        sequence,
        timestamp: at_ms * MS,
    })
}

fn recording(folder: &Path, deliveries: &[Delivery]) -> PathBuf {
    let path = folder.join("a.rec");
    let info = StreamInfo {
        format: FourCc(*b"GREY"),
        width_px: 2,
        height_px: 1,
        controls: vec![("gain".into(), 3)],
    };
    let mut writer = RecordingWriter::create(&path, &info).unwrap();
    for delivery in deliveries {
        writer.write(delivery).unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn images_come_by_name_and_in_their_own_format() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, image: DynamicImage| image.save(folder.path().join(name)).unwrap();
    save("c.png", DynamicImage::ImageRgb8(grey(7).to_rgb8()));
    save("a.png", grey(1));
    save("b.tiff", DynamicImage::ImageLuma16(grey(2).to_luma16()));
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let (mut replay, _) = open(folder.path(), Pace::Maximum, false);
    assert_eq!(replay.info().format, FourCc(*b"GREY"));
    assert_eq!((replay.info().width_px, replay.info().height_px), (4, 3));
    let expected = [
        (*b"GREY", 4, vec![1; 12]),
        (FILE_GREY_16.0, 8, vec![2; 24]),
        (*b"RGB3", 12, vec![7; 36]),
    ];
    for (sequence, (format, stride_bytes, data)) in (0..).zip(expected) {
        let found = frame(&mut replay);
        assert_eq!(found.raw.format, FourCc(format));
        assert_eq!(
            (found.raw.stride_bytes, found.raw.data),
            (stride_bytes, data)
        );
        assert_eq!(
            (found.sequence, found.timestamp),
            (sequence, sequence * NOMINAL_INTERVAL)
        );
    }
    assert!(matches!(replay.next(), Err(SourceError::Ended)));
    let (mut one, _) = open(&folder.path().join("b.tiff"), Pace::Maximum, false);
    assert_eq!(frame(&mut one).raw.format, FILE_GREY_16);
}

#[test]
fn an_unreadable_image_is_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(refused(folder.path(), Pace::Maximum).contains("no images"));
    fs::write(path("a.png"), b"broken").unwrap();
    DynamicImage::ImageRgb16(grey(5).to_rgb16())
        .save(path("b.png"))
        .unwrap();
    assert!(refused(folder.path(), Pace::Maximum).contains("none of its 2 images"));
    grey(3).save(path("c.png")).unwrap();
    let (mut replay, _) = open(folder.path(), Pace::Maximum, true);
    for round in 0..3 {
        for name in ["a.png", "b.png"] {
            match replay.next() {
                Err(SourceError::Unreadable { what }) => assert!(what.contains(name), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(frame(&mut replay).sequence, round);
    }
    fs::remove_file(path("c.png")).unwrap();
    let mut ended = false;
    for _ in 0..10 {
        ended |= matches!(replay.next(), Err(SourceError::Ended));
    }
    assert!(ended, "a round without any frame is the last one");
}

#[test]
fn unusable_paths_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    grey(1).save(folder.path().join("a.png")).unwrap();
    assert!(refused(folder.path(), Pace::Recorded).contains("no times"));
    for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(folder.path(), Pace::Fixed(per_second)).contains("frames per second"));
    }
    let missing = folder.path().join("missing");
    assert!(matches!(
        Replay::open(&missing, Pace::Maximum, false),
        Err(SourceError::Gone { .. })
    ));
    let other = folder.path().join("other.rec");
    fs::write(&other, b"something else").unwrap();
    assert!(refused(&other, Pace::Maximum).contains("not a recording"));
}

#[test]
fn a_recording_is_replayed_exactly_and_keeps_rising_when_looped() {
    let folder = tempfile::tempdir().unwrap();
    let written = [
        captured(u32::MAX, 1_000),
        Delivery::Damaged {
            sequence: 0,
            timestamp: Duration::ZERO,
        },
        captured(3, 1_040),
        captured(4, 1_060),
    ];
    let path = recording(folder.path(), &written);
    let (mut replay, _) = open(&path, Pace::Maximum, true);
    assert_eq!(replay.info().controls, [("gain".into(), 3)]);
    for delivery in &written {
        assert_eq!(&replay.next().unwrap(), delivery);
    }
    let times = |replay: &mut Replay| {
        let first = frame(replay);
        let Delivery::Damaged { sequence, .. } = replay.next().unwrap() else {
            panic!("the second one is damaged");
        };
        let (third, fourth) = (frame(replay), frame(replay));
        assert_eq!(first.raw.data, [255, 255]);
        (
            [first.sequence, sequence, third.sequence, fourth.sequence],
            [first.timestamp, third.timestamp, fourth.timestamp],
        )
    };
    let at = |ms: [u32; 3]| ms.map(|ms| ms * MS);
    assert_eq!(
        times(&mut replay),
        ([5, 6, 9, 10], at([1_080, 1_120, 1_140]))
    );
    assert_eq!(
        times(&mut replay),
        ([11, 12, 15, 16], at([1_160, 1_200, 1_220]))
    );
    let (mut once, _) = open(&path, Pace::Maximum, false);
    assert_eq!((0..9).filter(|_| once.next().is_ok()).count(), 4);
}

#[test]
fn an_empty_recording_ends_even_when_looped() {
    let folder = tempfile::tempdir().unwrap();
    let path = recording(folder.path(), &[]);
    let (mut replay, _) = open(&path, Pace::Maximum, true);
    assert!(matches!(replay.next(), Err(SourceError::Ended)));
}

#[test]
fn frames_come_at_the_pace() {
    let folder = tempfile::tempdir().unwrap();
    let written = [
        captured(0, 500),
        captured(1, 520),
        captured(2, 600_000),
        captured(3, 600_010),
    ];
    let path = recording(folder.path(), &written);
    let arrivals = |pace: Pace| {
        let (mut replay, clock) = open(&path, pace, false);
        clock.pass(5 * MS);
        [(); 4].map(|()| {
            replay.next().unwrap();
            clock.now().as_millis()
        })
    };
    assert_eq!(arrivals(Pace::Maximum), [5, 5, 5, 5]);
    assert_eq!(arrivals(Pace::Fixed(100.0)), [5, 15, 25, 35]);
    assert_eq!(arrivals(Pace::Recorded), [5, 25, 2_025, 2_035]);
}

#[test]
fn only_short_delays_are_caught_up() {
    let folder = tempfile::tempdir().unwrap();
    grey(1).save(folder.path().join("a.png")).unwrap();
    let (mut replay, clock) = open(folder.path(), Pace::Fixed(10.0), true);
    let mut arrival = |late_ms: u32| {
        clock.pass(late_ms * MS);
        let found = frame(&mut replay);
        (clock.now().as_millis(), found.timestamp.as_millis())
    };
    assert_eq!(arrival(0), (0, 0));
    assert_eq!(arrival(150), (150, 100));
    assert_eq!(arrival(0), (200, 200));
    assert_eq!(arrival(5_000), (5_200, 300));
    assert_eq!(arrival(0), (5_300, 400));
}

//! Sets pixel format, size and frame interval exactly as asked for, or refuses with a list of what
//! the device offers.

use std::time::Duration;

use scoring::source::FourCc;
use scoring::source::pixel_format::{self, SUPPORTED};
use v4l::device::Device;
use v4l::format::{FieldOrder, Format, FourCC};
use v4l::fraction::Fraction;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;
use v4l::video::capture::Parameters;

use super::options::CameraOptions;
use super::refusal::{Refusal, is_not_offered, none_if_invalid};

/// Sets format and size.
pub(super) fn set_format(device: &Device, options: &CameraOptions) -> Result<Format, Refusal> {
    let offered = none_if_invalid(device.enum_formats())?;
    let offered: Vec<FourCc> = offered
        .iter()
        .map(|format| FourCc(format.fourcc.repr))
        .collect();
    let format = choose(options.format, &offered).map_err(|reason| {
        Refusal::Unsupported(format!("{reason}; {}", describe(device, &offered)))
    })?;
    let present = device.format()?;
    let mut wanted = Format::new(
        options.width_px.unwrap_or(present.width),
        options.height_px.unwrap_or(present.height),
        FourCC::new(&format.0),
    );
    wanted.field_order = FieldOrder::Progressive;
    let found = device.set_format(&wanted)?;
    check(options, format, &found).map_err(|reason| {
        Refusal::Unsupported(format!("{reason}; {}", describe(device, &offered)))
    })?;
    Ok(found)
}

/// The format that is set now, checked again against what was asked for.
pub(super) fn check_format(device: &Device, options: &CameraOptions) -> Result<Format, Refusal> {
    let found = device.format()?;
    let code = FourCc(found.fourcc.repr);
    check(options, options.format.unwrap_or(code), &found).map_err(|reason| {
        Refusal::Unsupported(format!("{reason} (after the controls were set)"))
    })?;
    Ok(found)
}

/// The format asked for, or the best of those offered.
fn choose(asked: Option<FourCc>, offered: &[FourCc]) -> Result<FourCc, String> {
    match asked {
        Some(asked) if !pixel_format::is_supported(asked) => Err(format!(
            "cannot read pixel format {asked}, only {}",
            pixel_format::names(SUPPORTED)
        )),
        Some(asked) if offered.contains(&asked) => Ok(asked),
        Some(asked) => Err(format!("expected pixel format {asked}")),
        None => SUPPORTED
            .iter()
            .find(|format| offered.contains(format))
            .copied()
            .ok_or_else(|| {
                format!(
                    "expected one of the pixel formats {}",
                    pixel_format::names(SUPPORTED)
                )
            }),
    }
}

/// Checks format, size and field order against what was asked for.
fn check(options: &CameraOptions, format: FourCc, found: &Format) -> Result<(), String> {
    let code = FourCc(found.fourcc.repr);
    let width_px = options.width_px.unwrap_or(found.width);
    let height_px = options.height_px.unwrap_or(found.height);
    if (code, found.width, found.height) != (format, width_px, height_px) {
        return Err(format!(
            "expected {format} {width_px}×{height_px} px, found {code} {}×{}",
            found.width, found.height
        ));
    }
    if !pixel_format::is_supported(code) {
        return Err(format!("cannot read pixel format {code}"));
    }
    match found.field_order {
        FieldOrder::Progressive | FieldOrder::Any => Ok(()),
        interlaced => Err(format!(
            "expected whole frames, found fields: {interlaced} (moving parts would be torn)"
        )),
    }
}

/// Text such as "the device offers YUYV (640×480, 320×240), MJPG (1920×1080)".
fn describe(device: &Device, offered: &[FourCc]) -> String {
    if offered.is_empty() {
        return "the device offers none".to_owned();
    }
    let formats: Vec<String> = offered
        .iter()
        .map(|format| {
            let sizes = device.enum_framesizes(FourCC::new(&format.0));
            let sizes: Vec<String> = sizes
                .unwrap_or_default()
                .iter()
                .map(|size| size_text(&size.size))
                .collect();
            if sizes.is_empty() {
                format.to_string()
            } else {
                format!("{format} ({})", sizes.join(", "))
            }
        })
        .collect();
    format!("the device offers {}", formats.join(", "))
}

fn size_text(size: &FrameSizeEnum) -> String {
    match size {
        FrameSizeEnum::Discrete(size) => format!("{}×{}", size.width, size.height),
        FrameSizeEnum::Stepwise(range) => format!(
            "{}×{} to {}×{} in steps of {}×{}",
            range.min_width,
            range.min_height,
            range.max_width,
            range.max_height,
            range.step_width,
            range.step_height
        ),
    }
}

/// Sets the frame interval if one is asked for.
pub(super) fn set_interval(
    device: &Device,
    options: &CameraOptions,
    format: Format,
) -> Result<(), Refusal> {
    let Some(wanted) = options.frame_interval else {
        return Ok(());
    };
    let offered = device.enum_frameintervals(format.fourcc, format.width, format.height);
    let offered: Vec<FrameIntervalEnum> = none_if_invalid(offered)?
        .into_iter()
        .map(|offer| offer.interval)
        .collect();
    let discrete: Vec<Fraction> = offered
        .iter()
        .filter_map(|offer| match offer {
            FrameIntervalEnum::Discrete(interval) => Some(*interval),
            FrameIntervalEnum::Stepwise(_) => None,
        })
        .collect();
    let found = device.set_params(&Parameters::new(nearest(wanted, &discrete)));
    let found = match found {
        Ok(parameters) => parameters.interval,
        Err(error) if is_not_offered(&error) => {
            return Err(Refusal::Unsupported(
                "the device does not let its frame interval be set".to_owned(),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if is_met(wanted, found) {
        return Ok(());
    }
    let offered: Vec<String> = offered.iter().map(interval_text).collect();
    Err(Refusal::Unsupported(format!(
        "expected a frame interval of {:.3} ms, found {found} s; the device offers {} s",
        wanted.as_secs_f64() * 1e3,
        offered.join(", ")
    )))
}

fn interval_text(offer: &FrameIntervalEnum) -> String {
    match offer {
        FrameIntervalEnum::Discrete(interval) => interval.to_string(),
        FrameIntervalEnum::Stepwise(range) => format!("{} to {}", range.min, range.max),
    }
}

fn seconds(interval: Fraction) -> f64 {
    f64::from(interval.numerator) / f64::from(interval.denominator)
}

/// The interval to ask the driver for. It is the closest of those offered, as the driver itself
/// writes it, because drivers round 0.033333 s up or down to the next one and may choose 1/40. If
/// the driver offers none, it is 1/n if that is as close, and otherwise in microseconds.
fn nearest(wanted: Duration, offered: &[Fraction]) -> Fraction {
    let error = |interval: Fraction| (seconds(interval) - wanted.as_secs_f64()).abs();
    let best = offered
        .iter()
        .copied()
        .filter(|interval| interval.denominator != 0)
        .min_by(|a, b| error(*a).total_cmp(&error(*b)));
    if let Some(best) = best {
        return best;
    }
    let rate = wanted.as_secs_f64().recip().round();
    let whole = Fraction::new(1, (rate as u32).max(1));
    if error(whole) < 1e-6 {
        return whole;
    }
    Fraction::new(
        u32::try_from(wanted.as_micros()).unwrap_or(u32::MAX),
        1_000_000,
    )
}

/// Whether the interval is within 1 % of the one asked for.
fn is_met(wanted: Duration, found: Fraction) -> bool {
    let wanted = wanted.as_secs_f64();
    (seconds(found) - wanted).abs() <= wanted * 0.01
}

#[cfg(test)]
mod tests {
    use super::*;

    const YUYV: FourCc = FourCc(*b"YUYV");
    const GREY: FourCc = FourCc(*b"GREY");
    const MJPG: FourCc = FourCc(*b"MJPG");
    const H264: FourCc = FourCc(*b"H264");

    #[test]
    fn the_format_asked_for_is_chosen_and_otherwise_the_best() {
        let offered = [H264, MJPG, GREY, YUYV];
        assert_eq!(choose(Some(MJPG), &offered), Ok(MJPG));
        assert_eq!(choose(None, &offered), Ok(YUYV));
        assert_eq!(choose(None, &offered[..2]), Ok(MJPG));
        assert_eq!(
            choose(Some(GREY), &[YUYV]).unwrap_err(),
            "expected pixel format GREY"
        );
        let unread = choose(Some(H264), &offered).unwrap_err();
        assert!(
            unread.starts_with("cannot read pixel format H264"),
            "{unread}"
        );
        assert!(choose(None, &[H264]).is_err());
        assert!(choose(None, &[]).is_err());
    }

    #[test]
    fn only_progressive_frames_of_the_size_asked_for_are_accepted() {
        let mut options = CameraOptions::new("/dev/video0");
        let mut found = Format::new(640, 480, FourCC::new(b"YUYV"));
        assert_eq!(check(&options, YUYV, &found), Ok(()));
        (options.width_px, options.height_px) = (Some(640), Some(480));
        assert_eq!(check(&options, YUYV, &found), Ok(()));
        assert_eq!(
            check(&options, GREY, &found).unwrap_err(),
            "expected GREY 640×480 px, found YUYV 640×480"
        );
        options.height_px = Some(400);
        assert_eq!(
            check(&options, YUYV, &found).unwrap_err(),
            "expected YUYV 640×400 px, found YUYV 640×480"
        );
        options.height_px = None;
        found.field_order = FieldOrder::Interlaced;
        assert!(check(&options, YUYV, &found).is_err());
    }

    #[test]
    fn intervals_are_requested_as_the_driver_writes_them() {
        let fraction = |interval: Fraction| (interval.numerator, interval.denominator);
        let rate = |rate: u32| Fraction::new(1, rate);
        let offered = [rate(15), rate(30), rate(60), Fraction::new(1, 0)];
        let thirty = Duration::from_secs(1) / 30;
        assert_eq!(fraction(nearest(thirty, &offered)), (1, 30));
        assert_eq!(
            fraction(nearest(Duration::from_millis(17), &offered)),
            (1, 60)
        );
        assert_eq!(fraction(nearest(thirty, &[])), (1, 30));
        let ntsc = Duration::from_nanos(33_366_667);
        assert_eq!(fraction(nearest(ntsc, &[])), (33_366, 1_000_000));
        assert_eq!(
            fraction(nearest(Duration::from_secs(2), &[])),
            (2_000_000, 1_000_000)
        );
        assert!(is_met(thirty, rate(30)));
        assert!(is_met(ntsc, Fraction::new(1001, 30_000)));
        assert!(!is_met(thirty, rate(29)));
        assert!(!is_met(thirty, Fraction::new(0, 0)));
        // Absurd values are refused later and must not panic here.
        nearest(Duration::ZERO, &[]);
        nearest(Duration::MAX, &[]);
    }
}

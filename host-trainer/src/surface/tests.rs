use scoring::inspect::frame::{Channels, Frame, Pixels};

use super::advice::FIXED_POSE;
use super::{ImageMeasurements, Surface};

/// A texture of square elements of `element_px`, in colour if wanted.
fn frame(side: u32, element_px: u32, colour: bool, light: f32, seed: u32) -> Frame {
    let value = |x: u32, y: u32| {
        let cell = (x / element_px)
            .wrapping_mul(0x9E37_79B1)
            .wrapping_add((y / element_px).wrapping_mul(0x85EB_CA77))
            .wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
        let mixed = (cell ^ cell >> 15).wrapping_mul(0x2C1B_3C6D);
        ((mixed >> 16) % 100) as f32
    };
    let places = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let pixels = places.flat_map(|(x, y)| {
        let grey = ((60.0 + value(x, y)) * light).min(255.0) as u8;
        [grey, if colour { grey / 2 } else { grey }, grey]
    });
    Frame::new(side, side, Channels::Rgb, Pixels::U8(pixels.collect())).unwrap()
}

fn surface(side: u32, element_px: u32, colour: bool, count: u32) -> Surface {
    let images: Vec<ImageMeasurements> = (0..count)
        .map(|seed| {
            let light = 0.8 + 0.1 * (seed % 3) as f32;
            ImageMeasurements::of(&frame(side, element_px, colour, light, seed))
        })
        .collect();
    Surface::of(&images, images.len()).unwrap()
}

#[test]
fn grain_grows_with_the_elements_of_a_texture() {
    // The correlation of squares of side s falls linearly to 0 at s: 1/e at 0.63 s.
    for element in [4, 8, 16] {
        let found = surface(768, element, false, 3).grain_px;
        let expected = 0.63 * element as f32;
        assert!(
            (found / expected - 1.0).abs() < 0.25,
            "{found} for {expected}"
        );
    }
}

#[test]
fn fine_textures_get_more_pixels_and_coarse_ones_fewer() {
    let side = |element| surface(768, element, false, 2).size().0;
    assert_eq!(side(8), 256, "the paper's size where it fits");
    assert!(side(2) > 400, "{}", side(2));
    assert!(side(64) < 200, "{}", side(64));
}

#[test]
fn colour_and_lighting_follow_from_the_images() {
    let value = |surface: &Surface, option| {
        let advice = surface.advice(true);
        let found = advice.into_iter().find(|advice| advice.option == option);
        found.map(|advice| advice.value)
    };
    let grey = surface(128, 8, false, 24);
    assert_eq!(value(&grey, "colour").unwrap(), "grey");
    let light: f32 = value(&grey, "lighting").unwrap().parse().unwrap();
    // 0.8, 0.9 and 1.0 in equal parts: 9 % of spread.
    assert!((0.15..0.22).contains(&light), "{light}");
    assert_eq!(value(&grey, "hold-out").unwrap(), "0.2");
    let few = surface(128, 8, true, 4);
    assert_eq!(value(&few, "colour").unwrap(), "rgb");
    assert_eq!(value(&few, "lighting").unwrap(), "0.3");
    assert_eq!(value(&few, "hold-out"), None);
    assert_eq!(few.warnings().len(), 1);
}

#[test]
fn parts_in_a_fixed_pose_are_noticed_and_textures_are_not() {
    let part = |seed: u32| {
        let mut pixels = Vec::new();
        for at in 0..128u32 * 128 {
            let edge = if at % 128 < 20 { 90 } else { 0 };
            let noise = (at ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 27;
            pixels.push((80 + edge + noise) as u8);
        }
        ImageMeasurements::of(&Frame::new(128, 128, Channels::Grey, Pixels::U8(pixels)).unwrap())
    };
    let images: Vec<ImageMeasurements> = (0..12).map(part).collect();
    let alike = Surface::of(&images, 400).unwrap();
    assert!(alike.layout > 0.9, "{}", alike.layout);
    let options: Vec<&str> = alike.package_advice().iter().map(|a| a.option).collect();
    assert_eq!(options, ["variation", "segmentation"]);
    assert!(!alike.upsampled());
    let few = Surface {
        images: 69,
        ..alike
    };
    assert_eq!(
        few.package_advice(),
        Vec::new(),
        "only 55 are left to train on"
    );
    let texture = surface(128, 16, false, 12);
    assert!(texture.layout < 0.3, "{}", texture.layout);
    // A fine texture under a lamp that lights its middle.
    let lit = |seed: u32| {
        let mut pixels = Vec::new();
        for at in 0..128u32 * 128 {
            let [x, y] = [at % 128, at / 128].map(|place| place as f32 / 64.0 - 1.0);
            let noise = (at ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 27;
            let light = 1.0 - 0.1 * (x * x + y * y);
            pixels.push(((120 + noise) as f32 * light) as u8);
        }
        ImageMeasurements::of(&Frame::new(128, 128, Channels::Grey, Pixels::U8(pixels)).unwrap())
    };
    let images: Vec<ImageMeasurements> = (0..12).map(lit).collect();
    let lamp = Surface::of(&images, 400).unwrap();
    assert!(lamp.layout < FIXED_POSE, "{}", lamp.layout);
    let texture = Surface {
        images: 400,
        ..texture
    };
    assert_eq!(texture.package_advice(), Vec::new());
    let advice = texture.advice(false);
    assert!(
        advice
            .iter()
            .any(|advice| advice.argument() == "--upsampled")
    );
}

#[test]
fn photographs_of_the_same_part_are_noticed() {
    let part = |seed, light| ImageMeasurements::of(&frame(128, 16, false, light, seed));
    let twice: Vec<ImageMeasurements> = (0..10)
        .flat_map(|seed| [part(seed, 0.8), part(seed, 1.0)])
        .collect();
    let surface = Surface::of(&twice, 20).unwrap();
    assert!(surface.nearest < 0.2, "{}", surface.nearest);
    assert!(surface.warnings()[0].contains("--groups"));
    let apart: Vec<ImageMeasurements> = (0..20).map(|seed| part(seed, 0.9)).collect();
    let surface = Surface::of(&apart, 20).unwrap();
    assert!(surface.nearest > 0.6, "{}", surface.nearest);
    assert_eq!(surface.warnings(), Vec::<String>::new());
}

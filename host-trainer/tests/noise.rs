//! The noise bank draws from the paper's ranges (IV-B) and has the intended effects.

use std::collections::HashMap;

use host_trainer::noise::{Algorithm, Corruption, Effect, Family, NoiseBank, Rect, Tile};
use host_trainer::seed::generator;
use rand::RngExt;

const SIDE: usize = 65;
const DRAWS: u64 = 4_000;

fn tile(channels: usize) -> Tile {
    let mut rng = generator(3, "tile", 0);
    let values = (0..channels * SIDE * SIDE)
        .map(|_| rng.random_range(-1.0..=1.0))
        .collect();
    Tile::new(SIDE, channels, values)
}

fn effects(algorithm: Algorithm) -> impl Iterator<Item = Effect> {
    let tile = tile(3);
    (0..DRAWS).map(move |index| {
        Corruption::draw(algorithm, &tile, &mut generator(5, "draw", index)).effect
    })
}

/// Values must stay inside the range and come close to both of its ends.
fn assert_fills(values: impl Iterator<Item = f64>, low: f64, high: f64) {
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for value in values {
        least = least.min(value);
        most = most.max(value);
    }
    let slack = (high - low) * 0.01;
    assert!(
        low <= least && least <= low + slack,
        "least {least}, expected {low}"
    );
    assert!(
        high - slack <= most && most <= high,
        "most {most}, expected {high}"
    );
}

fn assert_rects(rects: &[Rect]) {
    assert_fills(rects.iter().map(|r| r.width as f64), 1.0, 65.0);
    assert_fills(rects.iter().map(|r| r.height as f64), 1.0, 65.0);
    assert!(
        rects
            .iter()
            .all(|r| r.x + r.width <= SIDE && r.y + r.height <= SIDE)
    );
}

#[test]
fn speckle_probability_is_up_to_a_half_inside_a_rectangle() {
    for (algorithm, wanted) in [
        (Algorithm::Salt, (true, false)),
        (Algorithm::Pepper, (false, true)),
        (Algorithm::SaltAndPepper, (true, true)),
    ] {
        let (mut rects, mut probabilities) = (Vec::new(), Vec::new());
        for effect in effects(algorithm) {
            let Effect::Speckle {
                mask,
                salt,
                pepper,
                probability,
                ..
            } = effect
            else {
                panic!()
            };
            assert_eq!((salt, pepper), wanted);
            rects.push(mask);
            probabilities.push(probability);
        }
        assert_rects(&rects);
        assert_fills(probabilities.into_iter(), 0.0, 0.5);
    }
}

#[test]
fn blur_kernels_are_odd_3_to_15_and_sigmas_1_to_100() {
    let mut rects = Vec::new();
    let (mut kernels, mut sigmas) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for effect in effects(Algorithm::GaussianBlur) {
        let Effect::Blur {
            mask,
            kernel_px,
            sigma_px,
        } = effect
        else {
            panic!()
        };
        rects.push(mask);
        for axis in 0..2 {
            kernels[axis].push(kernel_px[axis]);
            sigmas[axis].push(f64::from(sigma_px[axis]));
        }
    }
    assert_rects(&rects);
    for (kernels, sigmas) in kernels.into_iter().zip(sigmas) {
        assert!(kernels.iter().all(|kernel| kernel % 2 == 1));
        assert_fills(kernels.into_iter().map(|k| k as f64), 3.0, 15.0);
        assert_fills(sigmas.into_iter(), 1.0, 100.0);
    }
}

#[test]
fn gaussian_noise_and_shading_stay_in_their_ranges() {
    let (mut rects, mut deviations) = (Vec::new(), Vec::new());
    for effect in effects(Algorithm::GaussianNoise) {
        let Effect::Noise {
            mask, deviation, ..
        } = effect
        else {
            panic!()
        };
        rects.push(mask);
        deviations.push(f64::from(deviation));
    }
    assert_rects(&rects);
    assert_fills(deviations.into_iter(), f64::from(0.3f32), f64::from(0.6f32));
    let (mut rects, mut shifts) = (Vec::new(), Vec::new());
    for effect in effects(Algorithm::Shading) {
        let Effect::Shading { mask, shift } = effect else {
            panic!()
        };
        rects.push(mask);
        shifts.push(f64::from(shift));
    }
    assert_rects(&rects);
    assert_fills(shifts.into_iter(), -0.5, 0.5);
}

#[test]
fn rectangles_are_anywhere_in_any_colour() {
    let (mut rects, mut colours) = (Vec::new(), Vec::new());
    for effect in effects(Algorithm::Rectangle) {
        let Effect::Rectangle { mask, colour } = effect else {
            panic!()
        };
        rects.push(mask);
        colours.extend(colour.into_iter().map(f64::from));
    }
    assert_rects(&rects);
    assert_fills(colours.into_iter(), -1.0, 1.0);
}

#[test]
fn strokes_stay_in_their_ranges() {
    let (mut thickness, mut colours) = (Vec::new(), Vec::new());
    let mut places = [const { Vec::new() }; 4];
    for effect in effects(Algorithm::Line) {
        let Effect::Line {
            from,
            to,
            thickness_px,
            colour,
        } = effect
        else {
            panic!()
        };
        for (places, place) in places.iter_mut().zip(from.into_iter().chain(to)) {
            places.push(f64::from(place));
        }
        thickness.push(f64::from(thickness_px));
        colours.extend(colour.into_iter().map(f64::from));
    }
    for places in places {
        assert_fills(places.into_iter(), 0.0, 65.0);
    }
    assert_fills(thickness.into_iter(), 1.0, 6.0);
    assert_fills(colours.into_iter(), -1.0, 1.0);
    // Centre, rotation, both ends of the arc, axes and thickness, each on its own.
    let mut drawn = [const { Vec::new() }; 8];
    let mut colours = Vec::new();
    for effect in effects(Algorithm::EllipseArc) {
        let Effect::EllipseArc {
            centre,
            colour,
            axes_px,
            rotation_deg,
            arc_deg,
            thickness_px,
        } = effect
        else {
            panic!()
        };
        let angles = [rotation_deg, arc_deg[0], arc_deg[1]].map(f64::from);
        let integers = [axes_px[0], axes_px[1], thickness_px].map(f64::from);
        let values = centre.map(f64::from).into_iter().chain(angles);
        for (drawn, value) in drawn.iter_mut().zip(values.chain(integers)) {
            drawn.push(value);
        }
        colours.extend(colour.into_iter().map(f64::from));
    }
    assert_fills(colours.into_iter(), -1.0, 1.0);
    let turn = (0.0, 360.0);
    let ranges = [(0.0, 65.0), (0.0, 65.0), turn, turn, turn];
    let ranges = ranges
        .into_iter()
        .chain([(1.0, 30.0), (1.0, 30.0), (1.0, 6.0)]);
    for (drawn, (low, high)) in drawn.into_iter().zip(ranges) {
        assert_fills(drawn.into_iter(), low, high);
    }
}

#[test]
fn morphology_uses_odd_disks_up_to_7_px_once_or_twice() {
    for (algorithm, wanted) in [(Algorithm::Erosion, false), (Algorithm::Dilation, true)] {
        let mut seen = HashMap::new();
        let mut rects = Vec::new();
        for effect in effects(algorithm) {
            let Effect::Morphology {
                mask,
                size_px,
                iterations,
                dilate,
            } = effect
            else {
                panic!()
            };
            rects.push(mask);
            assert_eq!(dilate, wanted);
            *seen.entry((size_px, iterations)).or_insert(0) += 1;
        }
        assert_rects(&rects);
        let mut kinds: Vec<_> = seen.into_keys().collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [1, 3, 5, 7].map(|s| [(s, 1), (s, 2)]).concat());
    }
}

#[test]
fn effects_follow_their_parameters() {
    let whole = Rect {
        x: 0,
        y: 0,
        width: SIDE,
        height: SIDE,
    };
    let flat = Tile::new(SIDE, 1, vec![0.25; SIDE * SIDE]);
    let apply = |algorithm, effect| {
        let mut after = flat.clone();
        Corruption { algorithm, effect }.apply(&mut after);
        after.values().to_vec()
    };
    for thickness_px in 1..=6 {
        let line = Effect::Line {
            from: [10.0, 30.0],
            to: [50.0, 30.0],
            thickness_px,
            colour: vec![-0.75],
        };
        let after = apply(Algorithm::Line, line);
        let rows = (0..SIDE).filter(|y| after[y * SIDE + 30] == -0.75).count();
        // A stroke of odd width along the edge between two pixels covers half a pixel on both
        // sides.
        assert!(
            rows as u32 == thickness_px || rows as u32 == thickness_px + 1,
            "{rows} rows, expected {thickness_px}"
        );
        let others = after.iter().filter(|&&v| v != 0.25 && v != -0.75).count();
        assert_eq!(others, 0, "no intermediate values");
        let arc = Effect::EllipseArc {
            centre: [32.5, 32.5],
            axes_px: [20, 10],
            rotation_deg: 90.0,
            arc_deg: [0.0, 359.9],
            thickness_px,
            colour: vec![1.0],
        };
        let after = apply(Algorithm::EllipseArc, arc);
        let drawn = |x: usize, y: usize| after[y * SIDE + x] == 1.0;
        // Rotated by 90°, the axes are 20 px vertically and 10 px horizontally.
        assert!(drawn(32, 52) && drawn(42, 32) && !drawn(52, 32) && !drawn(32, 32));
    }
    let speckle = |salt, pepper| Effect::Speckle {
        mask: whole,
        salt,
        pepper,
        probability: 0.3,
        seed: 1,
    };
    let fraction = |values: &[f32], value: f32| {
        values.iter().filter(|&&v| v == value).count() as f64 / values.len() as f64
    };
    // Five standard deviations of a binomial with n = 4,225 are below 0.04.
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.04, "{found}");
    let salt = apply(Algorithm::Salt, speckle(true, false));
    near(fraction(&salt, 1.0), 0.3);
    near(fraction(&salt, 0.25), 0.7);
    let pepper = apply(Algorithm::Pepper, speckle(false, true));
    near(fraction(&pepper, -1.0), 0.3);
    near(fraction(&pepper, 0.25), 0.7);
    let both = apply(Algorithm::SaltAndPepper, speckle(true, true));
    near(fraction(&both, 1.0), 0.15);
    near(fraction(&both, -1.0), 0.15);
    let shaded = apply(
        Algorithm::Shading,
        Effect::Shading {
            mask: whole,
            shift: -0.5,
        },
    );
    assert!(shaded.iter().all(|&v| v == -0.25));
    let noisy = apply(
        Algorithm::GaussianNoise,
        Effect::Noise {
            mask: whole,
            deviation: 0.15, // small, so that hardly anything is clamped
            seed: 1,
        },
    );
    let count = noisy.len() as f32;
    let mean = noisy.iter().sum::<f32>() / count;
    let variance = noisy.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    assert!((mean - 0.25).abs() < 0.015 && (variance.sqrt() - 0.15).abs() < 0.01);
}

#[test]
fn twelve_algorithms_are_equally_likely() {
    let bank = NoiseBank::paper();
    assert_eq!(bank.algorithms().len(), 12);
    let mut counts = HashMap::new();
    for index in 0..12_000 {
        let mut rng = generator(9, "bank", index);
        *counts
            .entry(bank.corrupt(&mut tile(1), &mut rng).algorithm)
            .or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 12);
    // Five standard deviations of a binomial with n = 12,000, p = 1/12.
    assert!(
        counts.values().all(|&count| (850..1150).contains(&count)),
        "{counts:?}"
    );
}

#[test]
fn families_have_the_algorithms_of_the_ablation() {
    let names = |families: &[Family]| -> Vec<&str> {
        NoiseBank::of_families(families)
            .algorithms()
            .iter()
            .map(|a| a.name())
            .collect()
    };
    assert_eq!(
        names(&[Family::Opaque]),
        ["rectangle", "line", "ellipse arc", "none"]
    );
    assert_eq!(
        names(&[Family::Transparent]),
        ["Gaussian blur", "shading", "none"]
    );
    assert_eq!(
        names(&[Family::Speckle]),
        ["salt", "pepper", "salt and pepper", "none"]
    );
    assert_eq!(names(&[Family::Distribution]), ["Gaussian noise", "none"]);
    assert_eq!(
        names(&[Family::Morphological]),
        ["erosion", "dilation", "none"]
    );
    assert_eq!(
        names(&[Family::Structured]),
        ["none", "patch", "tone", "warp"]
    );
    // The description that a run records and --resume compares.
    let described = |families: &[Family]| NoiseBank::of_families(families).describe();
    assert_eq!(described(&Family::PAPER), "all twelve algorithms");
    let all = [&Family::PAPER[..], &[Family::Structured]].concat();
    assert_eq!(described(&all), "all twelve algorithms, structured");
    assert_eq!(
        described(&[Family::Speckle, Family::Structured]),
        "speckle, structured"
    );
}

#[test]
fn every_algorithm_changes_only_its_mask_and_stays_in_range() {
    for channels in [1, 3] {
        for algorithm in Algorithm::all() {
            let mut changed_at_all = false;
            for index in 0..60 {
                let before = tile(channels);
                let mut after = before.clone();
                let corruption =
                    Corruption::draw(algorithm, &before, &mut generator(2, "apply", index));
                corruption.apply(&mut after);
                let mut again = before.clone();
                corruption.apply(&mut again);
                assert_eq!(after, again, "{corruption:?} is not reproducible");
                assert!(after.values().iter().all(|v| (-1.0..=1.0).contains(v)));
                let mask = match &corruption.effect {
                    Effect::Speckle { mask, .. }
                    | Effect::Blur { mask, .. }
                    | Effect::Noise { mask, .. }
                    | Effect::Rectangle { mask, .. }
                    | Effect::Shading { mask, .. }
                    | Effect::Morphology { mask, .. } => Some(*mask),
                    _ => None,
                };
                for (at, (a, b)) in before.values().iter().zip(after.values()).enumerate() {
                    let (x, y) = (at % SIDE, at / SIDE % SIDE);
                    let inside = match &corruption.effect {
                        Effect::Structured { mask, .. } => mask.at(x, y) > 0.0,
                        _ => mask.is_none_or(|m| {
                            (m.x..m.x + m.width).contains(&x) && (m.y..m.y + m.height).contains(&y)
                        }),
                    };
                    assert!(inside || a == b, "{corruption:?} changed ({x}, {y})");
                    changed_at_all |= a != b;
                }
            }
            assert_eq!(
                changed_at_all,
                algorithm != Algorithm::None,
                "{algorithm:?}"
            );
        }
    }
}

#[test]
fn filters_agree_with_direct_computation() {
    let before = tile(1);
    let at = |x: isize, y: isize| {
        let clamp = |v: isize| v.clamp(0, 64) as usize;
        before.plane(0)[clamp(y) * SIDE + clamp(x)]
    };
    let whole = Rect {
        x: 0,
        y: 0,
        width: SIDE,
        height: SIDE,
    };
    let apply = |algorithm, effect| {
        let mut after = before.clone();
        Corruption { algorithm, effect }.apply(&mut after);
        after
    };
    let blurred = apply(
        Algorithm::GaussianBlur,
        Effect::Blur {
            mask: whole,
            kernel_px: [5, 3],
            sigma_px: [1.5, 40.0],
        },
    );
    let eroded = apply(
        Algorithm::Erosion,
        Effect::Morphology {
            mask: whole,
            size_px: 5,
            iterations: 2,
            dilate: false,
        },
    );
    let disk = |x: isize, y: isize, of: &dyn Fn(isize, isize) -> f32| {
        let offsets = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (dx, dy)));
        offsets
            .filter(|(dx, dy)| dx * dx + dy * dy <= 4)
            .map(|(dx, dy)| (x + dx, y + dy))
            .filter(|&(x, y)| (0..65).contains(&x) && (0..65).contains(&y))
            .map(|(x, y)| of(x, y))
            .fold(f32::MAX, f32::min)
    };
    let gauss = |d: isize, sigma: f32| (-((d * d) as f32) / (2.0 * sigma * sigma)).exp();
    for y in [0isize, 1, 30, 64] {
        for x in [0isize, 2, 33, 64] {
            let (mut sum, mut weights) = (0.0, 0.0);
            for dy in -1..=1 {
                for dx in -2..=2 {
                    let weight = gauss(dx, 1.5) * gauss(dy, 40.0);
                    sum += weight * at(x + dx, y + dy);
                    weights += weight;
                }
            }
            let index = y as usize * SIDE + x as usize;
            assert!((blurred.plane(0)[index] - sum / weights).abs() < 1e-5);
            let twice = disk(x, y, &|x, y| disk(x, y, &at));
            assert_eq!(eroded.plane(0)[index], twice);
        }
    }
}

#[test]
fn colours_on_grey_are_grey_and_on_colour_are_not() {
    let grey = Corruption::draw(Algorithm::Rectangle, &tile(1), &mut generator(1, "c", 0));
    let Effect::Rectangle { colour, .. } = grey.effect else {
        panic!()
    };
    assert_eq!(colour.len(), 1);
    let coloured = Corruption::draw(Algorithm::Rectangle, &tile(3), &mut generator(1, "c", 0));
    let Effect::Rectangle { colour, .. } = coloured.effect else {
        panic!()
    };
    assert!(colour.len() == 3 && colour[0] != colour[1]);
}

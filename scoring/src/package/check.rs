//! Checks that the fields of a manifest are consistent. The graph is not examined.

use proto::limits::{MAX_FRAME_SIDE_PX, MAX_GOLDEN_FRAME_SIDE_PX, MAX_GOLDEN_TILES};
use proto::manifest::{ColourMode, GoldenFrame, InputSize, Manifest, NormalMap, Scoring, TILE_PX};

use super::parity::{BLOCKS, GOLDEN_CELLS};
use crate::inspect::{grain, layer_statistics, roi, segmentation, variation};

/// Checks a manifest. The error says what is wrong with it.
pub(super) fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    let network = &manifest.network;
    let tile_px = u32::from(network.tile_px);
    // Golden tiles' blocks and the smallest frame are defined for this side.
    if tile_px != TILE_PX || network.channels == 0 {
        return Err(format!(
            "expected tiles of {TILE_PX} px and at least one channel, found {tile_px} px and {}",
            network.channels
        ));
    }
    if manifest.input.colour == ColourMode::Rgb && network.channels != 3 {
        return Err(format!(
            "expected 3 channels for colour images, found {}",
            network.channels
        ));
    }
    if network.align_px == 0 || tile_px % u32::from(network.align_px) != 1 {
        return Err(format!(
            "expected a tile side of k·{} + 1 px, found {tile_px} px",
            network.align_px
        ));
    }
    // Scoring large frames in strips relies on these (paper, IV-C: three layers of stride 2, and
    // the receptive field of A).
    if network.align_px != 8 || network.halo_px < 14 {
        return Err(format!(
            "expected an alignment of 8 px and a halo of at least 14 px, found {} and {}",
            network.align_px, network.halo_px
        ));
    }
    if let InputSize::Fixed {
        width_px,
        height_px,
    } = manifest.input.size
    {
        let valid = tile_px..=MAX_FRAME_SIDE_PX;
        if !valid.contains(&width_px) || !valid.contains(&height_px) {
            return Err(format!(
                "expected an input size of {tile_px}..={MAX_FRAME_SIDE_PX} px a side, found {width_px}×{height_px}"
            ));
        }
    }
    if let Scoring::AveragedTiles { stride_px } = manifest.scoring
        && !(1..=network.tile_px).contains(&stride_px)
    {
        return Err(format!(
            "expected a stride of 1..={tile_px} px, found {stride_px}"
        ));
    }
    let post = &manifest.post;
    if !(0.0..=100.0).contains(&post.smooth_sigma_px) {
        return Err(format!(
            "expected smoothing of 0..=100 px, found {}",
            post.smooth_sigma_px
        ));
    }
    for window_px in [post.open_px, post.close_px] {
        if window_px > 1_001 || (window_px != 0 && window_px % 2 == 0) {
            return Err(format!(
                "expected an odd window of at most 1001 px, or 0, found {window_px}"
            ));
        }
    }
    if let Some(normal) = &manifest.normal_map {
        check_normal_map(normal)?;
    }
    if let Some(model) = &manifest.variation {
        if manifest.normal_map.is_some() {
            return Err("expected a normal map or a variation model, found both".to_owned());
        }
        variation::check(model, manifest.input.colour == ColourMode::Rgb)?;
    }
    if let Some(network) = &manifest.segmentation {
        if manifest.variation.is_none() {
            return Err(
                "expected a variation model beside a segmentation network, found none".to_owned(),
            );
        }
        segmentation::check(network, manifest.input.colour == ColourMode::Rgb)?;
    }
    if let Some(layers) = &manifest.layers {
        if manifest.scoring != Scoring::FullyConvolutional {
            return Err(
                "expected frames scored as a whole beside statistics of layers, found tiles"
                    .to_owned(),
            );
        }
        layer_statistics::check(layers, network)?;
    }
    if let Some(statistics) = &manifest.grain {
        grain::check(statistics, manifest.input.colour == ColourMode::Rgb)?;
    }
    roi::check(&manifest.roi).map_err(|error| error.to_string())?;
    if let Some(threshold) = &manifest.threshold
        && !(threshold.value.is_finite() && threshold.value >= 0.0)
    {
        return Err(format!(
            "expected a finite threshold of at least 0, found {}",
            threshold.value
        ));
    }
    if manifest.golden.is_empty() || manifest.golden.len() > MAX_GOLDEN_TILES {
        return Err(format!(
            "expected 1..={MAX_GOLDEN_TILES} golden tiles, found {}",
            manifest.golden.len()
        ));
    }
    let pixels = (tile_px * tile_px) as usize * usize::from(network.channels);
    for (index, tile) in manifest.golden.iter().enumerate() {
        let scores = tile.block_means.iter().chain([&tile.peak, &tile.tolerance]);
        if tile.pixels.len() != pixels || tile.block_means.len() != BLOCKS * BLOCKS {
            return Err(format!(
                "golden tile {index}: expected {pixels} pixel values and {} block means, found {} and {}",
                BLOCKS * BLOCKS,
                tile.pixels.len(),
                tile.block_means.len()
            ));
        }
        if !scores
            .clone()
            .all(|score| score.is_finite() && *score >= 0.0)
        {
            return Err(format!(
                "golden tile {index}: expected finite scores of at least 0"
            ));
        }
    }
    match &manifest.golden_frame {
        Some(frame) => check_golden_frame(frame, manifest.input.colour),
        None => Ok(()),
    }
}

fn check_golden_frame(frame: &GoldenFrame, colour: ColourMode) -> Result<(), String> {
    let channels = match colour {
        ColourMode::Grey => 1,
        ColourMode::Rgb => 3,
    };
    let stored = [frame.width_px, frame.height_px];
    let scored = [frame.scored_width_px, frame.scored_height_px];
    let (most, least) = (MAX_GOLDEN_FRAME_SIDE_PX, TILE_PX as u16);
    if !stored.iter().all(|side| (1..=most).contains(side))
        || !scored.iter().all(|side| (least..=most).contains(side))
    {
        return Err(format!(
            "expected a golden frame of 1..={most} px a side, scored at {least}..={most} px a side, found {stored:?} and {scored:?}"
        ));
    }
    let [width, height] = stored.map(usize::from);
    let (pixels, cells) = (width * height * channels, GOLDEN_CELLS * GOLDEN_CELLS);
    if frame.pixels.len() != pixels || frame.cell_means.len() != cells {
        return Err(format!(
            "expected a golden frame of {pixels} values and {cells} means, found {} and {}",
            frame.pixels.len(),
            frame.cell_means.len()
        ));
    }
    let mut scores = frame
        .cell_means
        .iter()
        .chain([&frame.peak, &frame.tolerance]);
    if !scores.all(|score| score.is_finite() && *score >= 0.0) {
        return Err("golden frame: expected finite scores of at least 0".to_owned());
    }
    Ok(())
}

/// Most cells along a side of a normal map.
const MAX_CELLS: u16 = 256;

/// Least spread of a normal map, and the inverse of its largest value, so that scores stay finite.
const LEAST_SPREAD: f32 = 1e-9;

fn check_normal_map(normal: &NormalMap) -> Result<(), String> {
    let sides = 1..=MAX_CELLS;
    if !sides.contains(&normal.columns) || !sides.contains(&normal.rows) {
        return Err(format!(
            "expected a normal map of 1..={MAX_CELLS} cells each way, found {}×{}",
            normal.columns, normal.rows
        ));
    }
    let cells = usize::from(normal.columns) * usize::from(normal.rows);
    if normal.mean.len() != cells || normal.spread.len() != cells {
        return Err(format!(
            "expected a normal map of {cells} means and spreads, found {} and {}",
            normal.mean.len(),
            normal.spread.len()
        ));
    }
    let within = LEAST_SPREAD..=1.0 / LEAST_SPREAD;
    let good = |mean: &f32, spread: &f32| mean.abs() <= *within.end() && within.contains(spread);
    match normal
        .mean
        .iter()
        .zip(&normal.spread)
        .find(|(m, s)| !good(m, s))
    {
        None => Ok(()),
        Some((mean, spread)) => Err(format!(
            "expected means of at most {:e} and spreads from {LEAST_SPREAD:e} in the normal map, found {mean} and {spread}",
            within.end()
        )),
    }
}

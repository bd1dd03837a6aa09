//! Scores relative to what good frames score at the same place. On parts in a fixed pose, an edge
//! that scores high on every good part is not a defect. Not in the paper (**ours**), which only has
//! textures.

use proto::manifest::NormalMap;

use super::cells::enlarge;
use super::map::ScoreMap;

/// Cells along a side of a map. Cells are larger than the differences in position between parts.
const CELLS: usize = 32;
/// Least spread of a cell, as a fraction of the whole map's. Where good frames hardly score, a
/// little more is still little.
const LEAST_SPREAD: f64 = 0.1;

/// Accumulates good frames' maps.
#[derive(Debug, Clone)]
pub struct NormalMapBuilder {
    /// Count, sum and sum of squares of each cell's pixels.
    cells: Vec<[f64; 3]>,
    frames: u32,
}

impl Default for NormalMapBuilder {
    fn default() -> Self {
        Self {
            cells: vec![[0.0; 3]; CELLS * CELLS],
            frames: 0,
        }
    }
}

impl NormalMapBuilder {
    /// Adds a good frame's map.
    pub fn add(&mut self, map: &ScoreMap) {
        let width = map.width_px.max(1);
        for (y, row) in map.data.chunks_exact(width).enumerate() {
            let first = y * CELLS / map.height_px.max(1) * CELLS;
            for (x, &score) in row.iter().enumerate() {
                let score = f64::from(score);
                let [count, sum, squares] = &mut self.cells[first + x * CELLS / width];
                *count += 1.0;
                *sum += score;
                *squares += score * score;
            }
        }
        self.frames += 1;
    }

    /// Mean and spread of good frames' scores in each cell; `None` without frames, or if no score
    /// varies.
    pub fn finish(&self) -> Option<NormalMap> {
        let total = self.cells.iter().fold([0.0; 3], |total, cell| {
            [total[0] + cell[0], total[1] + cell[1], total[2] + cell[2]]
        });
        let spread = |[count, sum, squares]: [f64; 3]| {
            let mean = sum / f64::max(count, 1.0);
            (squares / f64::max(count, 1.0) - mean * mean)
                .max(0.0)
                .sqrt()
        };
        let least = LEAST_SPREAD * spread(total);
        if least <= 0.0 {
            return None;
        }
        let cells = self.cells.iter();
        Some(NormalMap {
            columns: CELLS as u16,
            rows: CELLS as u16,
            mean: cells
                .clone()
                .map(|[count, sum, _]| (sum / count.max(1.0)) as f32)
                .collect(),
            spread: cells.map(|cell| spread(*cell).max(least) as f32).collect(),
            frames: self.frames,
        })
    }
}

/// A normal map at the size of an anomaly map.
#[derive(Debug)]
pub struct Normaliser {
    width_px: usize,
    height_px: usize,
    mean: Vec<f32>,
    spread: Vec<f32>,
}

impl Normaliser {
    /// Interpolates between the centres of cells; beyond the outermost centres values are constant.
    pub fn new(normal: &NormalMap, width_px: usize, height_px: usize) -> Self {
        let cells = [normal.columns, normal.rows].map(usize::from);
        Self {
            width_px,
            height_px,
            mean: enlarge(&normal.mean, cells, width_px, height_px),
            spread: enlarge(&normal.spread, cells, width_px, height_px),
        }
    }

    /// Whether it has the size of this map.
    pub fn fits(&self, map: &ScoreMap) -> bool {
        (self.width_px, self.height_px) == (map.width_px, map.height_px)
    }

    /// Turns scores into standard deviations above good frames' mean at that place, at least 0. The
    /// map must have this size.
    pub fn apply(&self, map: &mut ScoreMap) {
        let normal = self.mean.iter().zip(&self.spread);
        for (score, (mean, spread)) in map.data.iter_mut().zip(normal) {
            *score = ((*score - mean) / spread).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with a bright left edge that varies from frame to frame.
    fn good(seed: u32, width_px: usize, height_px: usize) -> ScoreMap {
        let value = |index: usize| {
            let noise = (index as u32 ^ seed.wrapping_mul(977)).wrapping_mul(2_654_435_761) >> 16;
            let noise = noise as f32 / 65_536.0;
            let x = index % width_px;
            if x * 16 < width_px {
                2.0 + noise
            } else {
                0.1 * noise
            }
        };
        ScoreMap {
            width_px,
            height_px,
            data: (0..width_px * height_px).map(value).collect(),
        }
    }

    fn normal(width_px: usize, height_px: usize) -> NormalMap {
        let mut builder = NormalMapBuilder::default();
        for seed in 0..20 {
            builder.add(&good(seed, width_px, height_px));
        }
        builder.finish().unwrap()
    }

    #[test]
    fn a_small_defect_stands_out_against_an_edge_that_all_good_frames_have() {
        let (width, height) = (160, 96);
        let normaliser = Normaliser::new(&normal(width, height), width, height);
        let mut frame = good(99, width, height);
        let (defect, edge) = (48 * width + 80, 48 * width + 2);
        frame.data[defect] = 1.0;
        assert!(frame.data[defect] < frame.data[edge]);
        normaliser.apply(&mut frame);
        let highest = frame.data.iter().copied().enumerate();
        let highest = highest.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert_eq!(highest.0, defect);
        assert!(frame.data[edge] < 4.0, "{}", frame.data[edge]);
        assert!(frame.data.iter().all(|score| *score >= 0.0));
    }

    #[test]
    fn good_frames_of_another_size_have_mean_0_and_spread_1_everywhere() {
        let normal = normal(160, 96);
        let normaliser = Normaliser::new(&normal, 320, 192);
        let (mut sums, mut count) = (0.0f64, 0.0);
        for seed in 100..110 {
            let map = good(seed, 320, 192);
            assert!(normaliser.fits(&map));
            // Away from the step at the edge.
            for y in 0..192 {
                for x in 40..320 {
                    let at = y * 320 + x;
                    let value = (map.data[at] - normaliser.mean[at]) / normaliser.spread[at];
                    sums += f64::from(value);
                    count += 1.0;
                    assert!(value.abs() < 3.0);
                }
            }
        }
        assert!((sums / count).abs() < 0.05, "{}", sums / count);
    }

    #[test]
    fn frames_without_scores_give_no_normal_map() {
        assert_eq!(NormalMapBuilder::default().finish(), None);
        let mut builder = NormalMapBuilder::default();
        builder.add(&ScoreMap::zeros(65, 65));
        assert_eq!(builder.finish(), None);
    }
}

//! Divides planes into cells, columns × rows of equal size: means over cells, and cells' values
//! interpolated back to pixels.

/// The two cells whose centres are on either side of a pixel of a line, and the pixel's distance
/// from the first as a fraction. Beyond the outermost centres both are the outermost cell.
fn between(at: usize, length: usize, cells: usize) -> (usize, usize, f32) {
    let place =
        ((at as f32 + 0.5) * cells as f32 / length as f32 - 0.5).clamp(0.0, cells as f32 - 1.0);
    let first = place as usize;
    (first, (first + 1).min(cells - 1), place - first as f32)
}

/// Interpolates cells' values (row by row) at every pixel. Beyond the outermost centres a pixel has
/// the value of the outermost cell.
pub fn enlarge(
    values: &[f32],
    [columns, rows]: [usize; 2],
    width_px: usize,
    height_px: usize,
) -> Vec<f32> {
    let across: Vec<_> = (0..width_px)
        .map(|x| between(x, width_px, columns))
        .collect();
    let mut laid = Vec::with_capacity(width_px * height_px);
    for y in 0..height_px {
        let (upper, lower, down) = between(y, height_px, rows);
        let row = |row: usize| &values[row * columns..(row + 1) * columns];
        let (upper, lower) = (row(upper), row(lower));
        laid.extend(across.iter().map(|&(left, right, along)| {
            let of = |row: &[f32]| row[left] + (row[right] - row[left]) * along;
            let (upper, lower) = (of(upper), of(lower));
            upper + (lower - upper) * down
        }));
    }
    laid
}

/// Means of a plane (row by row) over columns × rows cells. A plane with fewer pixels than cells
/// repeats some.
pub fn reduce(
    plane: &[f32],
    [width_px, height_px]: [usize; 2],
    [columns, rows]: [usize; 2],
) -> Vec<f32> {
    let edges = |length: usize, cells: usize| -> Vec<(usize, usize)> {
        (0..cells)
            .map(|cell| {
                let from = cell * length / cells;
                (from, ((cell + 1) * length / cells).max(from + 1))
            })
            .collect()
    };
    let across = edges(width_px, columns);
    let mut means = Vec::with_capacity(columns * rows);
    let mut sums = vec![0.0f32; width_px];
    for (top, bottom) in edges(height_px, rows) {
        sums.fill(0.0);
        for row in plane[top * width_px..bottom * width_px].chunks_exact(width_px) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += value);
        }
        means.extend(across.iter().map(|&(left, right)| {
            let sum: f32 = sums[left..right].iter().sum();
            sum / ((right - left) * (bottom - top)) as f32
        }));
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slope_survives_being_reduced_and_enlarged(
            width in 32usize..90, height in 32usize..90, columns in 1usize..20, rows in 1usize..20,
        ) {
            let plane: Vec<f32> =
                (0..width * height).map(|i| (i % width) as f32 + 2.0 * (i / width) as f32).collect();
            let cells = reduce(&plane, [width, height], [columns, rows]);
            prop_assert_eq!(cells.len(), columns * rows);
            let back = enlarge(&cells, [columns, rows], width, height);
            // Half a cell away from the border, within what uneven cells deviate.
            let (margin_x, margin_y) = (width.div_ceil(2 * columns) + 1, height.div_ceil(2 * rows) + 1);
            for y in margin_y..height.saturating_sub(margin_y) {
                for x in margin_x..width.saturating_sub(margin_x) {
                    let at = y * width + x;
                    prop_assert!((back[at] - plane[at]).abs() <= 3.0, "{} instead of {}", back[at], plane[at]);
                }
            }
        }
    }

    #[test]
    fn means_of_even_cells_are_exact() {
        let plane = [1.0, 3.0, 5.0, 7.0, 1.0, 3.0, 5.0, 9.0];
        assert_eq!(reduce(&plane, [4, 2], [2, 1]), [2.0, 6.5]);
        assert_eq!(enlarge(&[2.0, 6.0], [2, 1], 4, 1), [2.0, 3.0, 5.0, 6.0]);
    }
}

//! Random orthogonal filter banks (Saxe et al. 2014).

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Draws a `rows` × `columns` matrix with orthonormal rows, or orthonormal columns where there are
/// more rows, times √2. Orthogonalised by Gram-Schmidt in double precision.
pub(crate) fn orthogonal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| StandardNormal.sample(rng)).collect();
        // Orthogonalising twice suffices (Kahan and Parlett).
        for _ in 0..2 {
            for other in &vectors {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector
                    .iter_mut()
                    .zip(other)
                    .for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|a| *a /= norm);
        vectors.push(vector);
    }
    let gain = 2f64.sqrt();
    (0..rows * columns)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            let value = if rows <= columns {
                vectors[row][column]
            } else {
                vectors[column][row]
            };
            (value * gain) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn random_weights_are_orthogonal() {
        for (rows, columns) in [(4, 9), (9, 4)] {
            let matrix = orthogonal(rows, columns, &mut ChaCha8Rng::seed_from_u64(1));
            let at = |row: usize, column: usize| f64::from(matrix[row * columns + column]);
            let count = rows.min(columns);
            for i in 0..count {
                for j in 0..count {
                    let dot: f64 = if rows <= columns {
                        (0..columns).map(|k| at(i, k) * at(j, k)).sum()
                    } else {
                        (0..rows).map(|k| at(k, i) * at(k, j)).sum()
                    };
                    let expected = if i == j { 2.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5);
                }
            }
        }
    }
}

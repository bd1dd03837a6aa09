//! Measures how many tiles per second one core corrupts, with the mixed bank and with each
//! algorithm: `cargo bench --profile dev -p host-trainer --bench noise`. The mixed bank must reach
//! 5,000 tiles per second.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use host_trainer::noise::{Algorithm, Corruption, NoiseBank, Tile};
use host_trainer::seed::generator;
use rand::RngExt;

fn tile() -> Tile {
    let mut rng = generator(0, "bench", 0);
    let values = (0..3 * 65 * 65)
        .map(|_| rng.random_range(-1.0..=1.0))
        .collect();
    Tile::new(65, 3, values)
}

fn noise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("noise");
    group.throughput(Throughput::Elements(1));
    let (clean, bank) = (tile(), NoiseBank::paper());
    let mut rng = generator(0, "bench", 1);
    group.bench_function("mixed bank", |bencher| {
        bencher.iter_batched_ref(
            || clean.clone(),
            |tile| bank.corrupt(tile, &mut rng),
            criterion::BatchSize::SmallInput,
        );
    });
    for algorithm in Algorithm::all() {
        group.bench_function(algorithm.name(), |bencher| {
            bencher.iter_batched_ref(
                || clean.clone(),
                |tile| Corruption::draw(algorithm, tile, &mut rng).apply(tile),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, noise);
criterion_main!(benches);

//! Times an ONNX graph for `cargo xtask bench-inference`.
//!
//! Reads lines `COUNT HEIGHT WIDTH` from standard input, runs the network on COUNT images of that
//! size, and prints the milliseconds it took. `ours` scores them with the engine, `counted` does
//! the same with the same kernels at every start, `stock` uses tract's own operators image by
//! image, `batch` uses them on all images at once.

use std::io::{BufRead, Cursor, Write};
use std::time::Instant;

use proto::manifest::Network;
use scoring::infer::{Engine, Tuning};
use scoring::inspect::preprocess::Planes;
use scoring::inspect::score::Shift;
use tract_onnx::prelude::*;

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    let mut arguments = std::env::args().skip(1);
    let (Some(onnx), Some(width), Some(threads), Some(engine)) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
    ) else {
        return Err("expected ONNX WIDTH THREADS ours|counted|stock|batch".into());
    };
    let network = Network {
        channels: 3,
        width: width.parse()?,
        tile_px: 65,
        align_px: 8,
        halo_px: 14,
    };
    let tuning = Tuning {
        threads: threads.parse()?,
        by_rule: engine == "counted",
        stock: !matches!(&*engine, "ours" | "counted"),
        ..Tuning::default()
    };
    let onnx = std::fs::read(onnx)?;
    let started = Instant::now();
    let ours = Engine::tuned(&onnx, network, &tuning)?;
    // If the reader has gone, end with an error instead of a panic.
    let mut out = std::io::stdout();
    writeln!(out, "{}", started.elapsed().as_secs_f64() * 1e3)?;
    let mut batch = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let numbers = line.split_whitespace().map(str::parse);
        let numbers: Vec<usize> = numbers.collect::<Result<_, _>>()?;
        let &[count, height_px, width_px] = numbers.as_slice() else {
            return Err("expected COUNT HEIGHT WIDTH".into());
        };
        let images = vec![planes(height_px, width_px); count];
        let mut taken = || -> Result<f64, Anything> {
            if engine != "batch" {
                let started = Instant::now();
                let scores = match images.as_slice() {
                    [image] => vec![ours.scores(image)?],
                    tiles => ours.scores_of_tiles(tiles)?,
                };
                std::hint::black_box(scores);
                return Ok(started.elapsed().as_secs_f64() * 1e3);
            }
            let plan = match batch.take() {
                Some((size, plan)) if size == numbers => plan,
                _ => tract_onnx::onnx()
                    .model_for_read(&mut Cursor::new(&onnx))?
                    .with_input_fact(0, f32::fact([count, 3, height_px, width_px]).into())?
                    .into_optimized()?
                    .into_runnable()?,
            };
            let data: Vec<f32> = images
                .iter()
                .flat_map(|image| &image.data)
                .copied()
                .collect();
            let input = Tensor::from_shape(&[count, 3, height_px, width_px], &data)?;
            let started = Instant::now();
            std::hint::black_box(plan.run(tvec!(input.into()))?);
            let taken = started.elapsed().as_secs_f64() * 1e3;
            batch = Some((numbers.clone(), plan));
            Ok(taken)
        };
        writeln!(out, "{}", taken()?)?;
    }
    Ok(())
}

fn planes(height_px: usize, width_px: usize) -> Planes {
    let value = |index: usize| ((index * 7_919 % 1_021) as f64 / 510.0 - 1.0) as f32;
    Planes {
        channels: 3,
        width_px,
        height_px,
        data: (0..3 * width_px * height_px).map(value).collect(),
    }
}

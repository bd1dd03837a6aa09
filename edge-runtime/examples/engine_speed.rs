//! Times one ONNX graph as `cargo xtask bench-inference` asks for it: reads lines `HEIGHT WIDTH` from standard input, runs
//! the network once for each, prints the milliseconds it took.

use std::io::BufRead;
use std::time::Instant;

use edge_runtime::infer::{Engine, Tuning};
use edge_runtime::inspect::preprocess::Planes;
use edge_runtime::inspect::score::Shift;
use proto::manifest::Network;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(onnx), Some(width), Some(threads), Some(engine)) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
    ) else {
        return Err("expected ONNX WIDTH THREADS ours|stock".into());
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
        stock: engine == "stock",
        ..Tuning::default()
    };
    let onnx = std::fs::read(onnx)?;
    let started = Instant::now();
    let engine = Engine::tuned(&onnx, network, &tuning)?;
    println!("{}", started.elapsed().as_secs_f64() * 1e3);
    let mut kept: Option<Planes> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (height, width) = line.split_once(' ').ok_or("expected HEIGHT WIDTH")?;
        let (height_px, width_px): (usize, usize) = (height.parse()?, width.trim().parse()?);
        let planes = match kept.take() {
            Some(planes) if (planes.height_px, planes.width_px) == (height_px, width_px) => planes,
            _ => planes(height_px, width_px),
        };
        let started = Instant::now();
        let scores = engine.scores(&planes)?;
        println!("{}", started.elapsed().as_secs_f64() * 1e3);
        std::hint::black_box(scores);
        kept = Some(planes);
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

//! `vm-feed DEVICE FRAME_BYTES FRAMES_PER_SECOND [--loop] FILE…`: writes raw frames to a V4L2
//! loopback device at an even rate, each with one write.
//!
//! It runs in the guest of `cargo xtask vm-test`, after the device's format was set.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match feed(&arguments) {
        Ok(frames) => {
            println!("{frames} frames");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn feed(arguments: &[String]) -> io::Result<u64> {
    let usage = || io::Error::other("vm-feed DEVICE FRAME_BYTES FRAMES_PER_SECOND [--loop] FILE…");
    let (endless, words): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| *word == "--loop");
    let [device, frame_bytes, rate, files @ ..] = &words[..] else {
        return Err(usage());
    };
    let frame_bytes: usize = frame_bytes.parse().map_err(|_| usage())?;
    let rate: f64 = rate.parse().map_err(|_| usage())?;
    if files.is_empty() || frame_bytes == 0 || !(0.001..=1000.0).contains(&rate) {
        return Err(usage());
    }
    let mut frames = Vec::new();
    for file in files {
        let bytes = fs::read(file)?;
        if bytes.is_empty() || bytes.len() % frame_bytes != 0 {
            let length = bytes.len();
            let why = format!("{file}: {length} bytes are not a multiple of {frame_bytes}");
            return Err(io::Error::other(why));
        }
        frames.extend(bytes.chunks(frame_bytes).map(<[u8]>::to_vec));
    }
    let mut device = File::options().write(true).open(device)?;
    let started = Instant::now();
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut count = 0;
    loop {
        for frame in &frames {
            // Counted from the start, so that a late frame does not delay those after it.
            let due = started + interval.mul_f64(count as f64);
            sleep(due.saturating_duration_since(Instant::now()));
            let written = device.write(frame)?;
            if written != frame_bytes {
                return Err(io::Error::other(format!(
                    "the device took {written} of {frame_bytes} bytes: is its format set?"
                )));
            }
            count += 1;
        }
        if endless.is_empty() {
            return Ok(count);
        }
    }
}

//! What the camera's program inspects, and with what: a model package, the key that signed it, and
//! images of good and defective products.
//!
//! The default is a tiny model for small images. It finds strong defects only, but an emulated
//! guest scores many frames per second with it.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::devices::{Format, Pixels};
use super::tool::run_logged;

/// Commands of host-trainer that make it. They take seconds, and suffice to tell a drawn defect
/// from a good image.
const STEPS: [&str; 5] = [
    "synth data --size 80 --train 4 --test-good 4 --per-kind 1",
    "train --data data --run run --iterations 300 --size 80 --width 16 --batch 8 --tiles 20 \
     --loss l2 --hold-out 0.5 --threads 2 --device cpu --checkpoint-every 300",
    "keygen --out k.key",
    "package --run run --key k.key --name tiny --out m.awr",
    "package --run run --key k.key --name tiny --version 2 --out n.awr",
];

/// The folder with package, key and images.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    folder: PathBuf,
}

/// An image as a camera delivers it.
#[derive(Clone, Debug)]
pub(crate) struct RawFrame {
    pub(crate) format: Format,
    pub(crate) bytes: Vec<u8>,
}

impl Material {
    /// Opens a folder with `m.awr`, `k.key.pub` and `data`, laid out as by `host-trainer synth`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let material = Self {
            folder: folder.to_owned(),
        };
        for part in [material.package(), material.key()] {
            if !part.is_file() {
                bail!("{} does not exist", part.display());
            }
        }
        material.images("good")?;
        Ok(material)
    }

    /// Makes it with `host-trainer` in `folder`.
    pub(crate) fn make(trainer: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let log = folder.join("log");
        for step in STEPS {
            let mut command = Command::new(trainer);
            command.args(step.split_whitespace()).current_dir(folder);
            run_logged(&mut command, &log, Duration::from_secs(300))
                .with_context(|| format!("host-trainer {step}"))?;
        }
        Self::open(folder)
    }

    /// Path of the model package.
    pub(crate) fn package(&self) -> PathBuf {
        self.folder.join("m.awr")
    }

    /// Contents of another package by the same signer.
    pub(crate) fn second_package(&self) -> Result<Vec<u8>> {
        let path = self.folder.join("n.awr");
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Path of the signer's public key.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("k.key.pub")
    }

    /// Paths of the test images of a kind (`good`, or a defect such as `scratch`), in order.
    pub(crate) fn images(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("data/test").join(kind);
        let entries =
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut images: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        images.sort();
        if images.is_empty() {
            bail!("no images in {}", folder.display());
        }
        Ok(images)
    }
}

/// Reads the pixels of an 8-bit PNG, grey or colour, as they are.
pub(crate) fn raw_frame(image: &Path) -> Result<RawFrame> {
    let file = File::open(image).with_context(|| format!("reading {}", image.display()))?;
    let read = || -> Result<RawFrame> {
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
        let length = reader.output_buffer_size().context("too large")?;
        let mut bytes = vec![0; length];
        let info = reader.next_frame(&mut bytes)?;
        bytes.truncate(info.buffer_size());
        let pixels = match (info.color_type, info.bit_depth) {
            (png::ColorType::Grayscale, png::BitDepth::Eight) => Pixels::Grey,
            (png::ColorType::Rgb, png::BitDepth::Eight) => Pixels::Rgb,
            (other, depth) => {
                bail!("expected 8-bit grey or RGB, found {other:?} of {depth:?} bits")
            }
        };
        let format = Format {
            width_px: usize::try_from(info.width)?,
            height_px: usize::try_from(info.height)?,
            pixels,
        };
        Ok(RawFrame { format, bytes })
    };
    read().with_context(|| format!("decoding {}", image.display()))
}

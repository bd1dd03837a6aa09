//! `host-trainer recommend`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use host_trainer::dataset::{Account, Colour, Found, Survey, training_files};
use host_trainer::network::{Architecture, CHANNELS, Network, OutputActivation, inference_layers};
use host_trainer::onnx::export;
use host_trainer::surface::{Advice, ImageMeasurements, Surface};
use proto::manifest::{InputSize, Reading, TILE_PX, TrainingMode};
use scoring::infer::Engine;
use scoring::inspect::preprocess::Planes;
use scoring::inspect::score::Shift;
use scoring::io::image_file::read_frame_as;

use super::notices::report_account;
use super::progress;
use super::shell::{print, quoted, quoted_path};
use super::text::Recommendation;

/// Measure good images and recommend settings for the surface, with reasons.
///
/// Reads every image once, and says what would not be used and what looks wrong. The width of the network follows from the time that a frame may take, measured on
/// this machine: run it on the camera's processor, or scale --frame-ms accordingly. The command to
/// train with is printed at the end.
#[derive(Args)]
pub(crate) struct Recommend {
    /// Folder of good images, or a data set in MVTec AD's layout.
    #[arg(long)]
    data: PathBuf,
    /// Perceptual features to train with: builtin, a file or random:SEED (see train --help).
    #[arg(long, default_value = "builtin")]
    features: String,
    /// Milliseconds that scoring a frame may take on one thread.
    #[arg(long, default_value_t = 50.0, value_parser = milliseconds)]
    frame_ms: f64,
    /// Most images to measure, spread evenly over all.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    images: u16,
    /// Go on if more than a tenth of the images cannot be read.
    #[arg(long)]
    allow_unreadable: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("expected a number of milliseconds above 0".to_owned()),
    }
}

/// Widths to choose from, widest first.
const WIDTHS: [u16; 4] = [128, 64, 32, 16];

/// What was found of a data set's good images.
pub(crate) struct Look {
    pub(crate) account: Account,
    pub(crate) surface: Surface,
    /// Settings of `host-trainer train`, except the width.
    pub(crate) settings: Vec<Advice>,
}

/// Reads all good images of a data set, measures at most `most` of them, and says what was used.
pub(crate) fn look(
    data: &Path,
    most: usize,
    allow_unreadable: bool,
    photographs: bool,
) -> Result<Look> {
    let Found { items, mut account } = training_files(data)?;
    let bar = progress::bar(items.len(), "looking at images");
    let mut reading = Reading::default();
    let survey = Survey::of(&items, InputSize::Native, &reading, &mut |done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let mut suited = survey.account(&mut account, allow_unreadable);
    account.bits = survey.bits();
    reading.bits = account.bits.unwrap_or(16);
    let colour = survey.colour(Colour::Auto, &mut account);
    if suited.is_ok() {
        suited = survey.check_suitable(reading.bits, &mut account);
    }
    report_account("training set", &account);
    suited?;
    let files = survey.files();
    let step = files.len().div_ceil(most).max(1);
    let chosen: Vec<&PathBuf> = files.iter().step_by(step).collect();
    let bar = progress::bar(chosen.len(), "measuring images");
    let mut measured = Vec::new();
    for (index, file) in chosen.iter().enumerate() {
        measured.push(ImageMeasurements::of(&read_frame_as(file, &reading)?));
        bar.set_position(index as u64 + 1);
    }
    bar.finish_and_clear();
    let surface = Surface::of(&measured, files.len())
        .with_context(|| format!("none of the images in {} can be read", data.display()))?;
    let mut settings = surface.advice(photographs);
    // A few colour files among grey ones must not turn the measured mean.
    if let Some(advice) = settings.iter_mut().find(|advice| advice.option == "colour")
        && colour == Colour::Grey
        && advice.value != "grey"
    {
        advice.value = "grey".to_owned();
        advice.why = "most images are grey".to_owned();
    }
    if reading.bits < 16 {
        settings.push(Advice {
            option: "bits",
            value: reading.bits.to_string(),
            why: "the fewest bits that hold all values of the 16-bit files".to_owned(),
        });
    }
    Ok(Look {
        account,
        surface,
        settings,
    })
}

/// Whether features come from a network trained on photographs.
pub(crate) fn of_photographs(features: &str) -> bool {
    features != "builtin" && !features.starts_with("random:")
}

impl Recommend {
    pub(crate) fn run(self) -> Result<()> {
        let photographs = of_photographs(&self.features);
        let most = usize::from(self.images);
        let Look {
            account,
            surface,
            mut settings,
        } = look(&self.data, most, self.allow_unreadable, photographs)?;
        let (width_px, height_px, _) = surface.size();
        let upsampled = surface.upsampled();
        settings.push(width_within(self.frame_ms, [width_px, height_px], upsampled)?.0);
        let data = quoted_path(&self.data);
        let mut command = format!("host-trainer train --data {data} --run RUN");
        if self.features != "builtin" {
            command += &format!(" --features {}", quoted(&self.features));
        }
        for advice in &settings {
            command += &format!(" {}", advice.argument());
        }
        let recommendation = Recommendation {
            schema: 1,
            account,
            warnings: surface.warnings(),
            package: surface.package_advice(),
            surface,
            settings,
            command,
        };
        if self.json {
            return Ok(print(&serde_json::to_string_pretty(&recommendation)?)?);
        }
        Ok(print(&recommendation.in_words(photographs))?)
    }
}

/// The widest network that scores a frame in this time, measured on one thread of this machine.
/// Also says whether there is one.
pub(crate) fn width_within(
    frame_ms: f64,
    size: [u32; 2],
    upsampled: bool,
) -> Result<(Advice, bool)> {
    let bar = progress::bar(WIDTHS.len(), "measuring how long a frame takes");
    let (mut width, mut taken_ms, mut all) = (WIDTHS[0], 0.0, Vec::new());
    for (index, candidate) in WIDTHS.into_iter().enumerate() {
        let architecture = Architecture {
            width: i64::from(candidate),
            upsampled,
        };
        (width, taken_ms) = (candidate, frame_time_ms(&architecture, size)?);
        all.push(format!("{candidate}: {taken_ms:.0} ms"));
        bar.set_position(index as u64 + 1);
        if taken_ms <= frame_ms {
            break;
        }
    }
    bar.finish_and_clear();
    let measured = all.join(", ");
    let why = if taken_ms <= frame_ms {
        format!(
            "the widest one that scores a frame in {frame_ms:.0} ms on one thread here ({measured})"
        )
    } else {
        format!(
            "no width scores a frame in {frame_ms:.0} ms on one thread here ({measured}); a smaller --size or more \
             threads would"
        )
    };
    let advice = Advice {
        option: "width",
        value: width.to_string(),
        why,
    };
    Ok((advice, taken_ms <= frame_ms))
}

/// The shortest of five times that scoring a frame of this size takes.
fn frame_time_ms(architecture: &Architecture, size: [u32; 2]) -> Result<f64> {
    let network = Network::initialise(CHANNELS, architecture, 0, tch::Device::Cpu)?;
    let onnx = export(
        &inference_layers(network.weights()?, architecture.upsampled)?,
        TrainingMode::Direct,
        OutputActivation::RefRelu,
        &[],
        None,
    );
    let engine = Engine::from_onnx(&onnx, architecture.shape())?;
    let [width_px, height_px] =
        size.map(|side| (side.max(TILE_PX) as usize - 1).div_ceil(8) * 8 + 1);
    let planes = Planes {
        channels: CHANNELS as usize,
        width_px,
        height_px,
        data: vec![0.5; CHANNELS as usize * width_px * height_px],
    };
    let mut best = f64::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        std::hint::black_box(engine.scores(&planes)?);
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

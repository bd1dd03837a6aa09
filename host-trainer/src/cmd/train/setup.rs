//! From the arguments to what training needs: the teacher, the loss, the images, and the
//! description of the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use host_trainer::dataset::{
    Account, Colour, Found, Groups, Kept, Survey, TrainingImage, TrainingSet, UsableImage, hex,
    split, training_files, usable,
};
use host_trainer::network::Network;
use host_trainer::perceptual::Features;
use host_trainer::run_folder::{self, Identities, Run};
use host_trainer::train::{Checkpoint, Loss, LossKind, Ssim};
use proto::manifest::{ColourMode, InputSize, Reading, TrainingMode};
use tch::Device;

use super::arguments::{Caller, Train};
use super::resume::split_as_before;
use crate::cmd::notices::{report_account, report_ungrouped};
use crate::cmd::progress;

/// The network to imitate.
pub(super) struct Teacher {
    description: String,
    run: Run,
    pub(super) network: Network,
}

/// Memory for frames. Where they would take more, only their tiles are kept, in a file.
const MOST_FRAME_BYTES: usize = 512 << 20;

/// What the images of a run are known by.
fn identities(
    train: &[TrainingImage],
    held_out: &[UsableImage],
    groups: &Groups,
    teacher: Option<&Run>,
) -> Identities {
    let part = |file: &Path| groups.known_part(file).map(str::to_owned);
    let mut identities = Identities {
        train_pixels: train.iter().map(|image| hex(&image.pixels)).collect(),
        held_out_digests: held_out.iter().map(|image| hex(&image.digest)).collect(),
        held_out_pixels: held_out.iter().map(|image| hex(&image.pixels)).collect(),
        ..Identities::default()
    };
    if groups.is_given() {
        identities.train_parts = train.iter().map(|image| part(&image.file)).collect();
        identities.held_out_parts = held_out.iter().map(|image| part(&image.file)).collect();
    }
    if let Some(Identities {
        train_pixels,
        train_parts,
        teacher_pixels,
        teacher_parts,
        ..
    }) = teacher.map(|run| &run.identities)
    {
        identities.teacher_pixels = [&train_pixels[..], teacher_pixels].concat();
        let parts = train_parts.iter().flatten().chain(teacher_parts);
        identities.teacher_parts = parts.cloned().collect();
    }
    identities
}

/// The images of a run, and which of them are held out.
pub(super) struct Images {
    groups: Groups,
    pub(super) set: TrainingSet,
    held_out: Vec<UsableImage>,
    /// What was used of the data set.
    pub(super) account: Account,
}

/// The images of a data set that suit training, and how to read them.
struct Suitable {
    size: InputSize,
    survey: Survey,
    colour: Colour,
    reading: Reading,
    account: Account,
}

impl Train {
    /// Loads the network to imitate, if there is one.
    pub(super) fn load_teacher(&self, device: Device) -> Result<Option<Teacher>> {
        let Some(folder) = &self.teacher else {
            return Ok(None);
        };
        let run = Run::read(folder)?;
        if [run.mode, self.mode()] != [TrainingMode::Direct; 2] {
            bail!("--teacher is for mode direct, of the teacher and of this run");
        }
        let saved = Checkpoint::open(&run_folder::checkpoint(folder))?;
        let network = Network::from_weights(&saved.layers(&run.architecture())?, device)?;
        Ok(Some(Teacher {
            description: format!(
                "a network of width {}, {} iterations, seed {}, SHA-256 {}…",
                run.width,
                saved.progress.iterations,
                run.seed,
                &saved.sha256()[..8]
            ),
            run,
            network,
        }))
    }

    /// Makes the loss.
    pub(super) fn make_loss(&self, device: Device) -> Result<Loss> {
        Ok(match self.loss {
            // A teacher replaces the loss, so any one that needs no file will do.
            _ if self.teacher.is_some() => Loss::L2,
            LossKind::L2 => Loss::L2,
            LossKind::Ssim => Loss::Ssim(Ssim::new(device)?),
            LossKind::Perceptual => {
                let features = match self.features.strip_prefix("random:") {
                    _ if self.features == "builtin" => Features::built_in(device)?,
                    Some(seed) => {
                        let seed = seed.parse().with_context(|| {
                            format!("--features random:SEED, found seed `{seed}`")
                        })?;
                        Features::random(seed, device)?
                    }
                    None => Features::from_file(Path::new(&self.features), device)?,
                };
                Loss::Perceptual(features.with_depth(self.feature_depth))
            }
        })
    }

    /// Looks at all images, and checks that they suit training before any time is spent on it.
    fn survey_images(&self, before: Option<&Run>) -> Result<Suitable> {
        let Found { items, mut account } = training_files(&self.data)?;
        // A run is resumed as it was begun.
        let mut reading = before.map_or_else(
            || Reading {
                bits: self.bits.unwrap_or(16),
                ..Reading::default()
            },
            |before| before.reading,
        );
        let bar = progress::bar(items.len(), "looking at images");
        // A shape that follows from the images is known later; their own size is all that matters
        // here.
        let looked_at = self.size.for_images([1, 1]);
        let survey = Survey::of(&items, looked_at, &reading, &mut |done| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let mut suited = survey.account(&mut account, self.allow_unreadable);
        let found = survey.bits();
        if before.is_none() && self.bits.is_none() {
            reading.bits = found.unwrap_or(16);
        }
        account.bits = found.map(|_| reading.bits);
        if let Some(found) = found.filter(|found| *found < 16 && self.bits.is_none()) {
            account.warn(format!(
                "the values in the 16-bit files have {found} bits and are scaled by that; --bits \
                 says otherwise"
            ));
        }
        let colour = match before.map(|before| before.input.colour) {
            Some(ColourMode::Grey) => Colour::Grey,
            Some(ColourMode::Rgb) => Colour::Rgb,
            None => survey.colour(self.colour, &mut account),
        };
        if suited.is_ok() {
            suited = survey.check_suitable(reading.bits, &mut account);
        }
        if matches!(self.caller, Caller::Person | Caller::Fit { looked: false }) {
            report_account("training set", &account);
        }
        suited?;
        let size = self.size.for_images(survey.usual_size().unwrap_or([1, 1]));
        Ok(Suitable {
            size,
            survey,
            colour,
            reading,
            account,
        })
    }

    /// Reads the images, and holds some of them out: those that the run did not train on before, if
    /// it is resumed.
    pub(super) fn load_images(&self, device: Device, before: Option<&Run>) -> Result<Images> {
        let Suitable {
            size,
            survey,
            colour,
            reading,
            account,
        } = self.survey_images(before)?;
        let files = survey.files();
        let mut groups = match &self.groups {
            Some(path) => Groups::read(path, &self.data)?,
            None => Groups::default(),
        };
        if self.caller != Caller::Trial {
            report_ungrouped(&groups, &files)?;
        }
        if self.hold_out > 0.0 {
            groups.join_copies(&survey);
        }
        let split = match before {
            Some(before) => split_as_before(&files, &self.data, before)?,
            None => split(&files, &groups, self.hold_out, self.seed)?,
        };
        let bar = progress::bar(split.train.len(), "reading images");
        let set = TrainingSet::load_within(
            &split.train,
            size,
            colour,
            reading,
            Kept {
                most_bytes: MOST_FRAME_BYTES,
                appearance: self.rare > 0.0,
            },
            &mut |done| bar.set_position(done as u64),
        )?;
        bar.finish_and_clear();
        // Checked now, not after hours of training, when `package` needs them.
        let bar = progress::bar(split.held_out.len(), "reading held-out images");
        let (held_out, unusable) = usable(&split.held_out, &set.input, &reading, &mut |done| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        if self.caller != Caller::Trial {
            for skipped in set.skipped.iter().chain(&unusable) {
                eprintln!("left out {}: {}", skipped.file.display(), skipped.reason);
            }
            eprintln!(
                "{} images to train on, {} held out, on {device:?}",
                set.images.len(),
                held_out.len()
            );
        }
        Ok(Images {
            groups,
            set,
            held_out,
            account,
        })
    }

    /// Describes everything that decides the result.
    pub(super) fn describe(&self, images: &Images, teacher: Option<&Teacher>) -> Result<Run> {
        let Images {
            groups,
            set,
            held_out,
            ..
        } = images;
        let images = &set.images;
        if let Some(teacher) = teacher.filter(|teacher| teacher.run.input != set.input) {
            bail!(
                "the teacher sees {:?}, this run {:?}: its maps would be of something else; give its --size and --colour",
                teacher.run.input,
                set.input
            );
        }
        let mode = self.mode();
        let noise = match mode {
            TrainingMode::Reconstruction => "none".to_owned(),
            TrainingMode::Direct | TrainingMode::Denoising => self.noise_bank()?.describe(),
        };
        // Absolute paths, so that `package` finds the images from any folder.
        let absolute = |file: &PathBuf| {
            std::path::absolute(file).with_context(|| format!("finding {}", file.display()))
        };
        Ok(Run {
            schema: Run::schema(),
            quiet: self.quiet,
            lighting: self.lighting,
            rare: self.rare,
            average: self.average,
            schedule: self.schedule,
            teacher: teacher.map(|teacher| teacher.description.clone()),
            teacher_digests: teacher
                .map(|Teacher { run, .. }| [&run.train_digests[..], &run.teacher_digests].concat())
                .unwrap_or_default(),
            mode,
            loss: self.loss,
            activation: self.activation,
            features: self.features_label(teacher)?,
            noise,
            width: i64::from(self.width),
            upsampled: self.upsampled,
            iterations: self.iterations,
            batch: self.batch,
            tiles: self.tiles,
            seed: self.seed,
            hold_out: Some(self.hold_out),
            input: set.input,
            reading: set.reading,
            train_files: images
                .iter()
                .map(|image| absolute(&image.file))
                .collect::<Result<_>>()?,
            train_digests: images.iter().map(|image| hex(&image.digest)).collect(),
            held_out_parts: held_out
                .iter()
                .map(|image| groups.part(&image.file))
                .collect(),
            held_out: held_out
                .iter()
                .map(|image| absolute(&image.file))
                .collect::<Result<_>>()?,
            identities: identities(
                images,
                held_out,
                groups,
                teacher.map(|teacher| &teacher.run),
            ),
        })
    }

    /// The perceptual features in words.
    fn features_label(&self, teacher: Option<&Teacher>) -> Result<String> {
        if let Some(teacher) = teacher {
            // The teacher learned from these features, so the student does too.
            return Ok(format!("{} (its teacher's)", teacher.run.features));
        }
        Ok(match self.loss {
            LossKind::Perceptual => match self.make_loss(Device::Cpu)? {
                Loss::Perceptual(features) => features.label().to_owned(),
                Loss::L2 | Loss::Ssim(_) => String::new(),
            },
            LossKind::L2 | LossKind::Ssim => "none".to_owned(),
        })
    }
}

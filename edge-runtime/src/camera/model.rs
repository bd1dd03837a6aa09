//! The model at the start, from the configuration.

use anyhow::{Context, Result};
use edge_runtime::config::Config;
use edge_runtime::error_text::one_line;
use edge_runtime::model::requirements::Requirements;
use edge_runtime::model::startup::StartupModel;
use edge_runtime::model::store::Store;
use edge_runtime::model::update::Updater;
use proto::message::cut_text;
use proto::report::Event;
use scoring::infer::{Half, Tuning};
use scoring::inspect::roi::check;
use scoring::io::image_file::read_roi_mask;
use scoring::package::{self, Trust, read_public_key};

/// How to run the network: threads, precision, and a file that caches kernel benchmarks.
fn tuning(config: &Config) -> Tuning {
    let inspection = &config.inspection;
    // A scoring thread does a share of the work for its frame itself. The other
    // `threads_per_frame - 1` threads help all scoring threads.
    let wanted = inspection.threads + inspection.threads_per_frame - 1;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if wanted > cores {
        tracing::warn!(
            wanted,
            cores,
            "more scoring threads than cores: they will wait for each other \
             (inspection.threads, threads_per_frame)"
        );
    }
    Tuning {
        threads: inspection.threads_per_frame,
        kernel_file: Some(config.state.join("kernels.json")),
        half: if inspection.half_precision {
            Half::WhereNative
        } else {
            Half::Off
        },
        ..Tuning::default()
    }
}

/// What the configuration requires of packages.
fn requirements(config: &Config) -> Result<Requirements> {
    let keys: Result<Vec<_>, _> = config
        .model
        .trust
        .iter()
        .map(|path| read_public_key(path))
        .collect();
    let roi = match &config.model.roi_mask {
        None => None,
        Some(path) => {
            let roi = read_roi_mask(path)?;
            check(&roi).with_context(|| format!("model.roi_mask {}", path.display()))?;
            Some(roi)
        }
    };
    Ok(Requirements {
        trust: Trust::Only(keys?),
        roi,
        threshold: config.model.threshold,
        min_version: config.min_version(),
        any_input: config.model.any_input,
        tuning: tuning(config),
    })
}

/// The model at the start: the active one of the slots, or the configured package.
pub(super) fn startup_model(config: &Config) -> Result<StartupModel> {
    let requirements = requirements(config)?;
    let (store, warning) = Store::open(&config.state.join("slots"));
    let warning = warning.map(|warning| one_line(&warning));
    if let Some(error) = &warning {
        tracing::error!(error, "cannot use slots.json");
    }
    let mut refused = None;
    let configured = match &config.model.package {
        None => None,
        Some(path) => match package::read(path, &requirements.trust) {
            Ok(package) => Some(package),
            // With a package in a slot the camera can inspect without the file.
            Err(error) if store.slots().active().is_some() => {
                let reason = one_line(&error);
                tracing::error!(reason, "cannot use the configured package");
                refused = Some(Event::PackageRefused {
                    reason: cut_text(&reason),
                    station: String::new(),
                });
                None
            }
            Err(error) => return Err(error.into()),
        },
    };
    let started = Updater::start(store, requirements, configured.as_ref()).with_context(|| {
        let path = config.model.package.as_ref();
        path.map_or_else(
            || "slots".to_owned(),
            |path| format!("package {}", path.display()),
        )
    });
    let mut model = started?;
    // Reported too, because nobody may read the log.
    let unusable_slots = warning.map(|reason| Event::PackageRefused {
        reason: cut_text(&reason),
        station: String::new(),
    });
    model.events.splice(0..0, unusable_slots);
    model.events.extend(refused);
    Ok(model)
}

//! The runs of the paper's experiments.

use std::path::{Path, PathBuf};

/// A way to train, as its difference from the paper's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in tables and figures.
    pub name: &'static str,
    /// Additional options of `host-trainer train`.
    pub train: &'static [&'static str],
}

/// Name of the method itself, with the paper's settings. Whether it is the paper's in all depends on
/// the features too.
pub(super) const DIRECT: &str = "direct";
/// The paper's network trained to reproduce its input, with the losses of the paper's baselines. The
/// baselines themselves are other networks.
const SAME_NETWORK_L2: &str = "autoencoder, L2";
const SAME_NETWORK_SSIM: &str = "autoencoder, SSIM";

/// All settings.
pub const SETTINGS: [Setting; 24] = {
    const fn setting(name: &'static str, train: &'static [&'static str]) -> Setting {
        Setting { name, train }
    }
    [
        setting(DIRECT, &[]),
        setting("native size", &["--size", "native"]),
        setting("only opaque", &["--noise", "opaque"]),
        setting("only transparent", &["--noise", "transparent"]),
        setting("only speckle", &["--noise", "speckle"]),
        setting("only distribution", &["--noise", "distribution"]),
        setting("only morphological", &["--noise", "morphological"]),
        setting("no opaque", &["--without", "opaque"]),
        setting("no transparent", &["--without", "transparent"]),
        setting("no speckle", &["--without", "speckle"]),
        setting("no distribution", &["--without", "distribution"]),
        setting("no morphological", &["--without", "morphological"]),
        setting("tanh", &["--activation", "tanh"]),
        setting("no activation", &["--activation", "none"]),
        setting("denoising", &["--mode", "denoising"]),
        setting(
            SAME_NETWORK_L2,
            &["--mode", "reconstruction", "--loss", "l2"],
        ),
        setting(
            SAME_NETWORK_SSIM,
            &["--mode", "reconstruction", "--loss", "ssim"],
        ),
        setting("each scale", &["--feature-depth", "each-scale"]),
        setting("quiet", &["--quiet", "1"]),
        setting("lighting", &["--lighting", "0.3"]),
        setting("average", &["--average", "0.999"]),
        setting("structured", &["--structured"]),
        setting("upsampled", &["--upsampled"]),
        setting(
            "ours",
            &[
                "--feature-depth",
                "each-scale",
                "--quiet",
                "1",
                "--lighting",
                "0.3",
                "--average",
                "0.999",
            ],
        ),
    ]
};

/// An experiment: settings that are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Experiment {
    /// The method beside its own network as an autoencoder with L2 and SSIM losses, and as a
    /// denoising one (Table I).
    Baselines,
    /// The method alone, over seeds (Table I, Fig. 2).
    Seeds,
    /// Images resized to 256×256 and at their native size (VI-A, Fig. 4).
    Resize,
    /// Each family of noise alone (VI-B, Fig. 8).
    NoiseAlone,
    /// All families of noise but one (VI-B, Fig. 9).
    NoiseWithout,
    /// Activation of the output (VI-E, Fig. 15).
    Activation,
    /// The method beside a denoising autoencoder: scores of normal pixels (VI-D, Fig. 13, 14).
    Direct,
    /// Additions of this project, each alone and several together.
    Ours,
}

impl Experiment {
    /// All experiments.
    pub const ALL: [Self; 8] = [
        Self::Baselines,
        Self::Seeds,
        Self::Resize,
        Self::NoiseAlone,
        Self::NoiseWithout,
        Self::Activation,
        Self::Direct,
        Self::Ours,
    ];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Baselines => "Beside the baselines (Table I)",
            Self::Seeds => "Over seeds (Table I, Fig. 2)",
            Self::Resize => "Resized or not (Fig. 4)",
            Self::NoiseAlone => "Each family of noise alone (Fig. 8)",
            Self::NoiseWithout => "All families of noise but one (Fig. 9)",
            Self::Activation => "Output activation (Fig. 15)",
            Self::Direct => "Direct or denoising (Fig. 13, 14)",
            Self::Ours => "What this project adds",
        }
    }

    /// What the paper finds.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Baselines => {
                "Mean pixel AUROC over five textures: 0.96; AE (L2) 0.70, AE (SSIM) 0.78."
            }
            Self::Seeds => {
                "Mean of 8 seeds: carpet 0.93, grid 0.95, leather 0.98, tile 0.98, wood 0.95."
            }
            Self::Resize => "Full-size images are worse, most on carpet and grid.",
            Self::NoiseAlone | Self::NoiseWithout => {
                "Variety matters; no single family carries it."
            }
            Self::Activation => "RefReLU beats tanh clearly and none slightly.",
            Self::Direct => {
                "On leather almost all normal pixels score below 0.03; as a denoising autoencoder \
                 the same network spreads around 0.13."
            }
            Self::Ours => "Not in the paper.",
        }
    }

    /// Whether it also compares the scores of normal pixels.
    pub fn shows_normal_scores(self) -> bool {
        matches!(self, Self::Direct | Self::Ours)
    }

    /// Names of its settings, in the order of the figure.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Baselines => &[SAME_NETWORK_L2, SAME_NETWORK_SSIM, "denoising", DIRECT],
            Self::Seeds => &[DIRECT],
            Self::Resize => &[DIRECT, "native size"],
            Self::NoiseAlone => &[
                "only opaque",
                "only transparent",
                "only speckle",
                "only distribution",
                "only morphological",
                DIRECT,
            ],
            Self::NoiseWithout => &[
                "no opaque",
                "no transparent",
                "no speckle",
                "no distribution",
                "no morphological",
                DIRECT,
            ],
            Self::Activation => &["tanh", "no activation", DIRECT],
            Self::Direct => &["denoising", DIRECT],
            Self::Ours => &[
                DIRECT,
                "each scale",
                "quiet",
                "lighting",
                "average",
                "structured",
                "upsampled",
                "ours",
            ],
        }
    }
}

/// The paper's pixel AUROC for a class of MVTec AD (Table I).
pub(super) fn papers_auroc(data: &str) -> Option<f64> {
    let classes = [
        ("carpet", 0.93),
        ("grid", 0.95),
        ("leather", 0.98),
        ("tile", 0.98),
        ("wood", 0.95),
    ];
    let class = classes.into_iter().find(|(class, _)| *class == data);
    class.map(|(_, auroc)| auroc)
}

/// One run: a setting on a data set with a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The data set.
    pub data: PathBuf,
    /// The setting.
    pub setting: Setting,
    /// The seed.
    pub seed: u64,
}

impl Job {
    /// The data set's name.
    pub fn data_name(&self) -> String {
        let name = self.data.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Its name, which is also a valid file name.
    pub fn id(&self) -> String {
        let name = format!("{}-{}-{}", self.data_name(), self.setting.name, self.seed);
        let plain = |c: char| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => Some(c),
            ' ' => Some('-'),
            _ => None,
        };
        name.chars().filter_map(plain).collect()
    }
}

/// The settings that the experiments need, each once.
pub fn plan(experiments: &[Experiment]) -> Vec<Setting> {
    let needed = |setting: &Setting| {
        let mut names = experiments
            .iter()
            .flat_map(|experiment| experiment.settings());
        names.any(|name| *name == setting.name)
    };
    SETTINGS.into_iter().filter(needed).collect()
}

/// The runs of the experiments. All settings with the first seed come first, so that early results
/// cover everything.
pub fn jobs(experiments: &[Experiment], data: &[&Path], seeds: u64) -> Vec<Job> {
    let settings = plan(experiments);
    let mut jobs = Vec::new();
    for seed in 0..seeds {
        for data in data {
            jobs.extend(settings.iter().map(|&setting| Job {
                data: data.to_path_buf(),
                setting,
                seed,
            }));
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_belongs_to_an_experiment_and_every_run_occurs_once() {
        assert_eq!(plan(&Experiment::ALL).len(), SETTINGS.len());
        let names = Experiment::ALL.into_iter().flat_map(Experiment::settings);
        for name in names {
            assert!(SETTINGS.iter().any(|s| s.name == *name), "{name}");
        }
        let data = [Path::new("a/carpet"), Path::new("b/grid")];
        let jobs = jobs(&Experiment::ALL, &data, 3);
        let ids: HashSet<String> = jobs.iter().map(Job::id).collect();
        assert_eq!(ids.len(), SETTINGS.len() * 2 * 3);
        assert_eq!(jobs.len(), ids.len());
        assert!(ids.contains("carpet-autoencoder-L2-2"));
    }
}

//! `host-trainer reproduce`.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use host_trainer::evaluate::Summary;
use host_trainer::perceptual::Features;
use host_trainer::run_folder;
use host_trainer::study::{
    Experiment, Job, Results, RunResult, html, jobs, normal_scores, png, scores,
};
use host_trainer::train::{BATCH, Checkpoint, ITERATIONS};
use host_trainer::weights::WeightSet;
use scoring::io::atomic::write_atomic;
use scoring::package::write_key_pair;
use serde::{Deserialize, Serialize};

use super::keys::new_signing_key;
use super::shell::{print, quoted};

/// Run the paper's experiments on MVTec AD's textures, or on any data sets.
///
/// Each run is trained, packaged and evaluated, and adds a row to OUT/results.csv; figures (SVG,
/// PNG) and OUT/index.html are made from that table. It can be stopped at any moment; the same
/// command continues. Several processes may share OUT, on several GPUs or machines: each takes a
/// run that no other has. The defaults are the paper's, except for --features, and take a GPU; a
/// reduced study (--width 16 --batch 16 --iterations 300 --seeds 2) runs on a CPU.
#[derive(Args)]
pub(crate) struct Reproduce {
    /// Folder of MVTec AD: carpet, grid, leather, tile and wood are taken from it.
    #[arg(long, value_name = "DIR")]
    mvtec: Option<PathBuf>,
    /// A data set in MVTec AD's layout; may be given several times.
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Folder for the table, the figures and the page.
    #[arg(long)]
    out: PathBuf,
    /// Experiments, separated by commas (default: all).
    #[arg(long, value_enum, value_delimiter = ',')]
    experiments: Vec<Experiment>,
    /// Number of seeds of each setting.
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Channels after the first convolution.
    #[arg(long, default_value_t = 128)]
    width: u32,
    /// Number of iterations.
    #[arg(long, default_value_t = ITERATIONS)]
    iterations: usize,
    /// Tiles per iteration.
    #[arg(long, default_value_t = BATCH)]
    batch: usize,
    /// Perceptual features: builtin, a .safetensors file or random:SEED as for `train` (default:
    /// VGG-11, the paper's, if `fetch-weights vgg11` fetched it, or else builtin).
    #[arg(long)]
    features: Option<String>,
    /// Device to train on: cpu, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads for libtorch (default: all cores).
    #[arg(long)]
    threads: Option<u16>,
    /// Do only the run of this name (--list names them).
    #[arg(long, value_name = "RUN")]
    only: Option<String>,
    /// Only print the command of each run that is still to be done: for a queue of jobs.
    #[arg(long)]
    list: bool,
    /// Keep every run's folder and package in OUT/runs.
    #[arg(long)]
    keep: bool,
}

/// Settings that all runs of a study share.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Conditions {
    schema: u32,
    width: u32,
    iterations: usize,
    batch: usize,
    features: String,
}

impl std::fmt::Display for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            width,
            iterations,
            batch,
            features,
            ..
        } = self;
        write!(
            f,
            "width {width}, {iterations} iterations of {batch} tiles, features {features}"
        )
    }
}

/// MVTec AD's textures (Table I).
const TEXTURES: [&str; 5] = ["carpet", "grid", "leather", "tile", "wood"];

impl Reproduce {
    pub(crate) fn run(self) -> Result<()> {
        let data = self.data_sets()?;
        let data: Vec<&Path> = data.iter().map(PathBuf::as_path).collect();
        let experiments = self.experiments();
        let results = Results::at(&self.out.join("results.csv"));
        let all = jobs(&experiments, &data, self.seeds);
        let ids: HashSet<String> = all.iter().map(Job::id).collect();
        if ids.len() < all.len() {
            bail!("two data sets have the same name, and their rows would too: rename a folder");
        }
        let mut wanted = all.clone();
        if let Some(only) = &self.only {
            wanted.retain(|job| job.id() == *only);
            if wanted.is_empty() {
                bail!("no run is called `{only}`; --list names those that are to be done");
            }
        }
        let done = results.rows()?;
        wanted.retain(|job| done.iter().all(|row| row.run != job.id()));
        if self.list {
            for job in &wanted {
                print(&self.command_for(job)?)?;
            }
            return Ok(());
        }
        self.check_conditions()?;
        for folder in ["runs", "metrics", "figures"] {
            let folder = self.out.join(folder);
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        let count = wanted.len();
        let mut failed = Vec::new();
        for (index, job) in wanted.iter().enumerate() {
            let lock = self.out.join("runs").join(job.id() + ".lock");
            let lock = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    eprintln!("{}: another process works on it", job.id());
                    continue;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| {
                        format!(
                            "locking in {}: use a file system that can",
                            self.out.display()
                        )
                    });
                }
            }
            // Another process may have done the run meanwhile.
            if results.rows()?.iter().any(|row| row.run == job.id()) {
                continue;
            }
            eprintln!("run {} of {count}: {}", index + 1, job.id());
            // A setting that does not suit the data does not stop the others.
            match self.do_one(job, &lock) {
                Ok(row) => {
                    results.add(&row)?;
                    self.clear(job)?;
                }
                Err(error) => {
                    eprintln!("{}: {error:#}", job.id());
                    failed.push(job.id());
                }
            }
            self.write_page(&experiments, &results.rows()?)?;
        }
        let rows = results.rows()?;
        self.write_page(&experiments, &rows)?;
        self.write_figures(&experiments, &rows)?;
        let left = all
            .iter()
            .filter(|job| rows.iter().all(|row| row.run != job.id()));
        println!(
            "{} of {} runs done; {}",
            all.len() - left.count(),
            all.len(),
            self.out.join("index.html").display()
        );
        if !failed.is_empty() {
            bail!(
                "{} runs failed: {}; the same command tries them again",
                failed.len(),
                failed.join(", ")
            );
        }
        Ok(())
    }

    fn experiments(&self) -> Vec<Experiment> {
        if self.experiments.is_empty() {
            Experiment::ALL.to_vec()
        } else {
            self.experiments.clone()
        }
    }

    fn data_sets(&self) -> Result<Vec<PathBuf>> {
        let mut data = self.data.clone();
        if let Some(mvtec) = &self.mvtec {
            let classes = TEXTURES.map(|class| mvtec.join(class)).into_iter();
            let found: Vec<PathBuf> = classes.filter(|class| class.is_dir()).collect();
            if found.is_empty() {
                bail!(
                    "{} has none of the folders {}; --mvtec expects the folder that MVTec AD was unpacked to",
                    mvtec.display(),
                    TEXTURES.join(", ")
                );
            }
            data.extend(found);
        }
        if data.is_empty() {
            bail!("no data: give --mvtec DIR, or --data DIR for each data set");
        }
        for folder in &mut data {
            *folder = std::path::absolute(&*folder)
                .with_context(|| format!("finding {}", folder.display()))?;
        }
        Ok(data)
    }

    /// The features argument with an absolute path, valid in any folder.
    fn features(&self) -> Result<String> {
        let wanted = match &self.features {
            Some(wanted) => wanted.clone(),
            None => match WeightSet::Vgg11.fetched() {
                Some(path) => return Ok(path.display().to_string()),
                None => "builtin".to_owned(),
            },
        };
        if wanted == "builtin" || wanted.starts_with("random:") {
            return Ok(wanted);
        }
        let path = std::path::absolute(&wanted).with_context(|| format!("finding {wanted}"))?;
        Ok(path.display().to_string())
    }

    /// Whether the features are the paper's.
    fn papers_features(&self) -> Result<bool> {
        let features = self.features()?;
        if features == "builtin" || features.starts_with("random:") {
            return Ok(false);
        }
        let features = Features::from_file(Path::new(&features), tch::Device::Cpu)?;
        Ok(features.are_papers())
    }

    /// The settings that all rows of a table share: rows of different ones must not be compared.
    fn conditions(&self) -> Result<Conditions> {
        let features = self.features()?;
        let features = if features == "builtin" {
            // By label, because another version of this program may have others built in.
            Features::built_in(tch::Device::Cpu)?.label().to_owned()
        } else {
            let file = Path::new(&features).file_name().unwrap_or_default();
            file.to_string_lossy().into_owned()
        };
        Ok(Conditions {
            schema: 1,
            width: self.width,
            iterations: self.iterations,
            batch: self.batch,
            features,
        })
    }

    fn check_conditions(&self) -> Result<()> {
        let path = self.out.join("study.json");
        let conditions = self.conditions()?;
        if path.exists() {
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let known: Conditions = serde_json::from_slice(&text)
                .with_context(|| format!("{} is of another version", path.display()))?;
            if known != conditions {
                bail!(
                    "{} holds a study of {known}, not of {conditions}: choose another --out",
                    self.out.display()
                );
            }
            return Ok(());
        }
        write_atomic(&path, &serde_json::to_vec_pretty(&conditions)?)?;
        Ok(())
    }

    /// The command that does only this run.
    fn command_for(&self, job: &Job) -> Result<String> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut words = vec![program.display().to_string(), "reproduce".to_owned()];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--data", job.data.display().to_string());
        option(
            "--out",
            std::path::absolute(&self.out)?.display().to_string(),
        );
        option("--seeds", self.seeds.to_string());
        option("--width", self.width.to_string());
        option("--iterations", self.iterations.to_string());
        option("--batch", self.batch.to_string());
        option("--features", self.features()?);
        option("--device", self.device.clone());
        for experiment in &self.experiments {
            let name = experiment.to_possible_value();
            let name = name.map(|value| value.get_name().to_owned());
            option("--experiments", name.unwrap_or_default());
        }
        if let Some(threads) = self.threads {
            option("--threads", threads.to_string());
        }
        option("--only", job.id());
        if self.keep {
            words.push("--keep".to_owned());
        }
        let quoted = words.iter().map(|word| quoted(word));
        Ok(quoted.collect::<Vec<_>>().join(" "))
    }

    /// Trains, packages and evaluates a run, each in a process of its own.
    ///
    /// The processes hold the lock too, as their standard input: what is left of a killed study has
    /// to end before another one begins the same run.
    fn do_one(&self, job: &Job, lock: &File) -> Result<RunResult> {
        let folder = self.out.join("runs").join(job.id());
        let (run, package) = (folder.join("run"), folder.join("model.awr"));
        let key = self.key()?;
        let program = || -> Result<Command> {
            let program = std::env::current_exe().context("finding this program")?;
            let mut command = Command::new(program);
            command.stdin(lock.try_clone().context("sharing the lock")?);
            Ok(command)
        };
        let mut train = program()?;
        train.arg("train").arg("--data").arg(&job.data);
        train.arg("--run").arg(&run).args(job.setting.train);
        for (name, value) in [
            ("--seed", job.seed.to_string()),
            ("--width", self.width.to_string()),
            ("--iterations", self.iterations.to_string()),
            ("--batch", self.batch.to_string()),
            ("--features", self.features()?),
            ("--device", self.device.clone()),
        ] {
            train.args([name, &value]);
        }
        if let Some(threads) = self.threads {
            train.args(["--threads", &threads.to_string()]);
        }
        let checkpoint = run_folder::checkpoint(&run);
        if checkpoint.exists() {
            train.arg("--resume");
        }
        succeed(&mut train)?;
        let seconds = Checkpoint::open(&checkpoint)?.progress.seconds;
        let mut export = program()?;
        export.arg("package").arg("--run").arg(&run);
        export.arg("--key").arg(&key).arg("--out").arg(&package);
        succeed(export.args(["--name", &job.id()]))?;
        let mut evaluate = program()?;
        evaluate.arg("evaluate").arg("--package").arg(&package);
        evaluate.arg("--data").arg(&job.data).arg("--json");
        let found = evaluate
            .stderr(Stdio::inherit())
            .output()
            .context("starting evaluate")?;
        if !found.status.success() {
            bail!("evaluating {} failed", job.id());
        }
        let summary: Summary =
            serde_json::from_slice(&found.stdout).context("reading what evaluate printed")?;
        let metrics = self.out.join("metrics").join(job.id() + ".json");
        write_atomic(&metrics, &found.stdout)?;
        let iterations = self.iterations as u32;
        Ok(RunResult::new(
            job, &summary, self.width, iterations, seconds,
        ))
    }

    /// Removes the folder of a run whose row is in the table, unless --keep is given.
    fn clear(&self, job: &Job) -> Result<()> {
        let folder = self.out.join("runs").join(job.id());
        if self.keep {
            return Ok(());
        }
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }

    /// The signing key of the study, made if it does not exist. Its packages are for the study
    /// only.
    fn key(&self) -> Result<PathBuf> {
        let path = self.out.join("study.key");
        if !path.exists() {
            // If two processes start at once, the first one makes the key.
            if let Err(error) = write_key_pair(&path, &new_signing_key())
                && !path.exists()
            {
                return Err(error.into());
            }
        }
        Ok(path)
    }

    fn write_page(&self, experiments: &[Experiment], rows: &[RunResult]) -> Result<()> {
        let conditions = self.conditions()?.to_string();
        let page = html(experiments, rows, &conditions, self.papers_features()?);
        write_atomic(&self.out.join("index.html"), page.as_bytes())?;
        Ok(())
    }

    fn write_figures(&self, experiments: &[Experiment], rows: &[RunResult]) -> Result<()> {
        let papers_features = self.papers_features()?;
        for &experiment in experiments {
            let name = format!("{experiment:?}").to_lowercase();
            let quiet = format!("{name}-normal");
            let quiet = experiment
                .shows_normal_scores()
                .then(|| (quiet, normal_scores(experiment, rows)));
            let figures = [(name, scores(experiment, rows, papers_features))];
            for (name, svg) in figures.into_iter().chain(quiet) {
                if svg.is_empty() {
                    continue;
                }
                let path = self.out.join("figures").join(name);
                write_atomic(&path.with_extension("svg"), svg.as_bytes())?;
                if let Some(png) = png(&svg) {
                    write_atomic(&path.with_extension("png"), &png)?;
                }
            }
        }
        Ok(())
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().context("starting")?;
    if !status.success() {
        let words = command.get_args().map(|word| word.to_string_lossy());
        bail!(
            "failed: host-trainer {}; the same command continues from here",
            words.collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}

//! Results of the runs: one row each in a CSV file, to which several processes may append at once.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::plan::Job;
use crate::evaluate::Summary;

/// Why results cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file has other columns.
    #[error("{} is no table of this study: expected the columns {COLUMNS}", .0.display())]
    Columns(PathBuf),
}

/// The header of the file.
const COLUMNS: &str = "run,data,setting,seed,width,iterations,pixel_auroc,aupro,image_auroc,\
                       normal_median,normal_p99,normal_p99_9,train_s";

/// Metrics of a run; undefined ones are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// Name of the run.
    pub run: String,
    /// The data set.
    pub data: String,
    /// The setting.
    pub setting: String,
    /// The seed.
    pub seed: u64,
    /// The network's width.
    pub width: u32,
    /// Training iterations.
    pub iterations: u32,
    /// Pixel AUROC.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve.
    pub aupro: Option<f64>,
    /// Image AUROC.
    pub image_auroc: Option<f64>,
    /// 50th, 99th and 99.9th percentiles of the scores of normal pixels.
    pub normal: Option<[f64; 3]>,
    /// Training time in seconds.
    pub train_s: f64,
}

impl RunResult {
    /// The result of a run from its evaluation.
    pub fn new(job: &Job, summary: &Summary, width: u32, iterations: u32, train_s: f64) -> Self {
        let total = &summary.total;
        let normal = total.normal_scores.as_ref();
        Self {
            run: job.id(),
            data: job.data_name(),
            setting: job.setting.name.to_owned(),
            seed: job.seed,
            width,
            iterations,
            pixel_auroc: total.pixel_auroc,
            aupro: total.aupro,
            image_auroc: total.image_auroc,
            normal: normal.map(|n| [n.median, n.p99, n.p99_9].map(f64::from)),
            train_s,
        }
    }

    /// Its line in the file.
    fn line(&self) -> String {
        let figure =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.5}"));
        let normal = match self.normal {
            Some(normal) => normal.map(Some),
            None => [None; 3],
        };
        let fields = [
            self.run.replace(',', " "),
            self.data.replace(',', " "),
            self.setting.clone(),
            self.seed.to_string(),
            self.width.to_string(),
            self.iterations.to_string(),
            figure(self.pixel_auroc),
            figure(self.aupro),
            figure(self.image_auroc),
            figure(normal[0]),
            figure(normal[1]),
            figure(normal[2]),
            format!("{:.1}", self.train_s),
        ];
        fields.join(",") + "\n"
    }

    /// Reads a line of the file; `None` if it is incomplete.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let &[
            run,
            data,
            setting,
            seed,
            width,
            iterations,
            pixel,
            aupro,
            image,
            median,
            p99,
            p99_9,
            train_s,
        ] = fields.as_slice()
        else {
            return None;
        };
        let figure = |text: &str| match text {
            "" => Some(None),
            text => text.parse::<f64>().ok().map(Some),
        };
        Some(Self {
            run: run.to_owned(),
            data: data.to_owned(),
            setting: setting.to_owned(),
            seed: seed.parse().ok()?,
            width: width.parse().ok()?,
            iterations: iterations.parse().ok()?,
            pixel_auroc: figure(pixel)?,
            aupro: figure(aupro)?,
            image_auroc: figure(image)?,
            normal: match [figure(median)?, figure(p99)?, figure(p99_9)?] {
                [Some(a), Some(b), Some(c)] => Some([a, b, c]),
                _ => None,
            },
            train_s: train_s.parse().ok()?,
        })
    }
}

/// The table of results on disk.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
}

impl Results {
    /// The table at a path, which need not exist yet.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    fn io(&self) -> impl Fn(std::io::Error) -> ResultsError {
        let path = self.path.clone();
        move |source| ResultsError::Io {
            path: path.clone(),
            source,
        }
    }

    /// Reads all rows. A line that a power cut left incomplete is skipped.
    pub fn rows(&self) -> Result<Vec<RunResult>, ResultsError> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(self.io())?,
        };
        let mut lines = text.lines();
        match lines.next() {
            None => Ok(Vec::new()),
            Some(COLUMNS) => Ok(lines.filter_map(RunResult::parse).collect()),
            Some(_) => Err(ResultsError::Columns(self.path.clone())),
        }
    }

    /// Appends a row, unless its run has one already.
    pub fn add(&self, row: &RunResult) -> Result<(), ResultsError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(self.io())?;
        // Other processes may append too. The lock is released when the file is closed.
        file.lock().map_err(self.io())?;
        if self.rows()?.iter().any(|known| known.run == row.run) {
            return Ok(());
        }
        self.append(&mut file, row).map_err(self.io())
    }

    fn append(&self, file: &mut File, row: &RunResult) -> std::io::Result<()> {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut added = String::new();
        if text.is_empty() {
            added.push_str(COLUMNS);
            added.push('\n');
        } else if !text.ends_with('\n') {
            // A line that a power cut left incomplete stays a line of its own.
            added.push('\n');
        }
        added.push_str(&row.line());
        file.seek(SeekFrom::End(0))?;
        file.write_all(added.as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run: &str) -> RunResult {
        RunResult {
            run: run.to_owned(),
            data: "leather".to_owned(),
            setting: "direct".to_owned(),
            seed: 3,
            width: 16,
            iterations: 300,
            pixel_auroc: Some(0.98765),
            aupro: None,
            image_auroc: Some(1.0),
            normal: Some([0.0125, 0.25, 0.5]),
            train_s: 12.5,
        }
    }

    #[test]
    fn each_row_is_read_once_and_an_incomplete_line_loses_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        let results = Results::at(&path);
        assert_eq!(results.rows().unwrap(), []);
        results.add(&row("a")).unwrap();
        results.add(&row("a")).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("b,leather,pap");
        std::fs::write(&path, text).unwrap();
        results.add(&row("c")).unwrap();
        assert_eq!(results.rows().unwrap(), [row("a"), row("c")]);
        std::fs::write(&path, "something else\n").unwrap();
        assert!(matches!(results.rows(), Err(ResultsError::Columns(_))));
    }

    #[test]
    fn rows_appended_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for index in 0..20 {
                        let results = Results::at(path);
                        results.add(&row(&format!("{thread}-{index}"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(Results::at(&path).rows().unwrap().len(), 80);
    }
}

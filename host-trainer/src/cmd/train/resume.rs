//! Whether a run may be resumed. In: the run as it was started, and the arguments and images of now.
//! Out: its images, found by their content wherever they are by now, or the first thing that
//! differs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use host_trainer::dataset::{Split, file_digest, hex};
use host_trainer::run_folder::Run;
use host_trainer::train::{Schedule, recover};
use serde_json::Value;

/// Fields of [`Run`] that hold paths, or names made of them. The images are compared by content.
const PATHS: [&str; 4] = ["train_files", "held_out", "held_out_parts", "identities"];

/// Uses the checkpoint before the last one if that is damaged, and says so.
pub(super) fn recover_checkpoint(checkpoint: &Path) -> Result<()> {
    if let Some(damage) = recover(checkpoint)? {
        eprintln!("warning: {damage}");
        eprintln!("warning: the run goes on from the checkpoint before");
    }
    Ok(())
}

/// Splits files as the run did, whatever their paths are now: by the digests of those it trained on,
/// in their order. All others are held out.
pub(super) fn split_as_before(files: &[PathBuf], data: &Path, before: &Run) -> Result<Split> {
    let mut found: HashMap<String, VecDeque<&PathBuf>> = HashMap::new();
    for file in files {
        // A file that cannot be read was not trained on.
        if let Ok(digest) = file_digest(file) {
            found.entry(hex(&digest)).or_default().push_back(file);
        }
    }
    let mut train = Vec::new();
    let mut missing = Vec::new();
    for (digest, path) in before.train_digests.iter().zip(&before.train_files) {
        match found.get_mut(digest).and_then(VecDeque::pop_front) {
            Some(file) => train.push(file.clone()),
            None => missing.push(path),
        }
    }
    if let Some(first) = missing.first() {
        bail!(
            "--resume: training images: expected the {} of when the run was started, found {} of them in {}; \
             the first that is missing, or has another content, was {}",
            before.train_digests.len(),
            train.len(),
            data.display(),
            first.display()
        );
    }
    let mut held_out: Vec<PathBuf> = found.into_values().flatten().cloned().collect();
    held_out.sort();
    Ok(Split { train, held_out })
}

/// Refuses to resume with settings or images that the run was not started with.
pub(super) fn check_same(before: &Run, now: &Run) -> Result<()> {
    match difference(before, now)? {
        None => Ok(()),
        Some((field, expected, found)) => bail!(
            "--resume: {field} differs: expected {expected} as when the run was started, found {found}; give the \
             same settings (only --iterations may change, and not under --schedule cosine)"
        ),
    }
}

/// The first field that differs: its name, what is expected and what was found.
fn difference(before: &Run, now: &Run) -> Result<Option<(String, String, String)>> {
    let (expected, found) = (fields(before)?, fields(now)?);
    for (field, found) in &found {
        let expected = expected.get(field).unwrap_or(&Value::Null);
        let may_differ = match field.as_str() {
            // Any number of iterations may follow, unless the learning rate depends on it.
            "iterations" => now.schedule == Schedule::Constant,
            // Runs of older versions did not keep it.
            "hold_out" => before.hold_out.is_none(),
            field => PATHS.contains(&field),
        };
        if expected != found && !may_differ {
            return Ok(Some((
                field.clone(),
                expected.to_string(),
                found.to_string(),
            )));
        }
    }
    let held_out = [before, now].map(|run| run.held_out.len());
    if held_out[0] != held_out[1] {
        let [expected, found] = held_out.map(|count| count.to_string());
        return Ok(Some((
            "the number of images not trained on".to_owned(),
            expected,
            found,
        )));
    }
    let known = [before, now].map(|run| run.identities.train_parts.as_slice());
    // Runs of older versions did not keep them.
    if !known[0].is_empty() && known[0] != known[1] {
        let [expected, found] = known.map(|parts| match parts.is_empty() {
            true => "none".to_owned(),
            false => format!("{} images in groups", parts.iter().flatten().count()),
        });
        let field = "--groups of the training images".to_owned();
        return Ok(Some((field, expected, found)));
    }
    let parts = [before, now].map(|run| parts(&run.held_out_parts));
    if parts[0] != parts[1] {
        let [expected, found] = parts.map(|parts| format!("{} parts", parts.len()));
        return Ok(Some((
            "--groups of the held-out images".to_owned(),
            expected,
            found,
        )));
    }
    Ok(None)
}

/// The fields of a run as they are written to `run.json`, so that 0.3 is not 0.30000001.
fn fields(run: &Run) -> Result<BTreeMap<String, Value>> {
    Ok(serde_json::from_str(&serde_json::to_string(run)?)?)
}

/// Number of images of each part, sorted.
fn parts(names: &[String]) -> Vec<usize> {
    let mut counts: HashMap<&String, usize> = HashMap::new();
    names
        .iter()
        .for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[cfg(test)]
mod tests {
    use host_trainer::network::OutputActivation;
    use host_trainer::run_folder::Identities;
    use host_trainer::train::LossKind;
    use proto::manifest::{ColourMode, Input, InputSize, Reading, TrainingMode};

    use super::*;

    fn run(files: &[&str]) -> Run {
        Run {
            schema: Run::schema(),
            mode: TrainingMode::Direct,
            loss: LossKind::L2,
            quiet: 0.0,
            lighting: 0.25,
            rare: 0.0,
            average: 0.0,
            schedule: Schedule::Constant,
            teacher: None,
            teacher_digests: Vec::new(),
            activation: OutputActivation::RefRelu,
            features: "none".to_owned(),
            noise: "all".to_owned(),
            width: 8,
            upsampled: false,
            iterations: 100,
            batch: 4,
            tiles: 20,
            seed: 3,
            hold_out: Some(0.2),
            input: Input {
                size: InputSize::Native,
                colour: ColourMode::Grey,
            },
            train_files: files.iter().map(PathBuf::from).collect(),
            train_digests: Vec::new(),
            held_out: vec!["a/x.png".into(), "a/y.png".into()],
            held_out_parts: vec!["a/x.png".to_owned(), "a/y.png".to_owned()],
            identities: Identities::default(),
            reading: Reading::default(),
        }
    }

    #[test]
    fn a_refusal_names_the_field_with_both_values() {
        let before = run(&[]);
        let refused = |change: &dyn Fn(&mut Run)| {
            let mut now = run(&[]);
            change(&mut now);
            check_same(&before, &now).map_err(|error| error.to_string())
        };
        let expect = |change: &dyn Fn(&mut Run), words: &[&str]| {
            let error = refused(change).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        assert!(refused(&|_| {}).is_ok());
        assert!(refused(&|run| run.iterations = 500).is_ok());
        assert!(refused(&|run| run.held_out = vec!["b/x".into(), "b/y".into()]).is_ok());
        expect(&|run| run.width = 16, &["width", "expected 8", "found 16"]);
        expect(
            &|run| run.lighting = 0.3,
            &["lighting", "expected 0.25", "found 0.3;"],
        );
        expect(&|run| run.seed = 4, &["seed", "expected 3", "found 4"]);
        expect(&|run| run.hold_out = Some(0.3), &["hold_out", "0.2", "0.3"]);
        let colour = |run: &mut Run| run.input.colour = ColourMode::Rgb;
        expect(&colour, &["input", "Grey", "Rgb"]);
        let more = |run: &mut Run| run.held_out.push("b/z".into());
        expect(&more, &["images not trained on", "expected 2", "found 3"]);
        let one_part = |run: &mut Run| run.held_out_parts = vec!["group 1".to_owned(); 2];
        expect(&one_part, &["groups", "expected 2 parts", "found 1 parts"]);
        let mut falling = run(&[]);
        falling.schedule = Schedule::Cosine;
        let longer = Run {
            iterations: 200,
            ..falling.clone()
        };
        let error = check_same(&falling, &longer).unwrap_err().to_string();
        assert!(
            error.contains("iterations differs: expected 100"),
            "{error}"
        );
    }

    #[test]
    fn images_are_found_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let digest = |path: &PathBuf| hex(&file_digest(path).unwrap());
        let old = ["1", "2", "3"].map(|name| write(name, name));
        let mut before = run(&["old/2", "old/1"]);
        before.train_digests = vec![digest(&old[1]), digest(&old[0])];
        let new = [write("z", "1"), write("y", "2"), write("x", "3")];
        let split = split_as_before(&new, folder.path(), &before).unwrap();
        assert_eq!(split.train, [new[1].clone(), new[0].clone()]);
        assert_eq!(split.held_out, [new[2].clone()]);
        write("z", "other");
        let error = split_as_before(&new, folder.path(), &before).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("found 1 of them") && error.contains("old/1"),
            "{error}"
        );
    }
}

//! A session of training: progress, losses and sample maps on disk, and stopping by Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use host_trainer::run_folder;
use host_trainer::sheet;
use host_trainer::train::{BatchSource, Checkpoint, Event, Recipe, Samples, train};
use scoring::io::atomic::write_atomic;

use super::arguments::Caller;
use crate::cmd::interrupt::stop_on_ctrl_c;
use crate::cmd::progress;

/// Trains until the last iteration or Ctrl-C; continues from the checkpoint if there is one. Returns
/// the minutes that training took, in all sessions.
pub(super) fn run_session(
    run: &Path,
    recipe: &Recipe,
    source: &Arc<BatchSource>,
    checkpoint: &Path,
    caller: Caller,
) -> Result<f64> {
    let stop = stop_on_ctrl_c("iteration")?;
    let done = if checkpoint.exists() {
        Checkpoint::open(checkpoint)?.progress.iterations
    } else {
        0
    };
    let mut losses = read_losses(&run_folder::losses(run), done);
    let bar = progress::bar(recipe.iterations, "training");
    bar.set_position(done as u64);
    let mut failed = None;
    let mut on_event = |event: Event| match event {
        Event::Step {
            iteration,
            loss,
            tiles_per_s,
        } => {
            losses.push_str(&format!("{iteration},{loss}\n"));
            bar.set_position(iteration as u64);
            bar.set_message(format!("loss {loss:.4}, {tiles_per_s:.0} tiles/s"));
            if bar.is_hidden() && caller != Caller::Trial && (iteration % 50 == 0 || iteration == 1)
            {
                eprintln!("iteration {iteration}: loss {loss:.4}, {tiles_per_s:.0} tiles/s");
            }
        }
        Event::Checkpoint { iteration, samples } => {
            if let Err(error) = save_samples(run, iteration, &samples, &losses) {
                failed = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let outcome = train(recipe, source, checkpoint, &stop, &mut on_event)?;
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error.context("saving losses and sample maps"));
    }
    let minutes = outcome.progress.seconds / 60.0;
    if outcome.interrupted {
        let with = match caller {
            Caller::Person => " with --resume",
            Caller::Fit { .. } | Caller::Trial => "",
        };
        bail!(
            "stopped at iteration {} of {} after {minutes:.1} min; saved: the same command{with} continues",
            outcome.progress.iterations,
            recipe.iterations
        );
    }
    Ok(minutes)
}

fn save_samples(run: &Path, iteration: usize, samples: &Samples, losses: &str) -> Result<()> {
    let png = sheet::png(&sheet::samples(samples))?;
    write_atomic(&run_folder::sample(run, iteration), &png)?;
    write_atomic(&run_folder::losses(run), losses.as_bytes())?;
    Ok(())
}

/// Reads the losses of the first `iterations`, which the checkpoint has; later ones belong to a
/// session that was cut off.
fn read_losses(path: &Path, iterations: usize) -> String {
    let mut text = "iteration,loss\n".to_owned();
    let written = std::fs::read_to_string(path).unwrap_or_default();
    for line in written.lines().skip(1).take(iterations) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

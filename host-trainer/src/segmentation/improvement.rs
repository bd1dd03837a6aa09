//! Measures what a segmentation network adds to its variation model, on validation frames with
//! synthetic defects of kinds that it did not learn from.

use std::path::Path;

use proto::manifest::{SegmentationGain, SegmentationNetwork};
use scoring::infer::SegmentationEngine;
use scoring::inspect::grid::FINEST;
use scoring::inspect::variation::{deviations, grid_features};

use super::defect::{DefectKind, DefectiveFrame};
use super::error::SegmentationError;
use super::examples::changed_cells;
use super::frame::GoodFrame;
use super::task::{Phase, SegmentationProgress, SegmentationTask};
use crate::evaluate::PixelMetrics;
use crate::seed::generator;

/// Kinds of defects drawn into each validation frame, one at a time.
const KINDS_PER_FRAME: usize = 4;

/// Scores validation frames with and without the network. A pixel here is a cell of the finest
/// grid. Only `unseen` kinds are drawn, or all if there are none.
pub(super) fn measure(
    task: &SegmentationTask,
    network: &SegmentationNetwork,
    engine: &SegmentationEngine,
    unseen: &[DefectKind],
    on_progress: &mut dyn FnMut(SegmentationProgress),
) -> Result<SegmentationGain, SegmentationError> {
    let nowhere = Path::new("nothing is put there");
    let mut metrics = [(); 2].map(|()| PixelMetrics::new(0, usize::MAX, nowhere));
    let trained_on = task.training_count;
    let all = [&DefectKind::AREAS[..], &DefectKind::DEFECTS].concat();
    let drawn = if unseen.is_empty() { &all } else { unseen };
    let mut kinds = drawn.iter().copied().cycle();
    for index in trained_on..task.frame_count {
        let mut rng = generator(task.seed, "areas kept back", index as u64);
        let good = GoodFrame::new(task.frame(index)?);
        // Of another part, or mostly where parts are not known: images of one part follow each
        // other.
        let other = GoodFrame::new(task.frame(index - trained_on)?);
        for kind in kinds.by_ref().take(KINDS_PER_FRAME) {
            let DefectiveFrame { planes, mask } = good.with_defects(&[kind], &other, &mut rng);
            let scores = (task.score)(&planes).map_err(SegmentationError::Image)?;
            let found = grid_features(&planes, task.colour, &scores);
            let logits = task.logits(engine, network, &planes)?;
            let changed = changed_cells(&mask, [planes.width_px, planes.height_px]);
            let mask: Vec<bool> = changed.iter().map(|changed| *changed >= 0.5).collect();
            let segmentations = [Some((network, logits.as_slice())), None];
            for (metrics, segmentation) in metrics.iter_mut().zip(segmentations) {
                let map = deviations(task.model, &found, segmentation, [FINEST; 2]);
                metrics.add(&map.data, &mask, FINEST, None)?;
            }
        }
        on_progress(SegmentationProgress {
            phase: Phase::Validating,
            done: index + 1 - trained_on,
            count: task.frame_count - trained_on,
        });
    }
    let [with, without] = metrics.map(|metrics| metrics.finish());
    Ok(SegmentationGain {
        with: with?.total.auroc.unwrap_or_default(),
        without: without?.total.auroc.unwrap_or_default(),
        unseen_kinds: unseen.iter().map(|kind| kind.name().to_owned()).collect(),
        unseen_parts: task.unseen_parts,
    })
}

//! The evaluation record of a package: the main figures of an evaluation, kept in its manifest.

use proto::manifest::EvaluationSummary;

use super::draft::Draft;
use crate::dataset::digest_of_files;
use crate::evaluate::Evaluation;

impl Draft {
    /// Records an evaluation on the data set of this name.
    pub fn record_evaluation(&mut self, data: String, evaluation: &Evaluation) {
        let total = &evaluation.summary.total;
        let digests: Vec<[u8; 32]> = evaluation.images.iter().map(|image| image.file).collect();
        self.manifest.evaluation = Some(EvaluationSummary {
            data,
            data_digest: digest_of_files(&digests),
            images: total.images as u32,
            pixel_auroc: total.pixel_auroc,
            aupro: total.aupro,
            image_auroc: total.image_auroc,
        });
    }
}

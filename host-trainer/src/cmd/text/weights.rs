//! Imported feature weights in words.

use std::path::Path;

use host_trainer::weights::Imported;

/// What was imported into `out`.
pub(crate) fn imported_weights(out: &Path, imported: &Imported) -> String {
    let mut text = format!(
        "{}: {} tensors; use it with train --features",
        out.display(),
        imported.tensors.len()
    );
    if imported.left_out > 0 {
        text += &format!(
            "\nleft out {} tensors that no loss needs",
            imported.left_out
        );
    }
    text
}

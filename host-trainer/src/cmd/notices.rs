//! Notices on standard error: the account of a data set, and images that a command leaves out or
//! cannot group.

use std::path::PathBuf;

use host_trainer::dataset::{Account, DatasetError, Groups};

/// Most files left out, and lines of a groups file, to name; beyond that they are only counted.
const NAMED: usize = 10;

/// Says what was used of a data set, which is called `what`, what was left out and why, and what looks wrong.
pub(crate) fn report_account(what: &str, account: &Account) {
    for line in account.lines(NAMED) {
        eprintln!("{line}");
    }
    eprintln!("{what}: {}", account.in_words());
}

/// Counts the images that a groups file does not name, and its lines that name no file. It is an
/// error if it names none of the images.
pub(crate) fn report_ungrouped(groups: &Groups, files: &[PathBuf]) -> Result<(), DatasetError> {
    let alone = groups.ungrouped(files)?;
    if alone > 0 {
        eprintln!(
            "{alone} of {} images are in no group: each counts as a part of its own",
            files.len()
        );
    }
    let missing = groups.missing();
    for (line, name) in missing.iter().take(NAMED) {
        eprintln!("warning: groups file, line {line}: there is no file {name}");
    }
    if missing.len() > NAMED {
        eprintln!(
            "warning: groups file: {} more lines name no file",
            missing.len() - NAMED
        );
    }
    Ok(())
}

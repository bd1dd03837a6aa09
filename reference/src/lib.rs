//! The reference pages of the book, generated from the programs' own definitions.
//!
//! In: a clap command, or a page that a test has rendered. Out: a Markdown file in
//! `docs/src/reference`, or a failed test if the file differs from it. The pages depend neither on
//! the terminal's width nor on the machine.

#![forbid(unsafe_code)]

mod command;
pub mod markdown;

use std::fs;
use std::path::Path;

/// Environment variable that makes [`check`] write the pages instead of comparing them.
const UPDATE: &str = "UPDATE_REFERENCE";

/// Compares a page with the file in `docs/src/reference`. If `UPDATE_REFERENCE` is set, writes the
/// file instead. `package` is the package whose tests generate the page.
///
/// # Panics
///
/// If the file differs from the page, or cannot be read or written.
pub fn check(file_name: &str, package: &str, page: &str) {
    let notice = format!(
        "<!-- Generated. To update it: {UPDATE}=1 cargo test -p {package} reference -->\n\n"
    );
    let page = notice + page;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference");
    let path = folder.join(file_name);
    if std::env::var_os(UPDATE).is_some() {
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, page));
        assert!(written.is_ok(), "cannot write {file_name}: {written:?}");
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    if let Some((number, line)) = first_difference(&found, &page) {
        panic!(
            "docs/src/reference/{file_name} is not current: line {number} should be {line:?}; run \
             {UPDATE}=1 cargo test -p {package} reference"
        );
    }
}

/// Renders the page of a program and compares it with the file in `docs/src/reference`; see
/// [`check`]. The program's name is also that of its package and of its file.
///
/// # Panics
///
/// If the file differs from the page, or cannot be read or written.
pub fn check_command(command: clap::Command) {
    let name = command.get_name().to_owned();
    check(&format!("{name}.md"), &name, &command::page(command));
}

/// Number and expected text of the first line that differs.
fn first_difference(found: &str, expected: &str) -> Option<(usize, String)> {
    if found == expected {
        return None;
    }
    let (mut found, mut expected) = (found.lines(), expected.lines());
    for number in 1.. {
        match (found.next(), expected.next()) {
            (None, None) => return Some((number, String::new())),
            (found, expected) if found != expected => {
                return Some((number, expected.unwrap_or_default().to_owned()));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_line_that_differs_is_reported() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(
            first_difference("a\nb\n", "a\nc\n"),
            Some((2, "c".to_owned()))
        );
        assert_eq!(first_difference("a\n", "a\nc\n"), Some((2, "c".to_owned())));
        assert_eq!(first_difference("a\nb\n", "a\n"), Some((2, String::new())));
        assert_eq!(first_difference("a", "a\n"), Some((2, String::new())));
    }
}

//! Whether the tests that the page Safety names exist.
//!
//! In: the page, the files that it names, and the names of the VM scenarios. Out: each row of a
//! table whose last column, `test`, names none, or one that does not exist. Such a cell is written
//! as `file.rs`: `test`, `test`; `vm-test`: `scenario`.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// In the place of a file: what follows are names of VM scenarios.
const SCENARIOS: &str = "vm-test";

/// In the place of all names: a test has still to be written.
const MISSING: &str = "no test yet";

/// A cell: its text, and the code in it.
#[derive(Default)]
struct Cell {
    text: String,
    code: Vec<String>,
}

/// The last cells of all rows of tables whose last column is `test`, with their line numbers.
fn last_cells(page: &str) -> Vec<(usize, Cell)> {
    let mut rows = Vec::new();
    let mut cell = Cell::default();
    let mut names_tests = false;
    for (event, range) in Parser::new_ext(page, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::TableCell) => cell = Cell::default(),
            Event::Text(text) => cell.text.push_str(&text),
            Event::Code(code) => cell.code.push(code.to_string()),
            Event::End(TagEnd::TableHead) => names_tests = cell.text == "test",
            Event::End(TagEnd::TableRow) if names_tests => {
                let line = page[..range.start].matches('\n').count() + 1;
                rows.push((line, std::mem::take(&mut cell)));
            }
            _ => {}
        }
    }
    rows
}

/// Whether a file has a test function of this name.
fn has_test(file: &str, name: &str) -> bool {
    let after_attributes = file.split("#[test]").skip(1);
    after_attributes
        .filter_map(|rest| rest.split_once("fn "))
        .any(|(_, rest)| rest.split('(').next() == Some(name))
}

/// What is wrong with a cell.
fn problems(cell: &Cell, read: &dyn Fn(&str) -> Option<String>, scenarios: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = 0;
    let mut place: Option<(&str, Option<String>)> = None;
    for code in cell.code.iter().map(String::as_str) {
        if code == SCENARIOS || code.ends_with(".rs") {
            let text = read(code);
            if code != SCENARIOS && text.is_none() {
                found.push(format!("there is no {code}"));
            }
            place = Some((code, text));
            continue;
        }
        names += 1;
        match &place {
            Some((SCENARIOS, _)) if scenarios.contains(&code) => {}
            Some((_, Some(text))) if has_test(text, code) => {}
            Some((place, _)) => found.push(format!("{place} has no test {code}")),
            None => found.push(format!("expected a file before {code}")),
        }
    }
    if names == 0 && !cell.text.contains(MISSING) {
        found.push(format!("expected a test or `{MISSING}`"));
    }
    found
}

/// Rows that name no test, or one that does not exist.
fn wrong_rows(
    page: &str,
    read: &dyn Fn(&str) -> Option<String>,
    scenarios: &[&str],
) -> Vec<String> {
    let rows = last_cells(page).into_iter();
    rows.flat_map(|(line, cell)| {
        let problems = problems(&cell, read, scenarios).into_iter();
        problems.map(move |problem| format!("line {line}: {problem}"))
    })
    .collect()
}

#[test]
fn every_row_of_the_page_safety_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let page = read("docs/src/safety.md").unwrap();
    let scenarios: Vec<&str> = crate::vm::scenarios::ALL
        .iter()
        .map(|scenario| scenario.name)
        .collect();
    assert!(last_cells(&page).len() > 50, "the tables were not found");
    assert_eq!(wrong_rows(&page, &read, &scenarios), [""; 0]);
}

#[test]
fn a_test_that_does_not_exist_is_named() {
    let page = "| a | test |\n|---|---|\n\
        | good | `x.rs`: `one`, `two`; `vm-test`: `cuts` |\n\
        | none yet | no test yet |\n\
        | gone | `x.rs`: `helper`; `y.rs`: `one`; `vm-test`: `cut` |\n\
        | none | by inspection |\n\
        | where | `one` |\n\n\
        | a | default |\n|---|---|\n| b | `x.rs`: `nothing` |\n";
    let file = "#[test]\nfn one() {}\n#[test]\n#[ignore]\nfn two() {}\nfn helper() {}\n";
    let read = |path: &str| (path == "x.rs").then(|| file.to_owned());
    let expected = [
        "line 5: x.rs has no test helper",
        "line 5: there is no y.rs",
        "line 5: y.rs has no test one",
        "line 5: vm-test has no test cut",
        "line 6: expected a test or `no test yet`",
        "line 7: expected a file before one",
    ];
    assert_eq!(wrong_rows(page, &read, &["cuts"]), expected);
}

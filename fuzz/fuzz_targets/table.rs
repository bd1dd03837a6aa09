//! Fuzzes the reader of CSV files with arbitrary bytes. It must never panic, lines must rise, and a
//! table that is written again as plain CSV must have the same rows.

#![no_main]

#[path = "../../host-trainer/src/dataset/table.rs"]
mod table;

use libfuzzer_sys::fuzz_target;
use table::{rows, text_of};

const COLUMNS: [&str; 2] = ["file", "group"];

fuzz_target!(|data: &[u8]| {
    let found = match rows(data, COLUMNS) {
        Ok(found) => found,
        Err(error) => {
            assert!(error.line() > 0);
            return;
        }
    };
    assert!(found.is_sorted_by(|a, b| a.line < b.line));
    let mut plain = b"file,group\n".to_vec();
    for row in &found {
        for (field, end) in row.fields.iter().zip([b',', b'\n']) {
            plain.push(b'"');
            plain.extend(text_of(field).replace('"', "\"\"").bytes());
            plain.extend([b'"', end]);
        }
    }
    let again = rows(&plain, COLUMNS).expect("a plain table");
    let texts = |rows: &[table::Row<2>]| -> Vec<[String; 2]> {
        // Other columns make a row of one whose two fields are empty.
        let rows = rows.iter().filter(|row| row.fields.iter().any(|field| !field.is_empty()));
        let texts = rows.map(|row| row.fields.each_ref().map(|field| text_of(field)));
        texts.map(|texts| texts.map(|text| text.trim_ascii().replace("\r\n", "\n"))).collect()
    };
    assert_eq!(texts(&found), texts(&again));
});

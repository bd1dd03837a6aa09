//! Reads tables as people's programs save them as CSV: with a byte order mark, as UTF-16 or
//! Windows-1252, separated by commas, semicolons or tabs, in quotes, with any line endings.

use csv_core::{ReadRecordResult, ReaderBuilder};
use scoring::io::text::decode;

/// Why a table cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// The first line does not name all columns.
    #[error("expected the header `{expected}`")]
    Header {
        /// The columns, with commas.
        expected: String,
    },
    /// A row has another number of fields than the header.
    #[error(
        "expected {expected} fields as in the header, found {found}; a name with `{delimiter}` in it \
         stands in quotes"
    )]
    Fields {
        /// The row's line, from 1.
        line: usize,
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        found: usize,
        /// What separates fields.
        delimiter: char,
    },
}

impl TableError {
    /// The line that is wrong, from 1.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Header { .. } => 1,
            Self::Fields { line, .. } => *line,
        }
    }
}

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row<const N: usize> {
    /// Its line in the file, from 1.
    pub(crate) line: usize,
    /// Its fields, without spaces around them. Bytes that are no text may be a path on this disk.
    pub(crate) fields: [Vec<u8>; N],
}

/// The columns `names`, in this order, of every row that is not empty. Other columns are allowed.
pub(crate) fn rows<const N: usize>(
    bytes: &[u8],
    names: [&str; N],
) -> Result<Vec<Row<N>>, TableError> {
    // Bytes that are no text may be a path on this disk, or Windows-1252: both are tried later.
    let text = decode(bytes).map_or_else(|| bytes.to_vec(), String::into_bytes);
    let text = with_plain_line_ends(&text);
    let header = Header::find(&text, names).ok_or_else(|| TableError::Header {
        expected: names.join(","),
    })?;
    // Lines are those of the whole file, in which `sep=` may stand above the header.
    let above = line_ends(&text[..header.first]);
    let mut rows = Vec::new();
    // The header is the first record.
    for (line, record) in records(&text[header.first..], header.delimiter)
        .into_iter()
        .skip(1)
    {
        let line = line + above;
        if record.iter().all(|field| field.trim_ascii().is_empty()) {
            continue;
        }
        if record.len() != header.count {
            return Err(TableError::Fields {
                line,
                expected: header.count,
                found: record.len(),
                delimiter: char::from(header.delimiter),
            });
        }
        let field = |column: usize| record[column].trim_ascii().to_vec();
        rows.push(Row {
            line,
            fields: header.columns.map(field),
        });
    }
    Ok(rows)
}

/// A field as text: UTF-8, otherwise Windows-1252, in which Excel saves CSV in Europe.
pub(crate) fn text_of(field: &[u8]) -> String {
    match std::str::from_utf8(field) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode(field).0.into_owned(),
    }
}

/// The table's first line.
struct Header<const N: usize> {
    /// Where it begins.
    first: usize,
    delimiter: u8,
    /// Where the columns asked for are.
    columns: [usize; N],
    /// Number of all columns.
    count: usize,
}

impl<const N: usize> Header<N> {
    fn find(text: &[u8], names: [&str; N]) -> Option<Self> {
        let line = |from: usize| {
            let end = text[from..].iter().position(|byte| *byte == b'\n');
            &text[from..end.map_or(text.len(), |end| from + end)]
        };
        // Excel's own way to say what separates fields.
        let above = line(0);
        let first = if above.trim_ascii().to_ascii_lowercase().starts_with(b"sep=") {
            let ends = text[above.len()..].iter();
            above.len() + ends.take_while(|byte| **byte == b'\n').count()
        } else {
            0
        };
        let header = line(first);
        [b',', b';', b'\t'].into_iter().find_map(|delimiter| {
            let (_, record) = records(header, delimiter).into_iter().next()?;
            let column = |name: &str| {
                let mut fields = record.iter();
                fields.position(|field| field.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
            };
            let mut columns = [0; N];
            for (place, name) in columns.iter_mut().zip(names) {
                *place = column(name)?;
            }
            Some(Self {
                first,
                delimiter,
                columns,
                count: record.len(),
            })
        })
    }
}

/// The records of a text whose lines end in `\n`, each with the number of its line, from 1. Empty
/// lines are no records.
fn records(text: &[u8], delimiter: u8) -> Vec<(usize, Vec<Vec<u8>>)> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).build();
    // No record is longer than the whole text.
    let (mut output, mut ends) = (vec![0; text.len()], vec![0; text.len() + 1]);
    let (mut rest, mut written, mut fields) = (text, 0, 0);
    let mut records = Vec::new();
    // Where the record before ended, and the lines until there.
    let (mut before, mut lines) = (text, 0);
    loop {
        let (result, read, more, ended) =
            reader.read_record(rest, &mut output[written..], &mut ends[fields..]);
        rest = &rest[read..];
        written += more;
        fields += ended;
        match result {
            // The next call has nothing more to read, which ends the last record.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record => {
                let starts = std::iter::once(&0).chain(&ends);
                let spans = starts.zip(&ends[..fields]);
                let record = spans.map(|(start, end)| output[*start..*end].to_vec());
                let passed = &before[..before.len() - rest.len()];
                let line = lines + line_ends(passed.trim_ascii_end()) + 1;
                records.push((line, record.collect()));
                lines += line_ends(passed);
                before = rest;
                (written, fields) = (0, 0);
            }
            ReadRecordResult::End
            | ReadRecordResult::OutputFull
            | ReadRecordResult::OutputEndsFull => return records,
        }
    }
}

fn line_ends(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// The text with `\n` at the end of every line.
fn with_plain_line_ends(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len() + 1);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\r' if text.get(at + 1) == Some(&b'\n') => {}
            b'\r' => plain.push(b'\n'),
            other => plain.push(*other),
        }
    }
    plain.push(b'\n');
    plain
}

//! Reads which part each image shows from a CSV file, as people's programs write it: with a byte
//! order mark, as UTF-16 or Windows-1252, separated by commas, semicolons or tabs, in quotes, with
//! any line endings, and with `\` in paths.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use csv_core::{ReadRecordResult, ReaderBuilder};
use scoring::io::text::{decode, path_text};

use super::error::DatasetError;
use super::survey::Survey;

/// The part that each image shows, read from a CSV file with the columns `file` and `group` and
/// paths relative to the data set.
#[derive(Debug, Default)]
pub struct Groups {
    /// The groups file and the folder that its paths are relative to.
    source: Option<(PathBuf, PathBuf)>,
    /// The part of each file, by its absolute path.
    parts: HashMap<PathBuf, String>,
    /// Lines that name no existing file, with the name.
    missing: Vec<(usize, String)>,
}

impl Groups {
    /// Reads a groups file whose paths are relative to `root`. Errors name the line: a file in two
    /// groups, a group without a name, another number of fields than the header has.
    pub fn read(path: &Path, root: &Path) -> Result<Self, DatasetError> {
        let bytes = fs::read(path).map_err(|source| DatasetError::Read {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |line: usize, reason: String| DatasetError::Groups {
            path: path.to_owned(),
            line,
            reason,
        };
        // Bytes that are no text may be a path on this disk, or Windows-1252: both are tried.
        let text = decode(&bytes).map_or_else(|| bytes.clone(), String::into_bytes);
        let text = with_plain_line_ends(&text);
        let (first, delimiter, columns) =
            header(&text).ok_or_else(|| wrong(1, HEADER.to_owned()))?;
        // Numbers of lines are those of the whole file, in which `sep=` may stand above.
        let above = text[..first].iter().filter(|byte| **byte == b'\n').count();
        let mut groups = Self {
            source: Some((path.to_owned(), root.to_owned())),
            ..Self::default()
        };
        let mut named: HashMap<PathBuf, usize> = HashMap::new();
        // The header is the first record.
        for (line, record) in records(&text[first..], delimiter).into_iter().skip(1) {
            let line = line + above;
            if record.iter().all(|field| field.trim_ascii().is_empty()) {
                continue;
            }
            if record.len() != columns.count {
                return Err(wrong(
                    line,
                    format!(
                        "expected {} fields as in the header, found {}; a name with `{}` in it \
                         stands in quotes",
                        columns.count,
                        record.len(),
                        char::from(delimiter)
                    ),
                ));
            }
            let group = text_of(record[columns.group].trim_ascii());
            if group.is_empty() {
                return Err(wrong(
                    line,
                    "expected a group, found an empty one".to_owned(),
                ));
            }
            let file = record[columns.file].trim_ascii();
            if file.is_empty() {
                return Err(wrong(line, "expected a file, found none".to_owned()));
            }
            let (found, exists) = file_of(root, file);
            if !exists {
                groups.missing.push((line, text_of(file)));
            }
            let part = format!("group {group}");
            match (groups.parts.get(&found), named.get(&found)) {
                (Some(before), Some(at)) if *before != part => {
                    return Err(wrong(
                        line,
                        format!(
                            "{} is in {part} here and in {before} in line {at}: an image shows one \
                             part",
                            text_of(file)
                        ),
                    ));
                }
                _ => {}
            }
            named.insert(found.clone(), line);
            groups.parts.insert(found, part);
        }
        Ok(groups)
    }

    /// Counts the files that the groups file does not name; without a groups file there are none.
    /// It is an error if it names no file at all: its paths are then relative to another folder,
    /// and the images of a part would be split up unnoticed.
    pub fn ungrouped(&self, files: &[PathBuf]) -> Result<usize, DatasetError> {
        let Some((path, root)) = &self.source else {
            return Ok(0);
        };
        let unnamed = files
            .iter()
            .filter(|file| !self.parts.contains_key(&key(file)));
        let unnamed = unnamed.count();
        match files.first() {
            Some(example) if unnamed == files.len() => Err(DatasetError::OtherImages {
                path: path.clone(),
                count: files.len(),
                example: example.clone(),
                root: root.clone(),
            }),
            _ => Ok(unnamed),
        }
    }

    /// The lines that name no existing file: slips of the pen, or files that were moved.
    pub fn missing(&self) -> &[(usize, String)] {
        &self.missing
    }

    /// Merges the parts of images with the same pixels, because a copy shows the same part as its
    /// original.
    pub fn join_copies(&mut self, survey: &Survey) {
        for (copy, original) in survey.copies() {
            self.join(copy, original);
        }
    }

    /// Merges the parts of two files.
    fn join(&mut self, file: &Path, original: &Path) {
        let (from, to) = (self.part(file), self.part(original));
        if from != to {
            let merged = self.parts.values_mut().filter(|part| **part == from);
            merged.for_each(|part| part.clone_from(&to));
            self.parts.insert(key(file), to);
        }
    }

    /// Whether there is a groups file.
    pub fn is_given(&self) -> bool {
        self.source.is_some()
    }

    /// The part that the groups file names for `file`. Without such a file it is not known.
    pub fn known_part(&self, file: &Path) -> Option<&str> {
        self.source.as_ref()?;
        self.parts.get(&key(file)).map(String::as_str)
    }

    /// The part that `file` shows. A file that the groups file does not name is a part of its own.
    pub fn part(&self, file: &Path) -> String {
        match self.parts.get(&key(file)) {
            Some(part) => part.clone(),
            None => path_text(file),
        }
    }
}

/// What the first line should be.
const HEADER: &str = "expected the header `file,group`";

/// Where the columns are.
struct Columns {
    file: usize,
    group: usize,
    count: usize,
}

/// Finds the header: where it begins, the delimiter, and the columns.
fn header(text: &[u8]) -> Option<(usize, u8, Columns)> {
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
    let names = line(first);
    [b',', b';', b'\t'].into_iter().find_map(|delimiter| {
        let (_, record) = records(names, delimiter).into_iter().next()?;
        let column = |name: &[u8]| {
            let mut fields = record.iter();
            fields.position(|field| field.trim_ascii().eq_ignore_ascii_case(name))
        };
        let columns = Columns {
            file: column(b"file")?,
            group: column(b"group")?,
            count: record.len(),
        };
        Some((first, delimiter, columns))
    })
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
    let line_ends = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
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

/// The file that a field names, and whether it exists: as the field is written, otherwise with `\`
/// as separator, otherwise as Windows-1252.
fn file_of(root: &Path, field: &[u8]) -> (PathBuf, bool) {
    let text = text_of(field);
    let spellings = [field.to_vec(), text.clone().into_bytes()];
    let mut candidates = spellings.into_iter().flat_map(|bytes| {
        let slashes = bytes.iter().map(|byte| match byte {
            b'\\' => b'/',
            other => *other,
        });
        [slashes.collect::<Vec<u8>>(), bytes]
    });
    let path = |bytes: &[u8]| key(&root.join(OsStr::from_bytes(bytes)));
    match candidates.find(|bytes| path(bytes).exists()) {
        Some(bytes) => (path(&bytes), true),
        None => (path(text.replace('\\', "/").as_bytes()), false),
    }
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

/// A field as text: UTF-8, otherwise Windows-1252, in which Excel saves CSV in Europe.
fn text_of(field: &[u8]) -> String {
    match std::str::from_utf8(field) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode(field).0.into_owned(),
    }
}

/// A path by which files are compared: absolute, without `.`.
fn key(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = absolute.components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests;

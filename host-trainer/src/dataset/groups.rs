//! Reads which part each image shows from a CSV file, in which paths may have `\`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use scoring::io::text::path_text;

use super::error::DatasetError;
use super::survey::Survey;
use super::table::{rows, text_of};

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
        let rows = rows(&bytes, ["file", "group"])
            .map_err(|error| wrong(error.line(), error.to_string()))?;
        let mut groups = Self {
            source: Some((path.to_owned(), root.to_owned())),
            ..Self::default()
        };
        let mut named: HashMap<PathBuf, usize> = HashMap::new();
        for row in rows {
            let (line, [file, group]) = (row.line, row.fields);
            let group = text_of(&group);
            if group.is_empty() {
                return Err(wrong(
                    line,
                    "expected a group, found an empty one".to_owned(),
                ));
            }
            if file.is_empty() {
                return Err(wrong(line, "expected a file, found none".to_owned()));
            }
            let (found, exists) = file_of(root, &file);
            if !exists {
                groups.missing.push((line, text_of(&file)));
            }
            let part = format!("group {group}");
            match (groups.parts.get(&found), named.get(&found)) {
                (Some(before), Some(at)) if *before != part => {
                    return Err(wrong(
                        line,
                        format!(
                            "{} is in {part} here and in {before} in line {at}: an image shows one \
                             part",
                            text_of(&file)
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

/// A path by which files are compared: absolute, without `.`.
fn key(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = absolute.components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests;

//! The files of one stored item: names and contents.

use serde::Serialize;

use scoring::inspect::verdict::Verdict;
use scoring::io::picture::{PictureError, png, tiff};

use super::item::StoredItem;

/// Version of the metadata's fields.
const SCHEMA: u32 = 1;
/// Common allocation unit of file systems.
const BLOCK_BYTES: u64 = 4_096;

/// Why a file's content cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The frame or the map cannot be encoded.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The metadata cannot be encoded as JSON.
    #[error("cannot encode the metadata")]
    Metadata(#[from] serde_json::Error),
}

/// One file of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FilePart {
    Frame,
    Map,
    Metadata,
}

impl FilePart {
    const ALL: [Self; 3] = [Self::Frame, Self::Map, Self::Metadata];

    fn ending(self) -> &'static str {
        match self {
            Self::Frame => "png",
            Self::Map => "map.tiff",
            Self::Metadata => "json",
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Ng => "NG",
    }
}

/// The name of a file. Ids are zero-padded, so that names sort by age.
pub(super) fn name(id: u64, verdict: Verdict, part: FilePart) -> String {
    format!("{id:020}-{}.{}", word(verdict), part.ending())
}

/// The inverse of [`name`]; `None` if the file does not belong to an item.
pub(super) fn parse(name: &str) -> Option<(u64, Verdict, FilePart)> {
    let id = name.get(..20)?.parse().ok()?;
    let verdicts = [Verdict::Ok, Verdict::Ng].into_iter();
    verdicts
        .flat_map(|verdict| FilePart::ALL.map(|part| (verdict, part)))
        .find(|&(verdict, part)| self::name(id, verdict, part) == name)
        .map(|(verdict, part)| (id, verdict, part))
}

/// The disk space that a file of this length occupies.
pub(super) fn on_disk_bytes(length_bytes: u64) -> u64 {
    length_bytes.max(1).next_multiple_of(BLOCK_BYTES)
}

/// The contents of an item's files, in the order of writing.
pub(super) fn encode(item: &StoredItem<'_>) -> Result<Vec<(FilePart, Vec<u8>)>, EncodeError> {
    let mut files = vec![(FilePart::Frame, png(item.frame)?)];
    if let Some(map) = item.map {
        files.push((FilePart::Map, tiff(map)?));
    }
    let metadata = Metadata {
        schema: SCHEMA,
        id: item.id,
        unix_ms: item.unix_ms,
        verdict: item.verdict,
        score: item.score,
        threshold: item.threshold,
        model: item.model,
        frame: ImageFile {
            file: name(item.id, item.verdict, FilePart::Frame),
            width_px: item.frame.width_px() as usize,
            height_px: item.frame.height_px() as usize,
        },
        map: item.map.map(|map| ImageFile {
            file: name(item.id, item.verdict, FilePart::Map),
            width_px: map.width_px,
            height_px: map.height_px,
        }),
    };
    let mut text = serde_json::to_vec_pretty(&metadata)?;
    text.push(b'\n');
    files.push((FilePart::Metadata, text));
    Ok(files)
}

#[derive(Serialize)]
struct Metadata<'a> {
    schema: u32,
    id: u64,
    unix_ms: u64,
    verdict: Verdict,
    score: f32,
    threshold: f32,
    model: &'a str,
    frame: ImageFile,
    map: Option<ImageFile>,
}

#[derive(Serialize)]
struct ImageFile {
    file: String,
    width_px: usize,
    height_px: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let written = name(47, Verdict::Ng, FilePart::Map);
        assert_eq!(written, "00000000000000000047-NG.map.tiff");
        assert_eq!(parse(&written), Some((47, Verdict::Ng, FilePart::Map)));
        for other in [
            "47-NG.png",
            "+0000000000000000047-NG.png",
            "00000000000000000047-NG.png2",
            "00000000000000000047-XX.png",
            "äääääääääääääääääääää",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}

//! The files of one item: names and contents.

use serde::Serialize;

use super::Item;
use crate::inspect::verdict::Verdict;
use crate::io::picture::{PictureError, png, tiff};

/// Version of the facts' fields.
const SCHEMA: u32 = 1;
/// What file systems commonly allot at once.
const BLOCK_BYTES: u64 = 4_096;

/// Why a file's content cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The frame or the map.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The facts as JSON.
    #[error("cannot encode the facts")]
    Facts(#[from] serde_json::Error),
}

/// One file of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Frame,
    Map,
    Facts,
}

impl Part {
    fn ending(self) -> &'static str {
        match self {
            Self::Frame => "png",
            Self::Map => "map.tiff",
            Self::Facts => "json",
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Ng => "NG",
    }
}

/// Numbers in full width, so that names sort by age.
pub(super) fn name(id: u64, verdict: Verdict, part: Part) -> String {
    format!("{id:020}-{}.{}", word(verdict), part.ending())
}

/// The way back; `None` if it is no name of an item's file.
pub(super) fn parse(name: &str) -> Option<(u64, Verdict, Part)> {
    let id = name.get(..20)?.parse().ok()?;
    let verdicts = [Verdict::Ok, Verdict::Ng].into_iter();
    verdicts
        .flat_map(|verdict| [Part::Frame, Part::Map, Part::Facts].map(|part| (verdict, part)))
        .find(|&(verdict, part)| self::name(id, verdict, part) == name)
        .map(|(verdict, part)| (id, verdict, part))
}

/// What a file takes up.
pub(super) fn on_disk_bytes(length_bytes: u64) -> u64 {
    length_bytes.max(1).next_multiple_of(BLOCK_BYTES)
}

/// The contents of an item's files, in the order of writing.
pub(super) fn encode(item: &Item<'_>) -> Result<Vec<(Part, Vec<u8>)>, EncodeError> {
    let mut files = vec![(Part::Frame, png(item.frame)?)];
    if let Some(map) = item.map {
        files.push((Part::Map, tiff(map)?));
    }
    let facts = Facts {
        schema: SCHEMA,
        id: item.id,
        unix_ms: item.unix_ms,
        verdict: item.verdict,
        score: item.score,
        threshold: item.threshold,
        model: item.model,
        frame: Size {
            file: name(item.id, item.verdict, Part::Frame),
            width_px: item.frame.width_px() as usize,
            height_px: item.frame.height_px() as usize,
        },
        map: item.map.map(|map| Size {
            file: name(item.id, item.verdict, Part::Map),
            width_px: map.width_px,
            height_px: map.height_px,
        }),
    };
    let mut text = serde_json::to_vec_pretty(&facts)?;
    text.push(b'\n');
    files.push((Part::Facts, text));
    Ok(files)
}

#[derive(Serialize)]
struct Facts<'a> {
    schema: u32,
    id: u64,
    unix_ms: u64,
    verdict: Verdict,
    score: f32,
    threshold: f32,
    model: &'a str,
    frame: Size,
    map: Option<Size>,
}

#[derive(Serialize)]
struct Size {
    file: String,
    width_px: usize,
    height_px: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let written = name(47, Verdict::Ng, Part::Map);
        assert_eq!(written, "00000000000000000047-NG.map.tiff");
        assert_eq!(parse(&written), Some((47, Verdict::Ng, Part::Map)));
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

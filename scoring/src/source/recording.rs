//! Recordings: what a source delivered, byte for byte, in one file that survives a power cut at any
//! moment.
//!
//!
//! ```text
//! "edge-rec"  version u32 LE  record of StreamInfo  record of a Delivery  …
//! ```
//! Records are those of [`crate::io::record`]. A body is one byte for its kind, a header (postcard)
//! and, for a frame, its data. If the file is cut off anywhere, the recording ends after its last
//! complete record. A damaged record costs one frame.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Captured, Delivery, FourCc, RawFrame, StreamInfo};
use crate::io::record::{self, BodyTooLong, Damage, MAX_BODY_BYTES, Piece, Records};

const MAGIC: [u8; 8] = *b"edge-rec";
const VERSION: u32 = 1;
/// Bytes before the first record.
const START_BYTES: u64 = 12;

const KIND_INFO: u8 = 0;
const KIND_FRAME: u8 = 1;
const KIND_DAMAGED: u8 = 2;

/// Header of the source's record. Fields are only added together with a new version.
#[derive(Serialize, Deserialize)]
struct InfoHeader {
    format: [u8; 4],
    width_px: u32,
    height_px: u32,
    controls: Vec<(String, i64)>,
}

/// Header of a frame's record; the frame's data follows.
#[derive(Serialize, Deserialize)]
struct FrameHeader {
    sequence: u32,
    timestamp: Duration,
    format: [u8; 4],
    width_px: u32,
    height_px: u32,
    stride_bytes: u32,
}

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The system reports an error.
    #[error("cannot {action} recording {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not a recording.
    #[error("{} is not a recording", .0.display())]
    NotARecording(PathBuf),
    /// Another version of this program wrote the recording.
    #[error("recording {}: expected version {VERSION}, found {found}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The recording's version.
        found: u32,
    },
    /// The source's record cannot be read.
    #[error("recording {}: its first record cannot be read", path.display())]
    Info {
        /// The file.
        path: PathBuf,
        /// The damage. `None` if the file ends there, or if the record is complete but not a
        /// source's.
        source: Option<Damage>,
    },
    /// Some bytes are not a record. Later ones may be.
    #[error("recording {}: {bytes} bytes at offset {offset} are damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset of the first of them.
        offset: u64,
        /// Number of bytes.
        bytes: u64,
        /// The damage.
        source: Damage,
    },
    /// A record is complete but not a delivery. Later ones may be.
    #[error("recording {}: the record at offset {offset} is not a frame", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Offset of the record.
        offset: u64,
    },
    /// The frame is too large to be recorded.
    #[error("the frame is not recorded")]
    TooLong(#[from] BodyTooLong),
    /// The record's header could not be encoded.
    #[error("the frame is not recorded")]
    Encode(#[from] postcard::Error),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordingError {
    let path = path.to_owned();
    move |source| RecordingError::Io {
        action,
        path,
        source,
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct RecordingWriter {
    path: PathBuf,
    file: File,
    /// Bytes of complete records.
    bytes: u64,
    /// Whether an incomplete record may follow them.
    tail_is_dirty: bool,
}

impl RecordingWriter {
    /// Starts a recording. An existing file is never overwritten.
    pub fn create(path: &Path, info: &StreamInfo) -> Result<Self, RecordingError> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(failed("create", path))?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            bytes: START_BYTES,
            tail_is_dirty: false,
        };
        writer
            .file
            .write_all(&[&MAGIC[..], &VERSION.to_le_bytes()].concat())
            .map_err(failed("write", path))?;
        let header = postcard::to_allocvec(&InfoHeader {
            format: info.format.0,
            width_px: info.width_px,
            height_px: info.height_px,
            controls: info.controls.clone(),
        })?;
        writer.put(KIND_INFO, &header, &[])?;
        writer.sync()?;
        // Sync the folder too, so that the file's name is on the disk.
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("create", path))?;
        Ok(writer)
    }

    /// Appends a delivery. After an error the recording ends before this delivery, and further ones
    /// may be appended.
    pub fn write(&mut self, delivery: &Delivery) -> Result<(), RecordingError> {
        match delivery {
            Delivery::Frame(Captured {
                raw,
                sequence,
                timestamp,
            }) => {
                let header = postcard::to_allocvec(&FrameHeader {
                    sequence: *sequence,
                    timestamp: *timestamp,
                    format: raw.format.0,
                    width_px: raw.width_px,
                    height_px: raw.height_px,
                    stride_bytes: raw.stride_bytes,
                })?;
                self.put(KIND_FRAME, &header, &raw.data)
            }
            Delivery::Damaged { sequence, .. } => {
                self.put(KIND_DAMAGED, &postcard::to_allocvec(sequence)?, &[])
            }
        }
    }

    /// Returns when everything written is on the disk.
    pub fn sync(&mut self) -> Result<(), RecordingError> {
        self.file.sync_data().map_err(failed("write", &self.path))
    }

    /// Syncs and closes the file.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        self.sync()
    }

    /// Size of the recording in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, kind: u8, header: &[u8], data: &[u8]) -> Result<(), RecordingError> {
        let record_header = record::header(self.bytes, &[&[kind], header, data])?;
        let head = [&record_header[..], &[kind], header].concat();
        if self.tail_is_dirty {
            self.file
                .set_len(self.bytes)
                .map_err(failed("write", &self.path))?;
        }
        self.tail_is_dirty = true;
        let put = self
            .file
            .write_all(&head)
            .and_then(|()| self.file.write_all(data));
        if let Err(error) = put {
            // Truncate at once, to free a full disk for others. If that fails, it is done before
            // the next record.
            self.file.set_len(self.bytes).ok();
            return Err(failed("write", &self.path)(error));
        }
        self.tail_is_dirty = false;
        self.bytes += (head.len() + data.len()) as u64;
        Ok(())
    }
}

/// Reads a recording.
pub struct RecordingReader {
    path: PathBuf,
    info: StreamInfo,
    records: Records<File>,
    /// Offset of the first delivery's record.
    first_offset: u64,
    cut_off: bool,
}

impl RecordingReader {
    /// Opens a recording and reads what its source was.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(START_BYTES).read_to_end(&mut start))
            .map_err(failed("open", path))?;
        let version = match start.split_first_chunk::<8>() {
            Some((magic, version)) if *magic == MAGIC => version.first_chunk(),
            _ => return Err(RecordingError::NotARecording(path.to_owned())),
        };
        let info_missing = |source| RecordingError::Info {
            path: path.to_owned(),
            source,
        };
        let found = u32::from_le_bytes(*version.ok_or_else(|| info_missing(None))?);
        if found != VERSION {
            return Err(RecordingError::Version {
                path: path.to_owned(),
                found,
            });
        }
        let mut records = records(path, START_BYTES)?;
        let body = match records.next_piece().map_err(failed("read", path))? {
            Some(Piece::Record { body, .. }) => body,
            Some(Piece::Damaged { why, .. } | Piece::Rest { why, .. }) => {
                return Err(info_missing(Some(why)));
            }
            None => return Err(info_missing(None)),
        };
        let header = match body.split_first() {
            Some((&KIND_INFO, header)) => postcard::from_bytes::<InfoHeader>(header).ok(),
            _ => None,
        };
        let header = header.ok_or_else(|| info_missing(None))?;
        Ok(Self {
            path: path.to_owned(),
            info: StreamInfo {
                format: FourCc(header.format),
                width_px: header.width_px,
                height_px: header.height_px,
                controls: header.controls,
            },
            first_offset: records.offset(),
            records,
            cut_off: false,
        })
    }

    /// What the source was.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Whether the file ends with bytes that are not a complete record. Known only after the end
    /// was reached.
    pub fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// The next delivery; `None` at the end, whether it is cut off or not. After
    /// [`RecordingError::Damaged`] and [`RecordingError::Content`] the next call continues after
    /// the damage.
    pub fn next_delivery(&mut self) -> Result<Option<Delivery>, RecordingError> {
        let piece = self.records.next_piece();
        match piece.map_err(failed("read", &self.path))? {
            None => Ok(None),
            Some(Piece::Record { offset, body }) => match decode(body) {
                Some(delivery) => Ok(Some(delivery)),
                None => Err(RecordingError::Content {
                    path: self.path.clone(),
                    offset,
                }),
            },
            // A record that is cut off at the end is no error; only damage to complete ones is.
            Some(Piece::Rest {
                why: Damage::Cut { .. },
                ..
            }) => {
                self.cut_off = true;
                Ok(None)
            }
            Some(Piece::Rest { offset, bytes, why }) => {
                self.cut_off = true;
                Err(self.damaged(offset, bytes, why))
            }
            Some(Piece::Damaged { offset, bytes, why }) => Err(self.damaged(offset, bytes, why)),
        }
    }

    /// Goes back to the first delivery.
    pub fn rewind(&mut self) -> Result<(), RecordingError> {
        self.records = records(&self.path, self.first_offset)?;
        Ok(())
    }

    fn damaged(&self, offset: u64, bytes: u64, source: Damage) -> RecordingError {
        RecordingError::Damaged {
            path: self.path.clone(),
            offset,
            bytes,
            source,
        }
    }
}

fn records(path: &Path, start: u64) -> Result<Records<File>, RecordingError> {
    let open = || {
        let end = fs::metadata(path)?.len();
        Records::new(File::open(path)?, start, end, MAX_BODY_BYTES)
    };
    open().map_err(failed("open", path))
}

fn decode(mut body: Vec<u8>) -> Option<Delivery> {
    let (&kind, content) = body.split_first()?;
    match kind {
        KIND_FRAME => {
            let (header, data) = postcard::take_from_bytes::<FrameHeader>(content).ok()?;
            let data_at = body.len() - data.len();
            body.drain(..data_at);
            Some(Delivery::Frame(Captured {
                raw: RawFrame {
                    format: FourCc(header.format),
                    width_px: header.width_px,
                    height_px: header.height_px,
                    stride_bytes: header.stride_bytes,
                    data: body,
                },
                sequence: header.sequence,
                timestamp: header.timestamp,
            }))
        }
        KIND_DAMAGED => Some(Delivery::Damaged {
            sequence: postcard::from_bytes(content).ok()?,
            timestamp: Duration::ZERO,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> StreamInfo {
        StreamInfo {
            format: FourCc(*b"GREY"),
            width_px: 5,
            height_px: 4,
            controls: vec![("exposure_time_absolute".into(), 157), ("gain".into(), -1)],
        }
    }

    fn deliveries() -> Vec<Delivery> {
        let frame = |number: u32| {
            Delivery::Frame(Captured {
                raw: RawFrame {
                    format: FourCc(*b"GREY"),
                    width_px: 5,
                    height_px: 4,
                    stride_bytes: 8,
                    data: (0..32).map(|byte| byte * number as u8).collect(),
                },
                sequence: u32::MAX - 2 + number,
                timestamp: Duration::from_micros(33_333 * u64::from(number)),
            })
        };
        vec![
            frame(1),
            Delivery::Damaged {
                sequence: 9,
                timestamp: Duration::ZERO,
            },
            frame(2),
            frame(0),
        ]
    }

    /// Writes the recording and returns its sizes after each record.
    fn record(path: &Path) -> Vec<u64> {
        let mut writer = RecordingWriter::create(path, &info()).unwrap();
        let mut ends = vec![writer.bytes()];
        for delivery in deliveries() {
            writer.write(&delivery).unwrap();
            ends.push(writer.bytes());
        }
        writer.finish().unwrap();
        ends
    }

    fn read(reader: &mut RecordingReader) -> (Vec<Delivery>, usize) {
        let (mut found, mut errors) = (Vec::new(), 0);
        loop {
            match reader.next_delivery() {
                Ok(Some(delivery)) => found.push(delivery),
                Ok(None) => return (found, errors),
                Err(_) => errors += 1,
            }
        }
    }

    #[test]
    fn what_was_written_is_read_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        record(&path);
        let mut reader = RecordingReader::open(&path).unwrap();
        assert_eq!(reader.info(), &info());
        for _ in 0..2 {
            assert_eq!(read(&mut reader), (deliveries(), 0));
            assert!(!reader.cut_off());
            reader.rewind().unwrap();
        }
        assert!(RecordingWriter::create(&path, &info()).is_err());
        assert_eq!(read(&mut reader).0.len(), 4);
    }

    #[test]
    fn a_recording_cut_anywhere_ends_after_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        let ends = record(&path);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let opened = RecordingReader::open(&path);
            let kept = ends.iter().filter(|&&end| end <= length as u64).count();
            let Some(kept) = kept.checked_sub(1) else {
                assert!(opened.is_err(), "cut to {length}");
                continue;
            };
            let mut reader = opened.unwrap();
            assert_eq!(read(&mut reader), (deliveries()[..kept].to_vec(), 0));
            assert_eq!(reader.cut_off(), !ends.contains(&(length as u64)));
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_frame_and_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        let ends = record(&path);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let opened = RecordingReader::open(&path);
            let hit = ends.iter().filter(|&&end| end <= (bit / 8) as u64).count();
            let Some(hit) = hit.checked_sub(1) else {
                assert!(opened.is_err(), "bit {bit}");
                continue;
            };
            let mut reader = opened.unwrap();
            let (found, errors) = read(&mut reader);
            let mut expected = deliveries();
            expected.remove(hit);
            assert_eq!(found, expected, "bit {bit}");
            assert!(errors == 1 || reader.cut_off(), "bit {bit}");
        }
    }

    #[test]
    fn other_files_and_versions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        fs::write(&path, b"\x89PNG\r\n\x1a\n and more").unwrap();
        assert!(matches!(
            RecordingReader::open(&path),
            Err(RecordingError::NotARecording(_))
        ));
        fs::write(&path, b"edge-rec\x02\0\0\0").unwrap();
        let error = RecordingReader::open(&path).err().unwrap().to_string();
        assert!(error.ends_with("expected version 1, found 2"), "{error}");
    }
}

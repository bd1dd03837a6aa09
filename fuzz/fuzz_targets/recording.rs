//! Fuzzes the reader of recordings, and the conversion of the frames in them, with arbitrary bytes.
//! They must never panic, and reading must end.

#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use scoring::io::record::header;
use scoring::source::Delivery;
use scoring::source::pixel_format::to_frame;
use scoring::source::recording::RecordingReader;

/// A file in memory, one for each process.
fn place() -> &'static PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let folder = PathBuf::from("/dev/shm");
        let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
        folder.join(format!("awr-fuzz-{}.rec", std::process::id()))
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let file = match kind % 2 {
        0 => bytes.to_vec(),
        // Records whose checksums are right, of a length that the input chooses.
        _ => {
            let mut file = b"edge-rec\x01\0\0\0".to_vec();
            let mut rest = bytes;
            while let Some((&length, after)) = rest.split_first() {
                let (body, after) = after.split_at(usize::from(length).min(after.len()));
                let offset = file.len() as u64;
                file.extend(header(offset, &[body]).expect("it is short"));
                file.extend(body);
                rest = after;
            }
            file
        }
    };
    std::fs::write(place(), &file).expect("a file in memory can be written");
    let Ok(mut reader) = RecordingReader::open(place()) else {
        return;
    };
    for _ in 0..=file.len() {
        match reader.next_delivery() {
            Ok(None) => return,
            Ok(Some(Delivery::Frame(captured))) => {
                let raw = captured.raw;
                // Larger ones only take time.
                if u64::from(raw.width_px) * u64::from(raw.height_px) <= 1 << 20 {
                    to_frame(&raw).ok();
                }
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }
    panic!("more deliveries than bytes");
});
